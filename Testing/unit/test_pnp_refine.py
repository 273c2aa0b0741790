"""PnP's Levenberg-Marquardt: its derivatives against finite differences, and that it never ends above its start."""

from __future__ import annotations

import numpy as np
import pytest

from Testing.benchmarks.pnp import draw
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.rigid import increment_left, rotation_exp, transform_points
from XRayRegistrationLib.solvers import pnp_refine
from XRayRegistrationLib.solvers.pnp_pairs import Pairs, checked_pairs
from XRayRegistrationLib.solvers.pnp_refine import (
    PointErrors,
    Poses,
    Prior,
    mean_cost,
    refine,
    robust_cost,
    squared_errors,
    unshrunk,
)

K = 4.5
CAMERA = Camera.from_spacing(128, 100, (2.3, 2.1), 1020.0, principal_point_px=(60.0, 52.5))
STEP = np.array([1e-6, 1e-6, 1e-6, 1e-4, 1e-4, 1e-4])  # rad, mm, of the central differences


def _problem(elliptic: bool, uncertain_points: bool) -> tuple[Pairs, Poses]:
    rng = np.random.default_rng(5)
    n = 30
    points = rng.uniform(-50, 50, (n, 3)) + np.array([20, 300, -10])
    rotation = rotation_exp(np.array([0.4, -1.0, 0.7]))
    centre = np.array([12.0, -7.0, 690.0])
    seen = CAMERA.project((points - points.mean(axis=0)) @ rotation.T + centre) + rng.normal(0, 2.0, (n, 2))
    seen[:5] += 30.0  # beyond Tukey's edge, where nothing must change
    half = rng.normal(size=(n, 2, 2))
    covariance = half @ np.swapaxes(half, 1, 2) + 2.0 * np.eye(2) if elliptic else None
    sigma_px = None if elliptic else rng.uniform(1, 3, n)
    sigma_mm = rng.uniform(1, 6, n) if uncertain_points else None
    pairs = checked_pairs(points, seen, CAMERA, sigma_px, covariance, sigma_mm, plain_sigma_px=1.0)
    return pairs, Poses((rotation_exp(np.array([0.01, 0.02, -0.01])) @ rotation)[None], centre[None] + 2.0)


def _stepped(poses: Poses, twist: np.ndarray) -> Poses:
    return Poses(rotation_exp(twist[:3]) @ poses.rotation, poses.centre + twist[3:])


@pytest.mark.parametrize("elliptic", [False, True])
@pytest.mark.parametrize(("uncertain_points", "errors"), [(False, "predicted"), (True, "predicted"), (True, "measured")])
def test_slope_is_the_derivative_of_the_cost(elliptic: bool, uncertain_points: bool, errors: PointErrors) -> None:
    pairs, pose = _problem(elliptic, uncertain_points)
    held = pose.rotation[:, 2] @ pairs.points + pose.centre[:, 2:] if errors == "predicted" else None

    def total(poses: Poses) -> float:
        # Tukey's rho is 3 s / k^2 near 0: on the scale of s / 2
        return len(pairs) * K**2 / 6 * float(mean_cost(pnp_refine._offsets(pairs, poses, held).s, K)[0])

    _, slope = pnp_refine._normal_equations(pairs, pose, pnp_refine._offsets(pairs, pose), K, errors)
    numeric = [(total(_stepped(pose, h)) - total(_stepped(pose, -h))) / (2 * h.sum()) for h in np.diag(STEP)]
    np.testing.assert_allclose(slope[0], numeric, rtol=1e-4, atol=1e-4 * np.abs(slope).max())


