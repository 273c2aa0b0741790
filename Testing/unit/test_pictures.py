"""Pictures show what is there: letters, scale, outlines and the scene against hand-made geometry."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from XRayRegistrationLib.bone.model import BoneModel
from XRayRegistrationLib.drr.volume import AttenuationVolume
from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.files.atomic import OutputFolder
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.rigid import from_rotation_translation, rotation_exp, transform_points
from XRayRegistrationLib.images.volume import Volume
from XRayRegistrationLib.images.xray import XRay
from XRayRegistrationLib.pictures import raster
from XRayRegistrationLib.pictures.orientation import beam_words, direction_letters, edge_letters, scale_bar
from XRayRegistrationLib.pictures.scene import bone_surface, draw_scene
from XRayRegistrationLib.pictures.verdict import percentage, verdict_of
from XRayRegistrationLib.pictures.view import picture_size, picture_view
from XRayRegistrationLib.pictures.write import write_pictures
from XRayRegistrationLib.result import Result, View

# AP as it is displayed: columns run to the patient's left (-R), rows to the feet (-S), the beam to the back (-A)
AP = from_rotation_translation(np.array([[-1.0, 0, 0], [0, 0, -1.0], [0, -1.0, 0]]), [0.0, 0.0, 700.0])
CAMERA = Camera.from_spacing(96, 64, (3.0, 3.0), 1000.0)
RADIUS = 40.0


def ball_model(
    spacing: tuple[float, float, float] = (2.0, 2.0, 2.0), radius: float = RADIUS, bone_only: bool = False
) -> BoneModel:
    """A ball of bone at the origin on an oblique grid."""
    affine = np.eye(4)
    affine[:3, :3] = rotation_exp([0.3, 0.1, -0.2]) @ np.diag(spacing)
    n = np.ceil(2.6 * radius / np.array(spacing)).astype(int)
    affine[:3, 3] = -affine[:3, :3] @ ((n - 1) / 2)
    kji = np.stack(np.meshgrid(*(np.arange(m) for m in n[::-1]), indexing="ij"), axis=-1)
    points = transform_points(affine, kji[..., ::-1])
    inside = np.linalg.norm(points, axis=-1) <= radius
    volume = AttenuationVolume(0.03 * inside.astype(np.float32), affine)
    surface = points[inside][:: max(1, inside.sum() // 500)]
    return BoneModel(volume, volume, surface, np.zeros(3), Volume(inside.astype(np.uint8), affine), bone_only)


def ball_xray(model: BoneModel, camera: Camera = CAMERA) -> XRay:
    from XRayRegistrationLib.drr.render import render

    image = render(model.full, camera, AP)
    mask = np.ones(image.shape, bool)
    mask[:4] = False
    return XRay(image, mask, camera)


def ball_result(**changes: object) -> Result:
    values: dict = {
        "status": "success", "message": "Bones agree.", "method": "m", "views": (View(CAMERA),),
        "camera_from_ct_views": AP[None], "proposed_camera_from_ct_views": AP[None], "probability": 0.97,
        "landmarks_ct": np.array([[0.0, 0, 0], [0, 0, RADIUS]]), "landmark_names": ("centre", "top"),
    }  # fmt: skip
    return Result(**{**values, **changes})


def read_png(data: bytes, folder: Path) -> np.ndarray:
    (folder / "x.png").write_bytes(data)
    return sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "x.png")))


# --- orientation and scale ----------------------------------------------------------------------


def test_letters_of_an_ap_view_are_those_of_a_radiograph() -> None:
    assert edge_letters(AP) == {"left": "R", "right": "L", "top": "S", "bottom": "I"}
    assert beam_words(AP) == "front to back"


def test_letters_of_a_lateral_view() -> None:
    # columns run to the front (+A), rows to the feet, the beam from left to right (+R)
    lateral = from_rotation_translation(np.array([[0, 1.0, 0], [0, 0, -1.0], [-1.0, 0, 0]]), [0, 0, 700.0])
    assert np.linalg.det(lateral) == pytest.approx(1)
    assert edge_letters(lateral) == {"left": "P", "right": "A", "top": "S", "bottom": "I"}
    assert beam_words(lateral) == "right to left"


@pytest.mark.parametrize(
    ("direction", "letters"),
    [
        ((1, 0, 0), "R"),
        ((-5, 0, 0), "L"),
        ((0, 3, 0), "A"),
        ((0, -1, 0), "P"),
        ((0, 0, 1), "S"),
        ((0, 0, -1), "I"),
        ((-1, 0.8, 0), "LA"),
        ((0.8, -1, 0.1), "PR"),
        ((1, 0.2, 0.1), "R"),
    ],
)
def test_direction_letters(direction: tuple, letters: str) -> None:
    assert direction_letters(direction) == letters


def test_scale_bar_measures_at_the_bones_depth() -> None:
    # fx = 1000 / 3 px, depth 700 mm: 1 mm is 0.476 px, a fifth of 96 px is about 44 mm
    length_mm, length_px = scale_bar(CAMERA, AP, np.zeros(3))  # type: ignore[misc]
    assert length_mm == 20
    ends = CAMERA.project(transform_points(AP, np.array([[0.0, 0, 0], [-20.0, 0, 0]])))
    assert ends[1, 0] - ends[0, 0] == pytest.approx(length_px)
    assert scale_bar(CAMERA, AP, [0, 800.0, 0]) is None  # behind the source


# --- grey pictures ------------------------------------------------------------------------------


def test_outlines_of_a_ball_are_its_circle() -> None:
    camera = Camera.from_spacing(300, 300, 1.0, 1000.0)
    model = ball_model()
    view = picture_view(ball_xray(model, camera), model, AP, longest_side=300)
    # the tangent cone: sin(a) = r / d, so the circle's radius on the detector is SDD tan(a)
    radius_px = 1000.0 * np.tan(np.arcsin(RADIUS / 700.0))
    v, u = np.nonzero(view.edges)
    distance = np.hypot(u - 149.5, v - 149.5)
    assert len(u) > 1.5 * np.pi * radius_px  # most of the way round
    assert np.abs(distance - radius_px).max() < 4  # a blurred edge's steepest place lies inside the rim
    angle = np.arctan2(v - 149.5, u - 149.5)
    assert (np.histogram(angle, 12, (-np.pi, np.pi))[0] > 0).all()


def test_outlines_of_nothing_are_none() -> None:
    assert not raster.outlines(np.zeros((20, 30))).any()
    assert not raster.outlines(np.full((20, 30), 3.0)).any()


def test_processing_ignores_what_the_mask_excludes() -> None:
    rng = np.random.default_rng(0)
    image = rng.random((60, 80)).astype(np.float32) + 1
    mask = np.zeros(image.shape, bool)
    mask[5:50, 10:70] = True
    disturbed = np.where(mask, image, 1000 * rng.random(image.shape)).astype(np.float32)
    np.testing.assert_allclose(raster.processed(disturbed, mask)[mask], raster.processed(image, mask)[mask], atol=1e-5)


def test_processing_keeps_air_black_and_brings_out_faint_bone() -> None:
    image = np.zeros((200, 200), np.float32)
    image[:, 40:] = np.linspace(1.0, 9.0, 160)  # a body that gets thicker
    image[90:110, 60:64] += 0.3
    shown = raster.processed(image)
    assert shown[:, :30].max() < 0.02
    assert shown[100, 62] - shown[60, 62] > 0.1  # 0.3 of 9 would be 0.03 in a linear window
    assert shown.min() >= 0
    assert shown.max() <= 1


def test_matching_undoes_a_monotone_contrast() -> None:
    fixed = np.random.default_rng(0).random((80, 80)).astype(np.float32)
    np.testing.assert_allclose(raster.matched(np.exp(3 * fixed), fixed), fixed, atol=0.01)
    assert np.isfinite(raster.matched(np.zeros((80, 80)), fixed)).all()


def test_checkerboard_takes_each_pixel_from_where_it_says() -> None:
    xray, drr = np.full((40, 64), 0.2, np.float32), np.full((40, 64), 0.8, np.float32)
    picture, from_drr = raster.checkerboard(xray, drr, squares=8)
    assert (picture[~from_drr] == np.float32(0.2)).all()
    assert (picture[from_drr] > 0.6).all()
    assert not from_drr[0, 0]
    assert from_drr[0, 8]
    assert from_drr[8, 0]
    assert not from_drr[8, 8]
    assert from_drr.mean() == pytest.approx(0.5, abs=0.05)


def test_a_blend_is_grey_only_where_both_agree() -> None:
    xray, drr = np.full((4, 4), 0.5, np.float32), np.full((4, 4), 0.5, np.float32)
    drr[0] = 0.9
    drr[1] = 0.1
    picture = raster.blended(xray, drr)
    np.testing.assert_allclose(picture[2:], 0.5, atol=1e-6)
    assert (picture[0, :, 2] > picture[0, :, 0] + 0.2).all()  # bluer: only the CT has bone there
    assert (picture[1, :, 0] > picture[1, :, 2] + 0.2).all()  # more orange: only the X-ray has


def test_a_tint_leaves_the_xray_alone_where_the_ct_has_no_bone() -> None:
    xray = np.random.default_rng(0).random((6, 6)).astype(np.float32)
    bone = np.zeros((6, 6), np.float32)
    bone[:3] = 0.8
    picture = raster.tinted(xray, bone)
    np.testing.assert_allclose(picture[3:], np.repeat(xray[3:, :, None], 3, axis=2), atol=1e-6)
    assert (picture[:3, :, 2] > picture[:3, :, 0] + 0.1).all()
    lighter = raster.tinted(np.clip(xray + 0.2, 0, 1), bone)
    assert (lighter[:3] >= picture[:3]).all()  # the X-ray still shows through


@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (5, 7, 3)])
def test_png_is_what_another_reader_reads(tmp_path: Path, shape: tuple) -> None:
    image = np.random.default_rng(0).random(shape)
    np.testing.assert_array_equal(read_png(raster.png_bytes(image), tmp_path), (image * 255 + 0.5).astype(np.uint8))
    np.testing.assert_array_equal(read_png(raster.png_bytes(2 * image - 0.5), tmp_path).shape, shape)


# --- one view -----------------------------------------------------------------------------------


def test_pictures_have_square_pixels_whatever_the_detector_has() -> None:
    camera = Camera.from_spacing(100, 100, (1.0, 2.0), 1000.0)
    assert picture_size(camera, 640) == (320, 640)
    model = ball_model()
    view = picture_view(ball_xray(model, camera), model, AP, longest_side=200)
    assert view.xray.shape == view.drr.shape == view.edges.shape == (200, 100)
    assert view.camera.K[0, 0] == pytest.approx(view.camera.K[1, 1])


def test_view_agrees_with_itself_at_the_true_pose_and_not_elsewhere() -> None:
    model = ball_model()
    xray = ball_xray(model)
    right = picture_view(xray, model, AP, [[0, 0, RADIUS]], longest_side=192)
    moved = AP.copy()
    moved[0, 3] += 15.0
    wrong = picture_view(xray, model, moved, longest_side=192)

    def difference(view) -> float:
        return float(np.abs(view.xray - view.drr)[view.mask].mean())

    assert difference(right) < 0.3 * difference(wrong)
    # twice as large: u' = (u + 0.5) 2 - 0.5
    np.testing.assert_allclose(
        right.landmarks_px, (CAMERA.project(transform_points(AP, [[0, 0, RADIUS]])) + 0.5) * 2 - 0.5
    )


# --- the scene ----------------------------------------------------------------------------------


@pytest.mark.parametrize("spacing", [(2.0, 2.0, 2.0), (1.0, 1.0, 5.0)])
def test_bone_surface_of_a_ball(spacing: tuple[float, float, float]) -> None:
    points, normals = bone_surface(ball_model(spacing).mask)
    distance = np.linalg.norm(points, axis=1)
    assert abs(np.median(distance) - RADIUS) < 0.25 * max(spacing)
    assert np.abs(distance - RADIUS).max() < max(spacing)
    outward = (normals * points).sum(axis=1) / distance
    assert np.median(outward) > 0.97
    assert (outward > 0).mean() > 0.99


def test_scene_shows_source_detector_and_bone_where_they_are() -> None:
    points, normals = bone_surface(ball_model().mask)
    white = np.ones((10, 10), np.float32)
    scene = draw_scene(points, normals, CAMERA, AP, white, 600, 400)
    rgb = scene.rgb
    assert rgb.shape == (400, 600, 3)

    def colour(name: str) -> np.ndarray:
        x, y = scene.anchors[name]
        return rgb[round(y) - 1 : round(y) + 2, round(x) - 1 : round(x) + 2].mean(axis=(0, 1))

    red, green, blue = colour("source")
    assert red > green > 2 * blue  # the yellow ball
    assert np.ptp(colour("detector")) < 0.15  # white, unless a ray's line runs through
    assert colour("detector").mean() > 0.8
    red, green, blue = colour("bone")
    assert red > green > blue > 0.1
    # seen from the side: the source and the detector lie on opposite sides of the bone
    source, bone, detector = (scene.anchors[name][0] for name in ("source", "bone", "detector"))
    assert (source - bone) * (detector - bone) < 0
    # the head is up: RAS z points to smaller y
    assert scene.viewer_from_ct[1, 2] < -0.5
    np.testing.assert_allclose(scene.viewer_from_ct @ scene.viewer_from_ct.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(scene.viewer_from_ct) == pytest.approx(1)  # no mirror image of the patient


def test_what_is_in_front_hides_what_is_behind() -> None:
    """A wall of bone between the viewer and everything else covers the bone behind it."""
    rng = np.random.default_rng(0)
    ball, normals = bone_surface(ball_model().mask)
    scene = draw_scene(ball, normals, CAMERA, AP, np.zeros((4, 4)), 300, 200)
    toward_viewer = -scene.viewer_from_ct[2]
    wall = toward_viewer * 60 + (rng.random((40_000, 2)) - 0.5) * 150 @ scene.viewer_from_ct[:2]
    lit = np.broadcast_to(scene.viewer_from_ct.T @ [-0.35, -0.45, -0.82], wall.shape)
    hidden = draw_scene(np.vstack([ball, wall]), np.vstack([normals, lit]), CAMERA, AP, np.zeros((4, 4)), 300, 200)
    x, y = hidden.anchors["bone"]
    patch = hidden.rgb[round(y) - 4 : round(y) + 5, round(x) - 4 : round(x) + 5]
    assert patch.std(axis=(0, 1)).max() < 0.02  # one flat colour, without the ball's shading


# --- words and files ----------------------------------------------------------------------------


def test_verdict_never_leaves_a_failure_to_the_colour() -> None:
    assert "accepted" in verdict_of(ball_result()).headline
    failed = verdict_of(ball_result(status="failure", probability=0.001))
    assert "FAILED, do not use" in failed.headline
    assert "under 1 %" in failed.headline
    assert (
        verdict_of(ball_result(ambiguity="The mirror view fits nearly as well.")).sentences[-1].startswith("The mirror")
    )
    assert [percentage(p) for p in (0.0, 0.5, 0.97, 1.0)] == ["under 1 %", "50 %", "97 %", "over 99 %"]


@pytest.mark.parametrize(("status", "colour"), [("success", (0x3D, 0xDC, 0x84)), ("failure", (0xFF, 0x5C, 0x5C))])
def test_figures_carry_the_verdict_and_the_picture(tmp_path: Path, status: str, colour: tuple) -> None:
    pytest.importorskip("matplotlib", reason="the extra 'pictures' is not installed")
    from XRayRegistrationLib.pictures import figures

    model = ball_model()
    result = ball_result(status=status, message="A long sentence that has to be wrapped. " * 8)
    view = picture_view(ball_xray(model), model, AP, result.landmarks_ct, result.landmark_names, longest_side=192)
    for draw in (figures.overlay_figure, figures.edges_figure, figures.checkerboard_figure):
        picture = read_png(draw(view, verdict_of(result)), tmp_path).astype(int)
        headline = picture[:34]
        assert (np.abs(headline - colour).max(axis=-1) < 12).sum() > 100
        assert picture[: len(picture) // 2].std() > 5
    overlay = read_png(figures.overlay_figure(view, verdict_of(result)), tmp_path).astype(int)
    cyan = (overlay[..., 2] > 180) & (overlay[..., 0] < 90)
    third = overlay.shape[1] // 3
    assert cyan[:, third : 2 * third].sum() > 100  # outlines in the middle panel
    assert cyan[:, :third].sum() == 0  # and none on the plain X-ray


@pytest.mark.parametrize("captions", [True, False])
@pytest.mark.parametrize("kind", ["basic", "all", "none"])
def test_picture_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, captions: bool) -> None:
    if captions:
        pytest.importorskip("matplotlib", reason="the extra 'pictures' is not installed")
    else:
        monkeypatch.setattr("XRayRegistrationLib.pictures.write.can_caption", lambda: False)
    model = ball_model()
    result = ball_result(
        views=(View(CAMERA), View(CAMERA)),
        camera_from_ct_views=np.stack([AP, AP]),
        proposed_camera_from_ct_views=np.stack([AP, AP]),
    )
    xrays = [ball_xray(model)] * 2
    with OutputFolder(tmp_path / "out") as out:
        names = write_pictures(out, result, xrays, model, kind=kind)
        written = out.commit()
    stems = {"basic": ["drr", "overlay"], "none": []}.get(kind, ["drr", "overlay", "edges", "checkerboard", "scene"])
    if not captions and kind == "all":
        stems = ["drr", "overlay"]
    assert sorted(names) == sorted(f"{stem}{n}.png" for stem in stems for n in ("", "_2"))
    assert sorted(names) == [p.name for p in written]
    if "drr" in stems:
        drr = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "out" / "drr.png")))
        assert drr.shape == (CAMERA.height, CAMERA.width)
        assert drr[CAMERA.height // 2, CAMERA.width // 2] > 200  # bone is bright
        assert drr[CAMERA.height // 2, 2] < 10
    assert all(p.stat().st_size < 700_000 for p in written)


@pytest.mark.parametrize("status", ["success", "failure"])
def test_a_failure_shows_without_words_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: str) -> None:
    monkeypatch.setattr("XRayRegistrationLib.pictures.write.can_caption", lambda: False)
    model = ball_model()
    with OutputFolder(tmp_path / "out") as out:
        write_pictures(out, ball_result(status=status), [ball_xray(model)], model)
        out.commit()
    picture = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "out" / "overlay.png"))).astype(int)
    red = (picture[..., 0] > 240) & (picture[..., 1] < 100)
    middle = red[picture.shape[0] // 2, picture.shape[1] // 2]
    assert (red[0].all() and red[:, -1].all() and middle) == (status == "failure")
    assert red.any() == (status == "failure")


def test_unknown_kind_of_pictures(tmp_path: Path) -> None:
    with OutputFolder(tmp_path / "out") as out, pytest.raises(InputError, match="'some' is unknown"):
        write_pictures(out, ball_result(), [], ball_model(), kind="some")


def test_a_camera_without_sdd_can_be_drawn() -> None:
    points, normals = bone_surface(ball_model().mask)
    scene = draw_scene(
        points, normals, replace(CAMERA, source_detector_distance_mm=None), AP, np.ones((4, 4)), 300, 200
    )
    assert np.isfinite(list(scene.anchors.values())).all()
    colour = scene.rgb[round(scene.anchors["detector"][1]), round(scene.anchors["detector"][0])]
    assert colour.mean() > 0.7
