"""Step 6: training, for methods that learn. The registry says which."""

from __future__ import annotations

import importlib.util

import qt
from XRayRegistrationScene.jobs import DONE, FAILED, RUNNING

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.methods import METHODS
from XRayRegistrationLib.networks.weights_store import begun

from .handlers import fill_combo, reported, sentence
from .method_section import NAMES
from .run_section import POLL_MS, duration

_KEPT = "What was learned so far is kept; Resume training goes on from there."


class TrainingSection:
    """Args: panel, the module's widget."""

    def __init__(self, panel) -> None:
        self.panel, self.ui = panel, panel.ui
        self.job = None
        self._weights = None  # path of what is being trained
        self._words = ""
        self._timer = qt.QTimer()
        self._timer.setInterval(POLL_MS)
        self._timer.connect("timeout()", self.poll)
        self.ui.trainButton.connect("clicked(bool)", self.toggle)
        self.ui.trainingComboBox.connect("activated(int)", lambda row: self.panel.refresh_soon())
        self.ui.trainingProgressBar.visible = False

    @property
    def busy(self) -> bool:
        """Whether a training runs."""
        return self.job is not None

    def refresh(self) -> None:
        """What can be trained, and what is missing for it."""
        ui, ct = self.ui, self.panel.parameters.ct
        learning = [name for name, method in METHODS.items() if method.needs.weights or method.needs.training_per_patient]
        entries = [(NAMES.get(name, name), name) for name in learning]
        fill_combo(ui.trainingComboBox, entries, ui.trainingComboBox.itemData(ui.trainingComboBox.currentIndex))
        ui.trainingComboBox.enabled = ui.minutesSpinBox.enabled = not self.busy
        ui.trainButton.enabled = self.busy or ct is not None
        ui.trainButton.text = "Cancel" if self.busy else "Resume training" if self._begun else "Train"
        missing = "" if ct is not None else "Choose the CT to train on (step 1)."
        ui.trainingStatusLabel.text = self._words or missing

    def toggle(self, *arguments) -> None:
        """Train, or cancel."""
        if self.busy:
            self.cancel("Cancelled.")
        else:
            self.start()

    @reported
    def start(self) -> None:
        """Begin, or go on where an earlier training ended."""
        parameters = self.panel.parameters
        needs = METHODS[self._method].needs
        missing = [p for p in (*needs.packages, *needs.training_packages) if importlib.util.find_spec(p) is None]
        if missing:
            self.panel.logic.install(tuple(missing), "is needed for training")
        self._weights = self.panel.logic.weightsPath(parameters.ct, self._method)
        self.job = self.panel.logic.startTraining(parameters.ct, self._method, parameters.trainingMinutes)
        self.ui.trainingProgressBar.value = 0
        self.ui.trainingProgressBar.visible = True
        self._words = "Starting..."
        self._timer.start()
        self.panel.refresh_soon()

    def poll(self) -> None:
        """Look how the training is doing."""
        if self.job is None:
            return
        try:
            progress = self.job.poll()
        except Exception:
            self._end("Stopped by an error.")
            raise
        if progress.state == DONE:
            self._end(f"Trained. The weights are in {progress.result}.")
        elif progress.state == FAILED:
            self._end(sentence(progress.message))
        elif progress.state == RUNNING:
            left = progress.seconds_left
            self.ui.trainingProgressBar.value = round(100 * progress.fraction)
            self._words = (sentence(progress.text)[:-1] or "Working") + ("" if left is None else f"; about {duration(left)} left")
            self.ui.trainingStatusLabel.text = self._words

    def cancel(self, why: str) -> None:
        """Stop within a second."""
        self.job.cancel()
        self._end(f"{why} {_KEPT if self._weights is not None and begun(self._weights) else 'Nothing was learned yet.'}")

    def close(self) -> None:
        """Leave nothing running."""
        if self.busy:
            self.cancel("Cancelled.")
        self._timer.stop()

    @property
    def _method(self) -> str:
        return self.ui.trainingComboBox.itemData(self.ui.trainingComboBox.currentIndex)

    @property
    def _begun(self) -> bool:
        """Whether there is a training of the method on the CT to go on with."""
        if self.panel.parameters.ct is None:
            return False
        try:
            return begun(self.panel.logic.weightsPath(self.panel.parameters.ct, self._method))
        except InputError:
            return False  # no CT, as pressing Train says

    def _end(self, words: str) -> None:
        self.job, self._words = None, words
        self._timer.stop()
        self.ui.trainingProgressBar.visible = False
        self.panel.refresh_soon()
