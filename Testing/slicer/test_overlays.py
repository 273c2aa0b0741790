"""Overlays in Slicer's own slice view: the DRR lies on the X-ray, in its grey values, and stays there."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
import slicer.util
from scipy import ndimage
from XRayRegistrationScene import drr_nodes, overlays, poses, slice_views, xray_nodes
from XRayRegistrationScene.sync import SceneSync

from Testing.slicer.slice_view import SliceView
from Testing.unit.ct_phantom import ct_phantom
from XRayRegistrationLib.bone.model import build_bone_model
from XRayRegistrationLib.drr.render import render
from XRayRegistrationLib.drr.volume import AttenuationVolume
from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.carm import camera_from_ct_from_angles
from XRayRegistrationLib.geometry.rigid import inverse, transform_points

pytestmark = pytest.mark.usefixtures("scene")

#: not square, off centre, different spacing along rows and columns
CAMERA = Camera.from_spacing(96, 70, (2.0, 2.6), 1020.0, principal_point_px=(40.2, 37.7))
BALL = np.array([12.0, -7.0, 9.0])
POSE = camera_from_ct_from_angles(130.0, 20.0, 25.0, centre_ct=BALL, source_object_distance_mm=700.0, offset_mm=(11.0, -6.0))


@pytest.fixture
def view(application, scene):
    view = SliceView(application, (601, 433))
    yield view
    view.close()


@pytest.fixture(scope="module")
def ball() -> AttenuationVolume:
    """A ball of 30 mm radius with a soft edge."""
    ras_from_ijk = np.diag([2.0, 2.0, 2.0, 1.0])
    ras_from_ijk[:3, 3] = BALL - 40.0
    k, j, i = np.mgrid[:41, :41, :41] * 2.0 - 40.0
    return AttenuationVolume(0.02 * np.clip(30.5 - np.sqrt(i**2 + j**2 + k**2), 0, 1).astype(np.float32), ras_from_ijk)


@pytest.fixture(scope="module")
def phantom():
    return build_bone_model(ct_phantom()).full


@pytest.fixture
def sync(scene):
    waiting = []
    sync = SceneSync(waiting.append, drr_px=48, backend="scipy")

    def run():
        calls, waiting[:] = waiting[:], []
        for call in calls:
            call()

    sync.run = run
    yield sync
    sync.close()


def _with_drr(attenuation, camera=CAMERA, pose=POSE, *, drr_px=None, drr_pose=None, values=None):
    """An X-ray that shows the attenuation at ``pose`` and has its DRR at ``drr_pose``."""
    image = render(attenuation, camera, pose, backend="scipy")
    node = xray_nodes.add_xray(image if values is None else values(image), camera, "shot")
    xray_nodes.set_camera_from_world(node, pose if drr_pose is None else drr_pose)
    drr_nodes.update_drr(node, drr_nodes.drr_image(attenuation, node, drr_px, "scipy"))
    xray_nodes.set_camera_from_world(node, pose)
    return node


def _intensity(image):
    return (4000 * np.exp(-0.4 * image)).astype(np.uint16)


def _grey(view):
    return view.picture()[..., 0].astype(float)


def _pictures(node, view):
    """The grey picture of each mode."""
    out = {}
    for mode in ("xray", "drr", "blend", "checkerboard"):
        overlays.show_overlay(node, mode, view.node)
        out[mode] = _grey(view)
    return out


def _image_pixels(view, node):
    """(rows, columns, 2): which pixel (u, v) of the X-ray each pixel of the view shows."""
    camera = xray_nodes.camera_of(node)
    world_from_camera = inverse(xray_nodes.camera_from_world_of(node))
    u, v = np.array([0.0, 50.0]), np.array([0.0, 40.0])
    ends = np.stack([u, v, np.ones(2)], axis=-1) @ np.linalg.inv(camera.K).T * camera.source_detector_distance_mm
    (c0, r0), (c1, r1) = view.pixels_of(transform_points(world_from_camera, ends))
    columns, rows, _ = view.node.GetDimensions()
    row, column = np.mgrid[:rows, :columns]
    return np.stack([50.0 * (column - c0) / (c1 - c0), 40.0 * (row - r0) / (r1 - r0)], axis=-1)


def _inside(view, node, rim=0.5):
    camera, pixels = xray_nodes.camera_of(node), _image_pixels(view, node)
    return (np.minimum(pixels, [camera.width - 1, camera.height - 1] - pixels) > rim).all(axis=-1)


def _centroid(weight, pixels):
    return (weight[..., None] * pixels).sum(axis=(0, 1)) / weight.sum()


@pytest.mark.parametrize("drr_px", [None, 48, 29])
@pytest.mark.parametrize("camera", [CAMERA, Camera.from_spacing(60, 110, 2.2, 1000.0)], ids=["wide", "tall"])
def test_the_drr_lies_on_the_x_ray(view, ball, camera, drr_px) -> None:
    node = _with_drr(ball, camera, drr_px=drr_px)
    pictures = _pictures(node, view)
    pixels = _image_pixels(view, node)
    image = slicer.util.arrayFromVolume(node)[0]
    v, u = np.mgrid[: camera.height, : camera.width]
    expected = _centroid(image, np.stack([u, v], axis=-1))
    for mode in ("xray", "drr", "blend"):
        assert pictures[mode].max() > 200
        np.testing.assert_allclose(_centroid(pictures[mode], pixels), expected, atol=0.1, err_msg=mode)


def test_the_x_ray_is_upright_and_whole(view) -> None:
    values = np.zeros((70, 96), np.float32)
    values[5:12, 70:90] = 1.0  # above, at the right
    values[60:65, 5:10] = 0.5
    for primary in (0.0, 90.0, 180.0, -130.0):
        node = xray_nodes.add_xray(values, CAMERA, "shot")
        pose = camera_from_ct_from_angles(primary, 20.0, -40.0, centre_ct=BALL, source_object_distance_mm=700.0)
        xray_nodes.set_camera_from_world(node, pose)
        overlays.show_overlay(node, "xray", view.node)
        seen = _grey(view)
        assert seen[: 433 // 3, 601 // 2 :].max() > 200
        assert seen[433 // 2 :, :301].max() > 60
        assert seen[433 // 2 :, 301:].max() == 0
        corners = np.array([[-0.5, -0.5], [95.5, 69.5]])
        pixels = _image_pixels(view, node)
        assert (pixels[0, 0] <= corners[0] + 0.2).all()
        assert (pixels[-1, -1] >= corners[1] - 0.2).all()


def test_edges_are_thin_and_on_the_outline(view, ball) -> None:
    for drr_px in (None, 40, 25):
        node = _with_drr(ball, drr_px=drr_px)
        overlays.show_overlay(node, "xray", view.node)
        plain = view.picture()
        overlays.show_overlay(node, "edges", view.node)
        seen = view.picture()
        coloured = (seen.max(axis=-1).astype(int) - seen.min(axis=-1)) > 60
        changed = (seen != plain).any(axis=-1)
        rays = CAMERA.resized(960, 700).ray_directions()
        missed_mm = np.linalg.norm(np.cross(transform_points(POSE, BALL), rays), axis=-1) / np.linalg.norm(rays, axis=-1)
        shadow = missed_mm < 30.0
        pixels = _image_pixels(view, node)
        # in pixels of a finer image; a pixel of the X-ray is ten of them
        distance = ndimage.distance_transform_edt(shadow) + ndimage.distance_transform_edt(~shadow)
        there = ndimage.map_coordinates(distance, [(pixels[..., 1] + 0.5) * 10 - 0.5, (pixels[..., 0] + 0.5) * 10 - 0.5], order=1)
        # smoothing draws a ball's outline a little inwards
        drr_pixel = 10.0 * (1.0 if drr_px is None else 96 / drr_px)
        assert np.median(there[coloured]) < 0.5 * drr_pixel
        assert there[coloured].max() < 1.0 * drr_pixel
        around = np.arctan2(*(pixels[coloured] - _centroid(plain[..., 0].astype(float), pixels)).T)
        assert np.histogram(around, 24)[0].min() > 5  # all the way
        assert changed.mean() < 0.02  # transparent elsewhere
        slicer.mrmlScene.RemoveNode(node)


def test_edges_are_of_bone_where_it_is_known(view, sync, phantom) -> None:
    node = _with_drr(phantom)
    bone = build_bone_model(ct_phantom()).bone
    bony = ndimage.binary_dilation(render(bone, CAMERA, POSE, backend="scipy") > 0.1)

    def share_on_bone():
        seen = view.picture().astype(int)
        coloured = (seen.max(axis=-1) - seen.min(axis=-1)) > 60
        assert coloured.sum() > 500
        u, v = np.clip(np.round(_image_pixels(view, node)[coloured]).astype(int), 0, [95, 69]).T
        return bony[v, u].mean()

    overlays.show_overlay(node, "edges", view.node)
    assert share_on_bone() < 0.6  # skin
    overlays.show_overlay(node, "edges", view.node, bone_image=drr_nodes.drr_image(bone, node, None, "scipy"))
    assert share_on_bone() > 0.9
    overlays.show_overlay(node, "edges", view.node)
    sync.follow(node, phantom, bone=bone)
    sync.run()
    assert share_on_bone() > 0.85


def test_a_blend_is_between_both(view, phantom) -> None:
    turned = POSE.copy()
    turned[0, 3] += 15.0
    node = _with_drr(phantom, drr_pose=turned)
    pictures = _pictures(node, view)
    assert np.abs(pictures["xray"] - pictures["drr"]).max() > 40
    for opacity, show in ((0.0, overlays.show_overlay), (0.3, overlays.show_overlay), (1.0, None), (0.7, None)):
        if show:
            show(node, "blend", view.node, opacity)
        else:
            overlays.set_opacity(view.node, opacity)
        expected = (1 - opacity) * pictures["xray"] + opacity * pictures["drr"]
        assert np.abs(_grey(view) - expected)[_inside(view, node)].max() < 3


def test_a_checkerboard_alternates(view, phantom) -> None:
    turned = POSE.copy()
    turned[0, 3] += 25.0
    node = _with_drr(phantom, drr_pose=turned, drr_px=50)
    pictures = _pictures(node, view)
    where = overlays.squares(CAMERA)
    side_mm = 2.0 * 96 / overlays.SQUARES  # of a square
    assert where[0, 0] == False  # noqa: E712
    assert where[0, round(1.5 * side_mm / 2.0)]
    assert where[round(1.5 * side_mm / 2.6), 0]
    assert not where[round(1.5 * side_mm / 2.6), round(1.5 * side_mm / 2.0)]
    pixels = np.round(_image_pixels(view, node)).astype(int)
    inside = _inside(view, node, 1.0)
    pixels = np.clip(pixels, 0, [95, 69])

    def within(tiles):  # away from the squares' borders, where the view interpolates
        return inside & ndimage.binary_erosion(tiles, np.ones((3, 3)))[pixels[..., 1], pixels[..., 0]]

    for tiles, same, other in ((where, "drr", "xray"), (~where, "xray", "drr")):
        at = within(tiles)
        assert at.sum() > 10000
        assert np.abs(pictures["checkerboard"] - pictures[same])[at].mean() < 1.5
        assert np.abs(pictures["checkerboard"] - pictures[other])[at].mean() > 6


@pytest.mark.parametrize("colours", ["Grey", "InvertedGrey"])
@pytest.mark.parametrize("bone", ["bright", "dark"])
def test_both_look_alike_whatever_the_polarity(view, phantom, bone, colours) -> None:
    node = _with_drr(phantom, values=_intensity if bone == "dark" else None)
    xray_nodes.set_preparation(node, f"bone_{bone}")
    node.GetDisplayNode().SetAndObserveColorNodeID(f"vtkMRMLColorTableNode{colours}")
    pictures = _pictures(node, view)
    at = _inside(view, node)
    assert pictures["xray"][at].std() > 20
    assert np.corrcoef(pictures["xray"][at], pictures["drr"][at])[0, 1] > 0.99
    assert np.abs(pictures["xray"] - pictures["drr"])[at].mean() < 4


def test_there_is_one_overlay_and_none_for_the_x_ray_alone(view, ball) -> None:
    node = _with_drr(ball)
    first = overlays.show_overlay(node, "blend", view.node)
    for mode in ("edges", "checkerboard", "drr"):
        assert overlays.show_overlay(node, mode, [view.node]) is first
        assert overlays.mode_of(node) == mode
        assert view.composite.GetForegroundVolumeID() == first.GetID()
    assert overlays.show_overlay(node, "xray", view.node) is None
    assert overlays.mode_of(node) == "xray"
    assert not view.composite.GetForegroundVolumeID()
    assert not [n for n in slicer.util.getNodesByClass("vtkMRMLNode") if "overlay" in (n.GetName() or "")]


def test_what_cannot_be_shown_is_said_and_nothing_is_left(view, ball) -> None:
    bare = xray_nodes.add_xray(np.random.default_rng(0).random((70, 96)).astype(np.float32), CAMERA, "bare")
    flat = _with_drr(ball, values=lambda image: np.ones_like(image))
    node = _with_drr(ball)
    before = slicer.mrmlScene.GetNumberOfNodes()
    for xray, mode, opacity, message in (
        (bare, "blend", 0.5, "no DRR"),
        (flat, "checkerboard", 0.5, "everywhere"),
        (node, "mixed", 0.5, "allowed are xray, drr, blend, checkerboard, edges"),
        (node, "blend", 1.5, "allowed is 0"),
    ):
        with pytest.raises(InputError, match=message) as error:
            overlays.show_overlay(xray, mode, view.node, opacity)
        assert "\n" not in str(error.value)
    assert slicer.mrmlScene.GetNumberOfNodes() == before


def test_overlay_and_view_follow_the_pose(view, sync, phantom) -> None:
    node = _with_drr(phantom)
    sync.follow(node, phantom, bone=build_bone_model(ct_phantom()).bone)
    sync.run()
    for mode in ("blend", "checkerboard", "edges", "drr"):
        overlays.show_overlay(node, mode, view.node)
        sync.run()
        before = view.picture().astype(float)
        pose = xray_nodes.camera_from_world_of(node)
        pose[0, 3] += 20.0
        xray_nodes.set_camera_from_world(node, pose)
        sync.run()
        after = view.picture().astype(float)
        assert after.max() > 200, mode
        assert np.abs(after - before).max() > 30, mode
        overlays.show_overlay(node, "xray", view.node)
        alone = view.picture()
        xray_nodes.set_camera_from_world(node, camera_from_ct_from_angles(10, 5, centre_ct=BALL, source_object_distance_mm=650.0))
        sync.run()
        assert np.abs(view.picture().astype(float) - alone).max() < 3, mode  # the X-ray stands still in its view


def test_zoom_and_pan_stay(view, sync, ball) -> None:
    node = _with_drr(ball)
    sync.follow(node, ball)
    sync.run()
    overlays.show_overlay(node, "blend", view.node)
    view.node.SetFieldOfView(60.0, 43.0, 1.0)
    world_from_view = view.node.GetSliceToRAS()
    for row in range(3):  # 10 mm to the right in the picture
        world_from_view.SetElement(row, 3, world_from_view.GetElement(row, 3) + 10.0 * world_from_view.GetElement(row, 0))
    view.node.UpdateMatrices()
    before = _image_pixels(view, node)
    overlays.show_overlay(node, "drr", view.node)
    np.testing.assert_allclose(_image_pixels(view, node), before, atol=1e-6)
    pose = camera_from_ct_from_angles(10, 5, centre_ct=BALL, source_object_distance_mm=650.0)
    xray_nodes.set_camera_from_world(node, pose)
    sync.run()
    np.testing.assert_allclose(_image_pixels(view, node), before, atol=1e-6)


def test_the_contrast_is_one(view, sync, ball) -> None:
    node = _with_drr(ball)
    sync.follow(node, ball)
    sync.run()
    overlay = overlays.show_overlay(node, "blend", view.node)
    sync.run()
    display, own = node.GetDisplayNode(), overlay.GetDisplayNode()
    display.AutoWindowLevelOff()
    display.SetWindowLevel(0.4, 0.9)
    assert (own.GetWindow(), own.GetLevel()) == (0.4, 0.9)
    own.SetWindowLevel(0.7, 0.6)  # a mouse in the view adjusts what lies on top
    assert (display.GetWindow(), display.GetLevel()) == (0.7, 0.6)
    for mode in ("edges", "drr", "checkerboard", "edges", "blend"):
        overlays.show_overlay(node, mode, view.node)
        sync.run()
        assert (display.GetWindow(), display.GetLevel()) == (0.7, 0.6), mode
    assert (own.GetWindow(), own.GetLevel()) == (0.7, 0.6)


def test_what_is_deleted_stays_deleted(view, sync, ball) -> None:
    node = _with_drr(ball)
    sync.follow(node, ball)
    sync.run()
    overlay = overlays.show_overlay(node, "blend", view.node)
    sync.run()
    slicer.mrmlScene.RemoveNode(overlay)
    xray_nodes.set_camera_from_world(node, xray_nodes.camera_from_world_of(node) + np.eye(4, k=3) * 5)
    sync.run()
    assert node.GetNodeReference(overlays.REFERENCE) is None
    assert overlays.show_overlay(node, "edges", view.node) is not None  # asked for again
    sync.run()
    slicer.mrmlScene.RemoveNode(node.GetNodeReference(drr_nodes.REFERENCE))
    xray_nodes.set_camera_from_world(node, POSE)
    sync.run()
    assert node.GetNodeReference(drr_nodes.REFERENCE) is None
    assert node.GetNodeReference(overlays.REFERENCE) is None  # it would show an old pose


def test_x_ray_and_scene_can_go_at_any_time(view, sync, ball) -> None:
    names = {node.GetName() for node in slicer.util.getNodesByClass("vtkMRMLNode")}
    node = _with_drr(ball)
    sync.follow(node, ball)
    sync.run()
    overlays.show_overlay(node, "edges", view.node)
    slicer.mrmlScene.RemoveNode(node)
    sync.run()
    assert {node.GetName() for node in slicer.util.getNodesByClass("vtkMRMLNode")} == names
    assert not view.composite.GetForegroundVolumeID()
    node = _with_drr(ball)
    sync.follow(node, ball)
    overlays.show_overlay(node, "blend", view.node)
    slicer.mrmlScene.Clear(0)
    sync.run()
    assert not slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")


def test_everything_is_saved_with_the_scene(view, sync, phantom, tmp_path) -> None:
    for mode in ("edges", "checkerboard", "blend"):
        node = _with_drr(phantom, values=_intensity)
        poses.remember(node, "start")
        overlays.show_overlay(node, mode, view.node, 0.4)
        before = view.picture().astype(float)
        file = str(tmp_path / f"{mode}.mrb")
        assert slicer.mrmlScene.WriteToMRB(file)
        slicer.mrmlScene.Clear(0)
        assert slicer.mrmlScene.ReadFromMRB(file)
        (node,) = xray_nodes.xray_nodes()
        assert overlays.mode_of(node) == mode
        assert np.abs(view.picture().astype(float) - before).max() < 3, mode
        np.testing.assert_allclose(poses.remembered(node)["start"], POSE, atol=1e-5)
        sync.follow(node, phantom)
        sync.run()
        xray_nodes.set_camera_from_world(node, camera_from_ct_from_angles(10, 5, centre_ct=BALL, source_object_distance_mm=650.0))
        sync.run()
        assert np.abs(view.picture().astype(float) - before).max() > 30
        slicer.mrmlScene.Clear(0)


def test_start_and_result_are_remembered(scene) -> None:
    cameras = [Camera.from_spacing(96, 70, 2.0, 1000.0, camera_from_rig=rig) for rig in (np.eye(4), inverse(POSE))]
    nodes = [xray_nodes.add_xray(np.zeros((70, 96), np.float32), camera, f"view {n}") for n, camera in enumerate(cameras)]
    xray_nodes.share_pose(nodes)
    xray_nodes.set_camera_from_world(nodes[0], POSE)
    second = xray_nodes.camera_from_world_of(nodes[1])
    poses.remember(nodes[0], poses.START)
    xray_nodes.set_camera_from_world(nodes[0], np.eye(4))
    poses.remember(nodes[1], poses.RESULT)
    assert list(poses.remembered(nodes[0])) == ["start", "result"]
    np.testing.assert_allclose(poses.remembered(nodes[1])["start"], second, atol=1e-9)
    poses.go_to(nodes[1], "start")
    np.testing.assert_allclose(xray_nodes.camera_from_world_of(nodes[0]), POSE, atol=1e-9)
    poses.go_to(nodes[0], "result")
    np.testing.assert_allclose(xray_nodes.camera_from_world_of(nodes[0]), np.eye(4), atol=1e-9)
    with pytest.raises(InputError, match="allowed are start, result"):
        poses.go_to(nodes[0], "strat")
    with pytest.raises(InputError, match="needs a name"):
        poses.remember(nodes[0], "")
    poses.forget(nodes[0], "start")
    assert list(poses.remembered(nodes[1])) == ["result"]
    poses.forget(nodes[0])
    with pytest.raises(InputError, match="none is kept yet"):
        poses.go_to(nodes[0], "start")


def test_the_view_of_another_x_ray_stays(application, view, sync, ball) -> None:
    other_view = SliceView(application, (300, 200), "Green")
    first, second = _with_drr(ball), _with_drr(ball)
    for node in (first, second):
        sync.follow(node, ball)
    sync.run()
    overlays.show_overlay(first, "blend", view.node)
    overlays.show_overlay(second, "edges", other_view.node)
    assert slice_views.views_of(first) == [view.node]
    before = other_view.picture()
    xray_nodes.set_camera_from_world(first, camera_from_ct_from_angles(10, 5, centre_ct=BALL, source_object_distance_mm=650.0))
    sync.run()
    assert (other_view.picture() == before).all()
    other_view.close()
