"""Normalised cross-correlation of whole images."""

from __future__ import annotations

from numpy.typing import ArrayLike

from XRayRegistrationLib.similarity.masked import centred, correlation, prepare


def ncc(moving: ArrayLike, fixed: ArrayLike, mask: ArrayLike | None = None) -> float:
    """Zero-mean NCC of two images (H, W) over the mask (H, W), in [-1, 1]; larger is better.

    sum((a - mean a)(b - mean b)) / sqrt(sum((a - mean a)^2) sum((b - mean b)^2)), sums over valid
    pixels. It does not change with the gain (> 0) and offset of either image. A constant image
    correlates with nothing: 0.

    Raises:
        InputError: shapes differ, no valid pixel, or a valid pixel that is not finite.
    """
    a, b, m = prepare(moving, fixed, mask)
    return correlation(centred(a, m), centred(b, m))
