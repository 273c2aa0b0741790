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


def normalised_features(image: Image, weight: Image, options: GradientNormalisation) -> Image:
    """Unit feature vectors e of images (n, h, w): (n, 2 (h - 2) (w - 2)), weighted by sqrt(weight).

    ``weight`` is (h, w), 0 where a pixel is not to count.
    """
    return _normalise(gradient(image), weight[1:-1, 1:-1], options)[0]


def features_with_jacobian(
    image: Image, jacobian: Image, weight: Image, options: GradientNormalisation
) -> tuple[Image, Image]:
    """Features (n, m) and their derivative (n, 6, m) from images (n, h, w) and (n, 6, h, w)."""
    inner = weight[1:-1, 1:-1]
    g = gradient(image)
    dg = gradient(jacobian)
    e, f_norm, n = _normalise(g, inner, options)
    if options.window_px:
        w = (inner > 0).astype(np.float32)
        inner_product = (g[:, None] * dg).sum(axis=2)  # (n, 6, h-2, w-2)
        mean = _box_mean(inner_product * w, options.window_px) / np.maximum(_box_mean(w, options.window_px), 1e-6)
        # eps follows the overall strength, whose change is part of the derivative too
        overall = (inner_product * w).sum(axis=(-2, -1)) / max(float(w.sum()), 1.0)
        change = mean + np.float32(options.floor**2) * overall[..., None, None]
        df = dg / n[:, None, None] - (g / n[:, None] ** 3)[:, None] * change[:, :, None]
    else:
        df = dg
    df = (df * np.sqrt(inner)).reshape(*df.shape[:2], -1)
    projected = df - e[:, None] * (df @ e[..., None])
    return e, projected / f_norm[:, None, None]


def _normalise(g: Image, weight: Image, options: GradientNormalisation) -> tuple[Image, Image, Image]:
    """e (n, m), |f| (n,), and the local strength n (n, h, w) of gradients (n, 2, h, w)."""
    n = local_strength(g, (weight > 0).astype(np.float32), options.window_px, options.floor)
    f = (g / n[:, None] * np.sqrt(weight)).reshape(len(g), -1)
    f_norm = np.sqrt((f**2).sum(axis=1)) + np.float32(1e-12)
    return f / f_norm[:, None], f_norm, n


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
