"""A start from landmarks: exact on exact points from every direction, honest about the rest."""

from __future__ import annotations

import numpy as np
import pytest

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.carm import NAMED_VIEWS, camera_from_ct_from_angles, named_view
from XRayRegistrationLib.geometry.rigid import rotation_angle, rotation_exp, transform_points
from XRayRegistrationLib.solvers.landmark_pose import LandmarkPose, pose_from_landmarks

CAMERA = Camera.from_spacing(1536, 1536, 0.194, 1020.0)
ODD_CAMERA = Camera.from_spacing(900, 640, (0.4, 0.3), 1150.0, principal_point_px=(380.0, 351.5))
#: of a pelvis, roughly, in RAS mm
PELVIS = np.array(
    [
        [-128, 64, 31],
        [126, 66, 30],
        [-40, 92, -82],
        [38, 91, -84],
        [-92, -5, -42],
        [90, -4, -41],
        [-2, -81, 25],
        [-118, 20, 62],
        [121, 22, 60],
    ],
    dtype=float,
)


def _angle(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.degrees(rotation_angle(a[:3, :3], b[:3, :3])))


def _pose(rng: np.random.Generator, points: np.ndarray) -> np.ndarray:
    return camera_from_ct_from_angles(
        rng.uniform(-180, 180),
        rng.uniform(-60, 60),
        rng.uniform(-180, 180),
        centre_ct=points.mean(axis=0),
        source_object_distance_mm=rng.uniform(500, 850),
        offset_mm=tuple(rng.uniform(-60, 60, 2)),
    )


def _points(rng: np.random.Generator, n: int, flat: bool = False) -> np.ndarray:
    """In a box about the size of a bone, or in a plane through it, no two within 10 mm and not on a line."""
    while True:
        points = rng.uniform(-1, 1, (n, 3)) * rng.uniform(40, 110)
        if flat:
            turn = rotation_exp(rng.normal(0, 1, 3))
            points = (points @ turn * [1, 1, 0]) @ turn.T
        apart = np.linalg.norm(points[:, None] - points[None], axis=-1) + 99 * np.eye(n)
        extent = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
        if apart.min() > 10 and extent[1] > 0.15 * extent[0]:
            return points + rng.normal(0, 150, 3)


def _seen(points: np.ndarray, pose: np.ndarray, camera: Camera = CAMERA) -> np.ndarray:
    return camera.project(transform_points(pose, points))


@pytest.mark.parametrize("view", NAMED_VIEWS)
@pytest.mark.parametrize("camera", [CAMERA, ODD_CAMERA], ids=["square", "odd"])
def test_exact_points_give_the_exact_pose(view: str, camera: Camera) -> None:
    pose = named_view(view, PELVIS.mean(axis=0) + np.array([10, -20, 5]), 700.0)
    found = pose_from_landmarks(PELVIS, _seen(PELVIS, pose, camera), camera)
    np.testing.assert_allclose(found.camera_from_ct, pose, atol=1e-6)
    assert found.rms_px < 1e-7
    assert found.residuals_px.shape == found.residuals_mm.shape == (9,)
    assert found.warning == ""
    assert found.rival_camera_from_ct is None


def test_every_direction_is_found() -> None:
    """All of 240 random cases, of 4 to 10 points, a third of them in a plane."""
    rng = np.random.default_rng(7)
    for case in range(240):
        points = _points(rng, int(rng.integers(4, 11)), flat=case % 3 == 0)
        pose = _pose(rng, points)
        found = pose_from_landmarks(points, _seen(points, pose), CAMERA)
        assert _angle(found.camera_from_ct, pose) < 1e-4, case
        assert np.abs(transform_points(found.camera_from_ct, points) - transform_points(pose, points)).max() < 1e-2, case
        assert (transform_points(found.camera_from_ct, points)[:, 2] > 0).all()


