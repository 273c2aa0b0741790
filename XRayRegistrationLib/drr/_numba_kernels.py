"""Compiled loops of backend_numba; the mathematics is in drr.render.

Rays run along x, the contiguous axis of the voxels (z, y, x), which are padded with 2 voxels of 0.
``integrate_planes`` samples each ray where it crosses voxel planes, ``integrate_steps`` at fixed
distances from the source. Blocks of voxels that hold nothing are stepped over. A ``jacobian`` of
None compiles to a loop without derivatives.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

TILE = 16  # pixels on a side
BLOCK = 4  # voxels on a side; rays go on by two of them, and look at the block in the middle


@njit(cache=True, inline="always")
def _pixel(job, width, height):
    """Pose and tile (first pixel) of a job: pixels of a tile share their cache lines."""
    tiles_x = (width + TILE - 1) // TILE
    tiles = tiles_x * ((height + TILE - 1) // TILE)
    tile = job % tiles
    return job // tiles, (tile // tiles_x) * TILE, (tile % tiles_x) * TILE


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


@njit(cache=True, inline="always")
def _clip(shape, ox, oy, oz, dx, dy, dz):
    """The part [t_in, t_out] of a ray inside the voxels; empty when t_in >= t_out."""
    t_in, t_out = _clip_axis(ox, dx, shape[2] - 2.0, 0.0, 1e9)
    t_in, t_out = _clip_axis(oy, dy, shape[1] - 2.0, t_in, t_out)
    return _clip_axis(oz, dz, shape[0] - 2.0, t_in, t_out)


@njit(cache=True, inline="always")
def _store_jacobian(jacobian, n, v, u, linear, centre, cx, cy, r, unit, g, h):
    """Six derivatives from G and H in voxel axes, both to be multiplied by ``unit``."""
    g0 = linear[n, 0, 0] * g[0] + linear[n, 1, 0] * g[1] + linear[n, 2, 0] * g[2]
    g1 = linear[n, 0, 1] * g[0] + linear[n, 1, 1] * g[1] + linear[n, 2, 1] * g[2]
    g2 = linear[n, 0, 2] * g[0] + linear[n, 1, 2] * g[1] + linear[n, 2, 2] * g[2]
    # along the ray the integral of the gradient is 0; what the samples leave there is noise
    along = (cx * g0 + cy * g1 + g2) * r * r
    g0 -= along * cx
    g1 -= along * cy
    g2 -= along
    h0 = (linear[n, 0, 0] * h[0] + linear[n, 1, 0] * h[1] + linear[n, 2, 0] * h[2]) * r
    h1 = (linear[n, 0, 1] * h[0] + linear[n, 1, 1] * h[1] + linear[n, 2, 1] * h[2]) * r
    h2 = (linear[n, 0, 2] * h[0] + linear[n, 1, 2] * h[1] + linear[n, 2, 2] * h[2]) * r
    jacobian[n, 0, v, u] = -unit * ((cy * h2 - h1) - (centre[n, 1] * g2 - centre[n, 2] * g1))
    jacobian[n, 1, v, u] = -unit * ((h0 - cx * h2) - (centre[n, 2] * g0 - centre[n, 0] * g2))
    jacobian[n, 2, v, u] = -unit * ((cx * h1 - cy * h0) - (centre[n, 0] * g1 - centre[n, 1] * g0))
    jacobian[n, 3, v, u] = -unit * g0
    jacobian[n, 4, v, u] = -unit * g1
    jacobian[n, 5, v, u] = -unit * g2


@njit(cache=True, parallel=True, fastmath=True, nogil=True, error_model="numpy")
def integrate_planes(voxels, occupied, scale, origin, linear, rays, centre, stride, image, jacobian):
    """Joseph's method (IEEE TMI 1982): samples where rays cross every ``stride``-th plane of x.

    There the field is bilinear: four voxels a sample instead of eight. Along a ray mu starts and ends
    at 0, so the integral of d mu / dt is 0 and that of t d mu / dt is -I: the x components of G and H
    follow from the other two.
    """
    # unsigned: Numba looks for negative indices otherwise, at every voxel
    plane, row = np.uintp(voxels.shape[1] * voxels.shape[2]), np.uintp(voxels.shape[2])
    flat = voxels.ravel()
    n_poses, height, width = image.shape
    tiles = ((width + TILE - 1) // TILE) * ((height + TILE - 1) // TILE)
    zero = np.float32(0.0)
    for job in prange(n_poses * tiles):
        n, v0, u0 = _pixel(job, width, height)
        ox, oy, oz = origin[n, 0], origin[n, 1], origin[n, 2]
        for v in range(v0, min(v0 + TILE, height)):
            for u in range(u0, min(u0 + TILE, width)):
                cx = (u - rays[2]) / rays[0]
                cy = (v - rays[3]) / rays[1]
                r = 1.0 / math.sqrt(cx * cx + cy * cy + 1.0)
                dx = (linear[n, 0, 0] * cx + linear[n, 0, 1] * cy + linear[n, 0, 2]) * r
                dy = (linear[n, 1, 0] * cx + linear[n, 1, 1] * cy + linear[n, 1, 2]) * r
                dz = (linear[n, 2, 0] * cx + linear[n, 2, 1] * cy + linear[n, 2, 2]) * r
                t_in, t_out = _clip(voxels.shape, ox, oy, oz, dx, dy, dz)
                total = zero
                gy = zero
                gz = zero
                hy = zero
                hz = zero
                first = 0
                if t_in < t_out:
                    xa = ox + dx * t_in
                    xb = ox + dx * t_out
                    first = int(math.ceil(min(xa, xb) / stride - 1e-9))
                    count = int(math.floor(max(xa, xb) / stride + 1e-9)) + 1 - first
                    first *= stride
                    y0 = np.float32(oy + dy / dx * (first - ox))
                    z0 = np.float32(oz + dz / dx * (first - ox))
                    sy = np.float32(dy / dx * stride)
                    sz = np.float32(dz / dx * stride)
                    run = max(1, int(2 * BLOCK / (stride * max(1.0, abs(dy / dx), abs(dz / dx)))))
                    for begin in range(0, count, run):
                        end = min(begin + run, count)
                        m = np.float32(0.5 * (begin + end - 1))
                        y = y0 + sy * m
                        z = z0 + sz * m
                        if not occupied[int(z) // BLOCK, int(y) // BLOCK, (first + int(m) * stride) // BLOCK]:
                            continue
                        for k in range(begin, end):
                            m = np.float32(k)
                            y = y0 + sy * m
                            z = z0 + sz * m
                            j = np.int32(y)
                            k0 = np.int32(z)
                            fy = y - np.float32(j)
                            fz = z - np.float32(k0)
                            p = np.uintp(k0) * plane + np.uintp(j) * row + np.uintp(first + k * stride)
                            c0 = np.float32(flat[p])
                            c2 = np.float32(flat[p + plane])
                            e0 = np.float32(flat[p + row]) - c0
                            e1 = np.float32(flat[p + plane + row]) - c2
                            c0 += fy * e0
                            c2 += fy * e1 - c0
                            total += c0 + fz * c2
                            if jacobian is not None:
                                e0 += fz * (e1 - e0)
                                gy += e0
                                gz += c2
                                hy += m * e0
                                hz += m * c2
                length = stride / abs(dx)
                image[n, v, u] = total * scale * length
                if jacobian is not None:
                    t0 = (first - ox) / dx
                    dt = stride / dx
                    gx = -(gy * dy + gz * dz) / dx
                    ay = hy * dt + gy * t0
                    az = hz * dt + gz * t0
                    ax = -(total + ay * dy + az * dz) / dx
                    g = (gx, gy, gz)
                    h = (ax, ay, az)
                    _store_jacobian(jacobian, n, v, u, linear, centre, cx, cy, r, scale * length, g, h)


@njit(cache=True, parallel=True, fastmath=True, nogil=True, error_model="numpy")
def integrate_steps(voxels, occupied, scale, origin, linear, rays, centre, step, image, jacobian):
    """Samples of the trilinear field at (k + 1/2) ``step`` mm from the source."""
    # unsigned: Numba looks for negative indices otherwise, at every voxel
    plane, row, one = np.uintp(voxels.shape[1] * voxels.shape[2]), np.uintp(voxels.shape[2]), np.uintp(1)
    flat = voxels.ravel()
    n_poses, height, width = image.shape
    tiles = ((width + TILE - 1) // TILE) * ((height + TILE - 1) // TILE)
    zero = np.float32(0.0)
    for job in prange(n_poses * tiles):
        n, v0, u0 = _pixel(job, width, height)
        for v in range(v0, min(v0 + TILE, height)):
            for u in range(u0, min(u0 + TILE, width)):
                cx = (u - rays[2]) / rays[0]
                cy = (v - rays[3]) / rays[1]
                r = 1.0 / math.sqrt(cx * cx + cy * cy + 1.0)
                dx = (linear[n, 0, 0] * cx + linear[n, 0, 1] * cy + linear[n, 0, 2]) * r
                dy = (linear[n, 1, 0] * cx + linear[n, 1, 1] * cy + linear[n, 1, 2]) * r
                dz = (linear[n, 2, 0] * cx + linear[n, 2, 1] * cy + linear[n, 2, 2]) * r
                t_in, t_out = _clip(voxels.shape, origin[n, 0], origin[n, 1], origin[n, 2], dx, dy, dz)
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
                    run = max(1, int(2 * BLOCK / max(abs(sx), abs(sy), abs(sz), np.float32(1e-6))))
                    for begin in range(0, count, run):
                        end = min(begin + run, count)
                        m = np.float32(0.5 * (begin + end - 1))
                        x = x0 + sx * m
                        y = y0 + sy * m
                        z = z0 + sz * m
                        if not occupied[int(z) // BLOCK, int(y) // BLOCK, int(x) // BLOCK]:
                            continue
                        for k in range(begin, end):
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
                            p = np.uintp(k0) * plane + np.uintp(j) * row + np.uintp(i)
                            c0 = np.float32(flat[p])
                            c1 = np.float32(flat[p + row])
                            c2 = np.float32(flat[p + plane])
                            c3 = np.float32(flat[p + plane + row])
                            d0 = np.float32(flat[p + one]) - c0
                            d1 = np.float32(flat[p + row + one]) - c1
                            d2 = np.float32(flat[p + plane + one]) - c2
                            d3 = np.float32(flat[p + plane + row + one]) - c3
                            c0 += fx * d0
                            c1 += fx * d1
                            c2 += fx * d2
                            c3 += fx * d3
                            e0 = c1 - c0
                            e1 = c3 - c2
                            c0 += fy * e0
                            c2 += fy * e1 - c0
                            total += c0 + fz * c2
                            if jacobian is not None:
                                d0 += fy * (d1 - d0)
                                d2 += fy * (d3 - d2)
                                d0 += fz * (d2 - d0)
                                e0 += fz * (e1 - e0)
                                gx += d0
                                gy += e0
                                gz += c2
                                hx += m * d0
                                hy += m * e0
                                hz += m * c2
                image[n, v, u] = total * scale * step
                if jacobian is not None:
                    g = (gx, gy, gz)
                    h = (hx * step + t0 * gx, hy * step + t0 * gy, hz * step + t0 * gz)
                    _store_jacobian(jacobian, n, v, u, linear, centre, cx, cy, r, scale * step, g, h)


@njit(cache=True, parallel=True, nogil=True, error_model="numpy")
def first_last_hit(voxels, scale, origin, linear, rays, step, threshold, out):
    """Fill ``out`` (n, 2, height, width) with the depths of the first and last crossing."""
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
            t_in, t_out = _clip(voxels.shape, origin[n, 0], origin[n, 1], origin[n, 2], dx, dy, dz)
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
