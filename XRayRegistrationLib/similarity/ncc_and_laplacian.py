"""NCC of two images and of their Laplacians of Gaussians: SOPI's baseline "NCCL"."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage

from XRayRegistrationLib.similarity.masked import centred, correlation, prepare, within_reach

# Laplacian of Gaussian on 5 x 5 pixels, in whole numbers; sums to 0
_LOG = np.array([[-2, -4, -4, -4, -2], [-4, 0, 8, 0, -4], [-4, 8, 24, 8, -4], [-4, 0, 8, 0, -4], [-2, -4, -4, -4, -2]]) / 24.0
_REACH_SIGMA = 1.0  # of masked.within_reach: a kernel of 5 x 5 and a rim


def ncc_and_laplacian(moving: ArrayLike, fixed: ArrayLike, mask: ArrayLike | None = None) -> float:
    """2/3 NCC + 1/3 cosine of the images' Laplacians of Gaussians, in [-1, 1]; larger is better.

    The baseline Opt-NCCL of SOPI minimises 1.5 - NCC - 1/2 cos (methods sheet 8.6), which is 1.5 (1 - this).

    Args:
        moving, fixed: (H, W).
        mask: (H, W), True where valid; of the Laplacians less a rim of the kernel's reach.

    It does not change with the gain (> 0) and offset of either image. A constant image gives 0.

    Raises:
        InputError: shapes differ, nothing left of the mask, or a valid pixel that is not finite.
    """
    a, b, m = prepare(moving, fixed, mask)
    inner = within_reach(m, _REACH_SIGMA)
    edges = [np.where(inner, ndimage.correlate(centred(image, m), _LOG, mode="nearest"), 0.0) for image in (a, b)]
    return (2.0 * correlation(centred(a, m), centred(b, m)) + correlation(*edges)) / 3.0
