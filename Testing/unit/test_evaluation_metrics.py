"""Every metric on geometry whose answer can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.evaluation.metrics import (
    axis_errors,
    bootstrap_interval,
    gross_failure_rate,
    in_plane_and_depth_mm,
    mtre_mm,
    percentile,
    pose_error,
    projected_mtre_mm,
    rotation_error_deg,
    success_rate,
)
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.rigid import from_rotation_translation, increment_left, rotation_exp

# pixels of 2 mm, 1000 mm from the source
CAMERA = Camera.from_spacing(101, 101, 2.0, 1000.0)
INF = float("inf")


def at(x: float, y: float, z: float, rotation_vector_deg: tuple[float, float, float] = (0, 0, 0)) -> np.ndarray:
    return from_rotation_translation(rotation_exp(np.radians(rotation_vector_deg)), [x, y, z])


def test_a_shift_is_its_own_error():
    true, found = at(0, 0, 500), at(3, 4, 512)
    points = [[0, 0, 0], [10, -20, 30], [-5, 5, 5]]
    assert mtre_mm(found, true, points) == pytest.approx(13.0)  # 3, 4, 12
    assert in_plane_and_depth_mm(found, true, points) == pytest.approx((5.0, 12.0))
    assert rotation_error_deg(found, true) == 0.0


def test_a_quarter_turn_moves_a_point_by_the_square_root_of_two_of_its_lever():
    true, found = at(0, 0, 500), at(0, 0, 500, (0, 0, 90))
    points = [[10, 0, 0], [0, 30, 7], [0, 0, 99]]  # levers 10, 30 and 0
    assert mtre_mm(found, true, points) == pytest.approx(np.sqrt(2) * 40 / 3)
    assert in_plane_and_depth_mm(found, true, points) == pytest.approx((np.sqrt(2) * 40 / 3, 0.0))
    assert rotation_error_deg(found, true) == pytest.approx(90.0)


def test_the_detector_magnifies_by_sdd_over_depth():
    true = at(0, 0, 500)
    points = [[0, 0, 0], [20, 0, 0]]
    assert projected_mtre_mm(at(3, 4, 500), true, points, CAMERA) == pytest.approx(10.0)  # 5 mm, twice as large
    # 20 mm aside lands 40 mm aside on the detector, from 400 mm 50 mm aside; the middle stays
    assert projected_mtre_mm(at(0, 0, 400), true, points, CAMERA) == pytest.approx(5.0)


def test_points_outside_the_image_count_on_the_detector_too():
    aside = [[400, 0, 0]]  # 800 mm aside, on an image of 202 mm
    assert not CAMERA.in_view(CAMERA.project([400, 0, 500]))
    assert projected_mtre_mm(at(1, 0, 500), at(0, 0, 500), aside, CAMERA) == pytest.approx(2.0)


def test_a_point_behind_the_source_is_infinitely_far_off_on_the_detector():
    assert projected_mtre_mm(at(0, 0, -500), at(0, 0, 500), [[1, 1, 1]], CAMERA) == INF


def test_detector_millimetres_need_the_distance():
    camera = Camera(101, 101, CAMERA.K)
    with pytest.raises(InputError, match="source_detector_distance_mm"):
        projected_mtre_mm(at(0, 0, 500), at(0, 0, 500), [[0, 0, 0]], camera)
    assert pose_error(at(0, 0, 500), at(0, 0, 500), camera, [[0, 0, 0]], [[0, 0, 0]], (0, 0, 0)).mpd_mm is None


def test_rotation_about_the_centroid_is_no_translation():
    centroid = np.array([40.0, -30.0, 20.0])
    true = at(5, -6, 700, (20, 60, -35))
    centre = true[:3, :3] @ centroid + true[:3, 3]
    step = np.r_[np.radians([2.0, -3.0, 0.5]), 1.5, -0.25, 9.0]
    about, along = axis_errors(increment_left(true, step, centre), true, centroid)
    np.testing.assert_allclose(about, [2.0, -3.0, 0.5], atol=1e-9)
    np.testing.assert_allclose(along, [1.5, -0.25, 9.0], atol=1e-9)


def test_failures_and_missing_poses_stay_in_the_denominator():
    errors = [1.0, 10.0, 10.5, INF, float("nan")]
    assert gross_failure_rate(errors, 10.0) == pytest.approx(3 / 5)  # 10 mm itself is no failure
    assert gross_failure_rate(errors, 2.0) == pytest.approx(4 / 5)
    assert success_rate(errors, 10.0) == pytest.approx(1 / 5)  # and no success either: TRE < 10 mm
    assert percentile(errors, 50) == 10.5
    assert percentile(errors, 75) == INF
    np.testing.assert_allclose(gross_failure_rate([[1.0, 11.0], [1.0, 2.0]], 10.0), [0.5, 0.0])


def test_percentiles_are_linear_between_order_statistics():
    values = np.random.default_rng(0).normal(size=37)
    for percent in (0, 5, 25, 50, 75, 95, 100):
        assert percentile(values, percent) == pytest.approx(np.percentile(values, percent))
    assert percentile([1.0, 2.0, 4.0, INF], 50) == 3.0
    assert percentile([1.0, 2.0, INF, INF], 50) == INF  # between 2 and infinity
    assert percentile([1.0, 2.0, INF], 50) == 2.0  # exactly the middle one
    with pytest.raises(InputError, match="0 to 100"):
        percentile(values, 101)
    with pytest.raises(InputError, match="at least one case"):
        percentile([], 50)


def _median(errors: np.ndarray) -> np.ndarray:
    return percentile(errors, 50)


def test_the_bootstrap_knows_the_binomial_and_its_seed():
    errors = np.r_[np.full(80, 1.0), np.full(20, INF)]  # a fifth fails

    def rate(e):
        return gross_failure_rate(e, 10.0)

    low, high = bootstrap_interval(errors, rate, draws=4000, seed=3)
    # the binomial's standard deviation is 0.04
    assert low == pytest.approx(0.2 - 1.96 * 0.04, abs=0.015)
    assert high == pytest.approx(0.2 + 1.96 * 0.04, abs=0.015)
    assert bootstrap_interval(errors, rate, seed=3) == bootstrap_interval(errors, rate, seed=3)
    values = np.random.default_rng(0).normal(size=50)
    assert bootstrap_interval(values, _median, seed=3) != bootstrap_interval(values, _median, seed=4)
    assert bootstrap_interval([2.0] * 9, _median) == (2.0, 2.0)


def test_without_a_pose_everything_is_infinite():
    error = pose_error(None, at(0, 0, 500), CAMERA, [[0, 0, 0]], [[0, 0, 0]], (0, 0, 0))
    for value in (error.mtre_landmarks_mm, error.mtre_surface_mm, error.mpd_mm, error.depth_mm, error.rotation_deg):
        assert value == INF
    assert error.about_deg == error.along_mm == (INF, INF, INF)


def test_landmarks_and_surface_are_told_apart():
    true, found = at(0, 0, 500), at(0, 0, 500, (0, 0, 90))
    error = pose_error(found, true, CAMERA, [[0, 0, 0]], [[10, 0, 0]], (0, 0, 0))
    assert error.mtre_landmarks_mm == 0.0
    assert error.mpd_mm == 0.0
    assert error.mtre_surface_mm == pytest.approx(np.sqrt(200))
    assert error.about_deg == pytest.approx((0, 0, 90))
