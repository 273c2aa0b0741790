"""CT, X-ray, pose, DRR and landmarks as nodes: the scene says what the library says."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
import slicer.util
import vtk
from XRayRegistrationScene import drr_nodes, frustum, landmark_nodes, matrices, source_view, volume_nodes, xray_nodes

from XRayRegistrationLib.drr.render import render
from XRayRegistrationLib.drr.volume import AttenuationVolume, attenuation_from_hu
from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.rigid import (
    from_rotation_translation,
    inverse,
    rotation_angle,
    rotation_exp,
    transform_points,
)
from XRayRegistrationLib.images.volume import Volume

pytestmark = pytest.mark.usefixtures("scene")

#: not square, off centre, different spacing along rows and columns
CAMERA = Camera.from_spacing(96, 70, (2.0, 2.6), 1020.0, principal_point_px=(40.2, 37.7))
TURN = from_rotation_translation(rotation_exp((0.2, -0.4, 0.3)), (30.0, -12.0, 55.0))


def _ct(kind: str = "plain") -> Volume:
    """Three balls, the second denser, on a plain, oblique, flipped or anisotropic grid."""
    axes, spacing = np.eye(3), np.array([2.0, 2.0, 2.0])
    if kind == "oblique":
        axes = rotation_exp((0.3, 0.2, -0.5))
    elif kind == "flipped":
        axes = np.diag([-1.0, -1.0, 1.0])
    elif kind == "anisotropic":
        spacing = np.array([1.5, 2.0, 4.0])
    count = np.round(140.0 / spacing).astype(int)
    ras_from_ijk = np.eye(4)
    ras_from_ijk[:3, :3] = axes * spacing
    ras_from_ijk[:3, 3] = np.array([5.0, -8.0, 12.0]) - ras_from_ijk[:3, :3] @ ((count - 1) / 2)
    k, j, i = np.meshgrid(*(np.arange(n) for n in count[::-1]), indexing="ij")
    points = np.stack([i, j, k], axis=-1) @ ras_from_ijk[:3, :3].T + ras_from_ijk[:3, 3]
    hu = np.full(i.shape, -1000.0, np.float32)
    for centre, radius, value in (((5, -8, 12), 30, 300), ((25, 0, 30), 12, 1200), ((-20, -15, -10), 15, 700)):
        hu[np.linalg.norm(points - centre, axis=-1) < radius] = value
    return Volume(hu, ras_from_ijk, kind)


def _attenuation(volume: Volume) -> AttenuationVolume:
    return AttenuationVolume(attenuation_from_hu(volume.values), volume.ras_from_ijk)


def _linear(matrix: np.ndarray, name: str = "T"):
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", name)
    node.SetMatrixTransformToParent(matrices.to_vtk(matrix))
    return node


def _ct_node(volume: Volume):
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "ct")
    volume_nodes.set_volume(node, volume)
    return node


def _xray(camera: Camera = CAMERA, name: str = "x-ray"):
    values = np.random.default_rng(0).normal(100, 10, (camera.height, camera.width)).astype(np.float32)
    return xray_nodes.add_xray(values, camera, name, {"source_detector_distance_mm": "found: test"})


def _pose(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return from_rotation_translation(rotation_exp(rng.normal(0, 0.8, 3)), (10.0, -5.0, 700.0))


@pytest.mark.parametrize("kind", ["plain", "oblique", "flipped", "anisotropic"])
def test_a_ct_stands_where_its_node_stands(kind: str) -> None:
    volume = _ct(kind)
    node = _ct_node(volume)
    found = volume_nodes.volume_of(node)
    np.testing.assert_allclose(found.ras_from_ijk, volume.ras_from_ijk, atol=1e-9)
    np.testing.assert_array_equal(found.values, volume.values)
    node.SetAndObserveTransformNodeID(_linear(TURN).GetID())
    np.testing.assert_allclose(volume_nodes.volume_of(node).ras_from_ijk, TURN @ volume.ras_from_ijk, atol=1e-9)


def test_a_ct_that_cannot_be_used_is_named() -> None:
    with pytest.raises(InputError, match="choose a volume"):
        volume_nodes.volume_of(None)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "hollow")
    with pytest.raises(InputError, match="'hollow' holds no voxels"):
        volume_nodes.volume_of(node)
    node = _ct_node(_ct())
    bend = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLBSplineTransformNode", "warp")
    bend.SetAndObserveTransformToParent(vtk.vtkThinPlateSplineTransform())
    node.SetAndObserveTransformNodeID(bend.GetID())
    with pytest.raises(InputError, match="'warp', which is not linear"):
        volume_nodes.volume_of(node)


def test_the_nodes_geometry_is_the_camera() -> None:
    node = _xray()
    camera = xray_nodes.camera_of(node)
    np.testing.assert_allclose(camera.K, CAMERA.K)
    assert (camera.width, camera.height) == (96, 70)
    assert camera.source_detector_distance_mm == pytest.approx(1020.0)
    assert camera.camera_from_rig is None
    assert xray_nodes.provenance_of(node) == {"source_detector_distance_mm": "found: test"}
    unknown = Camera(96, 70, CAMERA.K)
    xray_nodes.set_camera(node, unknown)
    np.testing.assert_allclose(xray_nodes.camera_of(node).K, CAMERA.K)
    assert xray_nodes.camera_of(node).source_detector_distance_mm is None


def test_a_pixel_lies_where_its_ray_meets_the_detector() -> None:
    node = _xray()
    camera_from_world = _pose()
    xray_nodes.set_camera_from_world(node, camera_from_world)
    world = vtk.vtkMatrix4x4()
    node.GetParentTransformNode().GetMatrixTransformToWorld(world)
    ijk = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(ijk)
    pixel = np.array([17.0, 44.0, 0.0])
    point = transform_points(matrices.to_numpy(world) @ matrices.to_numpy(ijk), pixel)
    seen = transform_points(camera_from_world, point)
    assert seen[2] == pytest.approx(1020.0)
    np.testing.assert_allclose(CAMERA.project(seen), pixel[:2], atol=1e-9)


@pytest.mark.parametrize("above", [None, TURN])
def test_a_pose_survives_whatever_transform_lies_above(above: np.ndarray | None) -> None:
    node = _xray()
    if above is not None:
        xray_nodes.pose_node_of(node).SetAndObserveTransformNodeID(_linear(above).GetID())
    xray_nodes.set_camera_from_world(node, _pose(3))
    np.testing.assert_allclose(xray_nodes.camera_from_world_of(node), _pose(3), atol=1e-9)


def test_a_new_x_ray_looks_at_the_origin_from_the_front() -> None:
    camera_from_world = xray_nodes.camera_from_world_of(_xray())
    source = inverse(camera_from_world)[:3, 3]
    assert source[1] > 600.0  # anterior
    np.testing.assert_allclose(CAMERA.project(camera_from_world[:3, 3]), CAMERA.K[:2, 2], atol=1e-6)


@pytest.mark.parametrize("kind", ["plain", "oblique", "flipped", "anisotropic"])
@pytest.mark.parametrize("above_ct", [None, TURN])
@pytest.mark.parametrize("above_xray", [None, TURN])
def test_the_drr_is_the_librarys(kind: str, above_ct: np.ndarray | None, above_xray: np.ndarray | None) -> None:
    """The same physical arrangement, whatever the transforms say: the DRR is one and the same."""
    volume = _ct(kind)
    expected = render(_attenuation(volume), CAMERA, _pose(1), backend="scipy")
    ct = _ct_node(volume)
    node = _xray()
    world_from_ct = np.eye(4)
    if above_ct is not None:
        ct.SetAndObserveTransformNodeID(_linear(above_ct).GetID())
        world_from_ct = above_ct
    if above_xray is not None:
        xray_nodes.pose_node_of(node).SetAndObserveTransformNodeID(_linear(above_xray).GetID())
    xray_nodes.set_camera_from_world(node, _pose(1) @ inverse(world_from_ct))
    image = drr_nodes.drr_image(_attenuation(volume_nodes.volume_of(ct)), node, backend="scipy")
    np.testing.assert_allclose(image, expected, atol=2e-4 * expected.max())
    drr = drr_nodes.update_drr(node, image)
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(drr)[0], image)
    assert drr.GetTransformNodeID() == node.GetTransformNodeID()


def test_a_coarse_drr_covers_the_same_area() -> None:
    node = _xray()
    drr = drr_nodes.update_drr(node, np.zeros((35, 48), np.float32))
    bounds, expected = np.zeros(6), np.zeros(6)
    drr.GetSliceBounds(bounds, None)
    node.GetSliceBounds(expected, None)
    np.testing.assert_allclose(bounds[:4], expected[:4], atol=1e-9)
    assert drr_nodes.update_drr(node, np.zeros((70, 96), np.float32)) is drr


def test_two_views_of_a_rig_move_as_one() -> None:
    second_from_rig = from_rotation_translation(rotation_exp((0.0, 1.2, 0.0)), (-600.0, 0.0, 400.0))
    cameras = [Camera.from_spacing(64, 64, 3.0, 1000.0, camera_from_rig=m) for m in (np.eye(4), second_from_rig)]
    nodes = [_xray(camera, f"view {n}") for n, camera in enumerate(cameras)]
    shared = xray_nodes.share_pose(nodes)
    assert [xray_nodes.pose_node_of(node) is shared for node in nodes] == [True, True]
    for node, camera in zip(nodes, cameras, strict=True):
        np.testing.assert_allclose(xray_nodes.camera_of(node).camera_from_rig, camera.camera_from_rig, atol=1e-9)
    xray_nodes.set_camera_from_world(nodes[0], _pose(2))
    np.testing.assert_allclose(xray_nodes.camera_from_world_of(nodes[1]), second_from_rig @ _pose(2), atol=1e-9)
    transforms = slicer.util.getNodesByClass("vtkMRMLLinearTransformNode")
    assert sum(node.GetAttribute(xray_nodes.ROLE) == xray_nodes.POSE for node in transforms) == 1
    with pytest.raises(InputError, match="no place in a rig"):
        xray_nodes.share_pose([_xray()])


def test_what_is_no_pose_is_refused() -> None:
    node = _xray()
    xray_nodes.pose_node_of(node).SetMatrixTransformToParent(matrices.to_vtk(np.diag([2.0, 1.0, 1.0, 1.0])))
    with pytest.raises(InputError, match="transform of the X-ray 'x-ray'"):
        xray_nodes.camera_from_world_of(node)
    ct = _ct_node(_ct())
    with pytest.raises(InputError, match="'ct' is not an X-ray of this module"):
        xray_nodes.camera_of(ct)
    node.SetSpacing(-1.0, 1.0, 1.0)
    with pytest.raises(InputError, match="no detector facing its source"):
        xray_nodes.camera_of(node)
    with pytest.raises(InputError, match="50 x 40 pixels and its camera 96 x 70"):
        xray_nodes.add_xray(np.zeros((40, 50)), CAMERA, "small")


def test_the_beam_reaches_the_images_corners() -> None:
    node = _xray()
    model = frustum.update_frustum(node)
    bounds = np.zeros(6)
    model.GetPolyData().GetBounds(bounds)
    (sx, sy), (cx, cy) = CAMERA.pixel_spacing_mm, CAMERA.K[:2, 2]
    np.testing.assert_allclose(bounds[:2], [(-0.5 - cx) * sx, (95.5 - cx) * sx])
    np.testing.assert_allclose(bounds[2:4], [(-0.5 - cy) * sy, (69.5 - cy) * sy])
    np.testing.assert_allclose(bounds[4:], [0.0, 1020.0])
    assert frustum.update_frustum(node) is model
    assert model.GetParentTransformNode() is xray_nodes.pose_node_of(node)


def test_landmarks_fall_where_the_library_projects_them() -> None:
    node = _xray()
    xray_nodes.set_camera_from_world(node, _pose(4))
    markups = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "landmarks")
    points = np.array([[5.0, -8.0, 12.0], [25.0, 0.0, 30.0], [900.0, 0.0, 0.0]])
    for n, point in enumerate(points):
        markups.AddControlPoint(tuple(point), f"L{n}")
    markups.AddControlPointWorld((0.0, 0.0, 0.0), "undefined")
    markups.UnsetNthControlPointPosition(3)
    found = landmark_nodes.project_landmarks(markups, node)
    assert found.names == ("L0", "L1", "L2")
    np.testing.assert_allclose(found.pixels, CAMERA.project(transform_points(_pose(4), points)))
    assert found.in_view.tolist() == [True, True, False]
    shown = landmark_nodes.show_projected(found, node)
    assert shown.GetNumberOfControlPoints() == 2
    world = np.array(shown.GetNthControlPointPositionWorld(0))
    seen = transform_points(_pose(4), world)
    assert seen[2] == pytest.approx(1020.0)
    np.testing.assert_allclose(CAMERA.project(seen), found.pixels[0], atol=1e-6)


def test_the_source_view_looks_down_the_beam() -> None:
    node = _xray()
    xray_nodes.set_camera_from_world(node, _pose(5))
    camera_node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLCameraNode", "source")
    source_view.look_from_source(node, camera_node)
    world_from_camera = inverse(_pose(5))
    np.testing.assert_allclose(camera_node.GetPosition(), world_from_camera[:3, 3], atol=1e-9)
    focus = transform_points(_pose(5), np.array(camera_node.GetFocalPoint()))
    np.testing.assert_allclose(CAMERA.project(focus), [47.5, 34.5], atol=1e-6)
    up = np.array(camera_node.GetViewUp()) @ world_from_camera[:3, :3]
    np.testing.assert_allclose(up, [0.0, -1.0, 0.0], atol=1e-9)


def test_all_of_it_survives_the_scene_file(tmp_path) -> None:
    cameras = [Camera.from_spacing(64, 48, (3.0, 2.5), 1000.0, camera_from_rig=m) for m in (np.eye(4), TURN)]
    nodes = [_xray(camera, f"view {n}") for n, camera in enumerate(cameras)]
    xray_nodes.share_pose(nodes)
    xray_nodes.set_preparation(nodes[1], "bone_dark", mask=False)
    xray_nodes.set_camera_from_world(nodes[0], _pose(6))
    frustum.update_frustum(nodes[0])
    drr_nodes.update_drr(nodes[0], np.ones((48, 64), np.float32))
    before = [slicer.util.arrayFromVolume(node).copy() for node in nodes]
    file = str(tmp_path / "scene.mrb")
    assert slicer.mrmlScene.WriteToMRB(file)
    slicer.mrmlScene.Clear(0)
    assert slicer.mrmlScene.ReadFromMRB(file)
    nodes = xray_nodes.xray_nodes()
    assert [node.GetName() for node in nodes] == ["view 0", "view 1"]
    for node, camera, values, rig in zip(nodes, cameras, before, (np.eye(4), TURN), strict=True):
        found = xray_nodes.camera_of(node)
        np.testing.assert_allclose(found.K, camera.K, rtol=1e-6)
        np.testing.assert_allclose(found.camera_from_rig, rig, atol=1e-6)
        np.testing.assert_allclose(slicer.util.arrayFromVolume(node), values)
        pose = xray_nodes.camera_from_world_of(node)
        assert np.degrees(rotation_angle(pose[:3, :3], (rig @ _pose(6))[:3, :3])) < 1e-4
        np.testing.assert_allclose(pose[:3, 3], (rig @ _pose(6))[:3, 3], atol=1e-3)
    assert nodes[0].GetNodeReference(drr_nodes.REFERENCE) is not None
    assert nodes[0].GetNodeReference(frustum.REFERENCE) is not None
    assert xray_nodes.prepared_xray(nodes[1]).mask.all()
