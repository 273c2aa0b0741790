"""Starts for PnP: three points a pose (P3P) of every triplet where they are few, of sampled ones where they are many.

The two libraries that have the solvers and the RANSAC, PoseLib (Larsson, BSD-3) and OpenCV 5, side by side. Both take
pixels as they come, without half a pixel of their own; measured on exact pairs.
"""

from __future__ import annotations

from importlib.util import find_spec
from itertools import combinations
from math import comb
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from XRayRegistrationLib.errors import MissingDependencyError
from XRayRegistrationLib.geometry.rigid import rotation_exp
from XRayRegistrationLib.solvers.pnp_pairs import Index, Pairs
from XRayRegistrationLib.solvers.pnp_refine import Poses

Array = NDArray[np.float64]
Solver = Literal["poselib", "opencv"]

_LEAST_ITERATIONS = 200
_GUIDED = 100  # pairs from which their order is followed: the best of a few soon agree on a wrong pose


def chosen_solver(solver: Literal["auto", "poselib", "opencv"]) -> Solver:
    """What is there; of "auto", PoseLib before OpenCV, which takes three times as long for the same poses of few pairs.

    Of many they are equals (Testing/benchmarks/results/pnp.csv).

    Raises:
        MissingDependencyError: the library asked for, or both, are not installed.
    """
    modules: dict[Solver, str] = {"poselib": "poselib", "opencv": "cv2"}
    wanted: list[Solver] = ["poselib", "opencv"] if solver == "auto" else [solver]
    for name in wanted:
        if find_spec(modules[name]) is not None:
            return name
    raise MissingDependencyError(wanted[0], "a pose from pairs of points and pixels", wanted[0])


def triplets(n: int, most: int, rng: np.random.Generator) -> Index:
    """(m, 3): all C(n, 3) triplets where they are at most ``most`` (364 of 14 points), else as many drawn."""
    if comb(n, 3) <= most:
        return np.array(list(combinations(range(n), 3)), dtype=np.intp)
    return np.argpartition(rng.random((most, n)), 3, axis=1)[:, :3]


def minimal_poses(pairs: Pairs, chosen: Index, solver: Solver) -> Poses:
    """Every pose that projects the three points of a triplet exactly, up to four each; possibly none."""
    found = _poselib_p3p(pairs, chosen) if solver == "poselib" else _opencv_p3p(pairs, chosen)
    rotation = np.array([r for r, _ in found], dtype=np.float64).reshape(-1, 3, 3)
    centre = np.array([c for _, c in found], dtype=np.float64).reshape(-1, 3)
    usable = np.isfinite(rotation).all(axis=(1, 2)) & np.isfinite(centre).all(axis=1) & (centre[:, 2] > 0)
    return Poses(rotation[usable], centre[usable])


def sampled_pose(
    pairs: Pairs, threshold_px: float, iterations: int, confidence: float, guided: bool, seed: int, solver: Solver
) -> Poses | None:
    """RANSAC's best pose, (1, ...), by P3P and local optimisation; None where it finds nothing.

    Args:
        pairs: surest first where ``guided``.
        threshold_px: of an inlier.
        iterations: at most; fewer once ``confidence`` is reached.
        confidence: that one sample without an outlier was drawn.
        guided: sample the first pairs first (PROSAC, Chum and Matas 2005), where there are enough of them.
        seed: the same seed gives the same pose.
        solver: whose RANSAC.
    """
    run = _poselib_ransac if solver == "poselib" else _opencv_ransac
    found = run(pairs, threshold_px, iterations, confidence, guided and len(pairs) >= _GUIDED, seed)
    if found is None:
        return None
    rotation, centre = found
    if not (np.isfinite(rotation).all() and np.isfinite(centre).all() and centre[2] > 0):
        return None
    return Poses(rotation[None], centre[None])


def _poselib_p3p(pairs: Pairs, chosen: Index) -> list[tuple[Array, Array]]:
    import poselib

    rays, points = pairs.bearings(), np.ascontiguousarray(pairs.points.T)
    return [(pose.R, pose.t) for t in chosen for pose in poselib.p3p(rays[t], points[t])]


def _opencv_p3p(pairs: Pairs, chosen: Index) -> list[tuple[Array, Array]]:
    import cv2

    points, pixels = np.ascontiguousarray(pairs.points.T), np.ascontiguousarray(pairs.pixels.T)
    k = np.diag([*pairs.focal, 1.0])
    found = []
    for t in chosen:
        _, rotations, centres = cv2.solveP3P(points[t], pixels[t], k, None, flags=cv2.SOLVEPNP_P3P)
        found += [(rotation_exp(r[:, 0]), c[:, 0]) for r, c in zip(rotations, centres, strict=True)]
    return found


def _poselib_ransac(
    pairs: Pairs, threshold_px: float, iterations: int, confidence: float, guided: bool, seed: int
) -> tuple[Array, Array] | None:
    import poselib

    camera = {"model": "PINHOLE", "width": 1, "height": 1, "params": [*pairs.focal, 0.0, 0.0]}
    options = {
        "max_iterations": iterations,
        "min_iterations": min(_LEAST_ITERATIONS, iterations),
        "success_prob": confidence,
        "dyn_num_trials_mult": 1.0,
        "max_reproj_error": threshold_px,
        "progressive_sampling": guided,
        "seed": seed % 2**31,
    }
    pose, statistics = poselib.estimate_absolute_pose(pairs.pixels.T, pairs.points.T, camera, options, {})
    return None if statistics["num_inliers"] < 4 else (pose.R, pose.t)


def _opencv_ransac(
    pairs: Pairs, threshold_px: float, iterations: int, confidence: float, guided: bool, seed: int
) -> tuple[Array, Array] | None:
    import cv2

    parameters = cv2.UsacParams()
    parameters.sampler = cv2.SAMPLING_PROSAC if guided else cv2.SAMPLING_UNIFORM
    parameters.score = cv2.SCORE_METHOD_MSAC
    parameters.threshold = threshold_px
    parameters.maxIterations = iterations
    parameters.confidence = confidence
    parameters.randomGeneratorState = seed % 2**31
    points, pixels = np.ascontiguousarray(pairs.points.T), np.ascontiguousarray(pairs.pixels.T)
    found, _, turn, centre, _ = cv2.solvePnPRansac(points, pixels, np.diag([*pairs.focal, 1.0]), None, params=parameters)
    return (rotation_exp(turn[:, 0]), centre[:, 0]) if found else None
