"""Normalised cross-correlation of image gradients (gradient correlation)."""

from __future__ import annotations

from numpy.typing import ArrayLike

from XRayRegistrationLib.similarity.masked import centred, correlation, gradients, prepare


def gradient_ncc(
    moving: ArrayLike, fixed: ArrayLike, mask: ArrayLike | None = None, *, smoothing_sigma_px: float = 0.0
) -> float:
    """1/2 NCC of the column derivatives + 1/2 NCC of the row derivatives, in [-1, 1]; larger is better.

    Gradient correlation (Penney et al. 1998; methods sheets 8.6 and appendix B) with Sobel
    derivatives, over the mask less a rim of the kernels' reach.

    Args:
        moving, fixed: (H, W).
        mask: (H, W), True where valid.
        smoothing_sigma_px: sigma of a 5x5 Gaussian before the derivatives; 0 for none.

    It does not change with the gain (> 0) and offset of either image. A constant image gives 0,
    and so does an image that is constant along an axis in that axis' half.

    Raises:
        InputError: shapes differ, nothing left of the mask, or a valid pixel that is not finite.
    """
    a, b, m = prepare(moving, fixed, mask)
    ax, ay, inner = gradients(a, m, smoothing_sigma_px)
    bx, by, _ = gradients(b, m, smoothing_sigma_px)
    x = correlation(centred(ax, inner), centred(bx, inner))
    y = correlation(centred(ay, inner), centred(by, inner))
    return 0.5 * (x + y)
