"""Compiled loops of similarity.patch_gradient_ncc: one pass over an image in place of thirty over a stack."""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

_CONSTANT = 1e-9  # as similarity.masked has it
_FLAT = 1e-12


@njit(cache=True, parallel=True, nogil=True, error_model="numpy")
def mean_patch_ncc(images, mask, kernel, inner, radius, floor, fixed, mean, raised, count, weights, out):
    """Weighted mean NCC (n,) of the patches of images (n, H, W), over the two derivatives.

    Args:
        mask, inner: (H, W), where images are valid, and their derivatives.
        kernel: of the smoothing, an odd number of weights.
        fixed, mean, raised: (2, H, W), the fixed derivatives, centred; mean and raised variance of their patches, the
            latter infinite where they are flat.
        count, weights: (H, W), pixels of a patch, and its share of the mean.
    """
    for n in prange(images.shape[0]):
        gradients = _gradients(images[n], mask, kernel, inner)
        total = 0.0
        for d in range(2):
            whole = _centre(gradients[d], inner)
            if whole > 0.0:
                total += _mean_ncc(gradients[d], whole, radius, floor, fixed[d], mean[d], raised[d], count, weights)
        out[n] = 0.5 * total


@njit(cache=True, nogil=True, error_model="numpy")
def _gradients(image, mask, kernel, inner):
    """Sobel derivatives (2, H, W) along columns and rows of the smoothed image, 0 outside ``inner``."""
    height, width = image.shape
    reach = len(kernel) // 2
    across = np.zeros((height, width))
    for v in range(height):
        for u in range(reach, width - reach):
            value = 0.0
            for k in range(-reach, reach + 1):
                if mask[v, u + k]:
                    value += kernel[k + reach] * image[v, u + k]
            across[v, u] = value
    smooth = np.zeros((height, width))
    for v in range(reach, height - reach):
        for k in range(-reach, reach + 1):
            for u in range(reach, width - reach):
                smooth[v, u] += kernel[k + reach] * across[v + k, u]
    out = np.zeros((2, height, width))
    for v in range(1, height - 1):
        for u in range(1, width - 1):
            if inner[v, u]:
                corners = smooth[v + 1, u + 1] - smooth[v - 1, u - 1]
                others = smooth[v - 1, u + 1] - smooth[v + 1, u - 1]
                out[0, v, u] = 0.125 * (corners + others) + 0.25 * (smooth[v, u + 1] - smooth[v, u - 1])
                out[1, v, u] = 0.125 * (corners - others) + 0.25 * (smooth[v + 1, u] - smooth[v - 1, u])
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def _centre(gradient, inner):
    """Take the mean over ``inner`` away there; returns the variance, and 0 for a gradient that is constant."""
    total, number, largest = 0.0, 0, 0.0
    for v in range(gradient.shape[0]):
        for u in range(gradient.shape[1]):
            if inner[v, u]:
                total += gradient[v, u]
                number += 1
                largest = max(largest, abs(gradient[v, u]))
    mean, squares = total / number, 0.0
    for v in range(gradient.shape[0]):
        for u in range(gradient.shape[1]):
            if inner[v, u]:
                gradient[v, u] -= mean
                squares += gradient[v, u] ** 2
    whole = squares / number
    return whole if math.sqrt(whole) > _CONSTANT * largest else 0.0


@njit(cache=True, nogil=True, error_model="numpy")
def _mean_ncc(gradient, whole, radius, floor, fixed, mean, raised, count, weights):
    """Weighted mean NCC of the patches of one derivative, by running sums down the columns and along the rows."""
    height, width = gradient.shape
    sums, squares, products = np.zeros(width), np.zeros(width), np.zeros(width)
    total = 0.0
    for v in range(-radius, height):
        below, above = v + radius, v - radius - 1
        if below < height:
            for u in range(width):
                sums[u] += gradient[below, u]
                squares[u] += gradient[below, u] ** 2
                products[u] += gradient[below, u] * fixed[below, u]
        if above >= 0:
            for u in range(width):
                sums[u] -= gradient[above, u]
                squares[u] -= gradient[above, u] ** 2
                products[u] -= gradient[above, u] * fixed[above, u]
        if v < 0:
            continue
        s, q, p = 0.0, 0.0, 0.0
        for u in range(-radius, width):
            right, left = u + radius, u - radius - 1
            if right < width:
                s, q, p = s + sums[right], q + squares[right], p + products[right]
            if left >= 0:
                s, q, p = s - sums[left], q - squares[left], p - products[left]
            if u < 0 or weights[v, u] == 0.0:
                continue
            m = s / count[v, u]
            variance = max(q / count[v, u] - m * m, 0.0)
            if variance > _FLAT * whole:
                ncc = (p / count[v, u] - m * mean[v, u]) / math.sqrt((variance + floor * whole) * raised[v, u])
                total += weights[v, u] * min(max(ncc, -1.0), 1.0)
    return total
