"""Levenberg-Marquardt, its residual and tone curve, and the search, on a phantom."""

from __future__ import annotations

import numpy as np
import pytest

from Testing.unit.ct_phantom import CAMERA, ct_phantom, xray_of
from XRayRegistrationLib.bone.model import BoneModel, build_bone_model
from XRayRegistrationLib.geometry.rigid import increment_left, inverse, transform_points
from XRayRegistrationLib.images.volume import Volume
from XRayRegistrationLib.images.xray import XRay
from XRayRegistrationLib.simulation.poses import pose_at, rotation_from_angles
from XRayRegistrationLib.solvers.comparison import ComparisonOptions
from XRayRegistrationLib.solvers.levenberg_marquardt import (
    LevenbergMarquardtOptions,
    _fixed_features,
    _linearise,
    costs,
    refine,
)
from XRayRegistrationLib.solvers.problem import View
from XRayRegistrationLib.solvers.pyramid import build_level, reduce_image
from XRayRegistrationLib.solvers.refinement import RefinementOptions, refine_candidates
from XRayRegistrationLib.solvers.search import distinct, search
from XRayRegistrationLib.solvers.search_range import (
    any_orientation_range,
    c_arm_range,
    plausible_depths,
    rig_depths,
    start_range,
)
from XRayRegistrationLib.solvers.tone import ToneCurve, fit_tone_curve


@pytest.fixture(scope="module")
def ct() -> Volume:
    return ct_phantom(tilt=(0.2, -0.1, 0.3))


@pytest.fixture(scope="module")
def model(ct: Volume) -> BoneModel:
    return build_bone_model(ct)


@pytest.fixture(scope="module")
def true_pose(model: BoneModel) -> np.ndarray:
    rotation = rotation_from_angles(35.0, -20.0, 8.0)
    return pose_at(rotation, CAMERA, model.centroid, (52.0, 36.0), 690.0)


@pytest.fixture(scope="module")
def xray(ct: Volume, true_pose: np.ndarray) -> XRay:
    return xray_of(ct, CAMERA, true_pose)


def _error_mm(model: BoneModel, a: np.ndarray, b: np.ndarray) -> float:
    p = model.surface_points
    return float(np.linalg.norm(transform_points(a, p) - transform_points(b, p), axis=1).mean())


def _start(true_pose: np.ndarray, model: BoneModel, step: tuple[float, ...]) -> np.ndarray:
    return increment_left(true_pose, step, transform_points(true_pose, model.centroid))


def test_gradient_is_that_of_the_cost(model: BoneModel, xray: XRay, true_pose: np.ndarray) -> None:
    level = build_level([View(model.full, xray)], 96, 690.0)
    options = LevenbergMarquardtOptions(comparison=ComparisonOptions(tone_curve=False))
    pose = _start(true_pose, model, (0.05, -0.06, 0.03, 4.0, -5.0, 12.0))
    fixed = _fixed_features(level, options)

    def cost(step: np.ndarray) -> float:
        moved = increment_left(pose, step, transform_points(pose, model.centroid))
        return float(_linearise(level, fixed, moved[None], model.centroid, options, "scipy")[0][0])

    _, gradient, _ = _linearise(level, fixed, pose[None], model.centroid, options, "scipy")
    steps = np.diag([0.004, 0.004, 0.004, 0.4, 0.4, 2.0])
    for axis, h in enumerate(steps):
        difference = (cost(h) - cost(-h)) / (2 * h[axis])
        tolerance = 0.06 * np.abs(gradient[0, :3]).max() if axis < 3 else 0.06 * np.abs(gradient[0, 3:]).max()
        assert gradient[0, axis] == pytest.approx(difference, abs=tolerance)


def test_returns_from_a_start_in_range(model: BoneModel, xray: XRay, true_pose: np.ndarray) -> None:
    starts = np.stack(
        [
            _start(true_pose, model, (0.1, 0.05, -0.1, 8.0, -6.0, 20.0)),
            _start(true_pose, model, (-0.08, 0.1, 0.08, -6.0, 9.0, -25.0)),
        ]
    )
    state = refine(build_level([View(model.full, xray)], 48, 690.0), starts, model.centroid)
    state = refine(build_level([View(model.full, xray)], 96, 690.0), state.rig_from_ct, model.centroid)
    for pose in state.rig_from_ct:
        assert _error_mm(model, pose, true_pose) < 0.6


def test_never_ends_worse_than_it_began(model: BoneModel, xray: XRay, true_pose: np.ndarray) -> None:
    rng = np.random.default_rng(5)
    steps = np.c_[rng.normal(0, 0.6, (6, 3)), rng.normal(0, 60, (6, 3))]
    starts = np.stack([_start(true_pose, model, tuple(s)) for s in steps])
    state = refine(build_level([View(model.full, xray)], 32, 690.0), starts, model.centroid)
    assert (state.cost <= state.start_cost).all()
    assert np.isfinite(state.rig_from_ct).all()


