"""Global search without a start pose: templates, then Levenberg-Marquardt on the best, ever finer.

A tournament: thousands of orientations are scored at 24 pixels, some fifty refined at 32, a dozen
of what is still distinct at 64. What is left are candidates for the shared refinement. A bone that
stands alone among others has more rivals and tells itself apart only by finer detail: more starts,
at more pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from XRayRegistrationLib.geometry.rigid import inverse, transform_points
from XRayRegistrationLib.solvers.levenberg_marquardt import LevenbergMarquardtOptions, refine
from XRayRegistrationLib.solvers.problem import View
from XRayRegistrationLib.solvers.pyramid import build_level
from XRayRegistrationLib.solvers.search_range import SearchRange
from XRayRegistrationLib.solvers.template_matching import match_templates

Array = NDArray[np.float64]
Check = Callable[[float], None]


@dataclass(frozen=True)
class SearchOptions:
    """Sizes of the tournament.

    Attributes:
        match_pixels: width of the X-ray that templates are slid over, and the most that it is
            magnified to for a small bone alone in it.
        match_pixels_alone: the same for a volume that stands alone: at 120 pixels the best templates
            of a wrist's radius are the right ones, at 90 they rank in the hundreds.
        rounds: (pixels, starts, iterations) of each round of Levenberg-Marquardt.
        rounds_alone: the same for a volume that stands alone.
        distinct_mm: poses whose bones lie closer than this, on average, are one.
    """

    match_pixels: tuple[int, int] = (24, 48)
    match_pixels_alone: tuple[int, int] = (32, 128)
    rounds: tuple[tuple[int, int, int], ...] = ((32, 48, 12), (64, 12, 10))
    rounds_alone: tuple[tuple[int, int, int], ...] = ((48, 128, 6), (64, 32, 10), (96, 12, 12))
    distinct_mm: float = 4.0


@dataclass(frozen=True)
class Candidates:
    """What a search found, best first.

    Attributes:
        rig_from_ct: (n, 4, 4), distinct poses.
        cost: (n,), 1 - gradient correlation at the last round's resolution.
        starts: (n,), how many starts of the last round ended at each: agreement.
        templates: number of orientations and depths scored.
    """

    rig_from_ct: Array
    cost: Array
    starts: NDArray[np.int64]
    templates: int


def search(
    views: Sequence[View],
    centre_ct: Array,
    surface_points: Array,
    search_range: SearchRange,
    options: SearchOptions | None = None,
    *,
    backend: str = "auto",
    check: Check | None = None,
) -> Candidates:
    """Poses of ``search_range`` that explain the X-rays best.

    Args:
        views: one X-ray, or the views of a rig.
        centre_ct: (3,), centre of rotation, ct mm.
        surface_points: (n, 3) ct mm, by which poses are told apart.
        search_range: in the first view's camera.
        options: None for the defaults.
        backend: renderer.
        check: called with the fraction done; raising from it cancels.
    """
    options = options or SearchOptions()
    say: Check = check or (lambda fraction: None)
    depth = float(np.median(search_range.depths_mm))
    pixels, at_most = options.match_pixels_alone if views[0].alone else options.match_pixels
    coarse = build_level(views, pixels, depth, at_most=at_most)
    matches = match_templates(
        coarse, centre_ct, search_range, backend=backend, check=lambda fraction: say(0.4 * fraction)
    )
    rounds = options.rounds_alone if views[0].alone else options.rounds
    best = np.argsort(-matches.score)[: rounds[0][1]]
    poses = inverse(coarse[0].camera_from_rig) @ matches.camera_from_ct[best]
    if search_range.near is not None:
        poses = np.concatenate([(inverse(coarse[0].camera_from_rig) @ search_range.near)[None], poses])
    cost, starts = np.zeros(len(poses)), np.ones(len(poses), dtype=np.int64)
    for number, (pixels, keep, iterations) in enumerate(rounds):
        fraction = 0.4 + 0.6 * number / len(rounds)
        level = build_level(views, pixels, depth)
        settings = LevenbergMarquardtOptions(iterations=iterations)
        state = refine(level, poses[:keep], centre_ct, settings, backend=backend, check=partial(say, fraction))
        poses, cost, starts = distinct(state.rig_from_ct, state.cost, surface_points, options.distinct_mm)
    return Candidates(poses, cost, starts, len(matches.score))


def distinct(
    rig_from_ct: Array, cost: Array, surface_points: Array, distance_mm: float
) -> tuple[Array, Array, NDArray[np.int64]]:
    """Poses best first, without those that lie at a better one; and how many ended at each."""
    points = surface_points[:50]  # farthest-point order: they span the bone
    order = np.argsort(cost)
    kept: list[int] = []
    places: list[Array] = []
    count: list[int] = []
    for n in order:
        place = transform_points(rig_from_ct[n], points)
        same = [i for i, p in enumerate(places) if np.linalg.norm(place - p, axis=1).mean() < distance_mm]
        if same:
            count[same[0]] += 1
            continue
        kept.append(int(n))
        places.append(place)
        count.append(1)
    return rig_from_ct[kept], cost[kept], np.array(count)
