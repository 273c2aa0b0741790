"""The residual that is minimised: normalised image gradients, and its derivative.

With g the gradient image (both components, inside the mask), f = g / n is g over its local
strength n = sqrt(B(|g|^2) + eps^2), B a box mean and eps a fraction of the overall strength, so
that faint edges count and bright ones do not drown them. Then e = f / |f| and

    cost = 1/2 |e_moving - e_fixed|^2 = 1 - <e_moving, e_fixed>,

one minus the gradient correlation of locally normalised images. The derivative goes through both
normalisations: df = dg / n - g B(<g, dg>) / n^3, de = (df - e <e, df>) / |f|.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Image = NDArray[np.float32]


@dataclass(frozen=True)
class GradientNormalisation:
    """How gradients are normalised.

    Attributes:
        window_px: side of the box that the local strength is taken over; 0 for none.
        floor: eps over the root mean square gradient of the whole image.
    """

    window_px: int = 15
    floor: float = 0.5


def gradient(image: Image) -> Image:
    """Sobel gradient / 8 of images (..., h, w): (..., 2, h - 2, w - 2), x then y."""
    rows = (image[..., :-2, :] + 2 * image[..., 1:-1, :] + image[..., 2:, :]) * np.float32(0.25)
    columns = (image[..., :, :-2] + 2 * image[..., :, 1:-1] + image[..., :, 2:]) * np.float32(0.25)
    gx = (rows[..., :, 2:] - rows[..., :, :-2]) * np.float32(0.5)
    gy = (columns[..., 2:, :] - columns[..., :-2, :]) * np.float32(0.5)
    return np.stack([gx, gy], axis=-3)


def normalised_gradient(image: Image, valid: Image, options: GradientNormalisation) -> Image:
    """g / n of images (n, h, w): (n, 2, h - 2, w - 2); ``valid`` (h, w) is 1 where a pixel counts."""
    g = gradient(image)
    return g / local_strength(g, valid[1:-1, 1:-1], options.window_px, options.floor)[:, None]


def unit_features(normalised: Image, weight: Image) -> Image:
    """e (n, m): normalised gradients (n, 2, h, w) times sqrt of weights (n, h, w), scaled to unit length."""
    f = (normalised * np.sqrt(weight)[:, None]).reshape(len(weight), -1)
    return f / (np.sqrt((f**2).sum(axis=1)) + np.float32(1e-12))[:, None]


def features_with_jacobian(
    image: Image, jacobian: Image, valid: Image, weight: Image, options: GradientNormalisation
) -> tuple[Image, Image]:
    """Features e (n, m) and de (n, 6, m) of images (n, h, w) and their Jacobians (n, 6, h, w).

    ``valid`` (h, w) and ``weight`` (n, h - 2, w - 2) as above; neither moves with the pose.
    """
    w = valid[1:-1, 1:-1]
    g, dg = gradient(image), gradient(jacobian)
    n = local_strength(g, w, options.window_px, options.floor)
    if options.window_px:
        inner_product = (g[:, None] * dg).sum(axis=2)  # (n, 6, h-2, w-2)
        mean = _box_mean(inner_product * w, options.window_px) / np.maximum(_box_mean(w, options.window_px), 1e-6)
        # eps follows the overall strength, whose change is part of the derivative too
        overall = (inner_product * w).sum(axis=(-2, -1)) / max(float(w.sum()), 1.0)
        change = mean + np.float32(options.floor**2) * overall[..., None, None]
        dg = dg / n[:, None, None] - (g / n[:, None] ** 3)[:, None] * change[:, :, None]
    root = np.sqrt(weight)[:, None]
    f = (g / n[:, None] * root).reshape(len(g), -1)
    f_norm = np.sqrt((f**2).sum(axis=1)) + np.float32(1e-12)
    e = f / f_norm[:, None]
    df = (dg * root[:, None]).reshape(*dg.shape[:2], -1)
    projected = df - e[:, None] * (df @ e[..., None])
    return e, projected / f_norm[:, None, None]


def local_strength(g: Image, support: Image, window_px: int, floor: float) -> Image:
    """n = sqrt(B(|g|^2) + (floor rms)^2) of gradients (m, 2, h, w): (m, h, w); 1 where ``window_px`` is 0.

    ``support`` (h, w) is 1 where a gradient counts, 0 where not.
    """
    energy = (g**2).sum(axis=1)
    if not window_px:
        return np.ones_like(energy)
    overall = (energy * support).sum(axis=(-2, -1)) / max(float(support.sum()), 1.0)
    local = _box_mean(energy * support, window_px) / np.maximum(_box_mean(support, window_px), 1e-6)
    return np.sqrt(local + (floor**2 * overall + 1e-20)[:, None, None])


def _box_mean(image: Image, size: int) -> Image:
    """Mean over size x size windows of the last two axes, 0 outside."""
    out = ndimage.uniform_filter1d(image, size, axis=-1, mode="constant")
    return ndimage.uniform_filter1d(out, size, axis=-2, mode="constant")