def test_bone_alone_returns_too(model: BoneModel, xray: XRay, true_pose: np.ndarray) -> None:
    pose = _start(true_pose, model, (0.04, 0.03, -0.05, 4.0, -4.0, 10.0))[None]
    for pixels in (48, 96):
        level = build_level([View(model.bone, xray, alone=True)], pixels, 690.0)
        pose = refine(level, pose, model.centroid).rig_from_ct
    assert _error_mm(model, pose[0], true_pose) < 3.0


def test_a_bone_pushed_out_of_the_picture_gains_nothing(
    model: BoneModel, xray: XRay, true_pose: np.ndarray
) -> None:
    level = build_level([View(model.bone, xray, alone=True)], 48, 690.0)
    away = np.stack([_start(true_pose, model, (0, 0, 0, x, 0, 0)) for x in (0.0, 150.0, 180.0, 600.0)])
    values = costs(level, away)
    assert values[0] < 0.7 * values[1:].min()
    assert values[3] == pytest.approx(1.0)


def test_two_views_fix_the_depth(ct: Volume, model: BoneModel, true_pose: np.ndarray) -> None:
    second_from_rig = pose_at(
        rotation_from_angles(125.0, -20.0, 8.0), CAMERA, model.centroid, (45.0, 40.0), 700.0
    ) @ inverse(true_pose)
    views = [
        View(model.full, xray_of(ct, CAMERA, true_pose, 1)),
        View(model.full, xray_of(ct, CAMERA, second_from_rig @ true_pose, 2), second_from_rig),
    ]
    start = _start(true_pose, model, (0.08, -0.05, 0.06, 6.0, -8.0, 25.0))
    pose = start[None]
    for pixels in (48, 96):
        pose = refine(build_level(views, pixels, 690.0), pose, model.centroid).rig_from_ct
    error = transform_points(pose[0], model.centroid) - transform_points(true_pose, model.centroid)
    assert _error_mm(model, pose[0], true_pose) < 0.2
    assert abs(error[2]) < 0.15


def test_search_finds_the_pose_without_a_start(model: BoneModel, xray: XRay, true_pose: np.ndarray) -> None:
    views = [View(model.full, xray)]
    said: list[float] = []
    depths = plausible_depths(CAMERA)
    found = search(views, model.centroid, model.surface_points, c_arm_range(depths), check=said.append)
    assert _error_mm(model, found.rig_from_ct[0], true_pose) < 5.0
    assert said == sorted(said)
    assert 0 <= said[0] <= said[-1] <= 1
    refined = refine_candidates({"full": views}, found.rig_from_ct, model.centroid, model.surface_points)
    assert _error_mm(model, refined.rig_from_ct, true_pose) < 0.6
    assert refined.rival_cost > 2 * refined.cost
    assert refined.finish is None


def test_the_last_round_can_be_put_off(model: BoneModel, xray: XRay, true_pose: np.ndarray) -> None:
    start = _start(true_pose, model, (0.05, -0.05, 0.02, 4.0, 3.0, 10.0))[None]
    args = ({"full": [View(model.full, xray)]}, start, model.centroid, model.surface_points)
    refined, coarse = refine_candidates(*args), refine_candidates(*args, worth=lambda refined: False)
    assert not np.array_equal(coarse.rig_from_ct, refined.rig_from_ct)
    assert coarse.finish is not None
    finished = coarse.finish()
    assert finished.finish is None
    np.testing.assert_array_equal(finished.rig_from_ct, refined.rig_from_ct)
    assert finished.cost == refined.cost


def test_what_is_still_moving_comes_to_rest_before_it_is_judged(model: BoneModel, xray: XRay, true_pose: np.ndarray) -> None:
    views = {"full": [View(model.full, xray)]}
    centre = transform_points(true_pose, model.centroid)
    start = increment_left(true_pose, (0.12, -0.12, 0.1, 25.0, -20.0, 60.0), centre)[None]

    def error_mm(settling: int) -> float:
        hasty = RefinementOptions(rounds=((48, 6, 3), (64, 2, 2), (96, 1, 2)), settling=settling, robust=None)
        found = refine_candidates(views, start, model.centroid, model.surface_points, hasty)
        return _error_mm(model, found.rig_from_ct, true_pose)

    assert error_mm(1) > 5.0
    assert error_mm(RefinementOptions().settling) < 1.0


def test_search_can_be_cancelled(model: BoneModel, xray: XRay) -> None:
    class Cancelled(Exception):
        pass

    def cancel(fraction: float) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        search(
            [View(model.full, xray)], model.centroid, model.surface_points, c_arm_range(plausible_depths(CAMERA)),
            check=cancel,
        )  # fmt: skip


