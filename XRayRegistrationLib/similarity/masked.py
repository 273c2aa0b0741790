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


def centred(images: Array, mask: Mask) -> Array:
    """Images (..., H, W) minus their means over the mask, exactly 0 outside, and everywhere in one that is constant."""
    values = images[..., mask]
    mean = values.mean(-1)
    out = np.where(mask, images - mean[..., None, None], 0.0)
    spread = np.sqrt(((values - mean[..., None]) ** 2).mean(-1))
    out[spread <= _CONSTANT * np.abs(values).max(-1)] = 0.0
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


class Windows:
    """One image (H, W), ready to be correlated with others in every window of (2 radius + 1)^2 pixels.

    Args:
        image, mask: (H, W); only valid pixels count.
        min_valid_fraction: of a window's area.
        variance_floor: added to the local variances, times the image's own variance, so that rounding in flat regions
            does not correlate; the NCC stays in [-1, 1] and does not change with gain and offset.

    Attributes:
        counts: (H, W) bool, windows that count: their centre is valid, and enough of their area.
        count: (H, W), valid pixels of each, 1 where it does not count.
    """

    def __init__(self, image: Array, mask: Mask, radius: int, *, min_valid_fraction: float, variance_floor: float):
        if radius < 1 or int(radius) != radius:
            raise InputError(f"the window radius is {radius!r}; allowed is a whole number of pixels, at least 1")
        if not 0.0 < min_valid_fraction <= 1.0:
            raise InputError(f"min_valid_fraction is {min_valid_fraction!r}; allowed is above 0 and at most 1")
        if variance_floor < 0.0:
            raise InputError(f"variance_floor is {variance_floor!r}; allowed is 0 or more")
        self.radius, self.mask = int(radius), mask
        self.floor = max(variance_floor, 1e-12)
        count = np.rint(box_sum(mask.astype(np.float64), self.radius))
        self.counts = mask & (count >= max(2.0, min_valid_fraction * (2 * self.radius + 1) ** 2))
        self.count = np.where(self.counts, count, 1.0)
        self._image = centred(image, mask)
        self._mean, self._raised, self._flat = self._moments(self._image)

    def correlation(self, images: Array) -> Array:
        """NCC (..., H, W) of each window of images (..., H, W) with the same one of this image, 0 where either is flat."""
        a = centred(images, self.mask)
        mean, raised, flat = self._moments(a)
        covariance = box_sum(a * self._image, self.radius) / self.count - mean * self._mean
        scale = np.sqrt(raised * self._raised)
        flat |= self._flat | (scale == 0.0)
        return np.where(flat, 0.0, np.clip(covariance / np.where(flat, 1.0, scale), -1.0, 1.0))

    def patches(self) -> tuple[Array, Array, Array]:
        """The image, centred, and mean and raised variance of its windows, infinite where they are flat: (H, W) each."""
        return self._image, self._mean, np.where(self._flat | (self._raised == 0.0), np.inf, self._raised)

    def _moments(self, a: Array) -> tuple[Array, Array, Mask]:
        """Mean and raised variance of each window of centred images, and which windows are flat."""
        mean = box_sum(a, self.radius) / self.count
        squares = a * a
        variance = np.maximum(box_sum(squares, self.radius) / self.count - mean**2, 0.0)
        # the rounding of running sums scales with the image's own variance, never with the window's
        whole = (squares.sum((-2, -1)) / self.mask.sum())[..., None, None]
        return mean, variance + self.floor * whole, variance <= 1e-12 * whole


def gradients(image: Array, mask: Mask, smoothing_sigma_px: float = 0.0) -> tuple[Array, Array, Mask]:
    """Sobel derivatives along columns and rows (H, W), per pixel, and the mask where they hold.

    The mask is eroded by the reach of the kernels, image borders included: neither the mask's
    edge nor the image's makes a gradient. With ``smoothing_sigma_px`` the image is first smoothed
    by a 5x5 Gaussian.

    Raises:
        InputError: nothing is left of the mask after the erosion.
    """
    inner = within_reach(mask, smoothing_sigma_px)
    gx, gy = sobel(image, smoothing_sigma_px)
    return np.where(inner, gx, 0.0), np.where(inner, gy, 0.0), inner


def within_reach(mask: Mask, smoothing_sigma_px: float = 0.0) -> Mask:
    """The mask (H, W) where :func:`sobel` sees none of what is outside of it; see :func:`gradients`."""
    reach = 3 if smoothing_sigma_px > 0.0 else 1
    side = 2 * reach + 1
    inner: Mask = ndimage.binary_erosion(mask, np.ones((side, side), bool), border_value=0)
    if not inner.any():
        raise InputError(
            f"no pixel of the mask is {reach} px from its edge, so there is no image gradient; "
            "allowed is a larger mask or image"
        )
    return inner


def smoothing_kernel(sigma_px: float) -> Array:
    """Weights of a 5-pixel Gaussian, or of none where sigma is 0."""
    if sigma_px == 0.0:
        return np.ones(1)
    kernel = np.exp(-0.5 * (np.arange(-2, 3) / sigma_px) ** 2)
    return kernel / kernel.sum()


def sobel(images: Array, smoothing_sigma_px: float = 0.0) -> tuple[Array, Array]:
    """Derivatives of images (..., H, W) along columns and rows, per pixel, after a 5x5 Gaussian where sigma is not 0."""
    if smoothing_sigma_px > 0.0:
        kernel = smoothing_kernel(smoothing_sigma_px)
        for axis in (-2, -1):
            images = ndimage.correlate1d(images, kernel, axis=axis, mode="nearest")
    gx, gy = (
        ndimage.correlate1d(
            ndimage.correlate1d(images, [-0.5, 0.0, 0.5], axis=along, mode="nearest"), [0.25, 0.5, 0.25], axis=across,
            mode="nearest",
        )
        for along, across in ((-1, -2), (-2, -1))
    )  # fmt: skip
    return gx, gy