def test_clicks_with_noise() -> None:
    rng = np.random.default_rng(3)
    angles, ratios = [], []
    for _ in range(60):
        points = _points(rng, 8)
        pose = _pose(rng, points)
        found = pose_from_landmarks(points, _seen(points, pose) + rng.normal(0, 1, (8, 2)), CAMERA)
        angles.append(_angle(found.camera_from_ct, pose))
        ratios.append(found.rms_px)
        assert found.warning == ""
    assert np.median(angles) < 0.3
    assert max(angles) < 1.5
    # of 16 numbers six are fitted: root of 2 (16 - 6) / 16
    assert np.sqrt(np.mean(np.square(ratios))) == pytest.approx(np.sqrt(2 * 10 / 16), rel=0.1)


def test_residuals_in_pixels_and_in_the_patient() -> None:
    pose = named_view("ap", PELVIS.mean(axis=0), 700.0)
    seen = _seen(PELVIS, pose, ODD_CAMERA) + np.random.default_rng(0).normal(0, 2, (9, 2))
    found = pose_from_landmarks(PELVIS, seen, ODD_CAMERA)
    camera_points = transform_points(found.camera_from_ct, PELVIS)
    offsets = ODD_CAMERA.project(camera_points) - seen
    np.testing.assert_allclose(found.residuals_px, np.linalg.norm(offsets, axis=1), atol=1e-9)
    rays = np.concatenate([(seen - ODD_CAMERA.K[:2, 2]) / np.diag(ODD_CAMERA.K)[:2], np.ones((9, 1))], axis=1)
    at_depth = rays * camera_points[:, 2:]
    np.testing.assert_allclose(found.residuals_mm, np.linalg.norm(at_depth - camera_points, axis=1), atol=1e-9)
    assert found.rms_px == pytest.approx(np.sqrt((found.residuals_px**2).mean()))


def test_it_is_a_minimum_and_repeatable() -> None:
    rng = np.random.default_rng(11)
    points = _points(rng, 6)
    seen = _seen(points, _pose(rng, points)) + rng.normal(0, 3, (6, 2))
    found = pose_from_landmarks(points, seen, CAMERA)
    np.testing.assert_array_equal(found.camera_from_ct, pose_from_landmarks(points, seen, CAMERA).camera_from_ct)
    for _ in range(50):
        other = found.camera_from_ct.copy()
        other[:3, :3] = rotation_exp(rng.normal(0, 1e-3, 3)) @ other[:3, :3]
        other[:3, 3] += rng.normal(0, 0.2, 3)
        assert np.sqrt(((_seen(points, other) - seen) ** 2).sum(axis=1).mean()) >= found.rms_px


def test_a_plane_has_a_mirrored_pose_and_it_is_said() -> None:
    """Necker: a tilted plane, small against its distance, looks the same tilted the other way."""
    plane = np.array([[-30, -30, 0], [30, -28, 0], [29, 31, 0], [-31, 30, 0], [4, -2, 0]], dtype=float)
    pose = camera_from_ct_from_angles(90, 65, 0, centre_ct=(0, 0, 0), source_object_distance_mm=800)
    seen = _seen(plane, pose) + np.random.default_rng(1).normal(0, 1, (5, 2))
    found = pose_from_landmarks(plane, seen, CAMERA)
    assert "another pose" in found.warning
    assert "off the plane" in found.warning
    assert "\n" not in found.warning
    assert found.rival_camera_from_ct is not None
    assert min(_angle(found.camera_from_ct, pose), _angle(found.rival_camera_from_ct, pose)) < 5
    turn = _angle(found.camera_from_ct, found.rival_camera_from_ct)
    assert turn == pytest.approx(50, abs=8)  # twice the angle between beam and normal
    # one landmark off the plane settles it
    more = np.concatenate([plane, [[5, 10, 45]]])
    found = pose_from_landmarks(more, _seen(more, pose), CAMERA)
    assert found.warning == ""
    assert _angle(found.camera_from_ct, pose) < 1e-3


def test_landmarks_close_together_are_weak() -> None:
    points = np.array([[0, 0, 0], [9, 0, 0], [0, 9, 0], [0, 0, 9], [7, 7, 7]], dtype=float)
    found = pose_from_landmarks(points, _seen(points, named_view("ap", (3, 3, 3), 700.0)), CAMERA)
    assert "further apart" in found.warning or "another pose" in found.warning


