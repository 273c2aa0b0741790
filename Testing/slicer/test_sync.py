"""Beam, DRR and landmarks follow whatever happens to an X-ray."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
import slicer.util
from XRayRegistrationScene import drr_nodes, frustum, landmark_nodes, matrices, xray_nodes
from XRayRegistrationScene.sync import SceneSync

from XRayRegistrationLib.drr.render import render
from XRayRegistrationLib.drr.volume import AttenuationVolume
from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.geometry.camera import Camera

pytestmark = pytest.mark.usefixtures("scene")

CAMERA = Camera.from_spacing(48, 40, 5.0, 1000.0)


class Later:
    """A timer of 0 ms that a test lets run out."""

    def __init__(self) -> None:
        self.calls = []

    def __call__(self, function) -> None:
        self.calls.append(function)

    def run(self) -> int:
        calls, self.calls = self.calls, []
        for call in calls:
            call()
        return len(calls)


@pytest.fixture
def later() -> Later:
    return Later()


@pytest.fixture
def sync(scene, later):
    sync = SceneSync(later, drr_px=None, backend="scipy")
    yield sync
    sync.close()


@pytest.fixture
def box() -> AttenuationVolume:
    mu = np.zeros((20, 20, 20), np.float32)
    mu[5:15, 5:15, 5:15] = 0.02
    ras_from_ijk = np.diag([4.0, 4.0, 4.0, 1.0])
    ras_from_ijk[:3, 3] = -38.0
    return AttenuationVolume(mu, ras_from_ijk)


def _xray():
    return xray_nodes.add_xray(np.random.default_rng(0).random((40, 48)).astype(np.float32), CAMERA, "shot")


def _drr(node):
    return slicer.util.arrayFromVolume(node.GetNodeReference(drr_nodes.REFERENCE))[0]


def _nodes():
    return {node.GetName() for node in slicer.util.getNodesByClass("vtkMRMLNode") if not node.GetSingletonTag()}


def test_a_moved_transform_moves_the_drr_once(sync, later, box) -> None:
    node = _xray()
    sync.follow(node, box)
    later.run()
    before = _drr(node).copy()
    assert before.max() > 0.5
    pose = xray_nodes.camera_from_world_of(node)
    for step in range(20):  # a drag
        pose[0, 3] = step
        xray_nodes.set_camera_from_world(node, pose)
    assert later.run() == 1
    np.testing.assert_allclose(_drr(node), render(box, CAMERA, pose, backend="scipy"), atol=1e-5)
    assert np.abs(_drr(node) - before).max() > 0.1
    assert later.run() == 0  # its own changes do not start it again


def test_an_edited_camera_moves_beam_and_drr(sync, later, box) -> None:
    node = _xray()
    sync.follow(node, box)
    later.run()
    closer = Camera.from_spacing(48, 40, 5.0, 800.0)
    xray_nodes.set_camera(node, closer)
    assert later.run() == 1
    bounds = np.zeros(6)
    node.GetNodeReference(frustum.REFERENCE).GetPolyData().GetBounds(bounds)
    assert bounds[5] == pytest.approx(800.0)
    expected = render(box, closer, xray_nodes.camera_from_world_of(node), backend="scipy")
    np.testing.assert_allclose(_drr(node), expected, atol=1e-5)


def test_landmarks_follow_both_the_points_and_the_pose(sync, later) -> None:
    node = _xray()
    markups = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "landmarks")
    markups.AddControlPointWorld((0.0, 0.0, 0.0), "a")
    sync.follow(node, markups=markups)
    later.run()
    projected = node.GetNodeReference(landmark_nodes.REFERENCE)
    assert projected.GetNumberOfControlPoints() == 1
    markups.AddControlPointWorld((20.0, 0.0, 10.0), "b")
    later.run()
    assert projected.GetNumberOfControlPoints() == 2
    markups.SetNthControlPointPositionWorld(0, (900.0, 0.0, 0.0))  # out of view
    later.run()
    assert projected.GetNumberOfControlPoints() == 1
    slicer.mrmlScene.RemoveNode(markups)
    later.run()
    assert node.GetNodeReference(landmark_nodes.REFERENCE) is None


def test_a_deleted_x_ray_leaves_nothing_behind(sync, later, box) -> None:
    before = _nodes()
    node = _xray()
    sync.follow(node, box)
    later.run()
    xray_nodes.set_camera_from_world(node, xray_nodes.camera_from_world_of(node))
    slicer.mrmlScene.RemoveNode(node)
    assert later.run() >= 0
    assert _nodes() == before


def test_a_deleted_view_leaves_the_other_one_its_rig(sync, later) -> None:
    cameras = [Camera.from_spacing(48, 40, 5.0, 1000.0, camera_from_rig=np.eye(4)) for _ in range(2)]
    values = np.random.default_rng(0).random((40, 48)).astype(np.float32)
    first, second = (xray_nodes.add_xray(values, camera, f"view {n}") for n, camera in enumerate(cameras))
    pose = xray_nodes.share_pose([first, second])
    for node in (first, second):
        sync.follow(node)
    later.run()
    slicer.mrmlScene.RemoveNode(first)
    later.run()
    assert xray_nodes.pose_node_of(second) is pose
    assert not [name for name in _nodes() if name.startswith("view 0 ") and "pose" not in name]


def test_closing_the_scene_while_a_renewal_waits(sync, later, box) -> None:
    node = _xray()
    sync.follow(node, box)
    slicer.mrmlScene.Clear(0)
    later.run()
    other = _xray()
    sync.follow(other, box)
    assert later.run() == 1


def test_a_deleted_drr_comes_back_only_when_something_moves(sync, later, box) -> None:
    node = _xray()
    sync.follow(node, box)
    later.run()
    slicer.mrmlScene.RemoveNode(node.GetNodeReference(drr_nodes.REFERENCE))
    later.run()
    sync.follow(node)  # no DRR wanted
    later.run()
    xray_nodes.set_camera_from_world(node, xray_nodes.camera_from_world_of(node))
    later.run()
    assert node.GetNodeReference(drr_nodes.REFERENCE) is None


def test_an_error_in_one_renewal_does_not_stop_the_next(sync, later, box) -> None:
    node = _xray()
    sync.follow(node, box)
    later.run()
    before = _drr(node).copy()
    pose = xray_nodes.pose_node_of(node)
    good = matrices.to_numpy(pose.GetMatrixTransformToParent())
    pose.SetMatrixTransformToParent(matrices.to_vtk(good @ np.diag([2.0, 1.0, 1.0, 1.0])))
    with pytest.raises(InputError, match="scales"):
        later.run()
    good[:3, 3] += [15.0, 0.0, 10.0]
    pose.SetMatrixTransformToParent(matrices.to_vtk(good))
    assert later.run() == 1
    assert np.abs(_drr(node) - before).max() > 0.1
