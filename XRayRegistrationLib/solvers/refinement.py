"""The refinement that every method shares: candidates in, one pose at full accuracy out.

Coarse to fine on normalised gradients. Whether the whole patient or bone alone is rendered, the
image decides: flesh that lies as it lay in the CT helps, flesh that has moved does not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from XRayRegistrationLib.geometry.rigid import transform_points
from XRayRegistrationLib.solvers.comparison import ComparisonOptions
from XRayRegistrationLib.solvers.gradient_residual import GradientNormalisation
from XRayRegistrationLib.solvers.levenberg_marquardt import LevenbergMarquardtOptions, costs, refine
from XRayRegistrationLib.solvers.problem import View
from XRayRegistrationLib.solvers.pyramid import LevelView, build_level
from XRayRegistrationLib.solvers.robust import RobustOptions, refine_reweighted
from XRayRegistrationLib.solvers.search import distinct

Array = NDArray[np.float64]

_ELSEWHERE = 3.0  # times the distance within which poses are one
_ALONE_ITERATIONS = 12  # of one view, to see where it wants to go


@dataclass(frozen=True)
class RefinementOptions:
    """Resolutions of the refinement.

    Attributes:
        rounds: (pixels, candidates, iterations), coarse to fine, three or more.
        settling: iterations, at most, in which those that stay after the first round come to rest at its resolution: along
            a narrow valley a finer one takes many times as many.
        distinct_mm: poses whose bones lie closer than this, on average, are one.
        explained: a volume that leaves less than this cost in the first round is taken at once.
        clear: a candidate is followed further only while its cost is less than this times the best.
        robust: of the last steps, under weights that leave out what the CT has not; None for none.
        within_mm, dearer: the weighted pose is taken only when it lies so near the other, on average,
            and its unweighted cost is at most so many times as high.
    """

    rounds: tuple[tuple[int, int, int], ...] = ((64, 6, 8), (128, 2, 10), (256, 1, 10))
    settling: int = 32
    distinct_mm: float = 4.0
    explained: float = 0.05
    clear: float = 3.0
    robust: RobustOptions | None = field(default_factory=RobustOptions)
    within_mm: float = 12.0
    dearer: float = 1.1

    def __post_init__(self) -> None:
        if len(self.rounds) < 3:  # one to choose among candidates, one for the verdict, one for accuracy
            raise ValueError(f"rounds are {len(self.rounds)}; allowed are three or more")


@dataclass(frozen=True)
class Refined:
    """The refined pose, and what the verification looks at.

    Attributes:
        rig_from_ct: 4x4.
        centre_ct: (3,) ct mm, the bone's centroid.
        volume: name of the volume that the images prefer.
        cost: 1 - gradient correlation at 64 pixels, locally normalised gradients.
        plain_cost: the same with plain gradients: outlines of large and dense parts.
        fine_cost: as ``cost``, at the second round's resolution.
        rival_cost: ``cost`` of the best pose elsewhere, and ``rival`` (4, 4) that pose; inf and
            None when every candidate ended here.
        normal_matrix: (6, 6), J'J at the finest resolution so far, in rig axes about the centroid (rad, mm).
        finest_cost: the cost there.
        residuals: number of residuals there.
        view_costs: (n views,), as ``fine_cost``, of each view by itself.
        drift_mm: how far the bone moves in a view's plane, on average, when that view alone goes on deciding;
            of the view where it is most. Views of a wrong pose pull in different directions. 0 with one view.
        finish: refines at the finest resolution, which takes longest; None where that has been done.
    """

    rig_from_ct: Array
    centre_ct: Array
    volume: str
    cost: float
    plain_cost: float
    fine_cost: float
    rival_cost: float
    rival: Array | None
    normal_matrix: Array
    finest_cost: float
    residuals: int
    view_costs: Array
    drift_mm: float
    finish: Callable[[], Refined] | None = None


def refine_candidates(
    views: Mapping[str, Sequence[View]],
    candidates: Array,
    centre_ct: Array,
    surface_points: Array,
    options: RefinementOptions | None = None,
    *,
    backend: str = "auto",
    check: Callable[[float], None] | None = None,
    worth: Callable[[Refined], bool] = lambda refined: True,
) -> Refined:
    """Refine candidates against each volume, keep what explains the X-rays best.

    Args:
        views: for each volume's name, the X-rays with that volume.
        candidates: (n, 4, 4) rig_from_ct, best first.
        centre_ct: (3,) ct mm.
        surface_points: (n, 3) ct mm.
        options: None for the defaults.
        backend: renderer.
        check: called with the fraction done; raising from it cancels.
        worth: says of the pose before the last round whether that is to follow at once; without it
            ``Refined.finish`` can still be called.

    Returns:
        The refined pose. At the finest resolution it is never worse than the best candidate, but for
        what the robust weights leave out. The costs are unweighted: the verdict is calibrated on them.
    """
    options = options or RefinementOptions()
    check = check or (lambda fraction: None)
    first_camera = next(iter(views.values()))[0].camera_from_rig
    depth = float(transform_points(first_camera @ candidates[0], centre_ct)[2])
    depth = max(depth, 1.0)

    pixels, keep, iterations = options.rounds[0]
    settings = LevenbergMarquardtOptions(iterations=iterations)
    outcome = {}
    for name, of_volume in views.items():
        check(0.0)
        level = build_level(of_volume, pixels, depth, around=(candidates[:keep], surface_points))
        state = refine(level, candidates[:keep], centre_ct, settings, backend=backend)
        outcome[name] = (*distinct(state.rig_from_ct, state.cost, surface_points, options.distinct_mm), level)
        if outcome[name][1][0] < options.explained:
            break
    volume = min(outcome, key=lambda name: outcome[name][1][0])
    poses, cost, _, level = outcome[volume]
    stay = options.rounds[1][1]
    settled = refine(level, poses[:stay], centre_ct, LevenbergMarquardtOptions(iterations=options.settling), backend=backend)
    poses, cost = np.concatenate([settled.rig_from_ct, poses[stay:]]), np.concatenate([settled.cost, cost[stay:]])
    poses, cost, _ = distinct(poses, cost, surface_points, options.distinct_mm)
    coarse_poses, coarse_cost, coarse_level = poses, cost, level
    fine_cost, fine_level = float(cost[0]), level

    def judged(pose: Array, normal: Array, finest: float, level: Sequence[LevelView]) -> Refined:
        """A pose with all that the verification looks at; ``level`` is the finest so far, ``finest`` the cost there."""
        here = costs(coarse_level, pose[None], backend=backend)[0]
        plain = LevenbergMarquardtOptions(comparison=ComparisonOptions(normalisation=GradientNormalisation(window_px=0)))
        plain_cost = costs(coarse_level, pose[None], plain, backend=backend)[0]
        rival, rival_cost = _rival(pose, coarse_poses, coarse_cost, surface_points, options.distinct_mm)
        view_costs = np.concatenate([costs([view], pose[None], backend=backend) for view in fine_level])
        drift = 0.0
        if len(fine_level) > 1:
            drift = max(_drift(view, pose, centre_ct, surface_points, backend) for view in fine_level)
        return Refined(
            pose, centre_ct, volume, float(here), float(plain_cost), fine_cost, rival_cost, rival, normal, finest,
            _residuals(level), view_costs, drift,
        )  # fmt: skip

    def next_round(number: int) -> tuple[Array, Array, Array, list[LevelView]]:
        """Poses, costs and normal matrices after a round, best first, and its level."""
        check(number / len(options.rounds))
        pixels, keep, iterations = options.rounds[number]
        near = poses[cost <= options.clear * cost[0]][:keep]
        level = build_level(views[volume], pixels, depth, around=(near, surface_points))
        state = refine(level, near, centre_ct, LevenbergMarquardtOptions(iterations=iterations), backend=backend)
        order = np.argsort(state.cost)
        return state.rig_from_ct[order], state.cost[order], state.normal_matrix[order], level

    def finish() -> Refined:
        refined_poses, refined_cost, normals, level = next_round(len(options.rounds) - 1)
        pose, finest, normal = refined_poses[0], float(refined_cost[0]), normals[0]
        start, settings = candidates[0], LevenbergMarquardtOptions(iterations=options.rounds[-1][2])
        if float(costs(level, start[None], settings, backend=backend)[0]) < finest:
            restart = refine(level, start[None], centre_ct, settings, backend=backend)
            pose, normal, finest = restart.rig_from_ct[0], restart.normal_matrix[0], float(restart.cost[0])
        if options.robust is not None:
            weighted = refine_reweighted(
                level, pose, centre_ct, options.robust, backend=backend, check=lambda: check(1.0)
            )
            weighted_cost = float(costs(level, weighted[None], settings, backend=backend)[0])
            if _apart(weighted, pose, surface_points) < options.within_mm and weighted_cost <= options.dearer * finest:
                pose, finest = weighted, weighted_cost
        return judged(pose, normal, finest, level)

    for number in range(1, len(options.rounds) - 1):
        poses, cost, normal, level = next_round(number)
        if number == 1:
            fine_cost, fine_level = float(cost[0]), level
    refined = replace(judged(poses[0], normal[0], float(cost[0]), level), finish=finish)
    return finish() if worth(refined) else refined


def against(refined: Refined, others: Sequence[Refined], surface_points: Array) -> Refined:
    """With the best rival that other refinements of the same images found elsewhere, where it is better than its own.

    Those that another volume explains are left out: costs of two volumes are not of one scale.
    """
    elsewhere = _ELSEWHERE * RefinementOptions.distinct_mm
    for other in others:
        rivals = other.volume == refined.volume and other.cost < refined.rival_cost
        if rivals and _apart(other.rig_from_ct, refined.rig_from_ct, surface_points) > elsewhere:
            refined = replace(refined, rival=other.rig_from_ct, rival_cost=other.cost)
    return refined


def _drift(view: LevelView, pose: Array, centre_ct: Array, surface_points: Array, backend: str) -> float:
    """Mean distance in mm, in the view's plane at the bone's depth, that the bone moves when this view alone decides."""
    settings = LevenbergMarquardtOptions(iterations=_ALONE_ITERATIONS)
    alone = refine([view], pose[None], centre_ct, settings, backend=backend).rig_from_ct[0]
    here, there = (transform_points(view.camera_from_rig @ p, surface_points[:200]) for p in (pose, alone))
    shift = here[:, :2] / here[:, 2:] - there[:, :2] / there[:, 2:]
    return float(np.linalg.norm(shift, axis=1).mean() * here[:, 2].mean())


def _rival(
    pose: Array, poses: Array, cost: Array, surface_points: Array, distance_mm: float
) -> tuple[Array | None, float]:
    """The best candidate that ended elsewhere."""
    for other, value in zip(poses, cost, strict=True):
        if _apart(other, pose, surface_points) > _ELSEWHERE * distance_mm:
            return other, float(value)
    return None, float("inf")


def _apart(a: Array, b: Array, surface_points: Array) -> float:
    """Mean distance in mm of the bone's surface under two poses."""
    points = surface_points[:50]
    return float(np.linalg.norm(transform_points(a, points) - transform_points(b, points), axis=1).mean())


def _residuals(level: Sequence[LevelView]) -> int:
    return int(sum(2 * view.valid[1:-1, 1:-1].sum() for view in level))
