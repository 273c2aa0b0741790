"""Patch gradient NCC, the similarity of xReg's hip registrations."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.similarity.masked import Windows, gradients, prepare, smoothing_kernel, sobel

XREG_SIGMA_PX = 1.1  # of a 5x5 Gaussian kernel


def patch_radius(downsampling: float) -> int:
    """Radius in pixels of a patch at a downsampling factor (0.125 is an eighth of the size).

    round(41 ds), at least 1 (Grupp et al. 2020, methods sheet 8.2).
    """
    return max(1, round(41 * downsampling))


def patch_gradient_ncc(
    moving: ArrayLike,
    fixed: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    radius: int = 5,
    weights: ArrayLike | None = None,
    smoothing_sigma_px: float = XREG_SIGMA_PX,
    min_valid_fraction: float = 0.5,
    variance_floor: float = 1e-5,
) -> float:
    """Mean NCC of all patches of the image gradients, in [-1, 1]; larger is better.

    Both images are smoothed (5x5 Gaussian), then for the Sobel derivatives along columns and rows
    the NCC of every (2 radius + 1)^2 patch, stride 1, is averaged, and the two averages are
    averaged (Grupp et al. 2020, methods sheet 8.2, as 1 minus their cost).

    Args:
        moving, fixed: (H, W).
        mask: (H, W), True where valid; less a rim of the kernels' reach.
        radius: of the patch in pixels, see :func:`patch_radius`; 5 for an image of about 180 px.
        weights: (H, W) >= 0, the weight of the patch around each pixel, e.g. from a projected
            segmentation; only its values inside the mask are looked at.
        smoothing_sigma_px: sigma of the Gaussian; 0 for none.
        min_valid_fraction: of a patch's pixels; 1 takes whole patches only, as xReg does.
        variance_floor: added to the local variances, in units of the gradient image's variance.

    It does not change with the gain (> 0) and offset of either image. A constant image gives 0.

    Raises:
        InputError: shapes differ, no patch left, weights that are negative, not finite or all 0,
            or a valid pixel that is not finite.
    """
    a, b, m = prepare(moving, fixed, mask)
    to = PatchGradientNcc(
        b, m, radius=radius, weights=weights, smoothing_sigma_px=smoothing_sigma_px,
        min_valid_fraction=min_valid_fraction, variance_floor=variance_floor,
    )  # fmt: skip
    return float(to(a[None])[0])


class PatchGradientNcc:
    """:func:`patch_gradient_ncc` to one fixed image, whose part is computed once.

    Args:
        fixed, mask: (H, W), finite, 0 outside the mask. The others: see :func:`patch_gradient_ncc`.

    Raises:
        InputError: no patch is left, or weights that are negative, not finite or all 0.
    """

    def __init__(
        self,
        fixed: NDArray[np.float64],
        mask: NDArray[np.bool_],
        *,
        radius: int = 5,
        weights: ArrayLike | None = None,
        smoothing_sigma_px: float = XREG_SIGMA_PX,
        min_valid_fraction: float = 0.5,
        variance_floor: float = 1e-5,
    ) -> None:
        self._mask, self._sigma = mask, smoothing_sigma_px
        gx, gy, self._inner = gradients(fixed, mask, smoothing_sigma_px)
        self._windows = [
            Windows(g, self._inner, radius, min_valid_fraction=min_valid_fraction, variance_floor=variance_floor)
            for g in (gx, gy)
        ]
        self._counts = self._windows[0].counts
        if not self._counts.any():
            side = 2 * radius + 1
            raise InputError(
                f"no {side}x{side} px patch of gradients holds {min_valid_fraction:.0%} valid pixels; "
                "allowed is a smaller radius, a smaller min_valid_fraction or a larger mask"
            )
        self._weights = _patch_weights(weights, self._counts)
        self._compiled: Callable[[NDArray[np.floating]], NDArray[np.float64]] | None = None
        if importlib.util.find_spec("numba") is not None:
            self._compiled = self._in_one_pass()

    def __call__(self, moving: NDArray[np.floating]) -> NDArray[np.float64]:
        """(n,) of images (n, H, W)."""
        return self._plain(moving) if self._compiled is None else self._compiled(moving)

    def _in_one_pass(self) -> Callable[[NDArray[np.floating]], NDArray[np.float64]]:
        """What :meth:`_plain` does, in compiled loops: eight times as fast."""
        from XRayRegistrationLib.similarity._patch_kernels import mean_patch_ncc

        weights = np.zeros(self._counts.shape)
        weights[self._counts] = 1.0 if self._weights is None else self._weights
        weights /= weights.sum()
        kernel = smoothing_kernel(self._sigma)
        fixed, mean, raised = (np.stack(part) for part in zip(*(w.patches() for w in self._windows), strict=True))
        inverse_spread, inverse_count = 1.0 / np.sqrt(raised), 1.0 / self._windows[0].count
        radius, floor = self._windows[0].radius, self._windows[0].floor
        settings = (kernel, self._inner, radius, floor, fixed, mean, inverse_spread, inverse_count, weights)

        def compiled(moving: NDArray[np.floating]) -> NDArray[np.float64]:
            out = np.empty(len(moving))
            images = np.ascontiguousarray(moving)
            mean_patch_ncc(images, self._mask, *settings, out)
            return np.clip(out, -1.0, 1.0)

        return compiled

    def _plain(self, moving: NDArray[np.floating]) -> NDArray[np.float64]:
        inside = np.where(self._mask, moving, 0.0).astype(np.float64)
        halves = []
        for gradient, windows in zip(sobel(inside, self._sigma), self._windows, strict=True):
            ncc = windows.correlation(np.where(self._inner, gradient, 0.0))[:, self._counts]
            halves.append(np.average(ncc, axis=-1, weights=self._weights))
        return np.clip(0.5 * (halves[0] + halves[1]), -1.0, 1.0)


def _patch_weights(weights: ArrayLike | None, counts: np.ndarray) -> np.ndarray | None:
    if weights is None:
        return None
    w = np.asarray(weights)
    if w.shape != counts.shape:
        raise InputError(f"the weights are {w.shape} and the images {counts.shape}; allowed is one weight a pixel")
    w = w[counts].astype(np.float64)
    if not (np.isfinite(w).all() and (w >= 0).all() and w.sum() > 0):
        raise InputError("the weights are negative, not finite or all 0 where patches count; allowed are weights >= 0")
    return w
