"""Compiled loops of similarity.patch_gradient_ncc: one pass over an image in place of thirty over a stack."""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

_CONSTANT = 1e-9  # as similarity.masked has it
_FLAT = 1e-12
_FAST = {"reassoc", "contract", "nsz"}  # sums in vector instructions; infinite and missing values stay what they are


@njit(cache=True, parallel=True, nogil=True, error_model="numpy")
def mean_patch_ncc(images, mask, kernel, inner, radius, floor, fixed, mean, inverse_spread, inverse_count, weights, out):
    """Weighted mean NCC (n,) of the patches of images (n, H, W), over the two derivatives.

    Args:
        mask, inner: (H, W), where images are valid, and their derivatives.
        kernel: of the smoothing, an odd number of weights.
        fixed, mean, inverse_spread: (2, H, W), the fixed derivatives, centred; mean of their patches and one over the
            raised standard deviation, which is 0 where they are flat.
        inverse_count, weights: (H, W), one over the pixels of a patch, and its share of the mean.
    """
    for n in prange(images.shape[0]):
        gradients = _gradients(images[n], mask, kernel, inner)
        total = 0.0
        for d in range(2):
            whole = _centre(gradients[d], inner)
            if whole > 0.0:
                total += _mean_ncc(
                    gradients[d], whole, radius, floor, fixed[d], mean[d], inverse_spread[d], inverse_count, weights
                )
        out[n] = 0.5 * total


@njit(cache=True, fastmath=_FAST, nogil=True, error_model="numpy")
def _gradients(image, mask, kernel, inner):
    """Sobel derivatives (2, H, W) along columns and rows of the smoothed image, 0 outside ``inner``."""
    height, width = image.shape
    reach = len(kernel) // 2
    middle = width - 2 * reach
    inside, across, smooth = np.empty(width), np.zeros((height, width)), np.zeros((height, width))
    for v in range(height):
        for u in range(width):
            inside[u] = np.float64(image[v, u]) if mask[v, u] else 0.0
        for k in range(len(kernel)):
            _add(across[v, reach : reach + middle], kernel[k], inside[k : k + middle])
    for v in range(reach, height - reach):
        for k in range(len(kernel)):
            _add(smooth[v, reach : reach + middle], kernel[k], across[v + k - reach, reach : reach + middle])
    out = np.zeros((2, height, width))
    for v in range(1, height - 1):
        _sobel(smooth[v - 1], smooth[v], smooth[v + 1], inner[v], out[0, v], out[1, v])
    return out


# Rows are given as slices: from 0 on, an index need not be tested for being negative, and loops become vector instructions.


@njit(cache=True, fastmath=_FAST, error_model="numpy")
def _add(to, weight, values):
    for u in range(len(to)):
        to[u] += weight * values[u]


@njit(cache=True, fastmath=_FAST, error_model="numpy")
def _sobel(above, row, below, inner, along_u, along_v):
    n = len(row) - 2
    above_right, right, below_right, valid, out_u, out_v = above[2:], row[2:], below[2:], inner[1:], along_u[1:], along_v[1:]
    above_here, below_here = above[1:], below[1:]
    for u in range(n):
        corners = below_right[u] - above[u]
        others = above_right[u] - below[u]
        du = 0.125 * (corners + others) + 0.25 * (right[u] - row[u])
        dv = 0.125 * (corners - others) + 0.25 * (below_here[u] - above_here[u])
        out_u[u] = du if valid[u] else 0.0
        out_v[u] = dv if valid[u] else 0.0


@njit(cache=True, fastmath=_FAST, nogil=True, error_model="numpy")
def _centre(gradient, inner):
    """Take the mean over ``inner`` away there; returns the variance, and 0 for a gradient that is constant.

    Outside ``inner`` it is 0 before and after.
    """
    total, number, largest = 0.0, 0, 0.0
    for v in range(gradient.shape[0]):
        for u in range(gradient.shape[1]):
            total += gradient[v, u]
            number += 1 if inner[v, u] else 0
            largest = max(largest, abs(gradient[v, u]))
    mean, squares = total / number, 0.0
    for v in range(gradient.shape[0]):
        for u in range(gradient.shape[1]):
            value = gradient[v, u] - mean if inner[v, u] else 0.0
            gradient[v, u] = value
            squares += value * value
    whole = squares / number
    return whole if math.sqrt(whole) > _CONSTANT * largest else 0.0


@njit(cache=True, fastmath=_FAST, nogil=True, error_model="numpy")
def _mean_ncc(gradient, whole, radius, floor, fixed, mean, inverse_spread, inverse_count, weights):
    """Weighted mean NCC of the patches of one derivative, by running sums down the columns and along the rows."""
    height, width = gradient.shape
    # of columns: the values, their squares and their products with the fixed image's, zeros around them
    sums = np.zeros((3, width + 2 * radius + 1))
    columns = sums[:, radius + 1 : radius + 1 + width]
    windows = np.empty((3, width))
    total = 0.0
    for v in range(-radius, height):
        if v + radius < height:
            _add_row(columns, 1.0, gradient[v + radius], fixed[v + radius])
        if v - radius - 1 >= 0:
            _add_row(columns, -1.0, gradient[v - radius - 1], fixed[v - radius - 1])
        if v >= 0:
            _along(sums, radius, windows)
            total += _row_ncc(windows, whole, floor, mean[v], inverse_spread[v], inverse_count[v], weights[v])
    return total


@njit(cache=True, fastmath=_FAST, error_model="numpy")
def _add_row(columns, sign, values, fixed):
    sums, squares, products = columns[0], columns[1], columns[2]
    for u in range(len(values)):
        value = sign * values[u]
        sums[u] += value
        squares[u] += value * values[u]
        products[u] += value * fixed[u]


@njit(cache=True, fastmath=_FAST, error_model="numpy")
def _along(sums, radius, windows):
    """Sums of windows of 2 radius + 1 along padded rows; three at a time, as each addition waits for the one before."""
    side = 2 * radius + 1
    s, q, p = sums[0, :side].sum(), sums[1, :side].sum(), sums[2, :side].sum()
    for u in range(windows.shape[1]):
        s += sums[0, u + side] - sums[0, u]
        q += sums[1, u + side] - sums[1, u]
        p += sums[2, u + side] - sums[2, u]
        windows[0, u], windows[1, u], windows[2, u] = s, q, p


@njit(cache=True, fastmath=_FAST, error_model="numpy")
def _row_ncc(windows, whole, floor, mean, inverse_spread, inverse_count, weights):
    sums, squares, products = windows[0], windows[1], windows[2]
    raised, least, total = floor * whole, _FLAT * whole, 0.0
    for u in range(len(weights)):
        m = sums[u] * inverse_count[u]
        variance = max(squares[u] * inverse_count[u] - m * m, 0.0)
        covariance = products[u] * inverse_count[u] - m * mean[u]
        ncc = covariance * inverse_spread[u] / math.sqrt(variance + raised)
        total += weights[u] * min(max(ncc, -1.0), 1.0) if variance > least else 0.0
    return total
