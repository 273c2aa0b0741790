"""Compiled loops of backend_numba; the mathematics is in drr.render."""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

_TILE = 8  # pixels on a side


@njit(cache=True, inline="always")
def _clip_axis(origin, direction, upper, t_in, t_out):
    """Narrow [t_in, t_out] to where origin + t direction lies in [1, upper] (padded voxels)."""
    if abs(direction) < 1e-12:
        if origin < 1.0 or origin > upper:
            return 1.0, 0.0
        return t_in, t_out
    a = (1.0 - origin) / direction
    b = (upper - origin) / direction
    return max(t_in, min(a, b)), min(t_out, max(a, b))


@njit(cache=True, parallel=True, fastmath=True, nogil=True, error_model="numpy")
def integrate(voxels, scale, origin, linear, rays, step, image):
    """Sum mu along every ray; ``image`` (n, height, width) is filled."""
    nk, nj, ni = voxels.shape
    plane, row = nj * ni, ni
    flat = voxels.ravel()
    n_poses, height, width = image.shape
    tiles_x = (width + _TILE - 1) // _TILE
    tiles_y = (height + _TILE - 1) // _TILE
    tiles = tiles_x * tiles_y
    for job in prange(n_poses * tiles):
        n = job // tiles
        tile = job % tiles
        v0 = (tile // tiles_x) * _TILE
        u0 = (tile % tiles_x) * _TILE
        for v in range(v0, min(v0 + _TILE, height)):
            for u in range(u0, min(u0 + _TILE, width)):
                cx = (u - rays[2]) / rays[0]
                cy = (v - rays[3]) / rays[1]
                r = 1.0 / math.sqrt(cx * cx + cy * cy + 1.0)
                dx = (linear[n, 0, 0] * cx + linear[n, 0, 1] * cy + linear[n, 0, 2]) * r
                dy = (linear[n, 1, 0] * cx + linear[n, 1, 1] * cy + linear[n, 1, 2]) * r
                dz = (linear[n, 2, 0] * cx + linear[n, 2, 1] * cy + linear[n, 2, 2]) * r
                t_in, t_out = _clip_axis(origin[n, 0], dx, ni - 2.0, 0.0, 1e9)
                t_in, t_out = _clip_axis(origin[n, 1], dy, nj - 2.0, t_in, t_out)
                t_in, t_out = _clip_axis(origin[n, 2], dz, nk - 2.0, t_in, t_out)
                total = np.float32(0.0)
                if t_in < t_out:
                    first = int(math.ceil(t_in / step - 0.5))
                    count = int(math.floor(t_out / step - 0.5)) + 1 - first
                    t0 = (first + 0.5) * step
                    x0 = np.float32(origin[n, 0] + dx * t0)
                    y0 = np.float32(origin[n, 1] + dy * t0)
                    z0 = np.float32(origin[n, 2] + dz * t0)
                    sx = np.float32(dx * step)
                    sy = np.float32(dy * step)
                    sz = np.float32(dz * step)
                    for k in range(count):
                        m = np.float32(k)
                        x = x0 + sx * m
                        y = y0 + sy * m
                        z = z0 + sz * m
                        i = np.int32(x)
                        j = np.int32(y)
                        k0 = np.int32(z)
                        fx = x - np.float32(i)
                        fy = y - np.float32(j)
                        fz = z - np.float32(k0)
                        p = k0 * plane + j * row + i
                        c0 = np.float32(flat[p])
                        c1 = np.float32(flat[p + row])
                        c2 = np.float32(flat[p + plane])
                        c3 = np.float32(flat[p + plane + row])
                        c0 += fx * (np.float32(flat[p + 1]) - c0)
                        c1 += fx * (np.float32(flat[p + row + 1]) - c1)
                        c2 += fx * (np.float32(flat[p + plane + 1]) - c2)
                        c3 += fx * (np.float32(flat[p + plane + row + 1]) - c3)
                        c0 += fy * (c1 - c0)
                        c2 += fy * (c3 - c2)
                        total += c0 + fz * (c2 - c0)
                image[n, v, u] = total * scale * step


@njit(cache=True, parallel=True, fastmath=True, nogil=True, error_model="numpy")
def integrate_with_jacobian(voxels, scale, origin, linear, rays, centre, step, image, jacobian):
    """Sum mu, grad mu and t grad mu along every ray; fills ``image`` and ``jacobian`` (n, 6, height, width)."""
    nk, nj, ni = voxels.shape
    plane, row = nj * ni, ni
    flat = voxels.ravel()
    n_poses, height, width = image.shape
    tiles_x = (width + _TILE - 1) // _TILE
    tiles_y = (height + _TILE - 1) // _TILE
    tiles = tiles_x * tiles_y
    zero = np.float32(0.0)
    for job in prange(n_poses * tiles):
        n = job // tiles
        tile = job % tiles
        v0 = (tile // tiles_x) * _TILE
        u0 = (tile % tiles_x) * _TILE
        for v in range(v0, min(v0 + _TILE, height)):
            for u in range(u0, min(u0 + _TILE, width)):
                cx = (u - rays[2]) / rays[0]
                cy = (v - rays[3]) / rays[1]
                r = 1.0 / math.sqrt(cx * cx + cy * cy + 1.0)
                dx = (linear[n, 0, 0] * cx + linear[n, 0, 1] * cy + linear[n, 0, 2]) * r
                dy = (linear[n, 1, 0] * cx + linear[n, 1, 1] * cy + linear[n, 1, 2]) * r
                dz = (linear[n, 2, 0] * cx + linear[n, 2, 1] * cy + linear[n, 2, 2]) * r
                t_in, t_out = _clip_axis(origin[n, 0], dx, ni - 2.0, 0.0, 1e9)
                t_in, t_out = _clip_axis(origin[n, 1], dy, nj - 2.0, t_in, t_out)
                t_in, t_out = _clip_axis(origin[n, 2], dz, nk - 2.0, t_in, t_out)
                total = zero
                gx = zero
                gy = zero
                gz = zero
                hx = zero
                hy = zero
                hz = zero
                t0 = 0.0
                if t_in < t_out:
                    first = int(math.ceil(t_in / step - 0.5))
                    count = int(math.floor(t_out / step - 0.5)) + 1 - first
                    t0 = (first + 0.5) * step
                    x0 = np.float32(origin[n, 0] + dx * t0)
                    y0 = np.float32(origin[n, 1] + dy * t0)
                    z0 = np.float32(origin[n, 2] + dz * t0)
                    sx = np.float32(dx * step)
                    sy = np.float32(dy * step)
                    sz = np.float32(dz * step)
                    for k in range(count):
                        m = np.float32(k)
                        x = x0 + sx * m
                        y = y0 + sy * m
                        z = z0 + sz * m
                        i = np.int32(x)
                        j = np.int32(y)
                        k0 = np.int32(z)
                        fx = x - np.float32(i)
                        fy = y - np.float32(j)
                        fz = z - np.float32(k0)
                        p = k0 * plane + j * row + i
                        c0 = np.float32(flat[p])
                        c1 = np.float32(flat[p + row])
                        c2 = np.float32(flat[p + plane])
                        c3 = np.float32(flat[p + plane + row])
                        d0 = np.float32(flat[p + 1]) - c0
                        d1 = np.float32(flat[p + row + 1]) - c1
                        d2 = np.float32(flat[p + plane + 1]) - c2
                        d3 = np.float32(flat[p + plane + row + 1]) - c3
                        c0 += fx * d0
                        c1 += fx * d1
                        c2 += fx * d2
                        c3 += fx * d3
                        e0 = c1 - c0
                        e1 = c3 - c2
                        c0 += fy * e0
                        c2 += fy * e1
                        d0 += fy * (d1 - d0)
                        d2 += fy * (d3 - d2)
                        c2 -= c0
                        total += c0 + fz * c2
                        d0 += fz * (d2 - d0)
                        e0 += fz * (e1 - e0)
                        gx += d0
                        gy += e0
                        gz += c2
                        hx += m * d0
                        hy += m * e0
                        hz += m * c2
                unit = scale * step
                image[n, v, u] = total * unit
                # H = t0 G + step * sum m grad, then both from voxel to camera axes
                ax = hx * step + t0 * gx
                ay = hy * step + t0 * gy
                az = hz * step + t0 * gz
                g0 = linear[n, 0, 0] * gx + linear[n, 1, 0] * gy + linear[n, 2, 0] * gz
                g1 = linear[n, 0, 1] * gx + linear[n, 1, 1] * gy + linear[n, 2, 1] * gz
                g2 = linear[n, 0, 2] * gx + linear[n, 1, 2] * gy + linear[n, 2, 2] * gz
                # along the ray the integral of the gradient is 0; what the samples leave there is noise
                along = (cx * g0 + cy * g1 + g2) * r * r
                g0 -= along * cx
                g1 -= along * cy
                g2 -= along
                h0 = (linear[n, 0, 0] * ax + linear[n, 1, 0] * ay + linear[n, 2, 0] * az) * r
                h1 = (linear[n, 0, 1] * ax + linear[n, 1, 1] * ay + linear[n, 2, 1] * az) * r
                h2 = (linear[n, 0, 2] * ax + linear[n, 1, 2] * ay + linear[n, 2, 2] * az) * r
                jacobian[n, 0, v, u] = -unit * ((cy * h2 - h1) - (centre[n, 1] * g2 - centre[n, 2] * g1))
                jacobian[n, 1, v, u] = -unit * ((h0 - cx * h2) - (centre[n, 2] * g0 - centre[n, 0] * g2))
                jacobian[n, 2, v, u] = -unit * ((cx * h1 - cy * h0) - (centre[n, 0] * g1 - centre[n, 1] * g0))
                jacobian[n, 3, v, u] = -unit * g0
                jacobian[n, 4, v, u] = -unit * g1
                jacobian[n, 5, v, u] = -unit * g2


@njit(cache=True, parallel=True, nogil=True, error_model="numpy")
def first_last_hit(voxels, scale, origin, linear, rays, step, threshold, out):
    """Fill ``out`` (n, 2, height, width) with the depths of the first and last crossing."""
    nk, nj, ni = voxels.shape
    n_poses, _, height, width = out.shape
    level = threshold / scale
    for job in prange(n_poses * height):
        n = job // height
        v = job % height
        for u in range(width):
            cx = (u - rays[2]) / rays[0]
            cy = (v - rays[3]) / rays[1]
            r = 1.0 / math.sqrt(cx * cx + cy * cy + 1.0)
            dx = (linear[n, 0, 0] * cx + linear[n, 0, 1] * cy + linear[n, 0, 2]) * r
            dy = (linear[n, 1, 0] * cx + linear[n, 1, 1] * cy + linear[n, 1, 2]) * r
            dz = (linear[n, 2, 0] * cx + linear[n, 2, 1] * cy + linear[n, 2, 2]) * r
            t_in, t_out = _clip_axis(origin[n, 0], dx, ni - 2.0, 0.0, 1e9)
            t_in, t_out = _clip_axis(origin[n, 1], dy, nj - 2.0, t_in, t_out)
            t_in, t_out = _clip_axis(origin[n, 2], dz, nk - 2.0, t_in, t_out)
            if t_in >= t_out:
                continue
            first = int(math.ceil(t_in / step - 0.5))
            last = int(math.floor(t_out / step - 0.5)) + 1
            before = 0.0
            seen = False
            for k in range(first, last):
                t = (k + 0.5) * step
                mu = _value(voxels, origin[n, 0] + dx * t, origin[n, 1] + dy * t, origin[n, 2] + dz * t)
                if mu > level and before <= level:
                    if not seen:
                        out[n, 0, v, u] = (t - step * (mu - level) / (mu - before)) * r
                    seen = True
                if mu <= level and before > level:
                    out[n, 1, v, u] = (t - step * (level - mu) / (before - mu)) * r
                before = mu
            if before > level:  # the box ends inside: matter ends within the next step
                out[n, 1, v, u] = ((last + 0.5) * step - step * level / before) * r


@njit(cache=True, inline="always")
def _value(voxels, x, y, z):
    i = int(x)
    j = int(y)
    k = int(z)
    fx = x - i
    fy = y - j
    fz = z - k
    c00 = voxels[k, j, i] * (1.0 - fx) + voxels[k, j, i + 1] * fx
    c01 = voxels[k, j + 1, i] * (1.0 - fx) + voxels[k, j + 1, i + 1] * fx
    c10 = voxels[k + 1, j, i] * (1.0 - fx) + voxels[k + 1, j, i + 1] * fx
    c11 = voxels[k + 1, j + 1, i] * (1.0 - fx) + voxels[k + 1, j + 1, i + 1] * fx
    return (c00 * (1.0 - fy) + c01 * fy) * (1.0 - fz) + (c10 * (1.0 - fy) + c11 * fy) * fz
