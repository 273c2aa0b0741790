"""Compiled loops of solvers.comparison; the mathematics is in solvers.gradient_residual and solvers.tone.

Each step is a function of one pose (``near_shadow``, ``tone_moments``, ``compare``, ``differentiate``);
those ending in ``_poses`` run it for one after the other, without the GIL: the caller's threads share
poses out (numba's own take three times as long to compile, for the same speed). A pose's images stay
in its core's cache from step to step, and the derivatives of the features are never stored: a row of
all six is made, multiplied out, and forgotten.
Images are float32, sums over an image float64. H, W = h - 2, w - 2 throughout.
"""

from __future__ import annotations

import numpy as np
from numba import njit

BAND = 32  # rows of a job in gram
DOTS = 33  # 21 products of derivatives, 6 with f, 6 with the X-ray's

_TWO, _HALF, _QUARTER, _EIGHTH = np.float32(2.0), np.float32(0.5), np.float32(0.25), np.float32(0.125)
_ZERO, _ONE = np.float32(0.0), np.float32(1.0)


@njit(cache=True, fastmath=True, nogil=True, error_model="numpy")
def _gradient_row(plane, factor, v, smooth, rise, gx, gy):
    """Row ``v`` of the Sobel gradient / 8 of ``plane`` * ``factor`` (None for 1): ``gx``, ``gy`` (W,)."""
    width = len(smooth)
    for u in range(width):
        if factor is None:
            a, b, c = plane[v, u], plane[v + 1, u], plane[v + 2, u]
        else:
            a, b, c = plane[v, u] * factor[v, u], plane[v + 1, u] * factor[v + 1, u], plane[v + 2, u] * factor[v + 2, u]
        smooth[u] = (a + _TWO * b + c) * _QUARTER
        rise[u] = c - a
    for u in range(width - 2):
        gx[u] = (smooth[u + 2] - smooth[u]) * _HALF
        gy[u] = (rise[u] + _TWO * rise[u + 1] + rise[u + 2]) * _EIGHTH


@njit(cache=True, fastmath=True, nogil=True, error_model="numpy")
def box_sum(plane, size, out):
    """Sums over size x size windows of ``plane`` (H, W), 0 outside: running sums along rows, then down columns."""
    height, width = plane.shape
    before, after = size // 2, size - 1 - size // 2
    along = np.empty((height, width), np.float32)
    running = np.empty(width + 1)
    for v in range(height):
        total = 0.0
        running[0] = 0.0
        for u in range(width):
            total += plane[v, u]
            running[u + 1] = total
        for u in range(width):
            along[v, u] = running[min(u + after + 1, width)] - running[max(u - before, 0)]
    column = np.zeros(width)
    for v in range(min(after, height)):
        for u in range(width):
            column[u] += along[v, u]
    for v in range(height):
        if v + after < height:
            for u in range(width):
                column[u] += along[v + after, u]
        if v - before - 1 >= 0:
            for u in range(width):
                column[u] -= along[v - before - 1, u]
        for u in range(width):
            out[v, u] = column[u]


@njit(cache=True, fastmath=True, nogil=True, error_model="numpy")
def near_shadow(image, weight, out):
    """``weight`` (H, W) where ``image`` (h, w) shows something within two pixels, else 0: ``out`` (H, W)."""
    height, width = image.shape
    shown = np.zeros((height + 4, width + 4), np.uint8)
    along = np.empty((height + 4, width), np.uint8)
    for v in range(height):
        for u in range(width):
            shown[v + 2, u + 2] = image[v, u] > _ZERO
    for v in range(height + 4):
        for u in range(width):
            along[v, u] = shown[v, u] | shown[v, u + 1] | shown[v, u + 2] | shown[v, u + 3] | shown[v, u + 4]
    for v in range(1, height - 1):
        for u in range(1, width - 1):
            near = along[v, u] | along[v + 1, u] | along[v + 2, u] | along[v + 3, u] | along[v + 4, u]
            out[v - 1, u - 1] = weight[v - 1, u - 1] if near else _ZERO


@njit(cache=True, nogil=True)
def near_shadow_poses(image, weight, out):
    for n in range(len(image)):
        near_shadow(image[n], weight, out[n])


