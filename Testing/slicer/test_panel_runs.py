"""Runs one after another and back, and whatever happens to the scene meanwhile."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import slicer
import slicer.util
import vtk
from XRayRegistrationScene import drr_nodes, frustum, overlays, registration, xray_nodes
from XRayRegistrationScene.jobs import LocalJobRunner

from Testing.slicer.panel_driver import (
    HeldRunner,
    WatchedRunner,
    add_case,
    add_ct,
    assert_same,
    near_pose,
    off_mm,
    scaling_transform,
    scene_nodes,
    scene_state,
)
from Testing.unit.ct_phantom import CAMERA
from XRayRegistrationLib.bone.model import build_bone_model

# One run after another, and back


def test_a_second_run_after_a_first_and_undo_after_each(panel, phantom) -> None:
    _, (xray,) = add_case(panel, phantom)
    pose = phantom[1][0]
    before = scene_state()
    panel.register()
    panel.until_idle()
    assert panel.said == []
    assert off_mm(xray, pose) < 2.0
    first = xray_nodes.camera_from_world_of(xray)
    panel.ui.undoButton.click()
    panel.events(0.05)
    assert_same(before)
    assert not panel.ui.undoButton.enabled
    panel.register()
    panel.until_idle()
    np.testing.assert_allclose(xray_nodes.camera_from_world_of(xray), first, atol=1e-6)
    once = scene_nodes()
    panel.register()
    panel.until_idle()
    assert scene_nodes() == once  # the second result takes the place of the first
    assert panel.ui.verdictLabel.text.startswith("✔")
    panel.ui.undoButton.click()
    panel.events(0.05)
    np.testing.assert_allclose(xray_nodes.camera_from_world_of(xray), first, atol=1e-6)
    assert scene_nodes() == before["nodes"]
    assert registration.result_of(xray) is None


def test_after_a_failure_the_pose_of_ones_own_is_still_the_start(panel, phantom, found) -> None:
    _, (xray,) = add_case(panel, phantom)
    own = xray_nodes.camera_from_world_of(xray)
    runner = panel.put(HeldRunner())
    for n in range(2):
        panel.register()
        panel.app.wait(lambda count=n + 1: len(runner.jobs) == count)
        runner.jobs[n].end(replace(found, status="failure", probability=0.1))
        panel.until_idle()
        assert off_mm(xray, own) > 1.0
    panel.ui.showStartButton.click()
    panel.events(0.05)
    assert off_mm(xray, own) < 1e-6


def test_a_ct_that_is_moved_during_a_run_is_not_what_was_registered(panel, phantom, found) -> None:
    ct, _ = add_case(panel, phantom)
    runner = panel.put(HeldRunner())
    panel.register()
    panel.app.wait(lambda: len(runner.jobs) == 1)
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "table")
    ct.SetAndObserveTransformNodeID(transform.GetID())
    matrix = vtk.vtkMatrix4x4()
    matrix.SetElement(0, 3, 40.0)
    transform.SetMatrixTransformToParent(matrix)
    runner.jobs[0].end(found)
    panel.until_idle()
    panel.events(0.05)
    assert not panel.ui.verdictLabel.text.startswith("✔")
    assert not panel.ui.exportButton.enabled


def test_the_drr_follows_a_ct_that_is_moved(panel, phantom) -> None:
    ct, (xray,) = add_case(panel, phantom)
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "table")
    ct.SetAndObserveTransformNodeID(transform.GetID())
    panel.app.wait(lambda: xray.GetNodeReference(drr_nodes.REFERENCE) is not None)
    panel.events(0.1)
    before = slicer.util.arrayFromVolume(xray.GetNodeReference(drr_nodes.REFERENCE)).copy()
    matrix = vtk.vtkMatrix4x4()
    matrix.SetElement(0, 3, 30.0)
    transform.SetMatrixTransformToParent(matrix)

    def moved() -> bool:
        now = slicer.util.arrayFromVolume(xray.GetNodeReference(drr_nodes.REFERENCE))
        return bool(np.abs(now - before).max() > 0.1 * before.max())

    panel.app.wait(moved)


def test_an_x_ray_without_a_whole_camera_lets_the_panel_rest(panel, phantom) -> None:
    _, (xray,) = add_case(panel, phantom)
    missing = {**xray_nodes.provenance_of(xray), "source_detector_distance_mm": xray_nodes.MISSING}
    xray_nodes.set_camera(xray, xray_nodes.camera_of(xray), missing)
    xray_nodes.set_camera_from_world(xray, near_pose(phantom[1][0]))
    panel.events(0.3)
    refreshed = []
    refresh = panel.widget.refresh
    panel.widget.refresh = lambda: (refreshed.append(1), refresh())
    panel.events(0.5)
    assert len(refreshed) < 5


def test_an_x_ray_without_pixels_is_said_to_have_none(panel, phantom) -> None:
    _, (xray,) = add_case(panel, phantom)
    xray.SetAndObserveImageData(None)
    panel.widget.refresh()
    assert "has no pixels" in panel.ui.registerButton.toolTip + panel.words + panel.ui.xrayStatusLabel.text


def test_points_on_the_picture_belong_to_their_x_ray_and_the_table_follows_them(panel, phantom) -> None:
    _, (first, second) = add_case(panel, phantom, ("first", "second"))
    panel.look_at(first)
    on_ct, on_image = (slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", name) for name in ("on CT", "on image"))
    world = build_bone_model(phantom[0]).surface_points[0]
    on_ct.AddControlPointWorld(vtk.vtkVector3d(*map(float, world)), "a")
    panel.widget.parameters.landmarks, panel.widget.parameters.imageLandmarks = on_ct, on_image

    def missed() -> str:
        item = panel.ui.landmarkTable.item(0, 4)
        return "not yet" if item is None else item.text()

    panel.app.wait(lambda: missed() == "")
    on_image.AddControlPointWorld(vtk.vtkVector3d(*map(float, world)), "a")  # on its ray
    panel.app.wait(lambda: missed() == "0.0")
    on_ct.SetNthControlPointPositionWorld(0, *map(float, world + np.array([10.0, 0.0, 0.0])))
    panel.app.wait(lambda: float(missed()) > 0.5)
    on_ct.SetNthControlPointPositionWorld(0, *map(float, world))
    panel.app.wait(lambda: missed() == "0.0")
    pose = xray_nodes.camera_from_world_of(first)
    moved = pose.copy()
    moved[0, 3] += 20.0
    xray_nodes.set_camera_from_world(first, moved)  # the point on the picture goes with it
    projected = CAMERA.project(np.stack([pose[:3, :3] @ world + pose[:3, 3], moved[:3, :3] @ world + moved[:3, 3]]))
    off = float(np.linalg.norm(projected[0] - projected[1]))
    panel.app.wait(lambda: abs(float(missed()) - off) < 0.1)
    panel.look_at(second)
    panel.app.wait(lambda: missed() == "")  # it was placed on the other one


def test_what_someone_drew_is_not_drawn_over(panel, phantom) -> None:
    ct, _ = add_case(panel, phantom)
    drawn = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "mine")
    drawn.CreateDefaultDisplayNodes()
    drawn.SetReferenceImageGeometryParameterFromVolumeNode(ct)
    segment = drawn.GetSegmentation().AddEmptySegment("Bone", "Bone")
    values = np.zeros(slicer.util.arrayFromVolume(ct).shape, np.uint8)
    values[10:14, 10:14, 10:14] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(values, drawn, segment, ct)
    panel.widget.parameters.segmentation = drawn
    panel.events(0.05)
    panel.ui.segmentButton.click()
    panel.events(0.05)
    assert slicer.util.arrayFromSegmentBinaryLabelmap(drawn, segment, ct).sum() == 64
    made = panel.widget.parameters.segmentation
    assert made is not drawn
    panel.ui.segmentButton.click()  # again: its own is made anew
    panel.events(0.05)
    assert panel.widget.parameters.segmentation is made


def test_an_x_ray_that_is_not_looked_at_leaves_nothing_behind_either(panel, phantom) -> None:
    _, (first, second) = add_case(panel, phantom, ("first", "second"))
    panel.look_at(first)
    panel.events(0.05)
    assert [name for name in scene_nodes() if "second" in name]
    slicer.mrmlScene.RemoveNode(second)
    panel.events(0.05)
    assert not [name for name in scene_nodes() if "second" in name]


def test_two_x_rays_one_after_the_other_and_undo_of_each(panel, phantom, found) -> None:
    _, xrays = add_case(panel, phantom, ("first", "second"))
    runner = panel.put(HeldRunner())
    before = scene_state()
    panel.register()
    panel.app.wait(lambda: len(runner.jobs) == 1)
    assert "1 more" in panel.words or panel.words.startswith("Starting")
    runner.jobs[0].end(found)
    panel.app.wait(lambda: len(runner.jobs) == 2)
    runner.jobs[1].end(found)
    panel.until_idle()
    panel.assert_idle()
    assert "accepted" in panel.words
    assert [registration.result_of(node) is not None for node in xrays] == [True, True]
    assert all(off_mm(node, phantom[1][0]) < 2.0 for node in xrays)
    for node in xrays:
        panel.look_at(node)
        panel.ui.undoButton.click()
        panel.events(0.05)
    assert_same(before)
    assert not any(job.folder.exists() for job in runner.jobs)


@pytest.mark.parametrize("shared", [True, False])
def test_a_rig_and_its_undo(panel, phantom, shared) -> None:
    """Whether its views share their pose before, or the run brings them together."""
    _, xrays = add_case(panel, phantom, ("frontal", "oblique"), rig=True)
    if shared:
        xray_nodes.share_pose(xrays)
    else:  # each for itself first: their results go with the run
        xray_nodes.set_camera_from_world(xrays[1], near_pose(near_pose(phantom[1][1])))
    panel.events(0.05)
    panel.ui.rigCheckBox.click()
    panel.events(0.05)
    for node in reversed(xrays):  # each has what comes with being looked at
        panel.look_at(node)
        panel.app.wait(lambda shown=node: shown.GetNodeReference(overlays.REFERENCE) is not None)
    panel.events(0.05)
    before = scene_state()
    panel.register()
    panel.until_idle()
    assert panel.said == []
    for node, pose in zip(xrays, phantom[1], strict=True):
        assert off_mm(node, pose) < 2.0
    assert xray_nodes.pose_node_of(xrays[0]) is xray_nodes.pose_node_of(xrays[1])
    panel.look_at(xrays[1])
    assert panel.ui.verdictLabel.text.startswith("✔")
    panel.ui.undoButton.click()
    panel.events(0.05)
    assert_same(before)


def test_a_rig_after_runs_of_its_single_views_leaves_no_orphans(panel, phantom, found) -> None:
    add_case(panel, phantom, ("frontal", "oblique"), rig=True)
    before = scene_nodes()
    runner = panel.put(HeldRunner())
    panel.register()
    for n in range(2):
        panel.app.wait(lambda n=n: len(runner.jobs) == n + 1)
        runner.jobs[n].end(found)
    panel.until_idle()
    panel.put(LocalJobRunner())
    panel.ui.rigCheckBox.click()
    panel.events(0.05)
    panel.register()
    panel.until_idle()
    assert panel.said == []
    panel.ui.undoButton.click()
    panel.events(0.05)
    assert scene_nodes() == before


def test_the_settings_of_a_run_are_those_of_its_beginning(panel, phantom, found) -> None:
    """Whoever chooses another CT or unticks an X-ray meanwhile does not change what is registered."""
    _, xrays = add_case(panel, phantom, ("first", "second"))
    other = add_ct(phantom[0])
    runner = panel.put(HeldRunner())
    panel.register()
    panel.app.wait(lambda: len(runner.jobs) == 1)
    panel.widget.parameters.ct = other
    panel.widget.parameters.seed = 7
    panel.tick(xrays[1], False)
    runner.jobs[0].end(found)
    panel.app.wait(lambda: len(runner.jobs) == 2)
    asked = json.loads((runner.jobs[1].folder / "request.json").read_text())
    assert asked["seed"] == 0
    assert asked["ct"]["source"] == "phantom"
    runner.jobs[1].end(found)
    panel.until_idle()
    assert "accepted" in panel.words


def test_one_x_ray_that_cannot_be_registered_does_not_stop_the_others(panel, phantom, found) -> None:
    """Scaled under a transform while the first ran: said once, by name, at the end."""
    _, xrays = add_case(panel, phantom, ("first", "second", "third"))
    runner = panel.put(HeldRunner())
    panel.register()
    panel.app.wait(lambda: len(runner.jobs) == 1)
    xray_nodes.pose_node_of(xrays[1]).SetMatrixTransformToParent(scaling_transform())
    runner.jobs[0].end(found)
    panel.app.wait(lambda: len(runner.jobs) == 2)
    runner.jobs[1].end(found)
    panel.until_idle()
    assert registration.result_of(xrays[2]) is not None
    assert len(panel.said) == 1
    assert "'second'" in panel.said[0]
    assert "\n" not in panel.said[0]


def test_an_x_ray_that_is_bent_at_the_end_of_its_run_is_a_failure_with_a_sentence(panel, phantom, found) -> None:
    _, (xray,) = add_case(panel, phantom)
    runner = panel.put(HeldRunner())
    panel.register()
    panel.app.wait(lambda: len(runner.jobs) == 1)
    above = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "above")
    above.SetMatrixTransformToParent(scaling_transform())
    xray_nodes.pose_node_of(xray).SetAndObserveTransformNodeID(above.GetID())
    runner.jobs[0].end(found)
    panel.until_idle()
    panel.assert_idle_but_disabled()
    assert len(panel.said) == 1
    assert "'shot'" in panel.said[0]


# What happens meanwhile


def _delete_xray(panel, ct, xray):
    slicer.mrmlScene.RemoveNode(xray)


def _delete_ct(panel, ct, xray):
    slicer.mrmlScene.RemoveNode(ct)


def _clear(panel, ct, xray):
    slicer.mrmlScene.Clear(0)


@pytest.mark.parametrize("real", [False, True])
@pytest.mark.parametrize("event", [_delete_xray, _delete_ct, _clear])
def test_a_run_whose_input_goes_stops_and_says_so(panel, phantom, event, real) -> None:
    ct, (xray,) = add_case(panel, phantom)
    runner = panel.put(WatchedRunner() if real else HeldRunner())
    panel.register()
    panel.app.wait(lambda: runner.job if real else runner.jobs)
    folder = panel.widget.run.job._folder
    event(panel, ct, xray)
    panel.until_idle()
    panel.events(0.1)
    panel.assert_idle()
    assert not panel.ui.registerButton.enabled
    assert not folder.exists()
    assert (runner.job.exit_status is not None) if real else runner.jobs[0].cancelled
    assert panel.words.startswith(("Stopped: the", "Cancelled, for the scene was closed."))
    assert panel.said == []
    if event is not _clear:  # nothing hangs on what is gone
        assert not [name for name in scene_nodes() if "Text" in name]
    if event is _delete_xray:
        assert not [name for name in scene_nodes() if "shot" in name]


def test_a_scene_that_is_closed_in_vain_says_nothing(panel, phantom) -> None:
    slicer.mrmlScene.Clear(0)
    panel.events(0.05)
    assert panel.words == "Choose the CT."


def test_one_of_three_x_rays_is_deleted_while_it_waits(panel, phantom, found) -> None:
    _, xrays = add_case(panel, phantom, ("first", "second", "third"))
    runner = panel.put(HeldRunner())
    panel.register()
    panel.app.wait(lambda: len(runner.jobs) == 1)
    slicer.mrmlScene.RemoveNode(xrays[1])
    runner.jobs[0].end(found)
    panel.app.wait(lambda: len(runner.jobs) == 2)
    runner.jobs[1].end(found)
    panel.until_idle()
    assert registration.result_of(xrays[2]) is not None
    assert "no longer in the scene" in " ".join(panel.said)


def test_a_view_of_a_rig_is_deleted_while_the_rig_is_registered(panel, phantom) -> None:
    _, xrays = add_case(panel, phantom, ("frontal", "oblique"), rig=True)
    panel.ui.rigCheckBox.click()
    panel.events()
    runner = panel.put(HeldRunner())
    panel.register()
    panel.app.wait(lambda: len(runner.jobs) == 1)
    slicer.mrmlScene.RemoveNode(xrays[1])
    panel.until_idle()
    assert panel.words.startswith("Stopped: the")
    assert runner.jobs[0].cancelled


@pytest.mark.parametrize("what", ["segmentation", "landmarks"])
@pytest.mark.parametrize("count", [1, 2])
def test_segmentation_or_landmarks_are_deleted_during_a_run(panel, phantom, found, what, count) -> None:
    """What is being registered has been handed over; what waits cannot begin without them."""
    _, xrays = add_case(panel, phantom, ("first", "second")[:count])
    panel.ui.segmentButton.click()
    panel.events()
    panel.ui.sampleLandmarksButton.click()
    panel.events(0.05)
    runner = panel.put(HeldRunner())
    panel.register()
    panel.app.wait(lambda: len(runner.jobs) == 1)
    slicer.mrmlScene.RemoveNode(getattr(panel.widget.parameters, what))
    panel.events(0.1)
    runner.jobs[0].end(found)
    panel.until_idle()
    panel.assert_idle()
    assert registration.result_of(xrays[0]) is not None
    if count == 1:
        assert "accepted" in panel.words
    else:
        assert len(runner.jobs) == 1
        assert "no longer in the scene" in panel.words


def test_what_hangs_on_an_x_ray_is_deleted_and_the_pose_is_moved_during_a_run(panel, phantom, found) -> None:
    _, (xray,) = add_case(panel, phantom)
    runner = panel.put(HeldRunner())
    panel.register()
    panel.app.wait(lambda: len(runner.jobs) == 1)
    for reference in (overlays.REFERENCE, drr_nodes.REFERENCE, frustum.REFERENCE):
        assert xray.GetNodeReference(reference) is not None, reference
        slicer.mrmlScene.RemoveNode(xray.GetNodeReference(reference))
        panel.events(0.02)
    moved = near_pose(near_pose(xray_nodes.camera_from_world_of(xray)))
    xray_nodes.set_camera_from_world(xray, moved)
    panel.events(0.05)
    runner.jobs[0].end(found)
    panel.until_idle()
    assert "accepted" in panel.words
    assert off_mm(xray, phantom[1][0]) < 2.0
    panel.ui.undoButton.click()
    panel.events(0.05)
    np.testing.assert_allclose(xray_nodes.camera_from_world_of(xray), moved, atol=1e-9)  # where the hand had put it


def test_the_pose_transform_is_deleted_during_a_run(panel, phantom, found) -> None:
    _, (xray,) = add_case(panel, phantom)
    runner = panel.put(HeldRunner())
    panel.register()
    panel.app.wait(lambda: len(runner.jobs) == 1)
    slicer.mrmlScene.RemoveNode(xray_nodes.pose_node_of(xray))
    panel.events(0.05)
    runner.jobs[0].end(found)
    panel.until_idle()
    assert off_mm(xray, phantom[1][0]) < 2.0


def test_another_scene_is_loaded_during_a_run(panel, phantom, found, tmp_path) -> None:
    """Added to the one that is there: the run goes on with its own nodes, whatever the panel shows by then."""
    _, (xray,) = add_case(panel, phantom)
    other = str(tmp_path / "other.mrb")
    assert slicer.util.saveScene(other)
    runner = panel.put(HeldRunner())
    panel.register()
    panel.app.wait(lambda: len(runner.jobs) == 1)
    slicer.util.loadScene(other)
    panel.events(0.1)
    runner.jobs[0].end(found)
    panel.until_idle()
    assert "accepted" in panel.words
    assert registration.result_of(xray) is not None
    assert len(xray_nodes.xray_nodes()) == 2


def test_another_scene_takes_the_place_of_this_one_during_a_run(panel, phantom, tmp_path) -> None:
    add_case(panel, phantom)
    other = str(tmp_path / "other.mrb")
    assert slicer.util.saveScene(other)
    runner = panel.put(HeldRunner())
    panel.register()
    panel.app.wait(lambda: len(runner.jobs) == 1)
    slicer.util.loadScene(other, {"clear": True})
    panel.events(0.1)
    panel.assert_idle()
    assert runner.jobs[0].cancelled
    assert panel.words.startswith("Cancelled, for the scene was closed.")
    assert [node.GetName() for node in xray_nodes.xray_nodes()] == ["shot"]
    assert panel.ui.registerButton.enabled


def test_the_module_is_left_and_entered_again_during_a_run(panel, phantom, found) -> None:
    _, (xray,) = add_case(panel, phantom)
    runner = panel.put(HeldRunner())
    panel.register()
    panel.app.wait(lambda: len(runner.jobs) == 1)
    slicer.util.selectModule("Data")
    panel.events(0.1)
    slicer.util.selectModule("XRayRegistration")
    panel.events(0.1)
    assert panel.ui.registerButton.text == "Cancel"
    runner.jobs[0].end(found)
    panel.until_idle()
    assert registration.result_of(xray) is not None


def test_the_module_is_cleaned_up_during_a_run(panel, phantom) -> None:
    """As when it is reloaded, or Slicer quits; ``gui`` sees what is left running."""
    add_case(panel, phantom)
    runner = panel.put(WatchedRunner())
    panel.register()
    panel.app.wait(lambda: runner.job)
    panel.widget.cleanup()
    assert runner.job.exit_status is not None
    assert not runner.folder.exists()
    slicer.mrmlScene.RemoveNode(xray_nodes.xray_nodes()[0])
    slicer.mrmlScene.Clear(0)
    panel.events(0.1)
