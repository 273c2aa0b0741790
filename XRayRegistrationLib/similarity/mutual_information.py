"""Mutual information of grey values."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.similarity.masked import Array, Mask, centred, prepare


def mutual_information(
    moving: ArrayLike,
    fixed: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    bins: int = 32,
    normalised: bool = True,
) -> float:
    """Mutual information of the grey values of two images over the mask; larger is better.

    From the joint histogram of the valid pixels, each image's range cut into ``bins`` equal bins:
    I = H(a) + H(b) - H(a, b).

    Args:
        moving, fixed: (H, W).
        mask: (H, W), True where valid.
        bins: grey levels an image.
        normalised: 2 I / (H(a) + H(b)), in [0, 1] (1: each image is a one-to-one function of the
            other, grey level by grey level); False gives I in nats, in [0, log(bins)].

    It does not change with the gain and offset of either image, not even with a negative gain
    (up to values that fall on the edge of a bin). A constant image tells nothing: 0.

    Raises:
        InputError: shapes differ, no valid pixel, fewer than 2 bins, or a valid pixel that is not finite.
    """
    if isinstance(bins, bool) or int(bins) != bins or bins < 2:
        raise InputError(f"bins is {bins!r}; allowed is a whole number, at least 2")
    a, b, m = prepare(moving, fixed, mask)
    level_a, level_b = _levels(a, m, int(bins)), _levels(b, m, int(bins))
    if level_a is None or level_b is None:
        return 0.0
    joint = np.bincount(level_a * int(bins) + level_b, minlength=int(bins) ** 2).reshape(int(bins), int(bins))
    p = joint / joint.sum()
    h_a, h_b, h_ab = _entropy(p.sum(1)), _entropy(p.sum(0)), _entropy(p)
    information = max(0.0, h_a + h_b - h_ab)
    return min(1.0, 2.0 * information / (h_a + h_b)) if normalised else information


def _levels(image: Array, mask: Mask, bins: int) -> NDArray[np.intp] | None:
    """Bin 0..bins-1 of each valid pixel (n,), None for a constant image."""
    if not centred(image, mask).any():
        return None
    values = image[mask]
    low, high = values.min(), values.max()
    return np.minimum(((values - low) / (high - low) * bins).astype(np.intp), bins - 1)


def _entropy(p: Array) -> float:
    """-sum p log p in nats, 0 log 0 = 0."""
    q = p[p > 0]
    return float(-(q * np.log(q)).sum())
