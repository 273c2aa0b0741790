"""The verdict: what speaks for a pose, what against it, and that nothing missing is taken for good."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from Testing.unit.ct_phantom import CAMERA, xray_of
from XRayRegistrationLib.bone.model import BoneModel
from XRayRegistrationLib.geometry.rigid import from_rotation_translation, increment_left, inverse, rotation_exp, transform_points
from XRayRegistrationLib.images.volume import Volume
from XRayRegistrationLib.simulation.poses import pose_at, rotation_from_angles
from XRayRegistrationLib.solvers.problem import View
from XRayRegistrationLib.solvers.refinement import Refined, refine_candidates
from XRayRegistrationLib.verification import (
    SEVERAL_VIEWS,
    SINGLE_VIEW,
    THRESHOLD,
    LogisticRegression,
    against_mirrored,
    features,
    regression,
    verify,
)


def _refined(**changes: object) -> Refined:
    good = Refined(
        rig_from_ct=np.eye(4), centre_ct=np.zeros(3), volume="full", cost=0.02, plain_cost=0.01, fine_cost=0.08, rival_cost=0.4,
        rival=np.diag([1.0, -1.0, -1.0, 1.0]), normal_matrix=np.diag([400.0, 400.0, 400.0, 0.02, 0.02, 0.001]),
        finest_cost=0.2, residuals=20000, view_costs=np.array([0.08]), drift_mm=0.0,
    )  # fmt: skip
    return replace(good, **changes)  # type: ignore[arg-type]


TWO = {"view_costs": np.array([0.07, 0.09]), "drift_mm": 0.1}


@pytest.mark.parametrize("model", [SINGLE_VIEW, SEVERAL_VIEWS])
def test_every_feature_is_one_of_disagreement(model: LogisticRegression) -> None:
    assert len(model.names) == len(model.floor) == len(model.mean) == len(model.scale) == len(model.weights)
    assert (model.weights <= 0).all()
    assert (model.scale > 0).all()


@pytest.mark.parametrize("views", [{}, TWO])
def test_a_clear_case_passes_and_a_hopeless_one_does_not(views: dict[str, object]) -> None:
    good = verify(_refined(**views), np.eye(4))
    assert good.success
    assert good.probability > 0.95
    bad = _refined(**{**views, "cost": 0.7, "plain_cost": 0.7, "fine_cost": 0.8, "rival_cost": 0.71})
    if views:
        bad = replace(bad, view_costs=np.array([0.8, 0.9]), drift_mm=3.0)
    assert verify(bad, np.eye(4)).probability < 0.2
    assert good.success == (good.probability >= THRESHOLD)


def test_no_rival_counts_as_a_mild_one() -> None:
    x = features(_refined(rival=None, rival_cost=float("inf")))
    assert x[SINGLE_VIEW.names.index("log_rival")] == pytest.approx(-1.0)


def test_several_views_are_judged_by_the_worst_and_by_their_drift() -> None:
    good = _refined(**TWO)
    assert regression(good) is SEVERAL_VIEWS
    assert regression(_refined()) is SINGLE_VIEW
    x = dict(zip(SEVERAL_VIEWS.names, features(good), strict=True))
    assert x["log_worst_view"] == pytest.approx(np.log(0.09))
    assert x["log_drift_mm"] == pytest.approx(max(np.log(0.1), SEVERAL_VIEWS.floor[-1]))
    p = [
        verify(replace(good, view_costs=np.array([0.05, worst]), drift_mm=drift), np.eye(4)).probability
        for worst, drift in ((0.1, 0.1), (0.6, 0.1), (0.6, 3.0))
    ]
    assert p[0] > p[1] > p[2]


def test_a_rival_nearly_as_good_is_named() -> None:
    opposite = np.diag([-1.0, 1.0, -1.0, 1.0])
    assert "opposite view" in verify(_refined(rival=opposite, rival_cost=0.03), np.eye(4)).ambiguity
    assert verify(_refined(rival=opposite, rival_cost=0.4), np.eye(4)).ambiguity == ""
    assert verify(_refined(rival=opposite, rival_cost=0.03, **TWO), np.eye(4)).ambiguity == ""
    # the bone's place counts, not that of a CT's origin far from it
    centre, turn = np.array([0.0, 0.0, 1000.0]), rotation_exp(np.deg2rad([3.0, 0.0, 0.0]))
    beside = from_rotation_translation(turn, np.add(centre, [0.0, 20.0, 0.0]) - turn @ centre)
    assert "a position 20 mm away" in verify(_refined(rival=beside, rival_cost=0.03, centre_ct=centre), np.eye(4)).ambiguity
    doubtful = _refined(cost=0.4, plain_cost=0.4, fine_cost=0.5, view_costs=np.array([0.3, 0.7]), drift_mm=2.0)
    assert "opposite view" in verify(replace(doubtful, rival=opposite, rival_cost=0.5), np.eye(4)).ambiguity


def test_the_covariance_turns_with_the_rig() -> None:
    turn = np.eye(4)
    turn[:3, :3] = rotation_exp((0.0, np.pi / 2, 0.0))  # the first camera looks along the rig's x
    plain, turned = (verify(_refined(), m).covariance for m in (np.eye(4), turn))
    assert plain[5, 5] > 10 * plain[3, 3]  # depth is what is known least
    assert turned[3, 3] == pytest.approx(plain[5, 5])


def test_views_of_a_wrong_pose_pull_apart(ct: Volume, model: BoneModel) -> None:
    rig_from_ct = pose_at(rotation_from_angles(20.0, 10.0, 0.0), CAMERA, model.centroid, (48.0, 40.0), 690.0)
    middle = transform_points(rig_from_ct, model.centroid)
    turn = np.eye(4)
    turn[:3, :3] = rotation_exp((0.0, np.deg2rad(75.0), 0.0))
    to, back = np.eye(4), np.eye(4)
    to[:3, 3], back[:3, 3] = -middle, middle
    rigs = [np.eye(4), back @ turn @ to]
    xrays = [xray_of(ct, CAMERA, rig @ rig_from_ct, seed) for seed, rig in enumerate(rigs)]

    def refined(second: np.ndarray) -> Refined:
        views = {"full": [View(model.full, x, rig) for x, rig in zip(xrays, (rigs[0], second), strict=True)]}
        return refine_candidates(views, rig_from_ct[None], model.centroid, model.surface_points)

    right = refined(rigs[1])
    assert right.view_costs.shape == (2,)
    assert right.drift_mm < 0.3
    # a second camera that is not where its file says: no pose can please both
    wrong = refined(rigs[1] @ inverse(increment_left(np.eye(4), (0.0, 0.0, 0.06, 0.0, 8.0, 0.0), middle)))
    assert wrong.drift_mm > 1.0
    assert wrong.view_costs.max() > 1.5 * right.view_costs.max()
    one = {"full": [View(model.full, xrays[0])]}
    assert refine_candidates(one, rig_from_ct[None], model.centroid, model.surface_points).drift_mm == 0.0


def test_a_pose_that_fits_no_better_than_one_elsewhere_is_not_believed() -> None:
    """A mirrored X-ray of a thin bone is nearly the opposite view: everything fits, from the wrong side."""
    perfect = {"cost": 0.002, "plain_cost": 0.001, "fine_cost": 0.01}
    alone = verify(_refined(**perfect, rival_cost=0.2), np.eye(4))
    assert alone.success
    assert alone.doubt == ""
    opposite = np.diag([-1.0, 1.0, -1.0, 1.0])
    either = verify(_refined(**perfect, rival_cost=0.003, rival=opposite), np.eye(4))
    assert not either.success
    assert either.probability <= 0.5
    assert either.doubt.startswith("so does the opposite view")
    # several views know more than the coarse costs that a rival has
    two = {**TWO, **perfect, "view_costs": np.array([0.01, 0.01])}
    assert verify(_refined(**two, rival_cost=0.003, rival=opposite), np.eye(4)).success


@pytest.mark.parametrize("axis", range(6))
def test_a_pose_that_could_slide_is_not_believed_and_says_how_far(axis: int) -> None:
    stiff = np.diag([400.0, 400.0, 400.0, 0.02, 0.02, 0.001])
    assert verify(_refined(normal_matrix=stiff), np.eye(4)).success
    loose = stiff.copy()
    loose[axis, axis] = -1e-11  # nothing, and a rounding error
    verdict = verify(_refined(normal_matrix=loose), np.eye(4))
    assert not verdict.success
    assert verdict.doubt.endswith("mm away")
    assert verdict.covariance[axis, axis] > (0.1 if axis < 3 else 10.0) ** 2
    assert (np.linalg.eigvalsh(verdict.covariance) >= 0).all()
    assert np.isfinite(verify(_refined(normal_matrix=np.zeros((6, 6))), np.eye(4)).covariance).all()


def test_a_picture_that_is_explained_better_mirrored_is_not_believed() -> None:
    found = _refined()
    verdict = verify(found, np.eye(4))
    assert verdict.success
    assert against_mirrored(verdict, found, _refined(cost=0.03, fine_cost=0.09)) is verdict
    assert against_mirrored(verdict, found, _refined(cost=0.01, fine_cost=0.09)) is verdict  # in its coarse lines alone
    doubted = against_mirrored(verdict, found, _refined(cost=0.01, fine_cost=0.04))
    assert not doubted.success
    assert doubted.probability <= 0.5
    assert "mirrored left to right" in doubted.doubt
