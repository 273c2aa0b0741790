"""Things in an X-ray that the CT has not: they lose their weight, and nothing else does."""

from __future__ import annotations

import numpy as np
import pytest

from Testing.unit.ct_phantom import CAMERA, xray_of
from XRayRegistrationLib.bone.model import BoneModel
from XRayRegistrationLib.geometry.rigid import increment_left, transform_points
from XRayRegistrationLib.images.volume import Volume
from XRayRegistrationLib.images.xray import XRay
from XRayRegistrationLib.simulation.poses import pose_at, rotation_from_angles
from XRayRegistrationLib.solvers.comparison import ComparisonOptions
from XRayRegistrationLib.solvers.levenberg_marquardt import costs
from XRayRegistrationLib.solvers.problem import View
from XRayRegistrationLib.solvers.pyramid import build_level
from XRayRegistrationLib.solvers.refinement import Refined, RefinementOptions, refine_candidates
from XRayRegistrationLib.solvers.robust import RobustOptions, outlier_weights, refine_reweighted, reweighted


@pytest.fixture(scope="module")
def true_pose(model: BoneModel) -> np.ndarray:
    return pose_at(rotation_from_angles(35.0, -20.0, 8.0), CAMERA, model.centroid, (52.0, 36.0), 690.0)


@pytest.fixture(scope="module")
def clean(ct: Volume, true_pose: np.ndarray) -> XRay:
    return xray_of(ct, CAMERA, true_pose)


def _rod(number: int) -> np.ndarray:
    """A dense rod somewhere across the picture, as line integrals."""
    rng = np.random.default_rng(number)
    at_u, at_v, angle = rng.uniform(25, 70), rng.uniform(20, 60), rng.uniform(0, np.pi)
    v, u = np.mgrid[: CAMERA.height, : CAMERA.width]
    along = (u - at_u) * np.cos(angle) + (v - at_v) * np.sin(angle)
    across = (v - at_v) * np.cos(angle) - (u - at_u) * np.sin(angle)
    return 3.0 * ((abs(along) < 30) & (abs(across) < 2))


def _with_rod(clean: XRay, number: int) -> XRay:
    return XRay((clean.line_integrals + _rod(number)).astype(np.float32), clean.mask, CAMERA)


@pytest.fixture(scope="module")
def spoiled(clean: XRay) -> XRay:
    return _with_rod(clean, 0)


def _error_mm(model: BoneModel, a: np.ndarray, b: np.ndarray) -> float:
    p = model.surface_points
    return float(np.linalg.norm(transform_points(a, p) - transform_points(b, p), axis=1).mean())


def _refined(model: BoneModel, xray: XRay, true_pose: np.ndarray, robust: RobustOptions | None) -> Refined:
    start = increment_left(true_pose, (0.05, -0.04, 0.05, 4.0, -4.0, 10.0), transform_points(true_pose, model.centroid))
    views = {"full": [View(model.full, xray)]}
    options = RefinementOptions(robust=robust)
    return refine_candidates(views, start[None], model.centroid, model.surface_points, options)


def test_instruments_are_ignored(model: BoneModel, clean: XRay, true_pose: np.ndarray) -> None:
    errors = []
    for number in range(4):
        xray = _with_rod(clean, number)
        poses = [_refined(model, xray, true_pose, options).rig_from_ct for options in (None, RobustOptions())]
        errors.append([_error_mm(model, pose, true_pose) for pose in poses])
    plain, robust = np.array(errors).T
    assert plain.max() > 4.0  # otherwise there is nothing to gain
    assert robust.max() < 1.0
    assert robust.mean() < plain.mean() / 2


def test_without_an_instrument_nothing_is_lost(model: BoneModel, clean: XRay, true_pose: np.ndarray) -> None:
    plain, robust = (_refined(model, clean, true_pose, options) for options in (None, RobustOptions()))
    assert _error_mm(model, robust.rig_from_ct, true_pose) < _error_mm(model, plain.rig_from_ct, true_pose) + 0.02


def test_the_costs_that_are_reported_are_unweighted(model: BoneModel, spoiled: XRay, true_pose: np.ndarray) -> None:
    refined = _refined(model, spoiled, true_pose, RobustOptions())
    level = build_level([View(model.full, spoiled)], 256, 690.0)
    assert refined.finest_cost == pytest.approx(costs(level, refined.rig_from_ct[None])[0], rel=1e-4)


def test_a_weighted_pose_far_away_is_not_taken(model: BoneModel, spoiled: XRay, true_pose: np.ndarray) -> None:
    start = true_pose[None]
    views = {"full": [View(model.full, spoiled)]}
    plain, strict = (
        refine_candidates(views, start, model.centroid, model.surface_points, options).rig_from_ct
        for options in (RefinementOptions(robust=None), RefinementOptions(within_mm=0.0))
    )
    np.testing.assert_array_equal(plain, strict)


def test_what_stands_out_loses_its_weight_and_the_rest_keeps_it(
    model: BoneModel, spoiled: XRay, true_pose: np.ndarray
) -> None:
    level = build_level([View(model.full, spoiled)], 96, 690.0)
    (weighted,) = reweighted(level, true_pose, RobustOptions(), ComparisonOptions())
    assert weighted.weight is not None
    thing = _rod(0)
    edge = (np.hypot(*np.gradient(thing)) > 0)[1:-1, 1:-1]
    assert weighted.weight[edge].mean() < 0.3
    far = np.ones_like(edge)
    for v, u in np.argwhere(thing[1:-1, 1:-1] > 0):
        far[max(v - 10, 0) : v + 11, max(u - 10, 0) : u + 11] = False
    assert weighted.weight[far].mean() > 0.85


def test_weights_are_of_the_size_over_the_spread() -> None:
    found = np.full((2, 40, 40), 0.1, np.float32)
    found[:, 10, 10] = 50.0
    counts = np.ones((40, 40), bool)
    weight = outlier_weights(found, counts, RobustOptions(scale=5.0, window_px=1))
    ordinary = 1.0 / (1.0 + (1.0 / (5.0 * 1.4826)) ** 2) ** 2
    assert weight[0, 0] == pytest.approx(ordinary)
    assert weight[10, 10] < 1e-4
    assert (outlier_weights(found, ~counts, RobustOptions()) == 1.0).all()


def test_it_can_be_cancelled(model: BoneModel, clean: XRay, true_pose: np.ndarray) -> None:
    class Cancelled(Exception):
        pass

    def cancel() -> None:
        raise Cancelled

    level = build_level([View(model.full, clean)], 96, 690.0)
    with pytest.raises(Cancelled):
        refine_reweighted(level, true_pose, model.centroid, check=cancel)
