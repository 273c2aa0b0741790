"""A pose from pairs of a CT point and the pixel where it is seen, many of which are wrong: robust PnP.

Few pairs (14 at most): the pose of every triplet. Many: they are thinned to those that are surest and spread over the
image, and RANSAC samples those. The best starts, and what a C-arm cannot tell from them (Necker's mirrored pose), go
through a weighted robust Levenberg-Marquardt, in the end on all pairs. A pose that chance would give as well, as
between wrong pairs, is a failure that says so, unless the caller judges poses by other means.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.rigid import check_rigid, from_rotation_translation, rotation_angle
from XRayRegistrationLib.solvers.pnp_pairs import LEAST_POINTS, Pairs, PnpFailure, checked_pairs, degenerate, thinned
from XRayRegistrationLib.solvers.pnp_refine import (
    SOFT_EDGE,
    PointErrors,
    Poses,
    Prior,
    covariance,
    joined,
    mean_cost,
    refine,
    residuals_px,
    robust_cost,
    squared_errors,
    unshrunk,
)
from XRayRegistrationLib.solvers.pnp_sampling import Solver, chosen_solver, minimal_poses, sampled_pose, triplets

__all__ = ["PnpFailure", "PnpOptions", "PnpPose", "solve_pnp"]

Array = NDArray[np.float64]

ENUMERATED = 14  # points up to which every triplet is tried, 364 of them
_FEW = 60  # pairs up to which as many triplets are drawn besides RANSAC, which of few pairs misses rival poses
_TRIPLETS = 364
_SPARE = 2  # modes that are looked at beyond those asked for
_STARTS = 12  # of the triplets' poses, that are refined
_COARSE = 500  # pairs that tell starts apart
_COARSE_STEPS, _FINE_STEPS, _LAST_STEPS = 25, 8, 6
_THIN = 0.35  # depth over width of points that are seen alike from two sides
_NEGLIGIBLE = 1e-2  # squared, in sigmas of the pose: shorter steps are not worth their time
_SURELY = 22.46  # chi-square of 6, 99.9 %: a pose that its prior vouches for
_TRUST, _LITTLE_TRUST = 10.0, 2.0  # degrees of freedom that the sigmas are worth: stated ones, and the threshold's


@dataclass(frozen=True)
class PnpOptions:
    """How a pose is looked for.

    Attributes:
        solver: whose P3P and RANSAC; "auto" takes PoseLib, or OpenCV where that is missing.
        threshold_px: of an inlier, where no uncertainty is given.
        threshold_sigma: of an inlier, where it is, in sigmas; 3 keeps 98.9 % of the right pairs.
        point_errors: what ``sigma_mm`` means: "predicted" points, as a network gives, scatter less than the true ones;
            "measured" points, as a person gives, scatter more. The wrong one puts the bone too near or too far.
        pixel_errors: the same of the pixels and ``covariance_px``: "predicted" ones are drawn together (see
            pnp_refine.unshrunk), "measured" ones scatter about the true.
        max_pairs: that RANSAC sees; more are thinned to them, over the image, lowest sigma first. The pose that comes
            out is fitted to all pairs, so that more of them cost time and gain nothing.
        max_iterations: of RANSAC; 10,000 find one pair in ten that is right.
        confidence: of RANSAC, that a sample without an outlier was drawn.
        modes: poses that are returned, at most.
        distinct_deg, distinct_mm: poses that differ by more, in turn or in the centroid's place, are two modes.
        refuse_chance: a pose that wrong pairs would give as well is none. Off for pairs whose uncertainties are to be
            believed, however large they are, and a pose that is judged by other means later.
    """

    solver: Literal["auto", "poselib", "opencv"] = "auto"
    threshold_px: float = 5.0
    threshold_sigma: float = 3.0
    point_errors: PointErrors = "predicted"
    pixel_errors: PointErrors = "measured"
    max_pairs: int = 1000
    max_iterations: int = 10_000
    confidence: float = 0.9999
    modes: int = 1
    distinct_deg: float = 5.0
    distinct_mm: float = 20.0
    refuse_chance: bool = True

    def __post_init__(self) -> None:
        errors = ("predicted", "measured")
        for name, allowed in (("solver", ("auto", "poselib", "opencv")), ("point_errors", errors), ("pixel_errors", errors)):
            if getattr(self, name) not in allowed:
                raise InputError(f"PnP option {name} is {getattr(self, name)!r}; allowed are {', '.join(allowed)}")
        for name in ("threshold_px", "threshold_sigma", "distinct_deg", "distinct_mm"):
            if not getattr(self, name) > 0:
                raise InputError(f"PnP option {name} is {getattr(self, name)!r}; allowed is a positive number")
        if not 0 < self.confidence < 1:
            raise InputError(f"PnP option confidence is {self.confidence!r}; allowed is a number between 0 and 1")
        for name, least in (("max_pairs", 100), ("max_iterations", 1), ("modes", 1)):
            if getattr(self, name) < least:
                raise InputError(f"PnP option {name} is {getattr(self, name)!r}; allowed is {least} or more")


@dataclass(frozen=True)
class PnpPose:
    """A pose from pairs.

    Attributes:
        camera_from_ct: 4x4, mm.
        inliers: (n,) of all the pairs that were given: those the pose explains, in front of the source.
        cost: mean of Tukey's rho over all pairs (and the prior's share), 0 where all fit; comparable between modes.
        covariance: (6, 6) of ``increment_left`` about the points' centroid in camera axes, (rad, mm).
        rms_px: root of the mean square distance of the inliers.
        message: a sentence on how it was found.
    """

    camera_from_ct: Array
    inliers: NDArray[np.bool_]
    cost: float
    covariance: Array
    rms_px: float
    message: str


def solve_pnp(
    points_ct: ArrayLike,
    pixels: ArrayLike,
    camera: Camera,
    *,
    sigma_px: ArrayLike | None = None,
    covariance_px: ArrayLike | None = None,
    sigma_mm: ArrayLike | None = None,
    options: PnpOptions | None = None,
    seed: int = 0,
    prior: tuple[ArrayLike, ArrayLike] | None = None,
) -> tuple[PnpPose, ...]:
    """The poses under which most points project to their pixels, best first; at least one.

    Args:
        points_ct: (n, 3) mm, n >= 4.
        pixels: (n, 2) = (u, v), integer = pixel centre.
        camera: of the X-ray.
        sigma_px: (n,) or one px, how exactly each is seen along u and along v; or
        covariance_px: (n, 2, 2) px^2.
        sigma_mm: (n,) or one mm, how exactly each point is known along each axis; see ``PnpOptions.point_errors``.
            Given alone, the pixels are exact.
        options: None for the defaults.
        seed: the same seed gives the same poses.
        prior: (camera_from_ct, sigma (6,)) that is known beforehand, sigma in (rad, mm) of the increment about the
            points' centroid; for 4 or 5 landmarks, which hardly determine a pose.

    Raises:
        PnpFailure: too few pairs, degenerate ones, or no pose that chance would not give as well.
        InputError: shapes that do not belong together, or an uncertainty that is none.
        MissingDependencyError: neither PoseLib nor OpenCV is installed.
    """
    options = options or PnpOptions()
    solver = chosen_solver(options.solver)
    stated = not (sigma_px is None and covariance_px is None and sigma_mm is None)
    known = None if prior is None else _checked_prior(prior)
    plain_sigma = options.threshold_px / options.threshold_sigma
    pairs = checked_pairs(points_ct, pixels, camera, sigma_px, covariance_px, sigma_mm, plain_sigma)
    belief = None if known is None else _prior(known, pairs)
    if belief is not None:
        pairs = replace(pairs, depth_mm=float(belief.centre[2]))
    rng = np.random.default_rng([seed])
    few = pairs if len(pairs) <= ENUMERATED else pairs.at(thinned(pairs, options.max_pairs, rng, ranked=stated))
    starts = _starts(few, solver, options, stated, rng, belief)
    if len(starts) == 0:
        raise PnpFailure(f"no pose explains more than three of the {len(pairs)} pairs")
    return _finished(pairs, few, _modes(few, starts, options, belief), camera, options, stated, belief)


def _checked_prior(prior: tuple[ArrayLike, ArrayLike]) -> tuple[Array, Array]:
    matrix, sigma = check_rigid(prior[0], "the prior's camera_from_ct"), np.asarray(prior[1], dtype=np.float64)
    if sigma.shape != (6,) or not (np.isfinite(sigma) & (sigma > 0)).all():
        raise InputError(f"the prior's sigma is {sigma.tolist()}; allowed are six positive numbers, (rad, mm)")
    return matrix, sigma


def _prior(known: tuple[Array, Array], pairs: Pairs) -> Prior:
    matrix, sigma = known
    centre = matrix[:3, :3] @ pairs.centre_ct + matrix[:3, 3]
    if centre[2] <= 0:
        raise InputError(f"the prior puts the points {-centre[2]:.0f} mm behind the source; allowed is a pose in front of it")
    return Prior(matrix[:3, :3], centre, sigma)


def _starts(
    few: Pairs, solver: Solver, options: PnpOptions, ranked: bool, rng: np.random.Generator, prior: Prior | None
) -> Poses:
    """Poses worth refining: by P3P or RANSAC, their mirror images, and the prior's."""
    found: list[Poses] = []
    if len(few) <= _FEW:
        poses = minimal_poses(few, triplets(len(few), _TRIPLETS, rng), solver)
        if len(poses):
            cost = robust_cost(few, poses, SOFT_EDGE * options.threshold_sigma, prior)
            found.append(poses.at(_distinct(poses, cost, options, _STARTS)))
    if len(few) > ENUMERATED:
        rest, threshold_px = few, options.threshold_sigma * float(np.median(few.sigma_px()))
        for _ in range(options.modes):
            seed = int(rng.integers(2**31))
            pose = sampled_pose(rest, threshold_px, options.max_iterations, options.confidence, ranked, seed, solver)
            if pose is None:
                break
            found.append(pose)
            rest = rest.at(squared_errors(rest, pose)[0] > options.threshold_sigma**2)
            if len(rest) < ENUMERATED:
                break
    found += [_mirrored(few, pose.at(slice(0, 1)), options) for pose in list(found)]
    if prior is not None:
        found.append(Poses(prior.rotation[None], prior.centre[None]))
    return joined(found) if found else Poses(np.zeros((0, 3, 3)), np.zeros((0, 3)))