def test_start_range_holds_the_start(model: BoneModel, xray: XRay, true_pose: np.ndarray) -> None:
    start = _start(true_pose, model, (0.2, -0.15, 0.1, 20.0, 10.0, 25.0))
    found = search(
        [View(model.full, xray)], model.centroid, model.surface_points, start_range(start, model.centroid)
    )
    assert _error_mm(model, found.rig_from_ct[0], true_pose) < 5.0


def test_a_masked_pixel_has_no_influence(model: BoneModel, xray: XRay, true_pose: np.ndarray) -> None:
    mask = np.ones_like(xray.mask)
    mask[:30, :40] = False
    garbage = xray.line_integrals.copy()
    garbage[:30, :40] = np.random.default_rng(0).normal(0, 50, (30, 40))
    values = [
        costs(build_level([View(model.full, XRay(image, mask, CAMERA))], 48, 690.0), true_pose[None])[0]
        for image in (xray.line_integrals, garbage)
    ]
    assert values[0] == values[1]


def test_reducing_averages_blocks_and_keeps_the_camera(true_pose: np.ndarray) -> None:
    image = np.arange(7 * 9, dtype=np.float32).reshape(7, 9)
    small, valid, camera = reduce_image(image, np.ones((7, 9), bool), CAMERA.cropped(0, 0, 9, 7), 2)
    np.testing.assert_array_equal(small, image[:6, :8].reshape(3, 2, 4, 2).mean(axis=(1, 3)))
    assert valid.all()
    assert (camera.width, camera.height) == (4, 3)
    point = np.array([30.0, 20.0, 600.0])
    np.testing.assert_allclose((CAMERA.project(point) + 0.5) / 2 - 0.5, camera.project(point))


def test_distinct_keeps_the_best_of_each_place(model: BoneModel, true_pose: np.ndarray) -> None:
    near = _start(true_pose, model, (0, 0, 0, 1.0, 0, 0))
    far = _start(true_pose, model, (0, 0, 0, 30.0, 0, 0))
    poses, cost, starts = distinct(np.stack([near, far, true_pose]), np.array([0.2, 0.3, 0.1]), model.surface_points, 4.0)
    np.testing.assert_array_equal(poses, np.stack([true_pose, far]))
    assert cost.tolist() == [0.1, 0.3]
    assert starts.tolist() == [2, 1]


def test_ranges_cover_what_they_say() -> None:
    depths = plausible_depths(CAMERA)
    assert depths.min() < 0.6 * 1000
    assert depths.max() > 0.82 * 1000
    everywhere = any_orientation_range(depths).rotations
    rng = np.random.default_rng(0)
    for q in rng.normal(size=(30, 4)):
        w, x, y, z = q / np.linalg.norm(q)
        r = np.array(
            [
                [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
                [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
                [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
            ]
        )
        trace = np.einsum("nij,ij->n", everywhere, r).max()
        assert np.degrees(np.arccos((trace - 1) / 2)) < 17.0


def test_rig_depth_is_where_the_axes_meet() -> None:
    target = np.array([40.0, -30.0, 20.0])
    rigs = [pose_at(rotation_from_angles(a, 0, 0), CAMERA, target, (47.5, 39.5), z) for a, z in ((0, 640.0), (80, 700.0))]
    assert np.prod(rig_depths(rigs)) == pytest.approx(640.0**2)  # one nearer, one further


def test_tone_curve_recovers_scatter() -> None:
    v, u = np.mgrid[:60, :70] / 60.0
    m = (3.0 * np.exp(-((u - 0.5) ** 2 + (v - 0.4) ** 2) * 6) + 0.3 * np.sin(9 * u)).clip(0).astype(np.float32)
    scatter = -np.log(np.exp(-m) + 0.08)
    from XRayRegistrationLib.solvers.gradient_residual import gradient

    curve = fit_tone_curve(m, gradient(scatter.astype(np.float32)), np.ones((58, 68), np.float32))
    value, slope = curve(m)
    expected = np.exp(-m) / (np.exp(-m) + 0.08)
    assert np.abs(slope - expected).max() < 0.1
    shifted = value - value.mean() - (scatter - scatter.mean())
    assert np.abs(shifted).max() < 0.05


def test_tone_curve_is_the_integral_of_its_slope() -> None:
    curve = ToneCurve(np.array([0.0, 1.0, 3.0]), np.array([2.0, 0.0, 1.0]))
    m = np.linspace(-1.0, 4.0, 501).astype(np.float32)
    value, slope = curve(m)
    np.testing.assert_allclose(np.diff(value) / np.diff(m), (slope[1:] + slope[:-1]) / 2, atol=2e-3)
    assert curve(np.array([0.0, 1.0, 3.0], np.float32))[0].tolist() == pytest.approx([0.0, 1.0, 2.0])
    assert (np.diff(value) >= 0).all()
