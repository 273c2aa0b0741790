"""What XRayRegistrationLogic offers the Python console, against geometry made by hand."""

from __future__ import annotations

import csv
import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import slicer
import slicer.util
import vtk
from scipy.spatial.transform import Rotation
from XRayRegistrationScene import xray_nodes

from Testing.slicer.walkthrough import MODULE
from Testing.unit.ct_phantom import CAMERA, ct_phantom, xray_of
from Testing.unit.dicom_phantom import write_ct_series, write_xray
from XRayRegistrationLib.bone.model import build_bone_model
from XRayRegistrationLib.drr.render import render
from XRayRegistrationLib.drr.volume import AttenuationVolume, attenuation_from_hu
from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.images.prepare import prepare_xray
from XRayRegistrationLib.images.volume import Volume
from XRayRegistrationLib.pictures.verdict import verdict_of
from XRayRegistrationLib.registration import register
from XRayRegistrationLib.result import Result, View

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def _motion(degrees, mm) -> np.ndarray:
    out = np.eye(4)
    out[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    out[:3, 3] = mm
    return out


def _about(middle, degrees, mm) -> np.ndarray:
    """A turn about a point, and a shift."""
    out = _motion(degrees, (0, 0, 0))
    out[:3, 3] = middle + np.array(mm) - out[:3, :3] @ middle
    return out


def _moved(matrix, points) -> np.ndarray:
    return np.asarray(points, dtype=np.float64) @ matrix[:3, :3].T + matrix[:3, 3]


TABLE = _motion((12, -25, 40), (60, -35, 20))
ROOM = _motion((-5, 70, 8), (-150, 40, 90))
#: where an X-ray of the balls is taken from, in the patient
VIEW = _motion((78, 14, -31), (8, -6, 720))
BALL, RADIUS = np.array([18.0, -12.0, 25.0]), 6.0  # small and dense, off the CT's centre


@pytest.fixture
def logic(gui):
    """As in the Python console, with the panel open beside it."""
    gui.load_module(MODULE)
    return slicer.util.getModuleLogic("XRayRegistration")


# What the tests make of Slicer's nodes and files, without the module's own helpers


def _transform(matrix, parent=None, name="T"):
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", name)
    slicer.util.updateTransformMatrixFromArray(node, matrix)
    if parent is not None:
        node.SetAndObserveTransformNodeID(parent.GetID())
    return node


def _world(transform_node) -> np.ndarray:
    return slicer.util.arrayFromTransformMatrix(transform_node, toWorld=True)


def _ct_node(values, ras_from_ijk, name="ct", parent=None):
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    slicer.util.updateVolumeFromArray(node, values)
    spacing = np.linalg.norm(ras_from_ijk[:3, :3], axis=0)
    node.SetSpacing(spacing)
    node.SetIJKToRASDirections(*(ras_from_ijk[:3, :3] / spacing).ravel())
    node.SetOrigin(ras_from_ijk[:3, 3])
    if parent is not None:
        node.SetAndObserveTransformNodeID(parent.GetID())
    return node


def _balls(axes=None, spacing=(2.0, 2.0, 2.0), ball=BALL, others=True):
    """HU and ras_from_ijk of a dense ball, and of two others, in a grid with these axes."""
    axes, spacing = np.eye(3) if axes is None else axes, np.array(spacing)
    count = np.round(130.0 / spacing).astype(int)
    ras_from_ijk = np.eye(4)
    ras_from_ijk[:3, :3] = axes * spacing
    ras_from_ijk[:3, 3] = np.array([5.0, -8.0, 12.0]) - ras_from_ijk[:3, :3] @ ((count - 1) / 2)
    k, j, i = np.meshgrid(*(np.arange(n) for n in count[::-1]), indexing="ij")
    points = _moved(ras_from_ijk, np.stack([i, j, k], axis=-1))
    hu = np.full(i.shape, -1000.0, np.float32)
    spheres = [((5, -8, 12), 38.0, 60.0), ((-20, -15, -10), 15.0, 700.0)] if others else []
    for centre, radius, value in (*spheres, (ball, RADIUS, 2500.0)):
        inside = np.clip((radius - np.linalg.norm(points - centre, axis=-1)) / spacing.max() + 0.5, 0.0, 1.0)
        hu += (inside * (value - hu)).astype(np.float32)  # a soft edge of one voxel
    return hu, ras_from_ijk


def _camera_json(path: Path, camera: Camera) -> Path:
    (sx, sy), (u, v) = camera.pixel_spacing_mm, camera.K[:2, 2]
    data = {"width": camera.width, "height": camera.height, "pixel_spacing_mm": [sx, sy], "principal_point_px": [u, v]}
    data["source_detector_distance_mm"] = camera.source_detector_distance_mm
    if camera.camera_from_rig is not None:
        data["camera_from_rig"] = camera.camera_from_rig.tolist()
    path.write_text(json.dumps(data))
    return path


def _mayacam(path: Path, camera: Camera) -> Path:
    rig = camera.camera_from_rig
    blocks = (("image size", [[camera.width, camera.height]]), ("camera matrix", camera.K))
    blocks += (("rotation", rig[:3, :3]), ("translation", rig[:3, 3:]))
    with open(path, "w") as stream:
        for title, matrix in blocks:
            stream.write(f"{title}\n")
            stream.writelines(",".join(repr(float(x)) for x in row) + "\n" for row in matrix)
            stream.write("\n")
    return path


def _noise(camera, seed=0):
    return np.random.default_rng(seed).integers(100, 60000, (camera.height, camera.width)).astype(np.uint16)


def _import(logic, folder, camera, name="x-ray", values=None):
    path = folder / f"{name}.mha"
    sitk.WriteImage(sitk.GetImageFromArray(_noise(camera) if values is None else values), str(path))
    return logic.importXRay(path, cameraFile=_camera_json(folder / f"{name}.json", camera))


def _put(xray, camera_from_world):
    """Stand an X-ray somewhere by its topmost own transform, as a hand does."""
    pose = xray.GetParentTransformNode()
    above = np.eye(4) if pose.GetParentTransformNode() is None else _world(pose.GetParentTransformNode())
    slicer.util.updateTransformMatrixFromArray(pose, np.linalg.inv(above) @ np.linalg.inv(camera_from_world))


def _camera_from_world(xray) -> np.ndarray:
    return np.linalg.inv(_world(xray.GetParentTransformNode()))


def _projected(camera, camera_from_world, points) -> np.ndarray:
    seen = _moved(camera_from_world, points) @ camera.K.T
    return seen[..., :2] / seen[..., 2:]


def _on_detector(camera, camera_from_world, pixels, depth=None):
    """World positions (n, 3) of pixels, on the detector or another plane."""
    sdd = depth or camera.source_detector_distance_mm
    rays = np.c_[np.atleast_2d(pixels), np.ones(len(np.atleast_2d(pixels)))] @ np.linalg.inv(camera.K).T
    return _moved(np.linalg.inv(camera_from_world), sdd * rays)


def _pixel_in_world(volume, u, v) -> np.ndarray:
    ijk = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(ijk)
    point = slicer.util.arrayFromVTKMatrix(ijk) @ (u, v, 0.0, 1.0)
    return (_world(volume.GetParentTransformNode()) @ point)[:3]


def _points(positions, names, parent=None, name="landmarks"):
    """A point list with these positions in the world."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", name)
    if parent is not None:
        node.SetAndObserveTransformNodeID(parent.GetID())
    for position, label in zip(positions, names, strict=True):
        node.AddControlPointWorld(tuple(position), label)
    return node


def _check_camera(xray, camera) -> None:
    """The camera is the expected one, and the volume's pixels lie on its detector."""
    found = xray_nodes.camera_of(xray)
    assert (found.width, found.height) == (camera.width, camera.height)
    np.testing.assert_allclose(found.K, camera.K, rtol=1e-9)
    assert found.source_detector_distance_mm == pytest.approx(camera.source_detector_distance_mm)
    pixels = np.array([[0, 0], [camera.width - 1, 0], [3, camera.height - 1]])
    seen = [_moved(_camera_from_world(xray), _pixel_in_world(xray, *pixel)) for pixel in pixels]
    depth = camera.source_detector_distance_mm or 1000.0
    np.testing.assert_allclose(_projected(camera, np.eye(4), seen), pixels, atol=1e-6)
    np.testing.assert_allclose(np.array(seen)[:, 2], depth, rtol=1e-9)


# DRRs


WIDE = Camera.from_spacing(112, 70, (1.9, 2.7), 1040.0, principal_point_px=(47.3, 41.8))
TALL = Camera.from_spacing(64, 96, (3.1, 2.2), 950.0, principal_point_px=(20.4, 55.1))
SQUARE = Camera.from_spacing(80, 80, 2.4, 1000.0)
OBLIQUE = Rotation.from_euler("xyz", (20, -35, 50), degrees=True).as_matrix()
MIRROR = np.diag([1.0, -1.0, 1.0])
CYCLE = np.eye(3)[:, [2, 0, 1]]

ARRANGEMENTS = {
    "plain": dict(camera=SQUARE),
    "oblique": dict(axes=OBLIQUE),
    "flipped": dict(axes=MIRROR, camera=TALL),
    "anisotropic": dict(spacing=(1.5, 2.0, 3.0)),
    "oblique, flipped, permuted, anisotropic": dict(axes=OBLIQUE @ MIRROR @ CYCLE, spacing=(3.0, 1.5, 2.0), camera=TALL),
    "CT under two transforms": dict(above_ct=(ROOM, TABLE)),
    "X-ray under a transform": dict(above_xray=ROOM, camera=TALL),
    "all of it": dict(axes=OBLIQUE @ MIRROR, spacing=(2.0, 1.5, 2.5), above_ct=(TABLE, ROOM), above_xray=ROOM @ TABLE),
}


def _arranged(logic, folder, axes=None, spacing=(2.0, 2.0, 2.0), camera=WIDE, above_ct=(), above_xray=None, ball=BALL):
    """(CT node, X-ray node, camera, world_from_patient): one physical arrangement, whatever the transforms say."""
    values, ras_from_ijk = _balls(axes, spacing, ball)
    parent, world_from_patient = None, np.eye(4)
    for matrix in above_ct:
        parent, world_from_patient = _transform(matrix, parent), world_from_patient @ matrix
    ct = _ct_node(values, ras_from_ijk, parent=parent)
    xray = _import(logic, folder, camera)
    if above_xray is not None:
        xray.GetParentTransformNode().SetAndObserveTransformNodeID(_transform(above_xray).GetID())
    _put(xray, VIEW @ np.linalg.inv(world_from_patient))
    expected = render(AttenuationVolume(attenuation_from_hu(values), ras_from_ijk), camera, VIEW)
    return ct, xray, world_from_patient, expected


def _bright_spot(image) -> np.ndarray:
    """(u, v), the centroid of what is bright."""
    v, u = np.indices(image.shape)
    return np.array([(image * u).sum(), (image * v).sum()]) / image.sum()


@pytest.mark.parametrize("name", ARRANGEMENTS)
def test_a_drr_lies_on_the_x_ray_as_the_library_renders_it(logic, tmp_path, name: str) -> None:
    camera = ARRANGEMENTS[name].get("camera", WIDE)
    ct, xray, _, expected = _arranged(logic, tmp_path, **ARRANGEMENTS[name])
    drr = logic.renderDRR(ct, xray)
    image = slicer.util.arrayFromVolume(drr)[0]
    assert image.shape == (camera.height, camera.width)
    values, ras_from_ijk = _balls(ARRANGEMENTS[name].get("axes"), ARRANGEMENTS[name].get("spacing", (2.0, 2.0, 2.0)))
    field = AttenuationVolume(attenuation_from_hu(values), ras_from_ijk)
    for axis in (0, 1):  # a tenth of a pixel aside would be seen
        aside = camera.K.copy()
        aside[axis, 2] += 0.1
        tenth = render(field, Camera(camera.width, camera.height, aside), VIEW)
        assert np.abs(image - expected).max() < 0.05 * np.abs(tenth - expected).max()
    for pixel in itertools.product((0, camera.width - 1), (0, camera.height - 1)):
        place = _on_detector(camera, _camera_from_world(xray), pixel)[0]
        np.testing.assert_allclose(_pixel_in_world(drr, *pixel), place, atol=1e-6)


@pytest.mark.parametrize("name", ARRANGEMENTS)
def test_a_dense_ball_appears_where_it_is_projected_by_hand(logic, tmp_path, name: str) -> None:
    settings = dict(ARRANGEMENTS[name])
    camera = settings.get("camera", WIDE)
    ct, xray, world_from_patient, _ = _arranged(logic, tmp_path, **settings)
    values, _ = _balls(settings.get("axes"), settings.get("spacing", (2.0, 2.0, 2.0)), others=False)
    slicer.util.updateVolumeFromArray(ct, values)
    drr = logic.renderDRR(ct, xray)
    spot = _bright_spot(slicer.util.arrayFromVolume(drr)[0].astype(np.float64))
    np.testing.assert_allclose(spot, _projected(camera, VIEW, BALL), atol=0.1)
    # and in the world: on the ray from the source through the ball
    source = np.linalg.inv(_camera_from_world(xray))[:3, 3]
    to_spot, to_ball = _pixel_in_world(drr, *spot) - source, _moved(world_from_patient, BALL) - source
    miss = np.linalg.norm(np.cross(to_spot, to_ball)) / np.linalg.norm(to_spot)
    assert miss < 0.1 * max(camera.pixel_spacing_mm) * 0.75


def test_a_coarse_drr_shows_the_ball_in_the_same_place(logic, tmp_path) -> None:
    values, ras_from_ijk = _balls(OBLIQUE, others=False)
    ct, xray = _ct_node(values, ras_from_ijk), _import(logic, tmp_path, WIDE)
    _put(xray, VIEW)
    drr = logic.renderDRR(ct, xray, largestPixels=56)
    image = slicer.util.arrayFromVolume(drr)[0].astype(np.float64)
    assert image.shape == (35, 56)
    world = _pixel_in_world(drr, *_bright_spot(image))
    np.testing.assert_allclose(_projected(WIDE, VIEW, world), _projected(WIDE, VIEW, BALL), atol=0.1)
    # its area is the X-ray's, to the outer edges of the pixels
    np.testing.assert_allclose(_projected(WIDE, VIEW, _pixel_in_world(drr, -0.5, -0.5)), (-0.5, -0.5), atol=1e-6)
    np.testing.assert_allclose(_projected(WIDE, VIEW, _pixel_in_world(drr, 55.5, 34.5)), (111.5, 69.5), atol=1e-6)


def test_two_cts_are_kept_apart(logic, tmp_path) -> None:
    xray = _import(logic, tmp_path, SQUARE)
    _put(xray, VIEW)
    other = np.array([-22.0, 14.0, -5.0])
    nodes = []
    for name, ball, parent in (("first", BALL, None), ("second", other, _transform(TABLE))):
        values, ras_from_ijk = _balls(ball=ball, others=False)
        nodes.append(_ct_node(values, ras_from_ijk, name, parent))
    for ct, ball in zip((*nodes, nodes[0]), (BALL, _moved(TABLE, other), BALL), strict=True):
        drr = logic.renderDRR(ct, xray)
        spot = _bright_spot(slicer.util.arrayFromVolume(drr)[0].astype(np.float64))
        np.testing.assert_allclose(spot, _projected(SQUARE, VIEW, ball), atol=0.1)


# landmarks


@pytest.mark.parametrize("above", [None, TABLE])
def test_landmarks_are_projected_by_hand(logic, tmp_path, above) -> None:
    camera = WIDE
    xray = _import(logic, tmp_path, camera)
    if above is not None:
        xray.GetParentTransformNode().SetAndObserveTransformNodeID(_transform(ROOM).GetID())
    _put(xray, VIEW)
    rim = _on_detector(camera, VIEW, [(-0.499, 30), (-0.501, 30), (111.499, 69.499), (60, 69.501)], depth=700.0)
    behind = _moved(np.linalg.inv(VIEW), [(4.0, 3.0, -50.0)])
    positions = np.r_[[BALL, (-3.0, 9.0, 40.0)], rim, behind]
    names = ["ball", "other", "in at the left", "out at the left", "in at the corner", "out below", "behind"]
    markups = _points(positions, names, None if above is None else _transform(above))
    markups.AddControlPointWorld((0.0, 0.0, 0.0), "never placed")
    markups.UnsetNthControlPointPosition(len(names))
    table = logic.projectLandmarks(markups, xray)
    assert [row["name"] for row in table] == names
    np.testing.assert_allclose([row["world"] for row in table], positions, atol=1e-9)
    np.testing.assert_allclose([row["pixel"] for row in table[:-1]], _projected(camera, VIEW, positions[:-1]), atol=1e-6)
    assert np.isnan(table[-1]["pixel"]).all()
    assert [row["in_view"] for row in table] == [True, True, True, False, True, False, False]
    assert all(row["off_px"] is None and row["off_mm"] is None for row in table)


def test_the_distance_from_a_point_on_the_picture_is_told(logic, tmp_path) -> None:
    """In px on the picture, and in mm across the beam at the landmark's depth."""
    camera = WIDE
    xray = _import(logic, tmp_path, camera)
    _put(xray, VIEW)
    seen = np.array([[30.0, 20.0], [80.0, 55.0], [60.0, 10.0], [40.0, 60.0]])
    depths = np.array([650.0, 700.0, 760.0, 820.0])
    places = np.concatenate([_on_detector(camera, VIEW, s, d) for s, d in zip(seen, depths, strict=True)])
    moves = np.array([(0.0, 0.0), (3.0, 0.0), (0.0, -2.0), (1.2, 1.6)])  # mm across the beam
    landmarks = places + moves @ np.linalg.inv(VIEW)[:3, :2].T
    names = ["a", "b", "c", "d"]
    markups = _points([*landmarks, BALL], [*names, "not marked"])
    on_image = _points(_on_detector(camera, VIEW, seen), names, name="marked")
    on_image.AddControlPointWorld(tuple(np.linalg.inv(VIEW)[:3, 3] - VIEW[2, :3]), "not marked")  # behind the source
    table = logic.projectLandmarks(markups, xray, on_image)
    np.testing.assert_allclose([row["off_mm"] for row in table[:-1]], np.linalg.norm(moves, axis=1), atol=1e-6)
    px = np.linalg.norm(moves * camera.K[[0, 1], [0, 1]] / depths[:, None], axis=1)
    np.testing.assert_allclose([row["off_px"] for row in table[:-1]], px, atol=1e-6)
    assert table[-1]["off_px"] is None
    assert table[-1]["off_mm"] is None


# registration


PATIENT = _motion((4, -7, 15), (25, -10, 35))  # where the CT's transform puts the patient


def _facing(ct, degrees, depth=690.0, aside=(6.0, -4.0)):
    """A pose that sees the middle of a CT."""
    out = _motion(degrees, (0, 0, 0))
    middle = _moved(ct.ras_from_ijk, (np.array(ct.values.shape[::-1]) - 1) / 2)
    out[:3, 3] = np.array([*aside, depth]) - out[:3, :3] @ middle
    return out


@pytest.fixture(scope="module")
def phantom():
    """CT (at PATIENT), its X-ray, the true pose and a start, all in the world; and what the library makes of them."""
    ct = ct_phantom(tilt=(0.1, -0.2, 0.15))
    true = _facing(ct, (95, 8, 172))
    values = np.round(xray_of(ct, CAMERA, true).line_integrals * 1000).astype(np.int16)
    start = _motion((2, -3, 2.5), (7, -5, 14)) @ true
    start[:3, 3] = true[:3, 3] + (5.0, -4.0, 12.0)
    from_world = np.linalg.inv(PATIENT)
    world = Volume(ct.values, PATIENT @ ct.ras_from_ijk, "phantom")
    result = register(world, prepare_xray(values, CAMERA, source="shot"), start=start @ from_world)
    return ct, values, true @ from_world, start @ from_world, result


def _phantom_ct_node(phantom):
    ct = phantom[0]
    return _ct_node(ct.values, ct.ras_from_ijk, "phantom", _transform(PATIENT))


@pytest.fixture
def registered(logic, phantom, tmp_path):
    """(CT node, X-ray node) that stands at the library's result."""
    ct = _phantom_ct_node(phantom)
    xray = _import(logic, tmp_path, CAMERA, "shot", phantom[1])
    logic.showResult(phantom[4], xray)
    return ct, xray


def test_register_finds_and_shows_the_librarys_pose(logic, phantom, tmp_path) -> None:
    _, values, true, start, expected = phantom
    assert expected.ok, expected.message
    ct = _phantom_ct_node(phantom)
    xray = _import(logic, tmp_path, CAMERA, "shot", values)
    xray.GetParentTransformNode().SetAndObserveTransformNodeID(_transform(ROOM).GetID())
    _put(xray, start)
    places = np.array([(10.0, -5.0, 40.0), (20.0, 0.0, 60.0)])
    heard = []
    result = logic.register(
        ct, xray, start="current", landmarksNode=_points(places, ["one", "two"]), progress=lambda f, text: heard.append(f)
    )
    assert result.status == expected.status
    np.testing.assert_allclose(result.camera_from_ct, expected.camera_from_ct, atol=1e-6)
    np.testing.assert_allclose(_camera_from_world(xray), result.camera_from_ct, atol=1e-9)
    assert np.linalg.norm(_camera_from_world(xray)[:3, 3] - true[:3, 3]) < 3.0  # most of it along the beam
    assert heard[0] == 0.0
    assert heard == sorted(heard)
    assert result.landmark_names == ("one", "two")
    np.testing.assert_allclose(result.landmarks_px, _projected(CAMERA, result.camera_from_ct, places), atol=1e-6)
    assert logic.resultOf(xray).probability == pytest.approx(result.probability)
    logic.undo(xray)
    np.testing.assert_allclose(_camera_from_world(xray), start, atol=1e-9)
    assert logic.resultOf(xray) is None


def test_a_start_may_be_a_matrix_and_cancelling_leaves_everything(logic, phantom, tmp_path) -> None:
    _, values, _, start, expected = phantom
    ct, xray = _phantom_ct_node(phantom), _import(logic, tmp_path, CAMERA, "shot", values)
    before, nodes = _camera_from_world(xray), slicer.mrmlScene.GetNumberOfNodes()

    def stop(fraction, text):
        if fraction > 0.3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        logic.register(ct, xray, start=start, progress=stop)
    np.testing.assert_array_equal(_camera_from_world(xray), before)
    assert slicer.mrmlScene.GetNumberOfNodes() == nodes
    result = logic.register(ct, xray, start=start)
    np.testing.assert_allclose(result.camera_from_ct, expected.camera_from_ct, atol=1e-6)


def _rig_result(cameras, names, rig_from_world):
    """What a registration of a rig might return, with two landmarks."""
    poses = [camera.camera_from_rig @ rig_from_world for camera in cameras]
    return Result(
        status="success",
        message="Made by hand.",
        method="diffdrr",
        views=tuple(View(camera, name) for camera, name in zip(cameras, names, strict=True)),
        camera_from_ct_views=np.stack(poses),
        proposed_camera_from_ct_views=np.stack(poses),
        probability=0.97,
        rig_from_ct=rig_from_world,
        landmarks_ct=np.array([BALL, BALL + 10.0]),
        landmark_names=("ball", "other"),
        inputs={"ct": "ct", "xrays": list(names)},
    )


def test_two_rigs_in_one_scene_keep_to_themselves(logic, tmp_path) -> None:
    seen = _moved(VIEW, BALL)  # in the first camera
    views = {"a": (np.eye(4), _about(seen, (3, 85, -2), (10, -4, 6)))}
    views["b"] = _about(seen, (0, 4, 1), (-6, 5, 20)), _about(seen, (-8, -60, 5), (4, 9, -30))
    rigs = {}
    for rig, poses in views.items():
        cameras = [Camera.from_spacing(80, 64, (2.4, 2.9), 1000.0 + 40 * n, (37.0, 33.5), m) for n, m in enumerate(poses)]
        nodes = [_import(logic, tmp_path, camera, f"{rig}{n}") for n, camera in enumerate(cameras)]
        rigs[rig] = cameras, nodes
    values, ras_from_ijk = _balls(others=False)
    ct = _ct_node(values, ras_from_ijk, parent=_transform(TABLE))
    ball = _moved(TABLE, BALL)
    places = {"a": VIEW @ np.linalg.inv(TABLE), "b": _about(seen, (4, 30, -20), (3, 6, 15)) @ VIEW @ np.linalg.inv(TABLE)}
    for rig, (cameras, nodes) in rigs.items():
        logic.showResult(_rig_result(cameras, [node.GetName() for node in nodes], places[rig]), nodes)
    for rig, (cameras, nodes) in rigs.items():
        for camera, node in zip(cameras, nodes, strict=True):
            pose = camera.camera_from_rig @ places[rig]
            np.testing.assert_allclose(_camera_from_world(node), pose, atol=1e-8)
            spot = _bright_spot(slicer.util.arrayFromVolume(logic.renderDRR(ct, node))[0].astype(np.float64))
            np.testing.assert_allclose(spot, _projected(camera, pose, ball), atol=0.1)
            assert logic.resultOf(node).rig_from_ct == pytest.approx(places[rig])
    (_, first), (cameras, second) = rigs.values()
    logic.undo(first[1])
    assert logic.resultOf(first[0]) is None
    np.testing.assert_allclose(_camera_from_world(second[1]), cameras[1].camera_from_rig @ places["b"], atol=1e-8)
    assert logic.resultOf(second[0]) is not None
    logic.removeXRay(first[0])
    assert [node.GetName() for node in xray_nodes.xray_nodes()] == ["a1", "b0", "b1"]


# cameras


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "knee.png"
    sitk.WriteImage(sitk.GetImageFromArray(_noise(CAMERA)), str(path))
    return path


def test_single_values_of_a_camera_are_set(logic, picture) -> None:
    xray = logic.importXRay(picture)  # 96 x 80, and nothing known
    logic.setCamera(xray, sourceDetectorDistance=1100.0)
    logic.setCamera(xray, pixelSpacing=(0.5, 0.4))
    _check_camera(xray, Camera(96, 80, [[2200, 0, 47.5], [0, 2750, 39.5], [0, 0, 1]], 1100.0))
    assert not xray_nodes.missing_of(xray)
    logic.setCamera(xray, principalPoint=(0.0, 81.25))
    _check_camera(xray, Camera(96, 80, [[2200, 0, 0], [0, 2750, 81.25], [0, 0, 1]], 1100.0))
    logic.setCamera(xray, sourceDetectorDistance=550.0)  # the pixels keep their size
    _check_camera(xray, Camera(96, 80, [[1100, 0, 0], [0, 1375, 81.25], [0, 0, 1]], 550.0))
    logic.setCamera(xray, pixelSpacing=np.array([0.25, 0.5]), sourceDetectorDistance=1000, principalPoint=np.array([1.0, 2.0]))
    _check_camera(xray, Camera(96, 80, [[4000, 0, 1], [0, 2000, 2], [0, 0, 1]], 1000.0))
    logic.setCamera(xray, pixelSpacing=0.5)
    _check_camera(xray, Camera(96, 80, [[2000, 0, 1], [0, 2000, 2], [0, 0, 1]], 1000.0))


@pytest.mark.parametrize(
    "values",
    [
        {"sourceDetectorDistance": 0.0},
        {"sourceDetectorDistance": -1000.0},
        {"sourceDetectorDistance": float("nan")},
        {"sourceDetectorDistance": "far"},
        {"pixelSpacing": (0.0, 0.0)},
        {"pixelSpacing": 0},
        {"pixelSpacing": (0.2, 0.2, 1.0)},
        {"principalPoint": (float("inf"), 3.0)},
        {"principalPoint": (1.0,)},
    ],
)
def test_what_cannot_be_a_cameras_value_changes_nothing(logic, tmp_path, values) -> None:
    xray = _import(logic, tmp_path, WIDE)
    provenance = xray_nodes.provenance_of(xray)
    with pytest.raises(InputError) as refused:
        logic.setCamera(xray, **values)
    assert "\n" not in str(refused.value)
    assert "allowed" in str(refused.value)
    _check_camera(xray, WIDE)
    assert xray_nodes.provenance_of(xray) == provenance


def test_a_calibrated_focal_length_outlives_what_is_added_to_it(logic, picture, tmp_path) -> None:
    """A file with K alone knows the rays: a distance or a pixel size added to it moves the detector, not the rays."""
    k = [[3000.0, 0, 40.0], [0, 2900.0, 41.0], [0, 0, 1]]
    file = tmp_path / "camera.json"
    file.write_text(json.dumps({"width": 96, "height": 80, "K": k}))
    xray = logic.importXRay(picture, cameraFile=file)
    _check_camera(xray, Camera(96, 80, k))
    assert xray_nodes.camera_of(xray).source_detector_distance_mm is None
    k[0][2] = 44.0
    logic.setCamera(xray, principalPoint=(44.0, 41.0))
    _check_camera(xray, Camera(96, 80, k))
    assert xray_nodes.camera_of(xray).source_detector_distance_mm is None
    for distance in (1150.0, 1180.0):  # the second corrects the first
        logic.setCamera(xray, sourceDetectorDistance=distance)
        _check_camera(xray, Camera(96, 80, k, distance))
    other = logic.importXRay(picture, cameraFile=file)
    logic.setCamera(other, pixelSpacing=(0.3, 0.3 * 3000 / 2900))
    _check_camera(other, Camera(96, 80, [[3000, 0, 40], [0, 2900, 41], [0, 0, 1]], 900.0))


def test_a_camera_file_replaces_the_camera(logic, picture, tmp_path) -> None:
    xray = logic.importXRay(picture)
    stands = _camera_from_world(xray)
    camera = Camera.from_spacing(96, 80, (0.7, 0.6), 980.0, (33.0, 50.0))
    logic.setCamera(xray, cameraFile=_camera_json(tmp_path / "camera.json", camera))
    _check_camera(xray, camera)
    assert not xray_nodes.missing_of(xray)
    assert xray_nodes.camera_of(xray).camera_from_rig is None
    np.testing.assert_allclose(_camera_from_world(xray), stands, atol=1e-9)
    rig = Camera(96, 80, [[2100, 0, 44], [0, 2000, 38], [0, 0, 1]], None, ROOM)
    logic.setCamera(xray, cameraFile=str(_mayacam(tmp_path / "rig.txt", rig)))
    _check_camera(xray, rig)
    np.testing.assert_allclose(_camera_from_world(xray), stands, atol=1e-9)  # now it is a view, and stands as it stood
    world_from_rig = _world(xray.GetParentTransformNode().GetParentTransformNode())
    np.testing.assert_allclose(ROOM @ np.linalg.inv(world_from_rig), stands, atol=1e-9)
    logic.setCamera(xray, cameraFile=tmp_path / "camera.json")  # and out of the rig again
    assert xray_nodes.camera_of(xray).camera_from_rig is None
    np.testing.assert_allclose(_camera_from_world(xray), stands, atol=1e-9)
    (tmp_path / "small.json").write_text((tmp_path / "camera.json").read_text().replace("96", "95"))
    for bad, words in ((tmp_path / "small.json", "95 x 80 pixels, the X-ray has 96 x 80"), (tmp_path / "none.json", "none.json")):
        with pytest.raises(InputError, match=words):
            logic.setCamera(xray, cameraFile=bad)
    _check_camera(xray, camera)


def test_a_known_c_arm_fills_the_camera_in(logic, tmp_path) -> None:
    values = np.random.default_rng(0).integers(0, 255, (64, 64)).astype(np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(values), str(tmp_path / "hip.png"))
    xray = logic.importXRay(tmp_path / "hip.png")
    name = "Siemens CIOS Fusion, 30 cm flat panel"
    assert name in logic.cArms()
    logic.setCamera(xray, cArm=name)
    focal = 1020 / (1536 * 0.194 / 64)
    camera = Camera(64, 64, [[focal, 0, 31.5], [0, focal, 31.5], [0, 0, 1]], 1020.0)
    _check_camera(xray, camera)
    assert not xray_nodes.missing_of(xray)
    assert all(said.startswith("assumed") for said in xray_nodes.provenance_of(xray).values())
    with pytest.raises(InputError, match=r"'Acme' is unknown; allowed are .*Siemens CIOS Fusion"):
        logic.setCamera(xray, cArm="Acme")
    with pytest.raises(InputError, match="full detector"):
        logic.setCamera(xray, cArm="Angiography C-arm, 30 x 40 cm flat panel")
    _check_camera(xray, camera)


# import


def test_dicom_is_imported_with_its_camera(logic, tmp_path) -> None:
    run = np.stack([_noise(CAMERA, seed) // 16 for seed in range(3)])
    path = write_xray(tmp_path / "run.dcm", run)
    xray = logic.importXRay(path, name="the run")
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(xray), run[1:2])  # the middle one
    _check_camera(xray, Camera(96, 80, [[2000, 0, 47.5], [0, 2500, 39.5], [0, 0, 1]], 1000.0))
    assert xray.GetName() == "the run"
    last = logic.importXRay(path, frame=2, sourceDetectorDistance=1200, pixelSpacing=0.6, polarity="bone_dark", mask=False)
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(last), run[2:])
    _check_camera(last, Camera(96, 80, [[2000, 0, 47.5], [0, 2000, 39.5], [0, 0, 1]], 1200.0))
    assert xray_nodes.preparation_of(last) == ("bone_dark", False)
    nodes = slicer.mrmlScene.GetNumberOfNodes()
    with pytest.raises(InputError, match=r"frame 3 .* allowed is 0 to 2"):
        logic.importXRay(path, frame=3)
    assert slicer.mrmlScene.GetNumberOfNodes() == nodes


@pytest.mark.parametrize("ending", ["png", "tif", "nrrd", "mha"])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_pictures_are_imported_as_they_are(logic, tmp_path, ending: str, kind) -> None:
    values = (_noise(WIDE) >> 8).astype(np.uint8) if kind is np.uint8 else _noise(WIDE)
    image = sitk.GetImageFromArray(values)
    image.SetSpacing((0.3, 0.45))
    path = tmp_path / f"shot.{ending}"
    sitk.WriteImage(image, str(path))
    xray = logic.importXRay(path, sourceDetectorDistance=900.0)
    found = slicer.util.arrayFromVolume(xray)
    assert found.dtype == kind
    np.testing.assert_array_equal(found[0], values)
    spacing = (0.3, 0.45)
    if ending in ("png", "tif"):  # their spacing is one of printing
        assert xray_nodes.missing_of(xray) == ["pixel_spacing_mm"]
        logic.setCamera(xray, pixelSpacing=(0.5, 0.4))
        spacing = (0.5, 0.4)
    assert not xray_nodes.missing_of(xray)
    _check_camera(xray, Camera.from_spacing(112, 70, spacing, 900.0))
    again = logic.importXRay(path, cameraFile=_camera_json(tmp_path / "camera.json", WIDE))
    _check_camera(again, WIDE)
    assert again.GetName() != xray.GetName()


def test_what_is_no_x_ray_adds_nothing(logic, picture, tmp_path) -> None:
    write_ct_series(tmp_path / "ct", np.zeros((3, 16, 16), np.int16), np.eye(4))
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((5, 16, 16), np.int16)), str(tmp_path / "ct.nrrd"))
    (tmp_path / "note.txt").write_text("no picture")
    camera = _camera_json(tmp_path / "camera.json", CAMERA)
    nodes = slicer.mrmlScene.GetNumberOfNodes()
    wrong = [
        (dict(path=tmp_path / "gone.png"), "gone.png"),
        (dict(path=tmp_path), "no file"),
        (dict(path=tmp_path / "note.txt"), "note.txt"),
        (dict(path=next((tmp_path / "ct").iterdir())), "modality CT, not a projection"),
        (dict(path=tmp_path / "ct.nrrd"), "5 images"),
        (dict(path=picture, cameraFile=_camera_json(tmp_path / "other.json", WIDE)), "112 x 70"),
        (dict(path=picture, polarity="negative"), "polarity"),
        (dict(path=picture, sourceDetectorDistance=-5), "allowed"),
        (dict(path=picture, sourceDetectorDistance=1000, pixelSpacing=0), "allowed"),
        (dict(path=picture, cameraFile=camera, sourceDetectorDistance=1100), "camera file"),
        (dict(path=picture, cameraFile=camera, pixelSpacing=0.3), "camera file"),
        (dict(path=None), "no file"),
    ]
    for arguments, words in wrong:
        with pytest.raises(InputError, match=words) as refused:
            logic.importXRay(**arguments)
        assert "\n" not in str(refused.value), arguments
        assert slicer.mrmlScene.GetNumberOfNodes() == nodes, arguments