def _mirrored(few: Pairs, pose: Poses, options: PnpOptions) -> Poses:
    """The pose that looks alike from afar: mirrored along the beam, and along the inliers' thinnest direction.

    None of points as thick as wide, unless several modes are asked for.
    """
    inlier = squared_errors(few, pose)[0] < options.threshold_sigma**2
    points = few.points[:, inlier] if inlier.sum() >= LEAST_POINTS else few.points
    middle = points.mean(axis=1)
    directions, extent, _ = np.linalg.svd((points - middle[:, None]) @ (points - middle[:, None]).T)
    if options.modes == 1 and np.sqrt(extent[2]) > _THIN * np.sqrt(extent[1]):
        return pose.at(slice(0, 0))
    normal, rotation = directions[:, 2], pose.rotation[0]
    place = rotation @ middle + pose.centre[0]
    beam = place / np.linalg.norm(place)
    other = (np.eye(3) - 2 * np.outer(beam, beam)) @ rotation @ (np.eye(3) - 2 * np.outer(normal, normal))
    return Poses(other[None], (place - other @ middle)[None])


def _modes(few: Pairs, starts: Poses, options: PnpOptions, prior: Prior | None) -> Poses:
    """The best minima that are not the same, best first: as many as are asked for, and some to replace doubtful ones."""
    k = SOFT_EDGE * options.threshold_sigma
    coarse = few.at(np.arange(0, len(few), max(1, len(few) // _COARSE)))
    if len(starts) > 1:
        starts = refine(coarse, starts, k, _COARSE_STEPS, options.point_errors, prior, enough=_NEGLIGIBLE)
        # few pairs make many doubtful minima between the good ones
        most = options.modes + _SPARE if len(few) > _COARSE else len(starts)
        starts = starts.at(_distinct(starts, robust_cost(coarse, starts, k, prior), options, most))
    modes = refine(few, starts, k, _FINE_STEPS, options.point_errors, prior)
    return modes.at(_distinct(modes, robust_cost(few, modes, k, prior), options, len(modes)))


def _distinct(poses: Poses, cost: Array, options: PnpOptions, most: int) -> NDArray[np.intp]:
    """Indices of the best, each unlike those before it."""
    kept: list[int] = []
    for i in np.argsort(cost, kind="stable"):
        turned = rotation_angle(poses.rotation[kept], poses.rotation[i]) > np.deg2rad(options.distinct_deg)
        apart = np.linalg.norm(poses.centre[kept] - poses.centre[i], axis=1) > options.distinct_mm
        if (turned | apart).all():
            kept.append(int(i))
            if len(kept) == most:
                break
    return np.array(kept, dtype=np.intp)


def _finished(
    pairs: Pairs, few: Pairs, modes: Poses, camera: Camera, options: PnpOptions, stated: bool, prior: Prior | None
) -> tuple[PnpPose, ...]:
    """Each mode fitted to all pairs that it may explain; those that chance explains as well are left out.

    Raises:
        PnpFailure: none is left.
    """
    k = SOFT_EDGE * options.threshold_sigma
    found: list[PnpPose] = []
    reasons: list[str] = []
    for number in range(len(modes)):
        if len(found) == options.modes:
            break
        pose = modes.at(slice(number, number + 1))
        near, s = pairs, squared_errors(pairs, pose)
        if len(few) < len(pairs):
            # a step moves few pairs across k: those a little beyond it come along
            reach = np.flatnonzero(s[0] < (1.2 * k) ** 2)
            if len(reach):
                near = pairs.at(reach)
                pose = refine(near, pose, k, _LAST_STEPS, options.point_errors, prior, enough=_NEGLIGIBLE)
                s[0, reach] = squared_errors(near, pose)[0]
        if options.pixel_errors == "predicted":
            pose = unshrunk(near, pose, k, prior)
            s = squared_errors(pairs, pose)
        inliers = s[0] < options.threshold_sigma**2
        agreeing = pairs.at(np.flatnonzero(inliers))
        reason = _doubt(pairs, agreeing, pose, camera, options, prior)
        if reason:
            reasons.append(reason)
            continue
        share = 0.0 if prior is None else float(prior.penalty(pose.rotation, pose.centre)[0]) * 3.0 / (k**2 * len(pairs))
        rotation, centre = pose.rotation[0], pose.centre[0]
        found.append(
            PnpPose(
                camera_from_ct=from_rotation_translation(rotation, centre - rotation @ pairs.centre_ct),
                inliers=inliers,
                cost=float(mean_cost(s, k)[0]) + share,
                covariance=covariance(near, pose, k, prior, _TRUST if stated else _LITTLE_TRUST),
                rms_px=float(np.sqrt((residuals_px(agreeing, pose) ** 2).mean())),
                message=f"{int(inliers.sum())} of {len(pairs)} pairs fit",
            )
        )
    if not found:
        raise PnpFailure(reasons[0])
    return tuple(sorted(found, key=lambda pose: pose.cost))


def _doubt(
    pairs: Pairs, agreeing: Pairs, pose: Poses, camera: Camera, options: PnpOptions, prior: Prior | None
) -> str:
    """Why this pose is none, or ""."""
    n, k = len(pairs), len(agreeing)
    if k < LEAST_POINTS:
        return f"the best pose explains {k} of the {n} pairs; at least {LEAST_POINTS} are needed"
    reason = degenerate(agreeing)
    if reason:
        return f"the {k} of {n} points that fit together {reason}"
    if prior is not None and prior.penalty(pose.rotation, pose.centre)[0] < _SURELY:
        return ""
    if options.refuse_chance and _log_false_alarms(pairs, pose, k, camera, options.threshold_sigma) > 0.0:
        return f"the best pose explains {k} of the {n} pairs, which wrong pairs would do by chance"
    return ""


def _log_false_alarms(pairs: Pairs, pose: Poses, k: int, camera: Camera, threshold_sigma: float) -> float:
    """Logarithm of how many poses with k inliers pairs at random would give (Moisan and Stival 2004).

    (n - 3) C(n, k) C(k, 3) 4 p^(k - 3), where p is the chance that a pixel anywhere on the image is an inlier, and 4
    the poses of a triplet.
    """
    n = len(pairs)
    some = pairs.at(np.arange(0, n, max(1, n // 1000)))
    uu, vv, uv = some.covariance_at(np.maximum((pose.rotation[:, 2] @ some.points + pose.centre[:, 2:])[0], 1.0))
    area = np.pi * threshold_sigma**2 * float(np.median(np.sqrt(uu * vv - (0.0 if uv is None else uv**2))))
    log_p = min(0.0, float(np.log(area / (camera.width * camera.height))))

    def log_choose(a: int, b: int) -> float:
        return float(gammaln(a + 1) - gammaln(b + 1) - gammaln(a - b + 1))

    return float(np.log(4.0 * (n - 3)) + log_choose(n, k) + log_choose(k, 3) + (k - 3) * log_p)
