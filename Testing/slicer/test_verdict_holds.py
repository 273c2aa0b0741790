"""A verdict is of one place, one camera, one picture and one CT: whatever of these changes, it is gone."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
import slicer.util
import vtk
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


def _choose_another_ct_of_the_name(widget, logic, ct_node, xray):
    _choose_another_ct(widget, logic, ct_node, xray)
    widget.parameters.ct.SetName(ct_node.GetName())


def _bend_ct(widget, logic, ct_node, xray):
    bent = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLBSplineTransformNode", "bent")
    bspline = vtk.vtkBSplineTransform()
    coefficients = vtk.vtkImageData()
    coefficients.SetDimensions(4, 4, 4)
    coefficients.SetSpacing(200.0, 200.0, 200.0)
    coefficients.AllocateScalars(vtk.VTK_DOUBLE, 3)
    coefficients.GetPointData().GetScalars().Fill(3.0)
    bspline.SetCoefficientData(coefficients)
    bent.SetAndObserveTransformFromParent(bspline)
    ct_node.SetAndObserveTransformNodeID(bent.GetID())


CHANGES = [
    _move_x_ray, _edit_camera, _mirror, _move_ct, _choose_another_ct, _choose_another_ct_of_the_name, _bend_ct
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_it_is_gone(gui, registered, change) -> None:
    widget, _, _, xray = registered
    change(*registered)
    gui.processEvents()
    assert "✔" not in widget.ui.verdictLabel.text
    assert widget.ui.precisionTable.isHidden()
    if change not in (_choose_another_ct, _choose_another_ct_of_the_name):  # these leave the result with its own CT
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


def test_it_holds_for_a_ct_that_is_renamed(gui, registered) -> None:
    widget, _, ct_node, _ = registered
    ct_node.SetName("preoperative")
    widget.refresh()
    assert widget.ui.verdictLabel.text.startswith("✔")


def test_a_panel_that_cannot_be_brought_up_to_date_shows_none(gui, registered, monkeypatch) -> None:
    widget, *_ = registered

    def broken() -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(widget.xrays, "refresh", broken)
    with pytest.raises(RuntimeError, match="a defect"):
        widget.refresh()
    assert widget.ui.verdictLabel.text == "Not registered yet."
    assert not widget.ui.exportButton.enabled
