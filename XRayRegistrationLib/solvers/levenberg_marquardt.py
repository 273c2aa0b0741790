"""Levenberg-Marquardt on normalised gradients, for many start poses at once.

Every start keeps its own damping (Marquardt 1963: the diagonal of J'J); all are rendered in one
batch. Rotations turn about the bone's centroid, so their columns of J and the translations' nearly
separate. Each iteration renders image and Jacobian at the trial pose once: a step that is taken
already has its derivative.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from XRayRegistrationLib.drr.render import render, render_with_jacobian
from XRayRegistrationLib.geometry.rigid import increment_left, transform_points
from XRayRegistrationLib.solvers.comparison import (
    ComparisonOptions,
    FixedFeatures,
    agreement,
    correlation,
    fixed_features,
)
from XRayRegistrationLib.solvers.pyramid import LevelView

Array = NDArray[np.float64]

_LEAST_SHOWN = 0.3  # of a volume that stands alone has to project onto the X-ray


@dataclass(frozen=True)
class LevenbergMarquardtOptions:
    """Budget and damping.

    Attributes:
        iterations: at most this many, each one render with Jacobian.
        damping: the first lambda, times diag(J'J).
        still_mm: a start is done when two steps in a row move the bone by less than this (rotations
            at 100 mm from its centroid, depth counted a fifth).
        largest_rotation_rad, largest_translation_mm: bounds of one step.
        comparison: of rendered image and X-ray.
    """

    iterations: int = 25
    damping: float = 1e-2
    still_mm: float = 0.01
    largest_rotation_rad: float = 0.3
    largest_translation_mm: float = 60.0
    comparison: ComparisonOptions = field(default_factory=ComparisonOptions)


@dataclass(frozen=True)
class LevenbergMarquardtState:
    """All starts after a run.

    Attributes:
        rig_from_ct: (n, 4, 4).
        cost: (n,), 1 - gradient correlation, mean over views; smaller is better.
        start_cost: (n,).
        normal_matrix: (n, 6, 6), J'J at the end in (rad, mm), rotations about the centroid, rig axes.
        iterations: number of renders with Jacobian.
        converged: (n,) bool.
    """

    rig_from_ct: Array
    cost: Array
    start_cost: Array
    normal_matrix: Array
    iterations: int
    converged: NDArray[np.bool_]


def refine(
    level: Sequence[LevelView],
    rig_from_ct: Array,
    centre_ct: Array,
    options: LevenbergMarquardtOptions | None = None,
    *,
    backend: str = "auto",
    check: Callable[[], None] | None = None,
) -> LevenbergMarquardtState:
    """Minimise the cost of one pyramid level from every start.

    Args:
        level: the views at one resolution.
        rig_from_ct: starts (n, 4, 4).
        centre_ct: (3,), centre of rotation, ct mm.
        options: None for the defaults.
        backend: renderer.
        check: called every iteration; raising from it cancels.

    Returns:
        The end of every start; its cost is never larger than at the start.
    """
    options = options or LevenbergMarquardtOptions()
    fixed = _fixed_features(level, options)
    poses = np.array(rig_from_ct, dtype=np.float64)
    n = len(poses)
    cost, slope, normal = _linearise(level, fixed, poses, centre_ct, options, backend)
    start_cost = cost.copy()
    damping = np.full(n, options.damping)
    quiet = np.zeros(n, dtype=int)
    iterations = 1
    for _ in range(options.iterations - 1):
        active = np.flatnonzero((quiet < 2) & (damping < 1e6))
        if len(active) == 0:
            break
        if check is not None:
            check()
        diagonal = np.einsum("nii->ni", normal[active])
        damped = normal[active] + np.einsum(
            "n,ni,ij->nij", damping[active], diagonal + 1e-9 * diagonal.max(axis=1, keepdims=True) + 1e-30, np.eye(6)
        )
        step = -np.linalg.solve(damped, slope[active][..., None])[..., 0]
        step *= _shrink(step, options)[:, None]
        centre = np.stack([transform_points(p, centre_ct) for p in poses[active]])
        trial = np.stack([increment_left(p, s, c) for p, s, c in zip(poses[active], step, centre, strict=True)])
        trial_cost, trial_gradient, trial_normal = _linearise(level, fixed, trial, centre_ct, options, backend)
        iterations += 1
        better = trial_cost < cost[active]
        taken, refused = active[better], active[~better]
        still = np.abs(step * [100.0, 100.0, 100.0, 1.0, 1.0, 0.2]).max(axis=1) < options.still_mm
        quiet[active] = np.where(still, quiet[active] + 1, 0)
        poses[taken], cost[taken] = trial[better], trial_cost[better]
        slope[taken], normal[taken] = trial_gradient[better], trial_normal[better]
        damping[taken] = np.maximum(damping[taken] / 5.0, 1e-6)
        damping[refused] *= 6.0
    return LevenbergMarquardtState(poses, cost, start_cost, normal, iterations, quiet >= 2)


def costs(
    level: Sequence[LevelView],
    rig_from_ct: Array,
    options: LevenbergMarquardtOptions | None = None,
    *,
    backend: str = "auto",
) -> Array:
    """The cost (n,) that :func:`refine` minimises, at poses (n, 4, 4), without its derivative."""
    options = options or LevenbergMarquardtOptions()
    total = np.zeros(len(rig_from_ct))
    for view, fixed in zip(level, _fixed_features(level, options), strict=True):
        camera_from_ct = view.camera_from_rig @ rig_from_ct
        image = render(view.volume, view.camera, camera_from_ct, backend=backend, step_mm=view.step_mm)
        agrees = correlation(fixed, image, options.comparison, backend)
        total += (1.0 - agrees * _shown(view, camera_from_ct)) / len(level)
    return total


def _fixed_features(level: Sequence[LevelView], options: LevenbergMarquardtOptions) -> list[FixedFeatures]:
    return [fixed_features(view, options.comparison) for view in level]


def _shown(view: LevelView, camera_from_ct: Array) -> Array:
    """(n,) 1 when enough of a volume that stands alone projects onto the X-ray, less when not, down to 0.

    Compared only where it projects, a bone pushed out of the picture has little left to disagree with.
    """
    if not view.alone:
        return np.ones(len(camera_from_ct))
    points = view.volume.occupied_points_ct
    camera_points = points @ np.swapaxes(camera_from_ct[:, :3, :3], 1, 2) + camera_from_ct[:, None, :3, 3]
    pixels = view.camera.project(camera_points)
    inside = view.camera.in_view(pixels)
    at = np.where(inside[..., None], pixels, 0.0).round().astype(int)
    at = np.minimum(at, np.array(view.valid.shape[::-1]) - 1)
    inside &= view.valid[at[..., 1], at[..., 0]]
    return np.minimum(1.0, inside.mean(axis=1) / _LEAST_SHOWN)


def _shrink(step: Array, options: LevenbergMarquardtOptions) -> Array:
    rotation = np.linalg.norm(step[:, :3], axis=1)
    translation = np.linalg.norm(step[:, 3:], axis=1)
    return np.minimum(
        1.0,
        np.minimum(
            options.largest_rotation_rad / np.maximum(rotation, 1e-12),
            options.largest_translation_mm / np.maximum(translation, 1e-12),
        ),
    )


def _linearise(
    level: Sequence[LevelView],
    fixed: Sequence[FixedFeatures],
    poses: Array,
    centre_ct: Array,
    options: LevenbergMarquardtOptions,
    backend: str,
) -> tuple[Array, Array, Array]:
    """Cost (n,), gradient (n, 6) and J'J (n, 6, 6) of the increment in rig axes, mean over views."""
    n = len(poses)
    cost, slope, normal = np.zeros(n), np.zeros((n, 6)), np.zeros((n, 6, 6))
    for view, of_view in zip(level, fixed, strict=True):
        camera_from_ct = view.camera_from_rig @ poses
        centre = camera_from_ct[:, :3, :3] @ centre_ct + camera_from_ct[:, :3, 3]
        image, jacobian = render_with_jacobian(
            view.volume, view.camera, camera_from_ct, centre, backend=backend, step_mm=view.step_mm
        )
        found = agreement(of_view, image, jacobian, options.comparison, backend)
        # the camera's increment in the rig's axes: rotations and translations turn alike
        turn = np.kron(np.eye(2), view.camera_from_rig[:3, :3])
        cost += (1.0 - found.correlation * _shown(view, camera_from_ct)) / len(level)
        slope += found.slope @ turn / len(level)
        normal += turn.T @ found.normal @ turn / len(level)
    return cost, slope, normal
