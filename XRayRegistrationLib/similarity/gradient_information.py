"""Normalised gradient information."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from XRayRegistrationLib.similarity.masked import gradients, prepare


def gradient_information(
    moving: ArrayLike,
    fixed: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    match_gain: bool = True,
    smoothing_sigma_px: float = 0.0,
) -> float:
    """How much of the fixed image's gradient the moving image has too, in [0, 1]; larger is better.

    GI(a, b) = sum w(alpha) min(|grad a|, |grad b|) with w = (cos 2 alpha + 1) / 2 and alpha the
    angle between the two gradients; the value is GI(moving, fixed) / GI(fixed, fixed) (Otake et
    al. 2012, methods sheet 8.6). Edges that only one image has do not count against it, so that
    it tolerates tools; opposite gradients count as parallel ones.

    Args:
        moving, fixed: (H, W).
        mask: (H, W), True where valid; less a rim of the kernels' reach.
        match_gain: divide each image's gradient by its mean magnitude first, which makes the
            value independent of the gain of both; False compares the magnitudes as they are
            (Otake's form, for images in the same units).
        smoothing_sigma_px: sigma of a 5x5 Gaussian before the derivatives; 0 for none.

    It never changes with an offset. A constant image gives 0.

    Raises:
        InputError: shapes differ, nothing left of the mask, or a valid pixel that is not finite.
    """
    a, b, m = prepare(moving, fixed, mask)
    ax, ay, inner = gradients(a, m, smoothing_sigma_px)
    bx, by, _ = gradients(b, m, smoothing_sigma_px)
    norm_a, norm_b = np.hypot(ax, ay), np.hypot(bx, by)
    total_a, total_b = norm_a.sum(), norm_b.sum()
    if total_a <= 1e-9 * np.abs(a).sum() or total_b <= 1e-9 * np.abs(b).sum():
        return 0.0
    both = (norm_a > 0.0) & (norm_b > 0.0)
    product = np.where(both, norm_a * norm_b, 1.0)
    # (cos 2 alpha + 1) / 2 = cos^2 alpha, from the scalar product: no angle is needed
    weight = np.where(both, np.clip((ax * bx + ay * by) / product, -1.0, 1.0) ** 2, 0.0)
    if match_gain:
        n = inner.sum()
        norm_a, norm_b, total_b = norm_a * (n / total_a), norm_b * (n / total_b), float(n)
    return float(np.clip((weight * np.minimum(norm_a, norm_b)).sum() / total_b, 0.0, 1.0))
