"""The panel in a scene that is saved and opened again."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
import slicer.util
from XRayRegistrationScene import registration, xray_nodes

from Testing.slicer.panel_driver import (
    GIVEN,
    add_case,
    add_ct,
    near_pose,
)
from Testing.unit.ct_phantom import CAMERA

# Saved and opened again


def test_everything_survives_the_scene_file(panel, phantom, tmp_path) -> None:
    _, (first, second) = add_case(panel, phantom, ("frontal", "oblique"), rig=True)
    ui, parameters = panel.ui, panel.widget.parameters
    ui.segmentButton.click()
    panel.events()
    ui.sampleLandmarksButton.click()
    panel.events(0.05)
    ui.rigCheckBox.click()
    panel.register()
    panel.until_idle()
    panel.tick(second, False)
    panel.choose(ui.overlayComboBox, "checkerboard")
    ui.opacitySlider.value = 0.25
    panel.choose(ui.methodComboBox, "rayemb")
    panel.choose(ui.startComboBox, "lat-left")
    ui.seedSpinBox.value = 11
    panel.events(0.1)
    kept = {name: getattr(parameters, name) for name in ("rig", "overlay", "opacity", "method", "start", "seed")}
    kept_poses = [xray_nodes.camera_from_world_of(node) for node in (first, second)]
    verdict = ui.verdictLabel.text
    assert verdict.startswith("✔")
    assert slicer.util.saveScene(str(tmp_path / "case.mrb"))
    slicer.mrmlScene.Clear(0)
    panel.events(0.1)
    assert panel.widget.parameters.method == "diffdrr"
    slicer.util.loadScene(str(tmp_path / "case.mrb"))
    panel.events(0.2)
    parameters = panel.widget.parameters
    assert kept == {"rig": True, "overlay": "checkerboard", "opacity": 0.25, "method": "rayemb", "start": "lat-left", "seed": 11}
    assert {name: getattr(parameters, name) for name in kept} == kept
    assert ui.overlayComboBox.itemData(ui.overlayComboBox.currentIndex) == "checkerboard"
    assert ui.opacitySlider.value == pytest.approx(0.25)
    assert (parameters.ct.GetName(), parameters.landmarks.GetNumberOfControlPoints()) == ("phantom", 12)
    assert parameters.segmentation is not None
    nodes = xray_nodes.xray_nodes()
    assert [node.GetName() for node in nodes] == ["frontal", "oblique"]
    assert [node.GetName() for node in panel.widget.xrays.used] == ["frontal"]
    for node, pose in zip(nodes, kept_poses, strict=True):
        np.testing.assert_allclose(xray_nodes.camera_from_world_of(node), pose, atol=1e-4)
        assert xray_nodes.camera_of(node).camera_from_rig is not None
        assert registration.result_of(node) is not None
    assert ui.verdictLabel.text == verdict
    assert xray_nodes.pose_node_of(nodes[0]) is xray_nodes.pose_node_of(nodes[1])
    panel.look_at(nodes[1])
    ui.undoButton.click()
    panel.events(0.1)
    np.testing.assert_allclose(xray_nodes.camera_from_world_of(nodes[1]), near_pose(phantom[1][1]), atol=1e-4)


def _bone_pixels() -> int:
    """How much of the 3D view has the bone's colour."""
    view = slicer.app.layoutManager().threeDWidget(0).threeDView()
    picture = view.picture(300, 300).astype(int)
    return int(((picture[..., 0] - picture[..., 2]) > 25).sum())


def test_the_bone_is_shown_again_after_loading(panel, phantom, tmp_path) -> None:
    ct = add_ct(phantom[0])
    panel.ui.ctSelector.setCurrentNode(ct)
    panel.ui.layoutButton.click()
    panel.events()
    xray_nodes.add_xray(phantom[2][0], CAMERA, "shot", GIVEN)
    panel.events(0.1)
    before = _bone_pixels()
    panel.ui.segmentButton.click()
    panel.events(0.1)
    panel.ui.sourceViewButton.click()
    panel.events(0.1)
    shown = _bone_pixels()
    assert shown > before + 500
    assert slicer.util.saveScene(str(tmp_path / "case.mrb"))
    slicer.mrmlScene.Clear(0)
    panel.events(0.1)
    slicer.util.loadScene(str(tmp_path / "case.mrb"))
    panel.events(0.1)
    panel.ui.layoutButton.click()
    panel.events(0.1)
    assert _bone_pixels() > before + 500