@pytest.mark.parametrize("n", [6, 9])
def test_exchanged_landmarks_are_named(n: int) -> None:
    names = [f"L{i}" for i in range(n)]
    pose = camera_from_ct_from_angles(160, 10, 5, centre_ct=PELVIS.mean(axis=0), source_object_distance_mm=700)
    seen = _seen(PELVIS[:n], pose) + np.random.default_rng(2).normal(0, 1, (n, 2))
    seen[[1, 4]] = seen[[4, 1]]
    with pytest.raises(InputError, match="L1 and L4 seem to be exchanged") as error:
        pose_from_landmarks(PELVIS[:n], seen, CAMERA, names)
    assert "\n" not in str(error.value)


def test_a_misplaced_landmark_is_named() -> None:
    pose = named_view("ap", PELVIS.mean(axis=0), 700.0)
    seen = _seen(PELVIS, pose)
    seen[6] += [600, -300]
    with pytest.raises(InputError, match="without 7 they fit"):
        pose_from_landmarks(PELVIS, seen, CAMERA)


def test_a_mirrored_picture_is_recognised() -> None:
    pose = camera_from_ct_from_angles(150, 15, 0, centre_ct=PELVIS.mean(axis=0), source_object_distance_mm=700)
    seen = _seen(PELVIS, pose)
    seen[:, 0] = CAMERA.width - 1 - seen[:, 0]
    with pytest.raises(InputError, match="mirror the X-ray left to right"):
        pose_from_landmarks(PELVIS, seen, CAMERA)


def test_nonsense_is_refused_in_one_line() -> None:
    rng = np.random.default_rng(5)
    with pytest.raises(InputError, match=r"no pose fits these landmarks.*fits worst") as error:
        pose_from_landmarks(PELVIS, rng.uniform(0, 1536, (9, 2)), CAMERA)
    assert "\n" not in str(error.value)


def test_doubtful_landmarks_are_kept_with_a_warning() -> None:
    pose = named_view("ap", PELVIS.mean(axis=0), 700.0)
    seen = _seen(PELVIS, pose) + np.random.default_rng(4).normal(0, 30, (9, 2))  # 4 mm in the patient
    found = pose_from_landmarks(PELVIS, seen, CAMERA)
    assert isinstance(found, LandmarkPose)
    assert "errors of about" in found.warning
    assert _angle(found.camera_from_ct, pose) < 8


_FINE = _seen(PELVIS, named_view("ap", PELVIS.mean(axis=0), 700.0))


def _with(values: np.ndarray, row: int, what: object) -> np.ndarray:
    out = values.copy()
    out[row] = what
    return out


@pytest.mark.parametrize(
    ("points", "pixels", "message"),
    [
        (PELVIS[:0], _FINE[:0], "0 landmarks"),
        ([], [], "0 landmarks"),
        (PELVIS[:3], _FINE[:3], "three leave up to four poses"),
        (PELVIS, _FINE[:5], "9 landmarks in the CT and 5 in the X-ray"),
        (PELVIS[:, :2], _FINE, "allowed are"),
        (PELVIS.ravel(), _FINE, "allowed are"),
        ("four", _FINE, "no numbers"),
        (_with(PELVIS, 3, np.nan), _FINE, "landmark 4 has no finite position in the CT"),
        (PELVIS, _with(_FINE, 0, np.inf), "landmark 1 has no finite position in the X-ray"),
        (_with(PELVIS, 3, PELVIS[0]), _FINE, "landmarks 1 and 4 are at the same place"),
        (np.arange(5)[:, None] * [[10.0, 4.0, 30.0]], _FINE[:5], "on a line"),
        (PELVIS, np.full((9, 2), 700.0), "same pixel"),
    ],
)  # fmt: skip
def test_bad_input(points: object, pixels: object, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        pose_from_landmarks(points, pixels, CAMERA)
    assert "\n" not in str(error.value)


def test_names_must_be_as_many() -> None:
    with pytest.raises(InputError, match="9 landmarks and 2 names"):
        pose_from_landmarks(PELVIS, _FINE, CAMERA, ["a", "b"])