def test_an_image_of_the_scene_is_used_and_stays(logic, gui, tmp_path) -> None:
    values = _noise(WIDE)
    volume = _ct_node(values[None], _motion((10, 20, 30), (1, 2, 3)) @ np.diag([0.8, 0.6, 1.0, 1.0]), "loaded", _transform(ROOM))
    matrix = slicer.util.arrayFromTransformMatrix(volume.GetParentTransformNode())
    xray = logic.useAsXRay(volume, polarity="bone_bright", mask=False)
    assert xray is not volume
    assert xray_nodes.xray_nodes() == [xray]
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(xray)[0], values)
    assert xray_nodes.missing_of(xray) == ["source_detector_distance_mm"]
    assert xray_nodes.preparation_of(xray) == ("bone_bright", False)
    logic.setCamera(xray, sourceDetectorDistance=1000.0)
    _check_camera(xray, Camera.from_spacing(112, 70, (0.8, 0.6), 1000.0))
    logic.setCamera(xray, cameraFile=_camera_json(tmp_path / "camera.json", WIDE))
    _check_camera(logic.useAsXRay(volume, cameraFile=tmp_path / "camera.json"), WIDE)
    slicer.util.arrayFromVolume(xray)[:] = 0  # its own copy
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(volume)[0], values)
    np.testing.assert_array_equal(slicer.util.arrayFromTransformMatrix(volume.GetParentTransformNode()), matrix)
    assert volume.GetSpacing() == pytest.approx((0.8, 0.6, 1.0))


