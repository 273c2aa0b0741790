"""Less weight where an X-ray shows what the CT has not: instruments, screws, cables, a collimator's edge.

Iteratively reweighted least squares: weights from the residual at a pose, a few Levenberg-Marquardt
steps under them, and again. Within one run the weights stand still, so that the costs that its
steps are judged by are of one function.

The weights are Geman and McClure's, w = 1 / (1 + (r / c sigma)^2)^2, with r the root mean square
over a window of the pixel's residual (both components of e_moving - e_fixed), and sigma = 1.4826
times its median. Windows, because a thing has neighbouring pixels and noise has not; a wide scale
c, because only what stands out clearly is meant: X-rays without such things lose next to nothing.
A pixel without weight is left out of its neighbours' local strength too. Otherwise a bright edge
goes on holding down the true edges around it, and little is gained.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from XRayRegistrationLib.drr.render import render
from XRayRegistrationLib.solvers.comparison import ComparisonOptions, fixed_features, residual
from XRayRegistrationLib.solvers.gradient_residual import Image
from XRayRegistrationLib.solvers.levenberg_marquardt import LevenbergMarquardtOptions, refine
from XRayRegistrationLib.solvers.pyramid import LevelView

Array = NDArray[np.float64]


@dataclass(frozen=True)
class RobustOptions:
    """What loses weight, and for how long.

    Attributes:
        scale: c, the residual over the robust standard deviation at which a weight falls to 1/4.
        window_px: side of the window that residuals are taken over; a weight also counts for as many
            pixels around its own.
        rounds: number of times that weights are found.
        iterations: of Levenberg-Marquardt in each.
    """

    scale: float = 5.0
    window_px: int = 5
    rounds: int = 2
    iterations: int = 4


def refine_reweighted(
    level: Sequence[LevelView],
    rig_from_ct: Array,
    centre_ct: Array,
    options: RobustOptions | None = None,
    *,
    backend: str = "auto",
    check: Callable[[], None] | None = None,
) -> Array:
    """The pose (4, 4) that what stands out has no say in, from one that is nearly right.

    Args:
        level: the views at one resolution.
        rig_from_ct: (4, 4).
        centre_ct: (3,), centre of rotation, ct mm.
        options: None for the defaults.
        backend: renderer.
        check: called every iteration; raising from it cancels.
    """
    options = options or RobustOptions()
    settings = LevenbergMarquardtOptions(iterations=options.iterations)
    pose = np.asarray(rig_from_ct, dtype=np.float64)
    for _ in range(options.rounds):
        weighted = reweighted(level, pose, options, settings.comparison, backend=backend)
        pose = refine(weighted, pose[None], centre_ct, settings, backend=backend, check=check).rig_from_ct[0]
    return pose


def reweighted(
    level: Sequence[LevelView],
    rig_from_ct: Array,
    options: RobustOptions,
    comparison: ComparisonOptions,
    *,
    backend: str = "auto",
) -> list[LevelView]:
    """The views with weights from their residuals at a pose (4, 4); weights they had are left out of account."""
    views = []
    for view in level:
        plain = replace(view, weight=None)
        camera_from_ct = (view.camera_from_rig @ rig_from_ct)[None]
        image = render(view.volume, view.camera, camera_from_ct, backend=backend, step_mm=view.step_mm)
        found, counts = residual(fixed_features(plain, comparison), image, comparison)
        views.append(replace(view, weight=outlier_weights(found[0], counts[0], options)))
    return views


def outlier_weights(found: Image, counts: NDArray[np.bool_], options: RobustOptions) -> Image:
    """Weights (H, W), 0..1, of residuals (2, H, W) of which those in ``counts`` (H, W) are looked at."""
    if not counts.any():
        return np.ones(counts.shape, np.float32)
    square = np.where(counts, (found**2).sum(axis=0), 0.0).astype(np.float64)
    mean = _box(square, options.window_px) / np.maximum(_box(counts.astype(np.float64), options.window_px), 1e-3)
    size = np.sqrt(np.maximum(mean, 0.0))  # running sums may end a little below 0
    sigma = 1.4826 * float(np.median(size[counts])) + 1e-12
    weight = 1.0 / (1.0 + (size / (options.scale * sigma)) ** 2) ** 2
    return ndimage.minimum_filter(weight, options.window_px).astype(np.float32)


def _box(image: Array, size: int) -> Array:
    return ndimage.uniform_filter(image, size, mode="constant")
