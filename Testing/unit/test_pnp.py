"""PnP: exact on exact pairs, right among wrong ones, both of two poses that look alike, and no pose where there is none."""

from __future__ import annotations

import numpy as np
import pytest

from Testing.benchmarks.pnp import CAMERA, Draw, draw
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.rigid import (
    from_rotation_translation,
    increment_left,
    inverse,
    rotation_angle,
    rotation_exp,
    rotation_log,
    transform_points,
)
from XRayRegistrationLib.solvers.pnp import PnpFailure, PnpOptions, PnpPose, solve_pnp

ODD_CAMERA = Camera.from_spacing(900, 640, (0.4, 0.3), 1150.0, principal_point_px=(380.0, 351.5))
SOLVERS = ("poselib", "opencv")


def _solve(case: Draw, *, seed: int = 0, modes: int = 1, **options: object) -> tuple[PnpPose, ...]:
    return solve_pnp(
        case.points, case.pixels, CAMERA, sigma_px=case.sigma_px, sigma_mm=2.0,
        options=PnpOptions(modes=modes, **options), seed=seed,  # type: ignore[arg-type]
    )  # fmt: skip


def _angle(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.degrees(rotation_angle(a[:3, :3], b[:3, :3])))


def _flat(n: int, noise_px: float, tilt_deg: float = 35.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points of a plate 100 mm wide and 2 mm thick, tilted towards the beam, their pixels, and the pose."""
    rng = np.random.default_rng([n])
    points = rng.uniform(-50, 50, (n, 3)) * [1, 1, 0.02]
    pose = from_rotation_translation(rotation_exp([np.deg2rad(tilt_deg), 0, 0]), [3.0, -5.0, 720.0])
    return points, CAMERA.project(transform_points(pose, points)) + rng.normal(0, noise_px, (n, 2)), pose


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("n", [4, 14, 40, 3000])
def test_exact_pairs_give_the_exact_pose(solver: str, n: int) -> None:
    # half a pixel too much anywhere would be 0.8 mm
    rng = np.random.default_rng([n, 1])
    points = rng.uniform(-60, 60, (n, 3)) + np.array([100, -40, 900])
    rotation = rotation_exp(rng.normal(size=3))
    pose = from_rotation_translation(rotation, [15.0, -9.0, 700.0] - rotation @ points.mean(axis=0))
    found = solve_pnp(points, ODD_CAMERA.project(transform_points(pose, points)), ODD_CAMERA, options=PnpOptions(solver=solver))
    assert np.abs(transform_points(found[0].camera_from_ct, points) - transform_points(pose, points)).max() < 1e-8
    assert found[0].inliers.all()
    assert found[0].rms_px < 1e-9
    assert found[0].cost < 1e-12


@pytest.mark.parametrize("solver", SOLVERS)
def test_most_of_a_hundred_thousand_pairs_may_be_wrong(solver: str) -> None:
    for seed in range(4):
        case = draw(seed, 100_000, 0.7)
        found = _solve(case, seed=seed, solver=solver)[0]
        assert case.error_mm(found.camera_from_ct) < 2.0
        assert found.inliers[~case.wrong].mean() > 0.97  # 98.9 % of Gaussian errors are within 3 sigma
        assert found.inliers[case.wrong].mean() < 0.02  # the share of the image that an inlier's ellipse covers


def test_thinned_or_not_the_pose_is_the_same_within_noise() -> None:
    case = draw(3, 20_000, 0.7)
    poses = [_solve(case, max_pairs=most)[0].camera_from_ct for most in (500, 20_000)]
    assert np.linalg.norm(transform_points(poses[0], case.corners) - transform_points(poses[1], case.corners), axis=1).max() < 0.1


def test_without_uncertainties_the_threshold_in_pixels_is_taken() -> None:
    case = draw(5, 5000, 0.5)
    found = solve_pnp(case.points, case.pixels, CAMERA, options=PnpOptions(threshold_px=7.0))[0]
    assert case.error_mm(found.camera_from_ct) < 6.0
    distance = np.linalg.norm(CAMERA.project(transform_points(found.camera_from_ct, case.points)) - case.pixels, axis=1)
    np.testing.assert_array_equal(found.inliers, distance < 7.0)
    assert found.rms_px == pytest.approx(np.sqrt((distance[found.inliers] ** 2).mean()))


def test_points_alone_may_be_uncertain() -> None:
    # scene coordinates: every pixel is exact, and says which point it sees and how surely
    case = draw(8, 4000, 0.0, sigma_px=(1e-3, 2e-3), sigma_mm=1.0)
    sigma_mm = np.where(np.arange(4000) % 2, 20.0, 1.0)
    rng = np.random.default_rng(8)
    points = case.points + np.where(sigma_mm > 1.0, 20.0, 0.0)[:, None] * rng.normal(size=(4000, 3))
    found = solve_pnp(points, case.pixels, CAMERA, sigma_mm=sigma_mm)[0]
    assert case.error_mm(found.camera_from_ct) < 2.0  # every second point is off by 35 mm


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_same_seed_gives_the_same_pose(solver: str) -> None:
    case = draw(7, 3000, 0.8)
    first, again = (_solve(case, seed=11, modes=2, solver=solver) for _ in range(2))
    assert [p.cost for p in first] == [p.cost for p in again]
    np.testing.assert_array_equal(first[0].camera_from_ct, again[0].camera_from_ct)


def test_landmarks_need_no_seed() -> None:
    case = draw(2, 14, 0.3, sigma_px=(0.5, 1.0))
    a, b = (_solve(case, seed=seed)[0].camera_from_ct for seed in (1, 2))
    np.testing.assert_array_equal(a, b)


def test_no_better_pose_is_missed() -> None:
    """Never a higher cost than the minimum that is found from the true pose, even where that is not the lowest."""
    for n, share, thickness in ((8, 0.25, 1.0), (14, 0.4, 1.0), (30, 0.5, 1.0), (30, 0.3, 0.1), (200, 0.8, 1.0)):
        for seed in range(6):
            case = draw(seed, n, share, thickness=thickness)
            try:
                found = _solve(case, seed=seed)[0].cost
            except PnpFailure:
                continue
            near = (case.camera_from_ct, np.full(6, 1e3))  # a prior so wide that it is but a start
            known = solve_pnp(case.points, case.pixels, CAMERA, sigma_px=case.sigma_px, sigma_mm=2.0, prior=near)[0].cost
            assert found < known + 1e-3


@pytest.mark.parametrize("n", [6, 10, 30, 300])
def test_both_poses_of_a_plate_are_found(n: int) -> None:
    points, pixels, pose = _flat(n, noise_px=1.0)
    found = solve_pnp(points, pixels, CAMERA, sigma_px=1.0, options=PnpOptions(modes=2))
    assert len(found) == 2
    assert found[0].cost <= found[1].cost
    angles = sorted(_angle(p.camera_from_ct, pose) for p in found)
    assert angles[0] < 10.0
    assert 40.0 < angles[1] < 85.0  # mirrored along the beam, a tilt of 35 degrees becomes one of -35
    assert len(solve_pnp(points, pixels, CAMERA, sigma_px=1.0)) == 1


def test_two_poses_that_different_pairs_speak_for() -> None:
    a, b = draw(1, 3000, 0.0), draw(2, 2000, 0.0)
    points = np.concatenate([a.points - a.corners.mean(axis=0), b.points - b.corners.mean(axis=0)])
    pixels = np.concatenate([a.pixels, b.pixels])
    found = solve_pnp(points, pixels, CAMERA, sigma_px=2.5, options=PnpOptions(modes=3), seed=4)
    assert [_angle(p.camera_from_ct, case.camera_from_ct) < 2 for p, case in zip(found, (a, b), strict=False)] == [True, True]


def test_a_landmark_that_is_less_certain_has_less_say() -> None:
    case = draw(4, 12, 0.0, sigma_px=(0.2, 0.3), sigma_mm=1e-3)
    pixels = case.pixels.copy()
    pixels[3] += [6.0, 0.0]
    sure = np.tile(0.25**2 * np.eye(2), (12, 1, 1))
    unsure = sure.copy()
    unsure[3, 0, 0] = 6.0**2  # along u alone

    def moved(covariance: np.ndarray) -> float:
        options = PnpOptions(threshold_sigma=40.0)  # so that none is an outlier
        found = solve_pnp(case.points, pixels, CAMERA, covariance_px=covariance, options=options)
        return case.error_mm(found[0].camera_from_ct)

    assert moved(unsure) < 0.3 * moved(sure)


def test_the_covariance_says_how_far_off_the_pose_is() -> None:
    squared = []
    for seed in range(40):
        case = draw(seed, 60, 0.3)
        found = _solve(case, seed=seed)[0]
        centre = case.points.mean(axis=0)
        between = case.camera_from_ct @ inverse(found.camera_from_ct)
        shift = transform_points(case.camera_from_ct, centre) - transform_points(found.camera_from_ct, centre)
        twist = np.concatenate([rotation_log(between[:3, :3]), shift])
        # the twist's own convention
        np.testing.assert_allclose(
            increment_left(found.camera_from_ct, twist, transform_points(found.camera_from_ct, centre)),
            case.camera_from_ct,
            atol=1e-8,
        )
        squared.append(twist @ np.linalg.solve(found.covariance, twist))
    # chi-square of 6: median 5.3; of 40 draws it is within 3.5 and 8 more than 99.9 % of the time
    assert 3.5 < np.median(squared) < 8.0


@pytest.mark.parametrize("errors", ["predicted", "measured"])
def test_errors_of_the_points_do_not_pass_for_depth(errors: str) -> None:
    def depth_error(assumed: str) -> float:
        off = []
        for seed in range(4):
            case = draw(seed, 8000, 0.0, sigma_mm=6.0, point_errors=errors)
            options = PnpOptions(point_errors=assumed)  # type: ignore[arg-type]
            found = solve_pnp(case.points, case.pixels, CAMERA, sigma_px=case.sigma_px, sigma_mm=6.0, options=options)[0]
            middle = case.corners.mean(axis=0)
            off.append((transform_points(found.camera_from_ct, middle) - transform_points(case.camera_from_ct, middle))[2])
        return abs(float(np.mean(off)))

    other = "measured" if errors == "predicted" else "predicted"
    assert depth_error(errors) < 4.0
    # the share of the errors in the points' variance, 36 / (100^2 / 12), of 725 mm: 31 mm
    assert 20.0 < depth_error(other) < 45.0


def test_a_prior_holds_what_four_landmarks_leave_open() -> None:
    alone, helped = [], []
    for seed in range(12):
        case = draw(seed, 4, 0.0, sigma_mm=1e-3)
        sigma = np.array([*np.deg2rad([3.0, 3.0, 3.0]), 5.0, 5.0, 15.0])
        centre = transform_points(case.camera_from_ct, case.points.mean(axis=0))
        guess = increment_left(case.camera_from_ct, np.random.default_rng(seed).normal(size=6) * sigma, centre)
        given = {"sigma_px": case.sigma_px}
        helped.append(case.error_mm(solve_pnp(case.points, case.pixels, CAMERA, **given, prior=(guess, sigma))[0].camera_from_ct))
        alone.append(case.error_mm(solve_pnp(case.points, case.pixels, CAMERA, **given)[0].camera_from_ct))
    assert np.median(helped) < 20.0
    assert np.median(helped) < 0.6 * np.median(alone)


def test_points_behind_the_source_are_no_inliers() -> None:
    case = draw(6, 400, 0.0)
    behind = case.points.copy()
    # through the source to the other side: the same pixels by the formula
    mirrored = -transform_points(case.camera_from_ct, behind[:100])
    behind[:100] = transform_points(inverse(case.camera_from_ct), mirrored)
    found = solve_pnp(behind, case.pixels, CAMERA, sigma_px=case.sigma_px, sigma_mm=2.0)[0]
    assert not found.inliers[:100].any()
    assert found.inliers[100:].mean() > 0.95
