"""What every similarity shares: the check of its input, masked moments, box sums and gradients.

A pixel outside the mask is replaced by 0 before anything is computed, so that whatever it holds
(a collimator blade, a saturated value, NaN) cannot reach the result.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from XRayRegistrationLib.errors import InputError

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_CONSTANT = 1e-9  # relative to the largest value; float32 rounding is a hundred times larger


def prepare(moving: ArrayLike, fixed: ArrayLike, mask: ArrayLike | None) -> tuple[Array, Array, Mask]:
    """Two images (H, W) in float64 with 0 outside the mask, and the mask (H, W) bool.

    Raises:
        InputError: shapes differ or are not 2D, the mask holds no pixel, or a valid pixel is not finite.
    """
    a, b = np.asarray(moving), np.asarray(fixed)
    if a.ndim != 2 or a.shape != b.shape:
        raise InputError(f"moving is {a.shape} and fixed {b.shape}; allowed is one shape (height, width)")
    m = np.ones(a.shape, bool) if mask is None else np.asarray(mask, dtype=bool)
    if m.shape != a.shape:
        raise InputError(f"the mask is {m.shape} and the images {a.shape}; allowed is a mask of the images' shape")
    if not m.any():
        raise InputError("the mask holds no valid pixel; allowed is a mask with pixels to compare, or none")
    out = []
    for name, image in (("moving", a), ("fixed", b)):
        clean = np.where(m, image, 0).astype(np.float64)
        if not np.isfinite(clean).all():
            raise InputError(f"the {name} image has NaN or infinite values inside the mask; mask them out")
        out.append(clean)
    return out[0], out[1], m


def centred(image: Array, mask: Mask) -> Array:
    """The image minus its mean over the mask, exactly 0 outside and everywhere if it is constant."""
    values = image[mask]
    out = np.where(mask, image - values.mean(), 0.0)
    scale = np.abs(values).max()
    if np.sqrt((out[mask] ** 2).mean()) <= _CONSTANT * scale:
        return np.zeros_like(image)
    return out


def correlation(a: Array, b: Array) -> float:
    """sum(a b) / sqrt(sum(a^2) sum(b^2)), and 0 where one of them is 0 everywhere."""
    na, nb = np.sqrt((a * a).sum()), np.sqrt((b * b).sum())
    if na == 0.0 or nb == 0.0:
        return 0.0
    return float(np.clip(((a / na) * (b / nb)).sum(), -1.0, 1.0))


def box_sum(images: Array, radius: int) -> Array:
    """Sums over (2 radius + 1)^2 windows of (..., H, W), nothing outside the image counting.

    Running sums: the cost does not depend on the radius.
    """
    size = 2 * radius + 1
    rows = ndimage.uniform_filter1d(images, size, axis=-2, mode="constant")
    return ndimage.uniform_filter1d(rows, size, axis=-1, mode="constant") * float(size * size)


def window_correlation(
    a: Array, b: Array, mask: Mask, radius: int, *, min_valid_fraction: float, variance_floor: float
) -> tuple[Array, Mask]:
    """NCC of every window of (2 radius + 1)^2 pixels, over the valid pixels in it.

    Returns the NCC (H, W) per window centre, 0 where either image is flat, and where a window
    counts (H, W): its centre is valid and at least ``min_valid_fraction`` of its area is.

    The local variances are raised by ``variance_floor`` times the image's own variance, so that
    rounding in flat regions does not correlate; the values stay in [-1, 1] and do not change with
    gain and offset.
    """
    if radius < 1 or int(radius) != radius:
        raise InputError(f"the window radius is {radius!r}; allowed is a whole number of pixels, at least 1")
    if not 0.0 < min_valid_fraction <= 1.0:
        raise InputError(f"min_valid_fraction is {min_valid_fraction!r}; allowed is above 0 and at most 1")
    if variance_floor < 0.0:
        raise InputError(f"variance_floor is {variance_floor!r}; allowed is 0 or more")
    radius = int(radius)
    a, b = centred(a, mask), centred(b, mask)
    count, sa, sb, saa, sbb, sab = box_sum(np.stack([mask.astype(np.float64), a, b, a * a, b * b, a * b]), radius)
    count = np.rint(count)
    counts = mask & (count >= max(2.0, min_valid_fraction * (2 * radius + 1) ** 2))
    n = np.where(counts, count, 1.0)
    mean_a, mean_b = sa / n, sb / n
    var_a = np.maximum(saa / n - mean_a**2, 0.0)
    var_b = np.maximum(sbb / n - mean_b**2, 0.0)
    covariance = sab / n - mean_a * mean_b
    # the rounding of running sums scales with the image's own variance, never with the window's
    global_a, global_b = (a * a).sum() / mask.sum(), (b * b).sum() / mask.sum()
    floor = max(variance_floor, 1e-12)
    scale = np.sqrt((var_a + floor * global_a) * (var_b + floor * global_b))
    flat = (var_a <= 1e-12 * global_a) | (var_b <= 1e-12 * global_b) | (scale == 0.0)
    ncc = np.where(flat, 0.0, np.clip(covariance / np.where(flat, 1.0, scale), -1.0, 1.0))
    return ncc, counts


def gradients(image: Array, mask: Mask, smoothing_sigma_px: float = 0.0) -> tuple[Array, Array, Mask]:
    """Sobel derivatives along columns and rows (H, W), per pixel, and the mask where they hold.

    The mask is eroded by the reach of the kernels, image borders included: neither the mask's
    edge nor the image's makes a gradient. With ``smoothing_sigma_px`` the image is first smoothed
    by a 5x5 Gaussian.

    Raises:
        InputError: nothing is left of the mask after the erosion.
    """
    reach = 1
    if smoothing_sigma_px > 0.0:
        reach += 2
        x = np.arange(-2, 3)
        kernel = np.exp(-0.5 * (x / smoothing_sigma_px) ** 2)
        kernel /= kernel.sum()
        for axis in (0, 1):
            image = ndimage.correlate1d(image, kernel, axis=axis, mode="nearest")
    side = 2 * reach + 1
    inner = ndimage.binary_erosion(mask, np.ones((side, side), bool), border_value=0)
    if not inner.any():
        raise InputError(
            f"no pixel of the mask is {reach} px from its edge, so there is no image gradient; "
            "allowed is a larger mask or image"
        )
    gx = np.where(inner, ndimage.sobel(image, axis=1, mode="nearest") / 8.0, 0.0)
    gy = np.where(inner, ndimage.sobel(image, axis=0, mode="nearest") / 8.0, 0.0)
    return gx, gy, inner