def test_of_several_dicom_images_in_one_volume_one_is_named(logic, monkeypatch, tmp_path) -> None:
    files = {f"1.{n}": str(write_xray(tmp_path / f"{n}.dcm", _noise(CAMERA, n) // 16)) for n in range(2)}
    monkeypatch.setattr(slicer.dicomDatabase, "fileForInstance", files.get, raising=False)
    volume = _ct_node(np.stack([_noise(CAMERA, n) // 16 for n in range(2)]), np.eye(4), "both")
    volume.SetAttribute("DICOM.instanceUIDs", "1.0 1.1")
    with pytest.raises(InputError, match="name its frame, 0 to 1"):
        logic.useAsXRay(volume)
    xray = logic.useAsXRay(volume, frame=1)
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(xray)[0], _noise(CAMERA, 1) // 16)
    _check_camera(xray, Camera(96, 80, [[2000, 0, 47.5], [0, 2500, 39.5], [0, 0, 1]], 1000.0))


# a start from landmarks


@pytest.mark.parametrize("loose", [False, True])
def test_an_x_ray_is_moved_to_its_landmarks(logic, tmp_path, loose: bool) -> None:
    xray = _import(logic, tmp_path, WIDE)
    if loose:  # somebody has taken it from under its transform
        xray.SetAndObserveTransformNodeID(None)
        before = np.eye(4)
    else:
        xray.GetParentTransformNode().SetAndObserveTransformNodeID(_transform(ROOM).GetID())
        before = _motion((80, 5, 2), (0, 0, 650))
        _put(xray, before)
    places = np.array([(40, 10, 30), (-35, 20, -10), (5, -45, 25), (20, 30, -40), (-15, -20, 45), (0, 5, 0)], float)
    pixels = _projected(WIDE, VIEW, places)
    names = [f"p{n}" for n in range(6)]
    markups = _points(places, names, _transform(TABLE), "on the CT")
    on_image = _points(_on_detector(WIDE, before, pixels[::-1]), names[::-1], _transform(TABLE), "on the X-ray")
    on_image.AddControlPointWorld((1.0, 2.0, 3.0), "to be placed")
    on_image.UnsetNthControlPointPosition(6)
    found = logic.moveToLandmarks(xray, markups, on_image)
    assert found.rms_px < 1e-3
    assert not found.warning
    pose = _camera_from_world(xray)
    np.testing.assert_allclose(pose[:3, :3], VIEW[:3, :3], atol=1e-5)
    np.testing.assert_allclose(pose[:3, 3], VIEW[:3, 3], atol=1e-2)
    now = [on_image.GetNthControlPointPositionWorld(n) for n in range(6)]
    np.testing.assert_allclose(_projected(WIDE, pose, now), pixels[::-1], atol=1e-4)  # still on the picture
    assert on_image.GetNthControlPointPositionStatus(6) != 2  # what was not placed is not placed now
    table = logic.projectLandmarks(markups, xray, on_image)
    assert max(row["off_px"] for row in table) < 1e-3
    logic.undo(xray)
    np.testing.assert_allclose(_camera_from_world(xray), before, atol=1e-8)
    now = [on_image.GetNthControlPointPositionWorld(n) for n in range(6)]
    np.testing.assert_allclose(_projected(WIDE, before, now), pixels[::-1], atol=1e-4)


def test_landmarks_that_fit_nothing_move_nothing(logic, tmp_path) -> None:
    xray = _import(logic, tmp_path, WIDE)
    _put(xray, VIEW)
    rng = np.random.default_rng(1)
    markups = _points(rng.uniform(-60, 60, (6, 3)), "abcdef")
    on_image = _points(_on_detector(WIDE, VIEW, rng.uniform(0, 69, (6, 2))), "abcdef")
    with pytest.raises(InputError, match="no pose fits these landmarks"):
        logic.moveToLandmarks(xray, markups, on_image)
    np.testing.assert_allclose(_camera_from_world(xray), VIEW, atol=1e-9)
    assert on_image.GetParentTransformNode() is None
    with pytest.raises(InputError, match="at least 4"):
        logic.moveToLandmarks(xray, _points(np.eye(3), "xyz"), on_image)
    with pytest.raises(InputError, match="several points named 'a'"):
        logic.moveToLandmarks(xray, _points(np.eye(3), "aab"), on_image)


# views


def test_named_views_see_the_ct_from_their_sides(logic, tmp_path) -> None:
    values, ras_from_ijk = _balls()
    ct = _ct_node(values, ras_from_ijk, parent=_transform(TABLE))
    middle = _moved(TABLE, (5.0, -8.0, 12.0))
    xray, other = _import(logic, tmp_path, WIDE), _import(logic, tmp_path, TALL, "other")
    bent = _import(logic, tmp_path, TALL, "bent")  # one that cannot be placed must not keep the others from it
    bent.GetParentTransformNode().SetAndObserveTransformNodeID(_transform(np.diag([2.0, 1, 1, 1])).GetID())
    _put(other, VIEW)
    logic.placeNewXRays(ct)
    np.testing.assert_allclose(_camera_from_world(other), VIEW, atol=1e-9)  # it was placed by hand
    for view, side in ((None, (0, 1, 0)), ("pa", (0, -1, 0)), ("lat-left", (1, 0, 0)), ("lat-right", (-1, 0, 0))):
        if view is not None:
            logic.moveToView(xray, ct, view)
        source = np.linalg.inv(_camera_from_world(xray))[:3, 3]
        np.testing.assert_allclose(source - middle, 0.7 * 1040.0 * np.array(side), atol=1e-6)
        np.testing.assert_allclose(_projected(WIDE, _camera_from_world(xray), middle), WIDE.K[:2, 2], atol=1e-6)
    with pytest.raises(InputError, match="allowed are ap, pa, lat-left, lat-right"):
        logic.moveToView(xray, ct, "oblique")


# export


def _itk_matrix(path) -> np.ndarray:
    """The matrix to parent, RAS, of the node that Slicer makes of a transform file: ITK holds its inverse, in LPS."""
    transform = sitk.ReadTransform(str(path))
    origin = np.array(transform.TransformPoint((0.0, 0.0, 0.0)))
    lps = np.eye(4)
    lps[:3, :3] = np.stack([np.array(transform.TransformPoint(tuple(e))) - origin for e in np.eye(3)], axis=1)
    lps[:3, 3] = origin
    return np.linalg.inv(LPS @ lps @ LPS)


def _loaded_matrix(path) -> np.ndarray:
    """The same as Slicer loads it."""
    storage = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformStorageNode")
    storage.SetFileName(str(path))
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode")
    assert storage.ReadData(node)
    return slicer.util.arrayFromTransformMatrix(node)


def _rows(path):
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


def _check_no_paths(folder, *forbidden) -> None:
    for file in Path(folder).iterdir():
        if file.suffix not in (".png", ".h5"):
            text = file.read_bytes().decode("utf-8", errors="replace").split("encoding: gzip")[0]
            for words in (str(Path.home()), str(Path(folder).parent), "/tmp", *forbidden):
                assert words not in text, (file.name, words)
            assert not re.search(r"[A-Za-z]:\\|(?<![\w.:/<])/(home|root|Users|work|var|mnt)/", text), file.name


def test_an_export_is_read_back_by_others(logic, phantom, registered, tmp_path) -> None:
    ct, xray = registered
    result = phantom[4]
    seen = result.landmarks_px[:3] + np.array([3.0, -4.0])
    on_image = _points(_on_detector(CAMERA, result.camera_from_ct, seen), result.landmark_names[:3], name="marked")
    folder = tmp_path / "export"
    files = logic.exportResult(xray, folder, ct, imageLandmarksNode=on_image)
    assert sorted(files) == sorted(str(path) for path in folder.iterdir())
    names = {Path(file).name for file in files}
    assert names == {
        "result.json", "ct_from_camera.tfm", "ct_from_camera.h5", "landmarks.mrk.json", "landmarks.csv", "drr.nrrd", "drr.png",
        "overlay.png", "report.html",
    }  # fmt: skip
    world_from_camera = _world(xray.GetParentTransformNode())
    for name in ("ct_from_camera.tfm", "ct_from_camera.h5"):
        np.testing.assert_allclose(_itk_matrix(folder / name), world_from_camera, atol=1e-9)
        np.testing.assert_allclose(_loaded_matrix(folder / name), world_from_camera, atol=1e-9)
    data = json.loads((folder / "result.json").read_text())
    np.testing.assert_allclose(np.linalg.inv(data["camera_from_ct"]), world_from_camera, atol=1e-9)
    np.testing.assert_allclose(data["views"][0]["camera"]["K"], CAMERA.K)
    assert data["status"] == "success"
    # the picture, as SimpleITK reads it, is the patient's DRR at the pose that the scene shows
    drr = sitk.ReadImage(str(folder / "drr.nrrd"))
    assert drr.GetSpacing() == pytest.approx((3.0, 3.0))
    patient = build_bone_model(Volume(phantom[0].values, PATIENT @ phantom[0].ras_from_ijk)).full
    expected = render(patient, CAMERA, np.linalg.inv(world_from_camera))
    np.testing.assert_allclose(sitk.GetArrayFromImage(drr), expected, atol=1e-4 * expected.max())
    assert sitk.ReadImage(str(folder / "drr.png")).GetSize() == (96, 80)
    assert min(sitk.ReadImage(str(folder / "overlay.png")).GetSize()) > 80
    # landmarks: the table, and the points as Slicer loads them
    rows = _rows(folder / "landmarks.csv")
    places = np.array([[float(row[c]) for c in ("r_mm", "a_mm", "s_mm")] for row in rows])
    np.testing.assert_allclose(places, result.landmarks_ct, atol=1e-4)
    pixels = np.array([[float(row[c]) for c in ("column_px", "row_px")] for row in rows])
    np.testing.assert_allclose(pixels, _projected(CAMERA, np.linalg.inv(world_from_camera), places), atol=1e-3)
    assert [row["off_px"] for row in rows] == ["5.0000"] * 3 + [""] * 9
    storage = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsJsonStorageNode")
    storage.SetFileName(str(folder / "landmarks.mrk.json"))
    loaded = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "loaded")
    assert storage.ReadData(loaded)
    np.testing.assert_allclose(slicer.util.arrayFromMarkupsControlPoints(loaded), result.landmarks_ct, atol=1e-6)
    report = (folder / "report.html").read_text(encoding="utf-8")
    verdict = verdict_of(result)
    assert verdict.headline in report
    assert all(sentence in report for sentence in verdict.sentences)
    for picture in re.findall(r'src="([^"]*)"', report):
        assert (folder / picture).is_file()
    _check_no_paths(folder)


def test_a_patients_name_is_not_exported(logic, phantom, tmp_path) -> None:
    values = phantom[1].astype(np.int32) - phantom[1].min()
    path = write_xray(
        tmp_path / "IM000001.dcm", values.astype(np.uint16), ImagerPixelSpacing=[3.0, 3.0], PatientName="Quux^Xavier",
        PatientID="ID-4711", PatientBirthDate="19700102", InstitutionName="Zzyzx Hospital", AccessionNumber="ACC-99",
    )  # fmt: skip
    ct, xray = _phantom_ct_node(phantom), logic.importXRay(path)
    _put(xray, phantom[3])
    result = logic.register(ct, xray, start="current")
    folder = tmp_path / "export"
    logic.exportResult(xray, folder, ct)
    assert verdict_of(result).headline in (folder / "report.html").read_text(encoding="utf-8")
    assert json.loads((folder / "result.json").read_text())["views"][0]["source"] == "IM000001"
    _check_no_paths(folder, "Quux", "Xavier", "ID-4711", "19700102", "Zzyzx", "ACC-99", ".dcm")


def test_an_export_of_a_rig_has_every_view_and_leaves_none_behind(logic, tmp_path) -> None:
    """And a failure says so."""
    phantom_ct = ct_phantom()
    ct = _ct_node(phantom_ct.values, phantom_ct.ras_from_ijk)
    rig_from_world = _facing(phantom_ct, (92, 4, 178))
    second = _about(_moved(rig_from_world, (12.0, -7.0, 30.0)), (0, 80, 0), (0, 0, 0))
    cameras = [Camera.from_spacing(96, 80, 3.0, 1000.0, (46.0, 41.0), m) for m in (np.eye(4), second)]
    nodes = [_import(logic, tmp_path, camera, f"view {n}") for n, camera in enumerate(cameras)]
    made = _rig_result(cameras, ["view 0", "view 1"], rig_from_world)
    logic.showResult(made, nodes)
    folder = tmp_path / "export"
    logic.exportResult(nodes[1], folder, ct)
    for stem, node in (("ct_from_camera", nodes[0]), ("ct_from_camera_2", nodes[1])):
        np.testing.assert_allclose(_itk_matrix(folder / f"{stem}.tfm"), _world(node.GetParentTransformNode()), atol=1e-8)
    np.testing.assert_allclose(_itk_matrix(folder / "ct_from_rig.h5"), np.linalg.inv(rig_from_world), atol=1e-8)
    patient = build_bone_model(phantom_ct).full
    for name, camera in (("drr.nrrd", cameras[0]), ("drr_2.nrrd", cameras[1])):
        expected = render(patient, camera, camera.camera_from_rig @ rig_from_world)
        written = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / name)))
        np.testing.assert_allclose(written, expected, atol=1e-4 * expected.max())
    rows = _rows(folder / "landmarks.csv")
    assert [(row["view"], row["name"]) for row in rows] == [("1", "ball"), ("1", "other"), ("2", "ball"), ("2", "other")]
    report = (folder / "report.html").read_text(encoding="utf-8")
    assert re.findall(r'src="([^"]*)"', report) == ["overlay.png", "overlay_2.png"]
    assert "view 0" in report
    assert "view 1" in report
    # one view alone into the same folder: nothing of the other is left to mislead
    single = _import(logic, tmp_path, CAMERA, "alone")
    failed = Result(
        "failure", "Not registered.", "diffdrr", (View(CAMERA, "alone"),), rig_from_world[None], rig_from_world[None], 0.1
    )
    logic.showResult(failed, single)
    (folder / "mine.txt").write_text("not of the module")
    files = logic.exportResult(single, folder, ct)
    assert {path.name for path in folder.iterdir()} == {Path(file).name for file in files} | {"mine.txt"}
    assert not [path.name for path in folder.iterdir() if "_2" in path.name or "rig" in path.name]
    report = (folder / "report.html").read_text(encoding="utf-8")
    assert "REGISTRATION FAILED, do not use this pose" in report
    assert _rows(folder / "landmarks.csv") == []


def test_landmarks_that_are_not_seen_are_left_open_in_the_table(logic, tmp_path) -> None:
    phantom_ct = ct_phantom()
    ct = _ct_node(phantom_ct.values, phantom_ct.ras_from_ijk)
    pose = _facing(phantom_ct, (92, 4, 178))
    behind = _moved(np.linalg.inv(pose), (0.0, 0.0, -100.0))
    aside = _on_detector(CAMERA, pose, (200.0, 40.0), 700.0)[0]
    made = Result(
        "success", "By hand.", "diffdrr", (View(CAMERA, "x-ray"),), pose[None], pose[None], 0.9,
        landmarks_ct=np.array([behind, aside]), landmark_names=("behind", "aside <&>"),
    )  # fmt: skip
    xray = _import(logic, tmp_path, CAMERA)
    logic.showResult(made, xray)
    on_image = _points([behind, *_on_detector(CAMERA, pose, (200.0, 43.0))], ["behind", "aside <&>"])
    logic.exportResult(xray, tmp_path / "export", ct, imageLandmarksNode=on_image)
    first, second = _rows(tmp_path / "export" / "landmarks.csv")
    assert [first[c] for c in ("column_px", "row_px", "in_view", "off_px")] == ["", "", "no", ""]
    assert [second[c] for c in ("column_px", "row_px", "in_view", "off_px")] == ["200.0000", "40.0000", "no", "3.0000"]
    report = (tmp_path / "export" / "report.html").read_text(encoding="utf-8")
    assert "aside &lt;&amp;&gt;" in report
    assert "nan" not in report


def test_what_cannot_be_exported_leaves_the_folder_as_it_was(logic, phantom, registered, tmp_path) -> None:
    ct, xray = registered
    folder = tmp_path / "export"
    with pytest.raises(InputError, match="choose a volume"):
        logic.exportResult(xray, folder, None)
    (tmp_path / "file").write_text("a file")
    with pytest.raises(InputError, match="is a file"):
        logic.exportResult(xray, tmp_path / "file", ct)
    logic.setCamera(xray, sourceDetectorDistance=1010.0)  # the pose was found with another camera
    with pytest.raises(InputError, match="register it"):
        logic.exportResult(xray, folder, ct)
    logic.setCamera(xray, sourceDetectorDistance=1000.0)
    logic.moveToView(xray, ct, "pa")
    with pytest.raises(InputError, match="'shot' stands at no result; register it"):
        logic.exportResult(xray, folder, ct)
    assert not folder.exists()


# what is no such node


@pytest.fixture
def cast(logic, tmp_path):
    """Nodes of every kind, by name: those that fit, and those that never do."""
    values, ras_from_ijk = _balls()
    ct = _ct_node(values, ras_from_ijk)
    xray = _import(logic, tmp_path, WIDE)
    other = slicer.vtkMRMLScene()
    kinds = {"scalar": "vtkMRMLScalarVolumeNode", "points": "vtkMRMLMarkupsFiducialNode"}
    strangers = {name: other.AddNewNodeByClass(kind, f"stranger {name}") for name, kind in kinds.items()}
    strangers["scalar"].CopyContent(xray)
    strangers["scalar"].SetAttribute(xray_nodes.ROLE, xray_nodes.XRAY)
    strangers["points"].AddControlPoint((1.0, 2.0, 3.0), "a")
    return {
        "ct": ct,
        "x-ray": xray,
        "points": _points(np.eye(3), "abc"),
        "transform": _transform(TABLE),
        "nothing": None,
        "another scene's x-ray": strangers["scalar"],
        "another scene's points": strangers["points"],
        "scene": other,
    }


CALLS = {
    "renderDRR of": lambda logic, n, c: logic.renderDRR(n, c["x-ray"]),
    "renderDRR on": lambda logic, n, c: logic.renderDRR(c["ct"], n),
    "projectLandmarks": lambda logic, n, c: logic.projectLandmarks(n, c["x-ray"]),
    "projectLandmarks on": lambda logic, n, c: logic.projectLandmarks(c["points"], n),
    "register to": lambda logic, n, c: logic.register(n, c["x-ray"], start="current"),
    "register": lambda logic, n, c: logic.register(c["ct"], n, start="current"),
    "startRegistration": lambda logic, n, c: logic.startRegistration(c["ct"], [n]),
    "setCamera": lambda logic, n, c: logic.setCamera(n, sourceDetectorDistance=1000.0),
    "useAsXRay": lambda logic, n, c: logic.useAsXRay(n),
    "moveToView": lambda logic, n, c: logic.moveToView(n, c["ct"], "ap"),
    "moveToView of": lambda logic, n, c: logic.moveToView(c["x-ray"], n, "ap"),
    "moveToLandmarks": lambda logic, n, c: logic.moveToLandmarks(n, c["points"], c["points"]),
    "moveToLandmarks from": lambda logic, n, c: logic.moveToLandmarks(c["x-ray"], n, c["points"]),
    "moveToLandmarks to": lambda logic, n, c: logic.moveToLandmarks(c["x-ray"], c["points"], n),
    "segmentBone": lambda logic, n, c: logic.segmentBone(n),
    "sampleLandmarks": lambda logic, n, c: logic.sampleLandmarks(n, c["points"]),
    "resultOf": lambda logic, n, c: logic.resultOf(n),
    "undo": lambda logic, n, c: logic.undo(n),
    "exportResult": lambda logic, n, c: logic.exportResult(n, "nowhere", c["ct"]),
    "viewFromSource": lambda logic, n, c: logic.viewFromSource(n),
    "showOverlay": lambda logic, n, c: logic.showOverlay(n, "blend"),
    "removeXRay": lambda logic, n, c: logic.removeXRay(n),
}
_FITS = {
    "renderDRR of": ("ct",), "register to": ("ct",), "segmentBone": ("ct",), "moveToView of": ("ct",),
    "projectLandmarks": ("points",),
}  # fmt: skip


@pytest.mark.parametrize("call", CALLS)
def test_wrong_nodes_are_refused_in_one_line(logic, cast, call: str) -> None:
    fits = _FITS.get(call, () if call.startswith(("moveToLandmarks ", "useAsXRay", "sample")) else ("x-ray",))
    wrong = [name for name in cast if name not in (*fits, "scene")]
    nodes = slicer.mrmlScene.GetNumberOfNodes()
    problems = []
    for name in wrong:
        try:
            CALLS[call](logic, cast[name], cast)
            problems.append(f"{name}: accepted")
        except InputError as error:
            if "\n" in str(error):
                problems.append(f"{name}: {error}")
        except Exception as error:
            problems.append(f"{name}: {type(error).__name__}: {error}")
    assert not problems, "\n".join(problems)
    assert slicer.mrmlScene.GetNumberOfNodes() == nodes