@njit(cache=True, nogil=True)
def _sort(x):
    """Shell's sort (CACM 1959), in place: compiled in a twentieth of np.sort's time, and half as fast."""
    gap = 1
    while gap < len(x) // 3:
        gap = 3 * gap + 1
    while gap > 0:
        for i in range(gap, len(x)):
            value, j = x[i], i - gap
            while j >= 0 and x[j] > value:
                x[j + gap] = x[j]
                j -= gap
            x[j + gap] = value
        gap //= 3


@njit(cache=True, fastmath=True, nogil=True, error_model="numpy")
def _quantiles(image, weight, samples, out):
    """Knots of tone.fit_tone_curve (k,) into ``out``; the number of pixels that show anything."""
    height, width = weight.shape
    shown = np.empty(height * width, np.float32)
    count = 0
    for v in range(height):
        for u in range(width):
            if weight[v, u] > _ZERO and image[v + 1, u + 1] > _ZERO:
                shown[count] = image[v + 1, u + 1]
                count += 1
    if count == 0:
        return 0
    every = max(1, count // samples)
    last = (count - 1) // every
    chosen = np.empty(last + 1, np.float32)
    for i in range(last + 1):
        chosen[i] = shown[i * every]
    _sort(chosen)
    knots = len(out)
    for i in range(knots):
        at = last * (i / (knots - 1))
        low = min(int(at), max(last - 1, 0))
        high = min(low + 1, last)
        out[i] = chosen[low] + (at - low) * (np.float64(chosen[high]) - chosen[low])
    apart = 1e-4 * max(out[knots - 1], 1e-6)
    for i in range(knots):
        out[i] += i * apart
        if i:
            out[i] = max(out[i], out[i - 1])
    return count


@njit(cache=True, fastmath=True, nogil=True, error_model="numpy")
def tone_moments(image, fixed_gradient, weight, samples, least, knots, moments):
    """Sums that a tone curve is fitted from.

    Args:
        image: (h, w).
        fixed_gradient: (2, H, W).
        weight: (H, W).
        samples: knots are quantiles of about so many pixels.
        least: number of pixels that show anything below which there is no fit; ``moments`` stay 0.
        knots: (k,), out.
        moments: (k - 1, 5), 0 on entry, out: in each interval between knots, with t how far along it, the
            sums of a (1-t)^2, a t^2, a t (1-t), b (1-t), b t; a = w |grad m|^2, b = w grad m . grad x.
    """
    if _quantiles(image, weight, samples, knots) < least:
        return
    height, width = image.shape
    inner = len(knots) - 1
    knot = knots.astype(np.float32)
    smooth, rise = np.empty(width, np.float32), np.empty(width, np.float32)
    gx, gy = np.empty(width - 2, np.float32), np.empty(width - 2, np.float32)
    for v in range(height - 2):
        _gradient_row(image, None, v, smooth, rise, gx, gy)
        for u in range(width - 2):
            w = weight[v, u]
            if w > _ZERO:
                a = (gx[u] * gx[u] + gy[u] * gy[u]) * w
                b = (gx[u] * fixed_gradient[0, v, u] + gy[u] * fixed_gradient[1, v, u]) * w
                m = image[v + 1, u + 1]
                cell = 0
                for i in range(1, inner):
                    cell += m >= knot[i]
                t = (m - knot[cell]) / (knot[cell + 1] - knot[cell])
                t = min(max(t, _ZERO), _ONE)
                s = _ONE - t
                moments[cell, 0] += a * s * s
                moments[cell, 1] += a * t * t
                moments[cell, 2] += a * t * s
                moments[cell, 3] += b * s
                moments[cell, 4] += b * t


@njit(cache=True, nogil=True)
def tone_moments_poses(image, fixed_gradient, weight, samples, least, knots, moments):
    for n in range(len(image)):
        tone_moments(image[n], fixed_gradient, weight[n % len(weight)], samples, least, knots[n], moments[n])


@njit(cache=True, fastmath=True, nogil=True, error_model="numpy")
def _bend(image, knot, slope, value, factor):
    """tone.ToneCurve of ``image`` (h, w), as a sum of ramps between knots, one clipped line each: no look-ups."""
    height, width = image.shape
    for v in range(height):
        for u in range(width):
            value[v, u] = slope[0] * (image[v, u] - knot[0])
            factor[v, u] = slope[0]
        for i in range(len(knot) - 1):
            low, across, rise = knot[i], knot[i + 1] - knot[i], slope[i + 1] - slope[i]
            if rise != _ZERO:
                scale, area = _ONE / across, rise * across
                for u in range(width):
                    t = max((image[v, u] - low) * scale, _ZERO)
                    inside = min(t, _ONE)
                    factor[v, u] += rise * inside
                    value[v, u] += area * (_HALF * inside * inside + (t - inside))


@njit(cache=True, fastmath=True, nogil=True, error_model="numpy")
def _room(height, width):
    """Images that compare fills: factor, gradient, strength."""
    inner = (height - 2, width - 2)
    return np.empty((height, width), np.float32), np.empty((2, *inner), np.float32), np.empty(inner, np.float32)


@njit(cache=True, fastmath=True, nogil=True, error_model="numpy")
def compare(image, knots, slopes, fixed, weight, support, share, window, floor, factor, gradient, strength, sums):
    """What the correlation needs, and what the derivatives need of the image.

    Args:
        image: (h, w).
        knots, slopes: (k,) float32, the tone curve.
        fixed: (2, H, W), the X-ray's normalised gradient.
        weight: (H, W).
        support: (H, W), 1 where a gradient counts for the local strength.
        share: (H, W), 1 over the sum of ``support`` over the window.
        window, floor: gradient_residual.GradientNormalisation.
        factor: (h, w), out: the tone curve's slope.
        gradient: (2, H, W), out: of the bent image.
        strength: (H, W), out: 1 / n, one over the local strength.
        sums: (3,), out: |f|^2, |F|^2 and <f, F>, f = sqrt(weight) gradient / n, F = sqrt(weight) fixed.
    """
    height, width = image.shape
    bent = np.empty((height, width), np.float32)
    _bend(image, knots, slopes, bent, factor)
    smooth, rise = np.empty(width, np.float32), np.empty(width, np.float32)
    gx, gy = gradient[0], gradient[1]
    for v in range(height - 2):
        _gradient_row(bent, None, v, smooth, rise, gx[v], gy[v])
    if window:
        energy = np.empty((height - 2, width - 2), np.float32)
        overall, supported = 0.0, 0.0
        for v in range(height - 2):
            row, row_supported = _ZERO, _ZERO
            for u in range(width - 2):
                energy[v, u] = (gx[v, u] * gx[v, u] + gy[v, u] * gy[v, u]) * support[v, u]
                row += energy[v, u]
                row_supported += support[v, u]
            overall += row
            supported += row_supported
        box_sum(energy, window, strength)
        least = np.float32(floor * floor * overall / max(supported, 1.0) + 1e-20)
        for v in range(height - 2):
            for u in range(width - 2):
                strength[v, u] = _ONE / np.sqrt(max(strength[v, u], _ZERO) * share[v, u] + least)
    else:
        for v in range(height - 2):
            for u in range(width - 2):
                strength[v, u] = _ONE
    ff, xx, fx = 0.0, 0.0, 0.0
    for v in range(height - 2):
        row_ff, row_xx, row_fx = _ZERO, _ZERO, _ZERO
        for u in range(width - 2):
            a, b = gx[v, u] * strength[v, u], gy[v, u] * strength[v, u]
            c, d = fixed[0, v, u], fixed[1, v, u]
            row_ff += (a * a + b * b) * weight[v, u]
            row_xx += (c * c + d * d) * weight[v, u]
            row_fx += (a * c + b * d) * weight[v, u]
        ff += row_ff
        xx += row_xx
        fx += row_fx
    sums[0], sums[1], sums[2] = ff, xx, fx


@njit(cache=True, nogil=True)
def compare_poses(image, knots, slopes, fixed, weight, support, share, window, floor, sums):
    height, width = image.shape[1:]
    for n in range(len(image)):
        factor, gradient, strength = _room(height, width)
        compare(
            image[n], knots[n], slopes[n], fixed, weight[n % len(weight)], support, share, window, floor,
            factor, gradient, strength, sums[n],
        )  # fmt: skip


@njit(cache=True, fastmath=True, nogil=True, error_model="numpy")
def _mean_product(jacobian, factor, gradient, support, share, window, floor, change):
    """How n^2 / 2 changes with one parameter, B(<g, dg>) and the floor's share of its mean: ``change`` (H, W)."""
    height, width = jacobian.shape
    product = np.empty((height - 2, width - 2), np.float32)
    smooth, rise = np.empty(width, np.float32), np.empty(width, np.float32)
    dgx, dgy = np.empty(width - 2, np.float32), np.empty(width - 2, np.float32)
    overall, supported = 0.0, 0.0
    for v in range(height - 2):
        _gradient_row(jacobian, factor, v, smooth, rise, dgx, dgy)
        row, row_supported = _ZERO, _ZERO
        for u in range(width - 2):
            product[v, u] = (dgx[u] * gradient[0, v, u] + dgy[u] * gradient[1, v, u]) * support[v, u]
            row += product[v, u]
            row_supported += support[v, u]
        overall += row
        supported += row_supported
    box_sum(product, window, change)
    mean = np.float32(floor * floor * overall / max(supported, 1.0))
    for v in range(height - 2):
        for u in range(width - 2):
            change[v, u] = change[v, u] * share[v, u] + mean


@njit(cache=True, fastmath=True, nogil=True, error_model="numpy")
def _gram(jacobian, factor, gradient, strength, change, normalised, fixed, weight, first, total):
    """Adds the inner products of df = sqrt(weight) (dg / n - g change / n^3) over a band of rows to ``total`` (DOTS,).

    In their order: <df_k, df_l> for l <= k, <df_k, f>, <df_k, F>.
    """
    height, width = jacobian.shape[1:]
    inner = width - 2
    smooth, rise = np.empty(width, np.float32), np.empty(width, np.float32)
    scale, less = np.empty(inner, np.float32), np.empty(inner, np.float32)
    f, x = np.empty(2 * inner, np.float32), np.empty(2 * inner, np.float32)
    d = np.empty((6, 2 * inner), np.float32)
    for v in range(first, min(first + BAND, height - 2)):
        for u in range(inner):
            root = np.sqrt(weight[v, u])
            scale[u] = root * strength[v, u]
            f[u], f[inner + u] = scale[u] * gradient[0, v, u], scale[u] * gradient[1, v, u]
            x[u], x[inner + u] = root * fixed[0, v, u], root * fixed[1, v, u]
        for k in range(6):
            dx, dy = d[k, :inner], d[k, inner:]
            _gradient_row(jacobian[k], factor, v, smooth, rise, dx, dy)
            for u in range(inner):
                less[u] = change[k, v, u] * strength[v, u] * strength[v, u] if normalised else _ZERO
                dx[u] = dx[u] * scale[u] - f[u] * less[u]
                dy[u] = dy[u] * scale[u] - f[inner + u] * less[u]
        at = 0
        for k in range(6):
            for m in range(k + 1):
                row = _ZERO
                for u in range(2 * inner):
                    row += d[k, u] * d[m, u]
                total[at] += row
                at += 1
        for k in range(6):
            row_f, row_x = _ZERO, _ZERO
            for u in range(2 * inner):
                row_f += d[k, u] * f[u]
                row_x += d[k, u] * x[u]
            total[21 + k] += row_f
            total[27 + k] += row_x


@njit(cache=True, fastmath=True, nogil=True, error_model="numpy")
def differentiate(image, jacobian, knots, slopes, fixed, weight, support, share, window, floor, sums, dots):
    """:func:`compare`, and the inner products of the features' derivatives.

    Args:
        image, knots, slopes, fixed, weight, support, share, window, floor, sums: as there.
        jacobian: (6, h, w), of the image before it is bent.
        dots: (DOTS,), 0 on entry, out, see ``_gram``.
    """
    height, width = image.shape
    factor, gradient, strength = _room(height, width)
    compare(image, knots, slopes, fixed, weight, support, share, window, floor, factor, gradient, strength, sums)
    change = np.empty((6, height - 2, width - 2), np.float32)
    if window:
        for k in range(6):
            _mean_product(jacobian[k], factor, gradient, support, share, window, floor, change[k])
    for first in range(0, height - 2, BAND):
        _gram(jacobian, factor, gradient, strength, change, window > 0, fixed, weight, first, dots)


@njit(cache=True, nogil=True)
def differentiate_poses(image, jacobian, knots, slopes, fixed, weight, support, share, window, floor, sums, dots):
    for n in range(len(image)):
        differentiate(
            image[n], jacobian[n], knots[n], slopes[n], fixed, weight[n % len(weight)], support, share, window, floor,
            sums[n], dots[n],
        )  # fmt: skip
