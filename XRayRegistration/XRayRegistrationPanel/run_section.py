"""Step 4: Register, which becomes Cancel."""

from __future__ import annotations

import qt
import slicer
import slicer.util
from XRayRegistrationScene.jobs import DONE, FAILED, RUNNING

from .handlers import reported, sentence

POLL_MS = 50


class RunSection:
    """Args: panel, the module's widget."""

    def __init__(self, panel) -> None:
        self.panel, self.ui = panel, panel.ui
        self.job = None
        self._nodes: list[str] = []  # of the X-rays that wait for the result
        self._waiting: list[list] = []  # X-rays to be registered after these, one list a registration
        self._ct = ""
        self._failures: list[str] = []
        self._words = ""  # how the last one ended
        self._timer = qt.QTimer()
        self._timer.setInterval(POLL_MS)
        self._timer.connect("timeout()", self.poll)
        self.ui.registerButton.connect("clicked(bool)", self.toggle)
        self.ui.progressBar.visible = False

    @property
    def busy(self) -> bool:
        """Whether a job runs."""
        return self.job is not None

    def refresh(self) -> None:
        """The button says what it does, and when it cannot, what is missing."""
        button, missing = self.ui.registerButton, self.panel.missing
        if self.busy:
            button.text, button.enabled, button.toolTip = "Cancel", True, "Stop; the scene stays as it is."
            return
        button.text = "Register"
        button.enabled = not missing
        button.toolTip = missing or "Find where the ticked X-rays were taken from."
        self.ui.progressLabel.text = missing or self._words

    def toggle(self, *arguments) -> None:
        """Register, or cancel."""
        if self.busy:
            self.cancel()
        else:
            self.start()

    @reported
    def start(self) -> None:
        """Begin with what the panel shows."""
        panel, parameters = self.panel, self.panel.parameters
        used = panel.xrays.used
        self._waiting = [used] if parameters.rig else [[node] for node in used]
        self._failures = []
        self._ct = parameters.ct.GetID()
        self.ui.logText.plainText = ""
        self._next()

    def cancel(self, why: str = "Cancelled. The scene is as it was.") -> None:
        """Stop within a second; nothing was changed yet."""
        if self.job is not None:
            self.ui.registerButton.text = "Cancelling..."
            self.job.cancel()
        self._end(why)

    def poll(self) -> None:
        """Look how the job is doing."""
        if self.job is None:
            return
        gone = [identity for identity in (self._ct, *self._nodes) if slicer.mrmlScene.GetNodeByID(identity) is None]
        if gone:
            self.cancel("Stopped: the CT or an X-ray that was being registered is no longer in the scene.")
            return
        try:
            progress = self.job.poll()
        except Exception:
            self._end("Stopped by an error.")
            raise
        self._show(progress)
        if progress.state == RUNNING:
            return
        self.job = None
        if progress.state == DONE:
            self._take_in(progress.result)
        elif progress.state == FAILED:
            self._failures.append(sentence(progress.message))
        if self._waiting:
            self._next()
        else:
            self._end(" ".join(self._failures) or "Done.")
            if self._failures:
                slicer.util.errorDisplay("\n".join(self._failures), windowTitle="X-ray registration")

    def close(self) -> None:
        """Leave nothing running."""
        if self.busy:
            self.cancel()
        self._timer.stop()

    def _next(self) -> None:
        nodes = [node for node in self._waiting.pop(0) if slicer.mrmlScene.IsNodePresent(node)]
        if not nodes:
            self._end("Stopped: the X-ray is no longer in the scene.")
            return
        self._nodes = [node.GetID() for node in nodes]
        parameters = self.panel.parameters
        try:
            self.job = self.panel.logic.startRegistration(
                parameters.ct,
                nodes,
                method=parameters.method,
                segmentationNode=parameters.segmentation,
                segments=[parameters.segment] if parameters.segmentation is not None and parameters.segment else None,
                start=parameters.start,
                landmarksNode=parameters.landmarks,
                options=self.panel.methods.options,
                backend=parameters.backend,
                seed=parameters.seed,
            )
        except Exception:
            self._end("Not started.")
            raise
        self.ui.progressBar.value = 0
        self.ui.progressBar.visible = True
        self.ui.progressLabel.text = "Starting..."
        self._timer.start()
        self.panel.refresh_soon()

    def _take_in(self, result) -> None:
        nodes = [slicer.mrmlScene.GetNodeByID(identity) for identity in self._nodes]
        self.panel.logic.showResult(result, nodes)
        self.panel.xrays.choose(nodes[0])
        self.panel.results.arrived(nodes[0])

    def _show(self, progress) -> None:
        self.ui.progressBar.value = round(100 * progress.fraction)
        left = progress.seconds_left
        words = sentence(progress.text)[:-1] if progress.text else "Working"
        if len(self._waiting):
            words += f" ({len(self._waiting)} more X-rays after this one)"
        self.ui.progressLabel.text = words + ("" if left is None else f"; about {duration(left)} left")
        line = f"{progress.seconds:6.1f} s  {progress.text}"
        if progress.text and not self.ui.logText.plainText.endswith(progress.text):
            self.ui.logText.appendPlainText(line)

    def _end(self, words: str) -> None:
        self.job, self._waiting, self._nodes = None, [], []
        self._timer.stop()
        self.ui.progressBar.visible = False
        self.ui.logText.appendPlainText(words)
        self._words = words
        self.panel.refresh()


def duration(seconds: float) -> str:
    """For people."""
    return f"{max(1, round(seconds))} s" if seconds < 90 else f"{round(seconds / 60)} min"
