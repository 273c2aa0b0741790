"""Rigid motions against scipy.spatial.transform and scipy.linalg.expm, at and near 0 and pi."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.linalg import expm
from scipy.spatial.transform import Rotation

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.geometry.rigid import (
    check_rigid,
    from_rotation_translation,
    increment_left,
    inverse,
    moved_towards,
    relative_motion,
    rotation_angle,
    rotation_exp,
    rotation_log,
    se3_exp,
    se3_log,
    skew,
    transform_points,
)

# where the formulas switch to series, lose digits, or are singular
ANGLES = [0.0, 1e-15, 1e-12, 1e-9, 1e-6, 9.99e-5, 1.01e-4, 9.9e-3, 1.01e-2, 0.1, 1.0, 2.0, 3.0, np.pi - 1e-3,
          np.pi - 1e-6, np.pi - 1e-9, np.pi]  # fmt: skip
AXES = [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (0, -1, 1), (1, -2, 3), (-1, 1e-8, 0)]

unit = st.floats(-1, 1, allow_nan=False, width=64)
millimetres = st.floats(-1000, 1000, allow_nan=False, width=64)
vectors = st.tuples(unit, unit, unit).filter(lambda v: np.linalg.norm(v) > 1e-3)


def axis_angle(axis, angle: float) -> np.ndarray:
    return np.asarray(axis) / np.linalg.norm(axis) * angle


def twist_matrix(twist: np.ndarray) -> np.ndarray:
    """4x4 element of se(3), written out by hand."""
    (a, b, c), v = twist[:3], twist[3:]
    return np.array([[0, -c, b, v[0]], [c, 0, -a, v[1]], [-b, a, 0, v[2]], [0, 0, 0, 0]])


@pytest.mark.parametrize("angle", ANGLES)
@pytest.mark.parametrize("axis", AXES)
def test_rotation_exp_and_log_are_scipys(axis, angle):
    w = axis_angle(axis, angle)
    r = rotation_exp(w)
    assert r.dtype == np.float64
    np.testing.assert_allclose(r, Rotation.from_rotvec(w).as_matrix(), atol=4e-15)
    np.testing.assert_allclose(r @ r.T, np.eye(3), atol=2e-15)
    # at pi the axis' sign is a convention: compare the rotation, and the vector's length
    back = rotation_log(r)
    np.testing.assert_allclose(np.linalg.norm(back), angle, atol=2e-15 + 1e-15 * angle)
    np.testing.assert_allclose(Rotation.from_rotvec(back).as_matrix(), r, atol=4e-15)
    if angle < np.pi - 1e-12:
        np.testing.assert_allclose(back, w, atol=4e-15)


@pytest.mark.parametrize("angle", [1e-300, 1e-100, 1e-20, 1e-15, 1e-12, 1e-9, 1e-7])
def test_small_rotations_keep_all_their_digits(angle):
    w = axis_angle((1, -2, 3), angle)
    np.testing.assert_allclose(rotation_log(rotation_exp(w)), w, rtol=1e-14, atol=0)
    np.testing.assert_allclose(se3_log(se3_exp([*w, 10, -20, 700])), [*w, 10, -20, 700], rtol=1e-13, atol=0)


@pytest.mark.parametrize("angle", ANGLES)
@pytest.mark.parametrize("axis", AXES)
def test_se3_exp_is_the_matrix_exponential(axis, angle):
    twist = np.array([*axis_angle(axis, angle), 30.0, -200.0, 700.0])
    motion = se3_exp(twist)
    np.testing.assert_allclose(motion, expm(twist_matrix(twist)), rtol=0, atol=2e-12)
    back = se3_log(motion)
    np.testing.assert_allclose(se3_exp(back), motion, rtol=0, atol=5e-12)
    if angle < np.pi - 1e-12:
        np.testing.assert_allclose(back, twist, rtol=0, atol=5e-12)


def test_the_log_is_that_of_scipy_at_exactly_pi_about_every_axis():
    directions = np.random.default_rng(0).normal(size=(200, 3))
    for d in [*directions, *np.eye(3), *-np.eye(3)]:
        d = d / np.linalg.norm(d)
        half_turn = 2 * np.outer(d, d) - np.eye(3)
        w = rotation_log(half_turn)
        assert np.linalg.norm(w) == pytest.approx(np.pi, abs=1e-14)
        assert abs(w @ d) == pytest.approx(np.pi, abs=1e-14)


@settings(max_examples=200)
@given(vectors, st.floats(0, np.pi), st.tuples(millimetres, millimetres, millimetres))
def test_exp_and_log_are_inverse(axis, angle, v):
    twist = np.array([*axis_angle(axis, angle), *v])
    motion = se3_exp(twist)
    # near pi the translation part of the log is ill-conditioned only as the motion itself is
    np.testing.assert_allclose(se3_exp(se3_log(motion)), motion, rtol=0, atol=2e-11)
    np.testing.assert_allclose(inverse(motion) @ motion, np.eye(4), atol=2e-12)
    np.testing.assert_allclose(se3_exp(-twist), inverse(motion), atol=5e-12)


@settings(max_examples=100)
@given(vectors, st.floats(0, np.pi), vectors, st.floats(0, np.pi))
def test_rotation_angle_is_scipys_magnitude(a, x, b, y):
    p, q = Rotation.from_rotvec(axis_angle(a, x)), Rotation.from_rotvec(axis_angle(b, y))
    assert rotation_angle(p.as_matrix(), q.as_matrix()) == pytest.approx((p.inv() * q).magnitude(), abs=1e-7)


def test_rotation_angle_keeps_small_angles():
    for angle in (1e-12, 1e-9, 1e-5):
        r = rotation_exp([0, angle, 0])
        assert rotation_angle(np.eye(3), r) == pytest.approx(angle, rel=1e-3)


@settings(max_examples=100)
@given(vectors, st.tuples(millimetres, millimetres, millimetres))
def test_skew_is_the_cross_product(w, x):
    np.testing.assert_allclose(skew(w) @ np.array(x), np.cross(w, x), atol=1e-9)


def test_everything_is_vectorised():
    rng = np.random.default_rng(2)
    twists = rng.normal(size=(4, 5, 6))
    motions = se3_exp(twists)
    assert motions.shape == (4, 5, 4, 4)
    one_by_one = np.array([[se3_exp(t) for t in row] for row in twists])
    np.testing.assert_allclose(motions, one_by_one, atol=1e-15)
    np.testing.assert_allclose(se3_log(motions), [[se3_log(m) for m in row] for row in motions], atol=1e-14)
    np.testing.assert_allclose(inverse(motions), np.linalg.inv(motions), atol=1e-13)


def test_transform_points_by_hand():
    quarter_turn = from_rotation_translation([[0, -1, 0], [1, 0, 0], [0, 0, 1]], [10, 20, 30])
    np.testing.assert_allclose(transform_points(quarter_turn, [[1, 2, 3], [0, 0, 0]]), [[8, 21, 33], [10, 20, 30]])


# --- increments about the bone's centroid, in camera axes


POSE = from_rotation_translation(Rotation.from_euler("zyx", [30, 200, -70], degrees=True).as_matrix(), [15, -40, 700])


def test_a_rotation_increment_leaves_the_centre_in_place():
    centre_ct = np.array([12.0, -80.0, 340.0])
    centre = transform_points(POSE, centre_ct)
    moved = increment_left(POSE, [0.2, -0.1, 0.4, 0, 0, 0], centre)
    np.testing.assert_allclose(transform_points(moved, centre_ct), centre, atol=1e-10)
    np.testing.assert_allclose(moved[:3, :3], rotation_exp([0.2, -0.1, 0.4]) @ POSE[:3, :3], atol=1e-14)


def test_a_translation_increment_moves_along_camera_axes():
    moved = increment_left(POSE, [0, 0, 0, 3, -4, 50], [1, 2, 700])
    np.testing.assert_allclose(moved[:3, :3], POSE[:3, :3], atol=1e-15)
    np.testing.assert_allclose(moved[:3, 3] - POSE[:3, 3], [3, -4, 50], atol=1e-12)


@settings(max_examples=50)
@given(vectors, st.tuples(millimetres, millimetres, millimetres), st.tuples(millimetres, millimetres, millimetres))
def test_an_increment_is_the_formula_on_points(w, v, c):
    x = np.array([3.0, -50.0, 210.0])
    before = transform_points(POSE, x)
    expected = Rotation.from_rotvec(w).apply(before - c) + c + v
    np.testing.assert_allclose(transform_points(increment_left(POSE, [*w, *v], c), x), expected, atol=1e-9)


@settings(max_examples=50)
@given(vectors, *[st.tuples(millimetres, millimetres, millimetres)] * 2, st.floats(0, 1))
def test_the_relative_motion_leads_there_and_a_share_of_it_part_of_the_way(w, v, centre, share):
    true = from_rotation_translation(rotation_exp(w), v) @ POSE
    step = relative_motion(POSE, true, centre)
    np.testing.assert_allclose(increment_left(POSE, step, transform_points(POSE, centre)), true, atol=1e-9)
    left = relative_motion(moved_towards(POSE, true, centre, share), true, centre)
    np.testing.assert_allclose(left, (1.0 - share) * step, atol=1e-9)


# --- what is no rigid motion


def test_check_rigid_makes_the_rotation_orthonormal():
    noisy = POSE + np.pad(np.random.default_rng(0).uniform(-2e-5, 2e-5, (3, 3)), (0, 1))
    m = check_rigid(noisy.tolist(), "pose")
    np.testing.assert_allclose(m[:3, :3] @ m[:3, :3].T, np.eye(3), atol=1e-15)
    assert np.linalg.det(m[:3, :3]) == pytest.approx(1.0, abs=1e-14)
    np.testing.assert_allclose(m, POSE, atol=4e-5)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.eye(3), "not a 4x4"),
        ("pose", "not a 4x4"),
        ([[1, 2], [3]], "not a 4x4"),
        (np.full((4, 4), np.nan), "NaN"),
        (np.diag([1, 1, 1, 2.0]), "last row"),
        (np.diag([2, 2, 2, 1.0]), r"scales or shears.*2\.0"),
        (np.diag([-1, 1, 1, 1.0]), "mirrors"),
    ],
)
def test_check_rigid_refuses_in_one_line(matrix, message):
    with pytest.raises(InputError, match=message) as error:
        check_rigid(matrix, "start pose")
    assert str(error.value).startswith("start pose")
    assert "\n" not in str(error.value)


@settings(max_examples=50)
@given(st.integers(0, 10_000))
def test_no_random_matrix_passes_as_rigid(seed):
    m = np.eye(4)
    m[:3] = np.random.default_rng(seed).normal(size=(3, 4))
    assume(np.abs(m[:3, :3] @ m[:3, :3].T - np.eye(3)).max() > 1e-3)
    with pytest.raises(InputError):
        check_rigid(m, "pose")
