"""What a person may give the panel: files, cameras, typed values, choices of another version."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
import slicer.util
import vtk
from XRayRegistrationScene import xray_nodes

from Testing.slicer.panel_driver import (
    GIVEN,
    HeldRunner,
    add_case,
    add_ct,
    assert_same,
    scaling_transform,
    scene_nodes,
    scene_state,
)
from Testing.unit.ct_phantom import CAMERA
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.images.volume import Volume

# Input


def _message(panel) -> str:
    (said,) = panel.said
    assert "\n" not in said
    assert "Traceback" not in said
    panel.app.messages.clear()
    return said


def test_files_that_are_no_x_rays_are_named_and_the_others_are_there(panel, tmp_path) -> None:
    from PIL import Image

    wrong = tmp_path / "letter.png"
    wrong.write_text("dear radiologist")
    right = tmp_path / "right.png"
    Image.fromarray((np.random.default_rng(0).random((40, 50)) * 255).astype(np.uint8)).save(right)
    panel.app.files.append([str(wrong), str(right), str(tmp_path / "nowhere.dcm")])
    panel.ui.importButton.click()
    panel.events(0.05)
    assert [node.GetName() for node in xray_nodes.xray_nodes()] == ["right"]
    (said,) = panel.said
    assert [name in line for name, line in zip(("letter.png", "nowhere.dcm"), said.splitlines(), strict=True)] == [True, True]
    before = scene_nodes()
    panel.app.messages.clear()
    panel.app.files.append([str(wrong)])
    panel.ui.importButton.click()
    panel.events(0.05)
    assert "letter.png" in _message(panel)
    assert scene_nodes() == before


def test_what_is_missing_is_typed_in_by_keyboard(panel, phantom, tmp_path) -> None:
    """A PNG states neither distance nor pixel size. Looking into a field without typing gives nothing."""
    from PIL import Image

    file = tmp_path / "plain.png"
    image = phantom[2][0]
    Image.fromarray((255 * (image - image.min()) / np.ptp(image)).astype(np.uint8)).save(file)
    panel.ui.ctSelector.setCurrentNode(add_ct(phantom[0]))
    panel.ui.layoutButton.click()
    panel.app.files.append([str(file)])
    panel.ui.importButton.click()
    panel.events(0.2)
    (node,) = xray_nodes.xray_nodes()
    ui = panel.ui
    assert not ui.registerButton.enabled
    assert ui.registerButton.toolTip == "Type in source to detector and pixel size of 'plain', or choose its C-arm."
    for box in (ui.sddSpinBox, ui.columnSpacingSpinBox, ui.rowSpacingSpinBox, ui.columnPointSpinBox, ui.rowPointSpinBox):
        panel.type_into(box, "")
        panel.type_into(box, "", "Return")
    assert len(xray_nodes.missing_of(node)) == 2
    assert (ui.sddSpinBox.text.strip(), ui.sddOriginLabel.text) == ("", "not known")
    assert xray_nodes.provenance_of(node)["principal_point_px"].startswith("assumed")
    panel.type_into(ui.sddSpinBox, "1020")
    assert xray_nodes.missing_of(node) == ["pixel_spacing_mm"]
    assert ui.sddOriginLabel.text == "given"
    assert ui.registerButton.toolTip == "Type in pixel size of 'plain', or choose its C-arm."
    panel.type_into(ui.columnSpacingSpinBox, "2.5", "Return")
    camera = xray_nodes.camera_of(node)
    assert camera.source_detector_distance_mm == pytest.approx(1020.0)
    np.testing.assert_allclose(camera.pixel_spacing_mm, (2.5, 2.5))
    assert ui.rowSpacingSpinBox.value == pytest.approx(2.5)
    assert ui.registerButton.enabled, ui.registerButton.toolTip
    panel.type_into(ui.rowPointSpinBox, "41.5")
    assert xray_nodes.camera_of(node).K[1, 2] == pytest.approx(41.5)
    assert panel.said == []


def test_a_field_that_is_not_known_takes_digits_wherever_it_is_clicked(panel, phantom) -> None:
    """Nothing need be marked or deleted first."""
    from PySide6.QtCore import QPoint, Qt
    from PySide6.QtTest import QTest
    from PySide6.QtWidgets import QLineEdit

    xray = xray_nodes.add_xray(phantom[2][0], CAMERA, "shot", {"source_detector_distance_mm": "missing: nobody said"})
    panel.events(0.05)
    box = panel.ui.sddSpinBox
    panel.window().show()
    panel.events(0.05)
    line = box.findChild(QLineEdit)
    QTest.mouseClick(line, Qt.MouseButton.LeftButton, pos=QPoint(20, line.height // 2))
    panel.events(0.05)
    QTest.keyClicks(line, "980")
    QTest.keyClick(line, Qt.Key.Key_Return)
    panel.events(0.05)
    assert xray_nodes.camera_of(xray).source_detector_distance_mm == pytest.approx(980.0)


def test_what_is_being_typed_stays_when_the_panel_is_refreshed(panel, phantom) -> None:
    from PySide6.QtTest import QTest
    from PySide6.QtWidgets import QLineEdit

    add_case(panel, phantom)
    box = panel.ui.sddSpinBox
    panel.window()
    box.setFocus()
    box.selectAll()
    panel.events()
    QTest.keyClicks(box.findChild(QLineEdit), "12")
    panel.widget.refresh()
    assert box.text.startswith("12")
    QTest.keyClicks(box.findChild(QLineEdit), "00")
    box.clearFocus()
    panel.events(0.05)
    assert xray_nodes.camera_of(panel.widget.xrays.chosen).source_detector_distance_mm == pytest.approx(1200.0)


def test_a_camera_that_does_not_fit_is_refused_and_nothing_changes(panel, phantom, tmp_path) -> None:
    from XRayRegistrationLib.images.camera_file import write_camera

    add_case(panel, phantom)
    before = scene_state()
    panel.app.files.append(str(write_camera(tmp_path / "other.json", Camera.from_spacing(40, 31, 0.4, 900.0))))
    panel.ui.cameraFileButton.click()
    panel.events(0.05)
    assert "40 x 31" in _message(panel)
    rubbish = tmp_path / "camera.json"
    rubbish.write_text("[1, 2")
    panel.app.files.append(str(rubbish))
    panel.ui.cameraFileButton.click()
    panel.events(0.05)
    assert "camera.json" in _message(panel)
    assert_same(before)


def test_a_c_arm_of_another_aspect_is_refused_and_nothing_changes(panel, phantom) -> None:
    add_case(panel, phantom)
    narrow = xray_nodes.add_xray(np.eye(30, 90), Camera.from_spacing(90, 30, 1.0, 900.0), "narrow", GIVEN)
    panel.events(0.1)
    panel.look_at(narrow)
    before = scene_state()
    name = next(name for name in panel.widget.logic.cArms() if "30 x 40" in name or "43 x 43" in name)
    panel.choose(panel.ui.carmComboBox, name)
    assert "90 x 30" in _message(panel)
    assert panel.ui.carmComboBox.currentIndex == 0
    assert_same(before)


def test_a_ct_without_bone_is_said_and_nothing_is_added(panel) -> None:
    hu = np.full((30, 30, 30), -1000.0, np.float32)
    hu[5:25, 5:25, 5:25] = np.random.default_rng(0).normal(30.0, 10.0, (20, 20, 20))
    ct = add_ct(Volume(hu, np.diag([3.0, 3.0, 3.0, 1.0]), "flesh"))
    panel.ui.ctSelector.setCurrentNode(ct)
    panel.events()
    before = scene_nodes()
    for button in (panel.ui.segmentButton, panel.ui.sampleLandmarksButton):
        button.click()
        panel.events(0.05)
        assert "bone" in _message(panel)
        assert scene_nodes() == before


def test_a_ct_or_an_x_ray_that_cannot_be_used_says_why_and_breaks_nothing(panel, phantom) -> None:
    ct, (xray,) = add_case(panel, phantom)
    pose = xray_nodes.pose_node_of(xray)
    right = vtk.vtkMatrix4x4()
    pose.GetMatrixTransformToParent(right)
    pose.SetMatrixTransformToParent(scaling_transform())
    panel.events(0.1)
    panel.ui.layoutButton.click()
    panel.events(0.1)
    assert not panel.ui.registerButton.enabled
    assert "'shot'" in panel.ui.registerButton.toolTip
    assert panel.ui.xrayTable.item(0, 3).text() == "cannot be used"
    pose.SetMatrixTransformToParent(right)
    panel.events(0.1)
    bend = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLBSplineTransformNode", "warp")
    bend.SetAndObserveTransformToParent(vtk.vtkThinPlateSplineTransform())
    ct.SetAndObserveTransformNodeID(bend.GetID())
    panel.widget.refresh()
    panel.events(0.1)
    assert "'warp'" in panel.ui.registerButton.toolTip
    ct.SetAndObserveTransformNodeID(None)
    panel.widget.refresh()
    assert panel.ui.registerButton.enabled


def test_a_blank_x_ray_can_be_looked_at(panel, phantom) -> None:
    ct_node = add_ct(phantom[0])
    panel.ui.ctSelector.setCurrentNode(ct_node)
    xray_nodes.add_xray(np.zeros((80, 96)), CAMERA, "blank", GIVEN)
    panel.events(0.1)
    panel.ui.layoutButton.click()
    panel.events(0.1)
    panel.choose(panel.ui.overlayComboBox, "checkerboard")
    panel.events(0.1)
    panel.register()
    panel.until_idle()
    assert "blank" in _message(panel)


def test_an_x_ray_is_removed_with_all_that_came_with_it(panel, phantom) -> None:
    from XRayRegistrationLib.images.prepare import HeaderHints

    before = scene_nodes()
    header = HeaderHints(None, False, np.ones((80, 96), bool))
    panel.ui.ctSelector.setCurrentNode(add_ct(phantom[0]))
    with_ct = scene_nodes()
    xray_nodes.add_xray(phantom[2][0], CAMERA, "shot", GIVEN, header=header)
    panel.events(0.1)
    panel.ui.layoutButton.click()
    panel.events(0.2)
    panel.app.answers.append(False)
    panel.ui.removeXRayButton.click()
    assert len(xray_nodes.xray_nodes()) == 1
    panel.ui.removeXRayButton.click()
    panel.events(0.1)
    assert scene_nodes() == with_ct
    assert before != with_ct


def test_numba_is_declined(panel, monkeypatch) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "numba" else find(name, *rest))
    panel.app.packages.missing.add("numba")
    panel.app.packages.answer = "decline"
    panel.widget.refresh()
    assert not panel.ui.installButton.isHidden()
    panel.ui.installButton.click()
    panel.events(0.05)
    assert "numba was not installed" in _message(panel).lower()
    assert not panel.ui.installButton.isHidden()


def test_choices_of_a_scene_from_another_version_are_said_to_be_unknown(panel, phantom) -> None:
    add_case(panel, phantom)
    node = panel.widget.parameters.parameterNode
    panel.widget.parameters.method = "magic"
    panel.widget.parameters.backend = "abacus"
    panel.widget.parameters.overlay = "hologram"
    assert node is not None
    panel.events(0.1)
    assert not panel.ui.registerButton.enabled
    assert "magic" in panel.ui.registerButton.toolTip
    panel.widget.parameters.method = "diffdrr"
    panel.events(0.1)
    assert "abacus" in panel.ui.registerButton.toolTip


def test_a_folder_that_cannot_be_written_is_one_clear_line(panel, phantom, found, tmp_path) -> None:
    add_case(panel, phantom)
    runner = panel.put(HeldRunner())
    panel.register()
    panel.app.wait(lambda: runner.jobs)
    runner.jobs[0].end(found)
    panel.until_idle()
    (tmp_path / "file").write_text("no folder")
    panel.app.files.append(str(tmp_path / "file" / "below"))
    panel.ui.exportButton.click()
    panel.events()
    assert "file" in _message(panel)


def test_one_of_several_slices_is_asked_for_and_none_is_taken_where_the_user_cancels(panel, phantom) -> None:
    ct = add_ct(phantom[0])
    panel.ui.imageSelector.setCurrentNode(ct)
    panel.events(0.05)
    panel.app.answers += [True, False]  # yes, one of them; and then Cancel
    panel.ui.useImageButton.click()
    panel.events(0.05)
    assert xray_nodes.xray_nodes() == []
    panel.app.answers += [True, 3]
    panel.ui.useImageButton.click()
    panel.events(0.05)
    (xray,) = xray_nodes.xray_nodes()
    np.testing.assert_allclose(slicer.util.arrayFromVolume(xray)[0], phantom[0].values[2])