def test_gram_is_of_the_whitened_errors_derivatives() -> None:
    pairs, pose = _problem(elliptic=True, uncertain_points=True)
    held = pose.rotation[:, 2] @ pairs.points + pose.centre[:, 2:]
    offsets = pnp_refine._offsets(pairs, pose)
    gram, _ = pnp_refine._normal_equations(pairs, pose, offsets, K, "predicted")

    def errors(poses: Poses) -> np.ndarray:
        o = pnp_refine._offsets(pairs, poses, held)
        return np.stack([o.e_u[0], o.e_v[0]])

    jacobian = np.stack(
        [(errors(_stepped(pose, h)) - errors(_stepped(pose, -h))) / (2 * h.sum()) for h in np.diag(STEP)], axis=-1
    )
    weight = np.maximum(1 - offsets.s[0] / K**2, 0) ** 2
    assert (weight[:5] == 0).all()
    expected = np.einsum("n,cni,cnj->ij", weight, jacobian, jacobian)
    np.testing.assert_allclose(gram[0], expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("turn", [0.0, 1e-6, 0.3, 2.5])
def test_slope_of_the_prior(turn: float) -> None:
    rng = np.random.default_rng(2)
    axis = np.array([0.6, 0.0, 0.8])
    rotation = rotation_exp(rng.normal(size=3))
    prior = Prior(rotation_exp(-turn * axis) @ rotation, np.array([1.0, 2.0, 700.0]), rng.uniform(0.1, 10, 6))
    pose = Poses(rotation[None], np.array([[5.0, -3.0, 640.0]]))
    _, slope = pnp_refine._prior_equations(pose, prior)

    def half(poses: Poses) -> float:
        return 0.5 * float(prior.penalty(poses.rotation, poses.centre)[0])

    numeric = [(half(_stepped(pose, h)) - half(_stepped(pose, -h))) / (2 * h.sum()) for h in np.diag(STEP)]
    np.testing.assert_allclose(slope[0], numeric, rtol=1e-4, atol=1e-5 * max(1.0, np.abs(slope).max()))


def test_a_step_is_an_increment_of_the_whole_pose() -> None:
    pairs, pose = _problem(elliptic=False, uncertain_points=False)
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = pose.rotation[0], pose.centre[0]  # of points about their centroid
    twist = np.array([0.1, -0.2, 0.3, 4.0, 5.0, -6.0])
    other = _stepped(pose, twist)
    moved = transform_points(increment_left(matrix, twist, pose.centre[0]), pairs.points.T)
    np.testing.assert_allclose(moved, pairs.points.T @ other.rotation[0].T + other.centre, atol=1e-9)


def test_never_above_the_start_and_many_as_one() -> None:
    case = draw(3, 300, 0.5)
    # more pairs than one part holds, so that the parts' sums are looked at too
    points, pixels = np.tile(case.points, (40, 1)), np.tile(case.pixels, (40, 1))
    pairs = checked_pairs(points, pixels, CAMERA, np.tile(case.sigma_px, 40), None, None, plain_sigma_px=1.0)
    rng = np.random.default_rng(0)
    rotation = rotation_exp(rng.normal(0, 0.2, (6, 3))) @ case.camera_from_ct[:3, :3]
    place = transform_points(case.camera_from_ct, pairs.centre_ct) + rng.normal(0, 30, (6, 3))
    starts = Poses(rotation, place)
    before = robust_cost(pairs, starts, K)
    together = refine(pairs, starts, K, steps=15)
    assert (robust_cost(pairs, together, K) <= before).all()
    for i in range(6):
        alone = refine(pairs, starts.at(slice(i, i + 1)), K, steps=15)
        np.testing.assert_allclose(alone.rotation[0], together.rotation[i], atol=1e-8)


def test_a_point_behind_the_source_has_no_say() -> None:
    pairs, pose = _problem(elliptic=False, uncertain_points=True)
    near = Poses(pose.rotation, np.array([[0.0, 0.0, 10.0]]))  # the source is among the points
    s = squared_errors(pairs, near)[0]
    depth = (near.rotation[0] @ pairs.points)[2] + 10.0
    assert (depth < 0).any()
    assert np.isinf(s[depth <= 0]).all()
    assert np.isfinite(s[depth > 0]).all()
    assert np.isfinite(refine(pairs, near, K, steps=5).centre).all()


@pytest.mark.parametrize("noise_px", [3.0, 8.0])
def test_pixels_that_were_drawn_together_do_not_push_the_bone_away(noise_px: float) -> None:
    """As a network's are, which says the mean of what it thinks possible."""
    off = {False: [], True: []}
    for seed in range(12):
        rng = np.random.default_rng(seed)
        points = rng.normal(size=(300, 3)) * [60.0, 40.0, 50.0]
        rotation, centre = rotation_exp(0.5 * rng.normal(size=3)), np.array([10.0, -5.0, 720.0])
        true = CAMERA.project(points @ rotation.T + centre)
        middle, spread = true.mean(axis=0), true.std()
        shrink = spread**2 / (spread**2 + noise_px**2)
        predicted = middle + shrink * (true + noise_px * rng.normal(size=true.shape) - middle)
        sigma = np.full(len(points), np.sqrt(shrink) * noise_px)
        pairs = checked_pairs(points, predicted, CAMERA, sigma, None, None, plain_sigma_px=1.0)
        here = Poses(rotation[None], (centre + rotation @ pairs.centre_ct)[None])
        measured = refine(pairs, here, K, 20)
        for whole, pose in ((False, measured), (True, unshrunk(pairs, measured, K))):
            off[whole].append(float((pose.centre - here.centre)[0, 2]))
    assert np.mean(off[False]) > 4.0 * noise_px / 3.0
    assert abs(np.mean(off[True])) < 0.15 * np.mean(off[False])
    assert np.std(off[True]) < 1.2 * np.std(off[False])


def test_measured_pixels_without_error_stay_where_they_are() -> None:
    rng = np.random.default_rng(3)
    points = rng.normal(size=(20, 3)) * 40.0
    rotation, centre = rotation_exp(np.array([0.2, -0.4, 0.1])), np.array([5.0, 3.0, 650.0])
    pairs = checked_pairs(points, CAMERA.project(points @ rotation.T + centre), CAMERA, None, None, None, plain_sigma_px=1.0)
    pose = unshrunk(pairs, Poses(rotation[None], (centre + rotation @ pairs.centre_ct)[None]), K)
    np.testing.assert_allclose(pose.centre[0], centre + rotation @ pairs.centre_ct, atol=1e-6)
    np.testing.assert_allclose(pose.rotation[0], rotation, atol=1e-9)
