"""Step 4: Register, which becomes Cancel."""

from __future__ import annotations

import qt
import slicer
import slicer.util
from XRayRegistrationScene.jobs import DONE, FAILED, RUNNING
from XRayRegistrationScene.volume_nodes import volume_of

from XRayRegistrationLib.errors import InputError, XRayRegistrationError

from .handlers import reported, sentence

POLL_MS = 50
_SHOWN_NODES = ("ctNode", "segmentationNode", "landmarksNode")


class RunSection:
    """Args: panel, the module's widget."""

    def __init__(self, panel) -> None:
        self.panel, self.ui = panel, panel.ui
        self.job = None
        self._nodes: list[str] = []  # ids of the X-rays that wait for the result
        self._waiting: list[list[str]] = []  # ids of the X-rays to be registered after these, one list a registration
        self._ras_from_ijk = None  # (4, 4), where the CT was when it was handed over
        self._settings: dict = {}  # what the panel showed when Register was pressed; nodes by their ids
        self._several = False
        self._failures: list[str] = []
        self._verdicts: list[str] = []
        self._furthest = 0.0
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
        self.ui.progressLabel.text = " ".join(filter(None, (self._words, missing)))

    def toggle(self, *arguments) -> None:
        """Register, or cancel."""
        if self.busy:
            self.cancel()
        else:
            self.start()

    @reported
    def start(self) -> None:
        """Begin with what the panel shows; whoever changes it meanwhile changes the next run."""
        panel, parameters = self.panel, self.panel.parameters
        used = [node.GetID() for node in panel.xrays.used]
        self._waiting = [used] if parameters.rig else [[identity] for identity in used]
        self._several = len(self._waiting) > 1
        self._failures, self._verdicts = [], []
        self._settings = {
            "ctNode": _id(parameters.ct),
            "segmentationNode": _id(parameters.segmentation),
            "landmarksNode": _id(parameters.landmarks),
            "method": parameters.method,
            "segments": [parameters.segment] if parameters.segmentation is not None and parameters.segment else None,
            "start": parameters.start,
            "options": panel.methods.options,
            "backend": parameters.backend,
            "seed": parameters.seed,
        }
        self.ui.logText.plainText = ""
        self._next()
        self.refresh()

    def cancel(self, why: str = "Cancelled. The scene is as it was.") -> None:
        """Stop within a second; the X-ray that is being registered has not moved yet."""
        if self.job is not None:
            self.ui.registerButton.text = "Cancelling..."
            self.job.cancel()
        self._end(why)

    def forget(self) -> None:
        """Say nothing of the last run any more: its scene is gone."""
        self._words = ""

    def poll(self) -> None:
        """Look how the job is doing."""
        if self.job is None:
            return
        if any(_node(identity) is None for identity in (self._settings["ctNode"], *self._nodes)):
            self.cancel("Stopped: the CT or an X-ray that was being registered is no longer in the scene.")
            return
        try:
            progress = self.job.poll()
            self._show(progress)
            if progress.state == RUNNING:
                return
            self.job = None
            if progress.state == DONE:
                self._take_in(progress.result)
            elif progress.state == FAILED:
                self._fail(progress.message)
                self.ui.logText.appendPlainText("\n".join(progress.log))  # what the process said last
            self._next()
        except Exception:
            self._end("Stopped by an error.")
            raise

    def close(self) -> None:
        """Leave nothing running."""
        if self.busy:
            self.cancel()
        self._timer.stop()

    def _next(self) -> None:
        """Begin with the next that can be registered; the end where there is none."""
        while self._waiting and self.job is None:
            self._nodes = self._waiting.pop(0)
            try:
                self._begin()
            except XRayRegistrationError as error:
                self._fail(str(error))
            except Exception:
                self._end("Not started.")
                raise
        if self.job is None:
            failures = list(self._failures)
            self._end(" ".join(failures) or " ".join(self._verdicts))
            if failures:
                slicer.util.errorDisplay("\n".join(failures), windowTitle="X-ray registration")

    def _begin(self) -> None:
        settings, nodes = dict(self._settings), [_node(identity) for identity in self._nodes]
        if None in nodes:
            raise InputError("not registered: the X-ray is no longer in the scene")
        for name in _SHOWN_NODES:
            if settings[name] is not None:
                settings[name] = _node(settings[name])
                if settings[name] is None:
                    raise InputError("not registered: the CT, its bone or its landmarks are no longer in the scene")
        ct = settings.pop("ctNode")
        self._ras_from_ijk = volume_of(ct).ras_from_ijk  # whoever moves the CT meanwhile has moved it away from the result
        self.job = self.panel.logic.startRegistration(ct, nodes, **settings)
        self._furthest = 0.0
        self.ui.progressBar.value = 0
        self.ui.progressBar.visible = True
        if self._several:
            self.ui.logText.appendPlainText(f"{nodes[0].GetName()}:")
        self.ui.progressLabel.text = "Starting..."
        self._timer.start()
        self.panel.refresh_soon()

    def _fail(self, message: str) -> None:
        """Keep why an X-ray was not registered, by its name where there are several."""
        text, node = sentence(message), _node(self._nodes[0])
        name = "" if node is None else node.GetName()
        self._failures.append(f"{name}: {text}" if self._several and name and name not in text else text)

    def _take_in(self, result) -> None:
        nodes = [_node(identity) for identity in self._nodes]
        try:
            self.panel.logic.showResult(result, nodes, _node(self._settings["ctNode"]), self._ras_from_ijk)
        except XRayRegistrationError as error:
            self._fail(str(error))
            return
        verdict = "accepted" if result.ok else "FAILED, do not use its pose: see 5. Result"
        self._verdicts.append(f"'{nodes[0].GetName()}': {verdict}.")
        self.panel.xrays.choose(nodes[0])
        self.panel.results.arrived(nodes[0])

    def _show(self, progress) -> None:
        # a search that goes on more widely starts anew; a bar that runs backwards, and its time, would only worry
        widened = progress.fraction < self._furthest - 0.02
        self._furthest = max(self._furthest, progress.fraction)
        self.ui.progressBar.value = round(100 * self._furthest)
        left = None if widened else progress.seconds_left
        words = sentence(progress.text)[:-1] if progress.text else "Working"
        if self._waiting:
            words += f" ({len(self._waiting)} more after this one)"
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


def _id(node):
    return None if node is None else node.GetID()


def _node(identity):
    return slicer.mrmlScene.GetNodeByID(identity)


def duration(seconds: float) -> str:
    """For people."""
    return f"{max(1, round(seconds))} s" if seconds < 90 else f"{round(seconds / 60)} min"
