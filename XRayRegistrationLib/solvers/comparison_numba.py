"""The fast twin of solvers.comparison: the same numbers from compiled loops.

With f = sqrt(w) g / n the rendered features before they are scaled to unit length, F the X-ray's,
and df the derivatives, the derivatives of unit length need not exist: with a_k = <e, df_k>,
b_k = <E, df_k>, c = <e, E>, where e = f / |f| and E = F / |F|,

    slope_k = -(b_k - a_k c) / |f|,   normal_kl = (<df_k, df_l> - a_k a_l) / |f|^2.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from XRayRegistrationLib.solvers.comparison import Agreement, ComparisonOptions, FixedFeatures
from XRayRegistrationLib.solvers.gradient_residual import Image
from XRayRegistrationLib.solvers.tone import KNOTS, LEAST_SHOWN, SAMPLES, rising_slopes

Array = NDArray[np.float64]
Part = TypeVar("Part")


def correlation(fixed: FixedFeatures, image: Image, options: ComparisonOptions) -> Array:
    """As comparison.correlation."""
    image = np.ascontiguousarray(image, dtype=np.float32)
    return np.concatenate(_shared_out(lambda poses: _correlated(fixed, image[poses], options), len(image)))


def agreement(fixed: FixedFeatures, image: Image, jacobian: Image, options: ComparisonOptions) -> Agreement:
    """As comparison.agreement."""
    image, jacobian = (np.ascontiguousarray(x, dtype=np.float32) for x in (image, jacobian))
    parts = _shared_out(lambda poses: _linearised(fixed, image[poses], jacobian[poses], options), len(image))
    return Agreement(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def _shared_out(work: Callable[[slice], Part], n: int) -> list[Part]:
    """``work`` done for poses 0 to n in parts, by as many threads as numba is allowed."""
    import numba

    threads = min(n, numba.get_num_threads())
    if threads <= 1:
        return [work(slice(None))]
    edges = np.linspace(0, n, threads + 1).astype(int)
    # not kept: threads do not survive a fork, and starting them takes less than a tenth of a millisecond
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, [slice(a, b) for a, b in pairwise(edges)]))


def _correlated(fixed: FixedFeatures, image: Image, options: ComparisonOptions) -> Array:
    from XRayRegistrationLib.solvers import _residual_kernels as kernels

    sums = np.empty((len(image), 3))
    kernels.compare_poses(image, *_compared_with(fixed, image, options), sums)
    return _correlation(sums)[0]


def _linearised(
    fixed: FixedFeatures, image: Image, jacobian: Image, options: ComparisonOptions
) -> tuple[Array, Array, Array]:
    """Correlation, slope and normal of comparison.Agreement."""
    from XRayRegistrationLib.solvers import _residual_kernels as kernels

    n = len(image)
    sums, dots = np.empty((n, 3)), np.zeros((n, kernels.DOTS))
    kernels.differentiate_poses(image, jacobian, *_compared_with(fixed, image, options), sums, dots)
    correlated, length, fixed_length = _correlation(sums)
    along, towards = dots[:, 21:27] / length[:, None], dots[:, 27:] / fixed_length[:, None]
    slope = -(towards - along * correlated[:, None]) / length[:, None]
    products = np.empty((n, 6, 6))
    lower = np.tril_indices(6)
    products[:, lower[0], lower[1]] = products[:, lower[1], lower[0]] = dots[:, :21]
    normal = (products - along[:, :, None] * along[:, None]) / (length**2)[:, None, None]
    return correlated, slope, normal


def _correlation(sums: Array) -> tuple[Array, Array, Array]:
    """<e, E>, |f| and |F| from kernels.compare's sums."""
    length, fixed_length = np.sqrt(sums[:, 0]) + 1e-12, np.sqrt(sums[:, 1]) + 1e-12
    return sums[:, 2] / (length * fixed_length), length, fixed_length


def _compared_with(fixed: FixedFeatures, image: Image, options: ComparisonOptions) -> tuple[Any, ...]:
    """What kernels.compare takes after the images: knots, slopes, fixed, weight, support, share, window, floor."""
    from XRayRegistrationLib.solvers import _residual_kernels as kernels

    weight = fixed.weight[None]
    if fixed.alone:
        weight = np.empty((len(image), *fixed.weight.shape), np.float32)
        kernels.near_shadow_poses(image, fixed.weight, weight)
    knots, slopes = _tone_curves(fixed, image, weight) if options.tone_curve else _straight(len(image))
    size, floor = options.normalisation.window_px, options.normalisation.floor
    share = np.zeros_like(fixed.weight)
    if size:
        kernels.box_sum(fixed.weight, size, share)
        share = 1.0 / np.maximum(share, np.float32(1e-6 * size * size))
    return knots, slopes, fixed.normalised, weight, fixed.weight, share, size, float(floor)


def _tone_curves(fixed: FixedFeatures, image: Image, weight: Image) -> tuple[Image, Image]:
    """Knots and slopes (n, k) of the tone curve at each pose, as tone.fit_tone_curve."""
    from XRayRegistrationLib.solvers import _residual_kernels as kernels

    n = len(image)
    knots, moments = np.zeros((n, KNOTS)), np.zeros((n, KNOTS - 1, 5))
    kernels.tone_moments_poses(image, fixed.gradient, weight, SAMPLES, LEAST_SHOWN, knots, moments)
    normal, rhs = np.zeros((n, KNOTS, KNOTS)), np.zeros((n, KNOTS))
    low, high = np.arange(KNOTS - 1), np.arange(1, KNOTS)
    normal[:, low, low] += moments[..., 0]
    normal[:, high, high] += moments[..., 1]
    normal[:, low, high] = normal[:, high, low] = moments[..., 2]
    rhs[:, low] += moments[..., 3]
    rhs[:, high] += moments[..., 4]
    slopes = rising_slopes(normal, rhs)
    straight = ~moments.any(axis=(1, 2))
    knots[straight], slopes[straight] = np.arange(KNOTS), 1.0
    return knots.astype(np.float32), slopes.astype(np.float32)


def _straight(n: int) -> tuple[Image, Image]:
    return np.tile(np.arange(2, dtype=np.float32), (n, 1)), np.ones((n, 2), np.float32)
