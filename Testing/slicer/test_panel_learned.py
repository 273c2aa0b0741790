"""The methods that learn, in the panel: listed by the registry, trained and used in real processes."""

from __future__ import annotations

import time

import pytest
import slicer  # noqa: F401 (marks a test of the scene for conftest)
from XRayRegistrationScene.jobs import DONE, RUNNING

from Testing.slicer.panel_driver import add_case, off_mm
from XRayRegistrationLib.methods import METHODS
from XRayRegistrationLib.networks.weights_store import weights_folder

pytest.importorskip("lightning_fabric")
LEARNED = [name for name, method in METHODS.items() if method.needs.weights]


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("XRAYREGISTRATION_HOME", str(tmp_path / "home"))


def test_they_are_listed_with_what_they_need_and_can_be_trained(panel, phantom) -> None:
    assert {"scene_coordinates", "fixed_landmarks", "rayemb"} <= set(LEARNED)
    add_case(panel, phantom)
    trainable = [panel.ui.trainingComboBox.itemData(n) for n in range(panel.ui.trainingComboBox.count)]
    assert sorted(trainable) == sorted(LEARNED)
    assert panel.ui.trainButton.enabled
    for name in LEARNED:
        panel.choose(panel.ui.methodComboBox, name)
        assert panel.ui.registerButton.enabled, panel.ui.registerButton.toolTip
        needed = "training on this CT" if METHODS[name].needs.training_per_patient else "trained weights"
        assert needed in panel.ui.methodNeedsLabel.text
        assert "later version" not in panel.ui.methodComboBox.currentText


def test_the_optimiser_is_for_methods_that_have_one(panel, phantom) -> None:
    """The choice is kept for them, and does not stop the others."""
    add_case(panel, phantom)
    panel.choose(panel.ui.solverComboBox, "cma_es")
    for name, has in (("diffdrr", True), *((name, False) for name in LEARNED)):
        panel.choose(panel.ui.methodComboBox, name)
        assert panel.ui.solverComboBox.enabled == has
        options = panel.widget.methods.options
        assert options == ({"solver": "cma_es"} if has else {})
        METHODS[name].options(options)
        assert ("cma" in panel.widget.methods.wanted) == has


def test_without_weights_the_panel_says_what_to_do(panel, phantom) -> None:
    add_case(panel, phantom)
    panel.choose(panel.ui.methodComboBox, "scene_coordinates")
    panel.register()
    panel.until_idle()
    assert "has no weights for this CT; train it (in Slicer's panel under Training" in " ".join(panel.said) + panel.words


@pytest.mark.parametrize("method", ["scene_coordinates", "prost", "sopi"])
def test_train_and_register(panel, phantom, method) -> None:
    ct, (xray,) = add_case(panel, phantom)
    job = panel.widget.logic.startTraining(ct, method, minutes=0.05)
    deadline, texts = time.monotonic() + 300, set()
    while (progress := job.poll()).state == RUNNING:
        assert time.monotonic() < deadline
        texts.add(progress.text)
        time.sleep(0.02)
    assert progress.state == DONE, progress.message
    assert progress.result == panel.widget.logic.weightsPath(ct, method)
    assert progress.result.parent == weights_folder()
    assert any("images/s" in text or "trained" in text for text in texts)
    panel.choose(panel.ui.trainingComboBox, method)
    panel.events(0.05)
    assert panel.ui.trainButton.text == "Resume training"
    panel.choose(panel.ui.methodComboBox, method)
    panel.register()
    panel.until_idle()
    # three seconds teach a network nothing: the search comes after it, and the check decides
    assert panel.said == []
    assert panel.ui.verdictLabel.text.startswith("✔")
    assert off_mm(xray, phantom[1][0]) < 2.0
