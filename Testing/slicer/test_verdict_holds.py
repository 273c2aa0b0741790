"""A verdict is of one place, one camera, one picture and one CT: whatever of these changes, it is gone."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
import slicer.util
from XRayRegistrationScene import matrices, registration, volume_nodes, xray_nodes

from Testing.slicer.walkthrough import MODULE
from Testing.unit.ct_phantom import CAMERA
from XRayRegistrationLib.geometry.rigid import from_rotation_translation, rotation_exp


@pytest.fixture
def registered(gui, phantom_case):
    ct, pose, image = phantom_case
    _, widget, logic = gui.load_module(MODULE)
    ct_node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "phantom")
    volume_nodes.set_volume(ct_node, ct)
    xray = xray_nodes.add_xray(image, CAMERA, "shot")
    xray_nodes.set_camera_from_world(xray, pose)
    widget.parameters.ct = ct_node
    gui.processEvents()
    logic.register(ct_node, xray, start="current")
    gui.processEvents()
    assert widget.ui.verdictLabel.text.startswith("✔")
    assert "accepted" in widget.ui.xrayTable.item(0, 3).text()
    return widget, logic, ct_node, xray


def _move_x_ray(widget, logic, ct_node, xray):
    pose = xray_nodes.pose_node_of(xray)
    nudge = from_rotation_translation(rotation_exp((0, 0, 0.01)), (30.0, 0, 0))
    pose.SetMatrixTransformToParent(matrices.to_vtk(nudge @ matrices.to_numpy(pose.GetMatrixTransformToParent())))


def _edit_camera(widget, logic, ct_node, xray):
    logic.setCamera(xray, sourceDetectorDistance=1100.0)


def _mirror(widget, logic, ct_node, xray):
    widget.ui.mirrorButton.click()


def _move_ct(widget, logic, ct_node, xray):
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "table")
    ct_node.SetAndObserveTransformNodeID(transform.GetID())
    matrices.set_world_from_node(transform, from_rotation_translation(np.eye(3), (0.0, 5.0, 0.0)))


def _choose_another_ct(widget, logic, ct_node, xray):
    other = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "other")
    volume_nodes.set_volume(other, volume_nodes.volume_of(ct_node))
    widget.parameters.ct = other


@pytest.mark.parametrize("change", [_move_x_ray, _edit_camera, _mirror, _move_ct, _choose_another_ct])
def test_it_is_gone(gui, registered, change) -> None:
    widget, _, _, xray = registered
    change(*registered)
    gui.processEvents()
    assert "✔" not in widget.ui.verdictLabel.text
    assert widget.ui.precisionTable.isHidden()
    if change is not _choose_another_ct:
        assert registration.result_of(xray) is None
        assert "accepted" not in widget.ui.xrayTable.item(0, 3).text()
        assert not widget.ui.exportButton.enabled


def test_mirrored_twice_is_as_it_was(gui, registered) -> None:
    _, logic, _, xray = registered
    before, camera = slicer.util.arrayFromVolume(xray).copy(), xray_nodes.camera_of(xray)
    logic.mirrorXRay(xray)
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(xray), before[..., ::-1])
    logic.mirrorXRay(xray)
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(xray), before)
    np.testing.assert_allclose(xray_nodes.camera_of(xray).K, camera.K)
    assert "mirror" not in xray_nodes.provenance_of(xray)


@pytest.mark.parametrize("placed", [True, False])
def test_an_idle_panel_does_nothing(gui, registered, placed) -> None:
    widget = registered[0]
    if not placed:
        xray_nodes.add_xray(slicer.util.arrayFromVolume(registered[3])[0], CAMERA, "new")
        widget.xrays.choose(xray_nodes.xray_nodes()[1])
    widget.show_chosen()
    for _ in range(5):
        gui.processEvents()
    calls = []
    refresh = widget.ct.refresh
    widget.ct.refresh = lambda: (calls.append(1), refresh())
    for _ in range(20):
        gui.processEvents()
    assert calls == []
