"""Gradient difference of images as a loss (Penney et al. 1998), which SOPI trains its initial pose with."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_SOBEL = ((1.0, 2.0, 1.0), (0.0, 0.0, 0.0), (-1.0, -2.0, -1.0))


def gradient_difference_loss(moving: Tensor, fixed: Tensor) -> Tensor:
    """(N,), 0 for equal images to 1 (N, 1, H, W): 1 - mean of s / (s + d^2) over pixels and both axes.

    d is the difference of the Sobel derivatives along an axis, s the fixed image's variance of them. Both images come at
    the same scale; SOPI's code has this scale as 1 too.
    """
    along_y = fixed.new_tensor(_SOBEL) / 8.0
    kernel = torch.stack([along_y.T, along_y])[:, None]
    of_moving, of_fixed = (F.conv2d(image, kernel) for image in (moving, fixed))
    spread = of_fixed.var((-2, -1), keepdim=True).clamp(min=1e-12)
    return 1.0 - (spread / (spread + (of_fixed - of_moving).square())).mean((1, 2, 3))
