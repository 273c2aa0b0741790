"""The panel trains methods that learn."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import slicer
import slicer.util
from XRayRegistrationScene.jobs import DONE, FAILED, Progress

from Testing.slicer.panel_driver import (
    HeldRunner,
    add_ct,
    scene_nodes,
)
from XRayRegistrationLib.methods import METHODS, Method, Needs
from XRayRegistrationLib.networks.weights_store import state_path

# Training


@dataclass(frozen=True)
class NoOptions:
    """Of the learner."""


class Learner(Method):
    """A method that the panel only lists."""

    name, summary, reference = "learner", "learns", "nobody, 2026"
    needs = Needs(weights=True)
    options_type = NoOptions

    def prepare(self, *_, **__):
        raise AssertionError

    def propose(self, *_, **__):
        raise AssertionError


@pytest.fixture
def learner(monkeypatch, tmp_path):
    """A method that learns, the only one, and where its weights lie."""
    for name in [name for name, method in METHODS.items() if method.needs.weights]:
        monkeypatch.delitem(METHODS, name)
    monkeypatch.setitem(METHODS, "learner", Learner())
    monkeypatch.setenv("XRAYREGISTRATION_HOME", str(tmp_path / "home"))
    folder = tmp_path / "home" / "weights"
    folder.mkdir(parents=True)
    return folder


def test_training_shows_its_progress_is_cancelled_resumed_and_done(learner, panel, phantom) -> None:
    ui, runner = panel.ui, panel.put(HeldRunner())
    panel.events()
    assert not ui.trainButton.enabled
    assert "Choose the CT" in ui.trainingStatusLabel.text
    ct = add_ct(phantom[0])
    ui.ctSelector.setCurrentNode(ct)
    panel.events(0.05)
    weights = panel.widget.logic.weightsPath(ct, "learner")
    assert weights.parent == learner
    assert weights.name.startswith("learner-phantom-")
    assert ui.trainingComboBox.currentText == "learner"
    assert (ui.trainButton.enabled, ui.trainButton.text) == (True, "Train")
    ui.minutesSpinBox.value = 7
    panel.events()
    before = scene_nodes()
    ui.trainButton.click()
    panel.app.wait(lambda: runner.jobs)
    panel.app.wait(lambda: ui.trainButton.text == "Cancel")
    job = runner.jobs[0]
    ct_file = Path(job.argv[job.argv.index("--ct") + 1])
    assert ct_file.exists()
    assert job.argv[job.argv.index("--minutes") + 1] == "7"
    assert job.argv[job.argv.index("--out") + 1] == str(weights)
    assert "--resume" not in job.argv
    panel.app.wait(lambda: "Searching; about 5 s left" in ui.trainingStatusLabel.text)
    assert not ui.trainingProgressBar.isHidden()
    assert ui.trainingProgressBar.value == 43
    ui.trainButton.click()
    panel.events(0.05)
    assert job.cancelled
    assert not ct_file.exists()
    assert ui.trainingStatusLabel.text == "Cancelled. Nothing was learned yet."
    assert (ui.trainButton.text, ui.trainingProgressBar.isHidden()) == ("Train", True)
    state_path(weights).write_bytes(b"what was learned before the first validation")
    panel.widget.refresh()
    assert ui.trainButton.text == "Resume training"
    ui.trainButton.click()
    panel.app.wait(lambda: len(runner.jobs) == 2)
    assert "--resume" in runner.jobs[1].argv
    panel.app.wait(lambda: ui.trainButton.text == "Cancel")
    ui.trainButton.click()
    panel.events(0.05)
    assert ui.trainingStatusLabel.text.startswith("Cancelled. What was learned so far is kept")
    ui.trainButton.click()
    panel.app.wait(lambda: len(runner.jobs) == 3)
    weights.write_bytes(b"weights")
    runner.jobs[2].progress = Progress(DONE, 1.0, result="")
    panel.app.wait(lambda: not panel.widget.training.busy)
    panel.events(0.05)
    assert ui.trainingStatusLabel.text == f"Trained. The weights are in {weights}."
    assert ui.trainButton.text == "Resume training"
    assert scene_nodes() == before
    assert panel.said == []


def test_another_ct_of_the_same_name_is_trained_by_itself(learner, panel, phantom) -> None:
    """CTs that come as DICOM series are often called alike."""
    ui, logic = panel.ui, panel.widget.logic
    first, second = add_ct(phantom[0]), add_ct(replace(phantom[0], values=phantom[0].values[:, :, ::-1]))
    assert first.GetName() == second.GetName()
    weights = [logic.weightsPath(ct, "learner") for ct in (first, second)]
    assert weights[0] != weights[1]
    assert logic.weightsPath(first, "learner") == weights[0]
    weights[0].write_bytes(b"weights")
    for ct, text in ((first, "Resume training"), (second, "Train")):
        ui.ctSelector.setCurrentNode(ct)
        panel.events(0.05)
        assert ui.trainButton.text == text


def test_training_that_fails_says_why(learner, panel, phantom) -> None:
    ui, runner = panel.ui, panel.put(HeldRunner())
    ui.ctSelector.setCurrentNode(add_ct(phantom[0]))
    panel.events(0.05)
    ui.trainButton.click()
    panel.app.wait(lambda: runner.jobs)
    runner.jobs[0].progress = Progress(FAILED, message="the GPU's memory is too small")
    panel.app.wait(lambda: not panel.widget.training.busy)
    panel.events(0.05)
    assert ui.trainingStatusLabel.text == "The GPU's memory is too small."
    ui.trainButton.click()  # ends well, and wrote nothing
    panel.app.wait(lambda: len(runner.jobs) == 2)
    runner.jobs[1].progress = Progress(DONE, 1.0, result="")
    panel.app.wait(lambda: not panel.widget.training.busy)
    panel.events(0.05)
    assert "no weights were written" in ui.trainingStatusLabel.text
    assert ui.trainButton.text == "Train"


@pytest.mark.parametrize("how", ["scene", "cleanup", "ct"])
def test_training_when_the_scene_or_the_panel_goes(learner, panel, phantom, how) -> None:
    """The CT was handed over, so that its node may go; a closed scene ends it."""
    ui, runner = panel.ui, panel.put(HeldRunner())
    ct = add_ct(phantom[0])
    ui.ctSelector.setCurrentNode(ct)
    panel.events(0.05)
    ui.trainButton.click()
    panel.app.wait(lambda: runner.jobs)
    if how == "scene":
        slicer.mrmlScene.Clear(0)
    elif how == "cleanup":
        panel.widget.cleanup()
    else:
        slicer.mrmlScene.RemoveNode(ct)
    panel.events(0.2)
    assert runner.jobs[0].cancelled == (how != "ct")
    if how == "scene":
        assert ui.trainingStatusLabel.text.startswith("Cancelled, for the scene was closed.")
        assert ui.trainingProgressBar.isHidden()
    if how == "ct":
        assert ui.trainButton.text == "Cancel"
        ui.trainButton.click()
        panel.events()
        assert not ui.trainButton.enabled


def test_without_the_variable_weights_lie_in_the_home_folder(panel, phantom, monkeypatch, tmp_path) -> None:
    monkeypatch.delenv("XRAYREGISTRATION_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    path = panel.widget.logic.weightsPath(add_ct(phantom[0]), "rayemb")
    assert path.parent == tmp_path / ".xrayregistration" / "weights"
    assert re.fullmatch(r"rayemb-phantom-[0-9a-f]{8}\.safetensors", path.name)
