"""Compiled loops of backend_numba; the mathematics is in drr.render.

Voxels lie in slabs of planes across the axis x that the rays run along, each slab with the first
plane of the next: (slab, z, y, x within it). A tile of neighbouring rays goes through slab after slab
together: what one of them fetches from memory into the cache serves the others, and the samples of
a ray within a slab become vector instructions, eight lanes for its eight planes. Slabs are padded with
zeros; a tile, then a ray, steps over those in which it meets nothing. A ``jacobian`` of None compiles to
a loop without derivatives.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

TILE = 8  # pixels on a side
SLAB = 8  # planes
BLOCK = 2  # voxels of y and z that are looked up together
PAD = 2  # zeros around the voxels


@njit(cache=True, parallel=True, nogil=True, error_model="numpy")
def pack(mu, per_unit, slabs):
    """Fill ``slabs`` (slab, z, y, SLAB + 1) with mu (z, y, x) in whole units; what is around it stays as it is."""
    for z in prange(mu.shape[0]):
        for s in range(slabs.shape[0]):
            first = s * SLAB - PAD
            begin, end = max(0, -first), min(SLAB + 1, mu.shape[2] - first)
            for k in range(begin, end):
                for y in range(mu.shape[1]):
                    slabs[s, z + PAD, y + PAD, k] = np.uint16(mu[z, y, first + k] * per_unit + np.float32(0.5))


@njit(cache=True, inline="always")
def _tile(job, width, height):
    """Pose, first row and first column of a job."""
    tiles_x = (width + TILE - 1) // TILE
    tiles = tiles_x * ((height + TILE - 1) // TILE)
    tile = job % tiles
    return job // tiles, (tile // tiles_x) * TILE, (tile % tiles_x) * TILE


@njit(cache=True, fastmath=True, error_model="numpy")
def _nine(linear, n):
    """A matrix as values: the compiler would read it again after every pixel that is written."""
    return (
        (linear[n, 0, 0], linear[n, 0, 1], linear[n, 0, 2]),
        (linear[n, 1, 0], linear[n, 1, 1], linear[n, 1, 2]),
        (linear[n, 2, 0], linear[n, 2, 1], linear[n, 2, 2]),
    )


@njit(cache=True, fastmath=True, error_model="numpy")
def _direction(m, rays, u, v):
    """A pixel's ray: camera x and y at depth 1, the depth of 1 mm along it, and that mm in voxels by ``m``."""
    cx = (u - rays[2]) / rays[0]
    cy = (v - rays[3]) / rays[1]
    r = 1.0 / math.sqrt(cx * cx + cy * cy + 1.0)
    dx = (m[0][0] * cx + m[0][1] * cy + m[0][2]) * r
    dy = (m[1][0] * cx + m[1][1] * cy + m[1][2]) * r
    dz = (m[2][0] * cx + m[2][1] * cy + m[2][2]) * r
    return cx, cy, r, dx, dy, dz


@njit(cache=True, inline="always")
def _clamp(value, upper):
    return min(max(value, np.float32(0.0)), upper)


@njit(cache=True, inline="always")
def _block(value, last):
    """The block that a voxel lies in; those beyond an end lie in the last one there."""
    return min(max(int(value), 0) // BLOCK, last)


@njit(cache=True, inline="always")
def _any_within(below, s, first_y, last_y, first_z, last_z):
    """Whether samples of a slab between these y and z may meet anything."""
    y_end, z_end = below.shape[2] - 2, below.shape[1] - 2
    y_low, y_high = _block(first_y, y_end), _block(last_y, y_end) + 1
    z_low, z_high = _block(first_z, z_end), _block(last_z, z_end) + 1
    return below[s, z_high, y_high] - below[s, z_low, y_high] - below[s, z_high, y_low] + below[s, z_low, y_low] > 0


@njit(cache=True, inline="always")
def _meets(below, s, y, z, sy, sz, count):
    """Whether a ray may meet anything in a slab at its ``count`` samples (y + k sy, z + k sz)."""
    last = np.float32(count - 1)
    y_end, z_end = y + sy * last, z + sz * last
    return _any_within(below, s, min(y, y_end), max(y, y_end), min(z, z_end), max(z, z_end))


@njit(cache=True, fastmath=True, error_model="numpy")
def _line(m, rays, ox, oy, oz, u, v):
    """A pixel's ray by x: y and z at x = 0, each with its change from plane to plane."""
    _, _, _, dx, dy, dz = _direction(m, rays, u, v)
    sy, sz = dy / dx, dz / dx
    return oy - sy * ox, sy, oz - sz * ox, sz


@njit(cache=True, inline="always")
def _tile_meets(below, s, corners):
    """Whether any ray of a tile may meet anything in a slab.

    Where the rays cross a plane of x, those of a tile lie within the hull of its corners', and between two planes
    within the hull of both.
    """
    first_y = first_z = 1e9
    last_y = last_z = -1e9
    for y0, sy, z0, sz in corners:
        for end in range(2):
            x = (s + end) * SLAB
            y, z = y0 + sy * x, z0 + sz * x
            first_y, last_y = min(first_y, y), max(last_y, y)
            first_z, last_z = min(first_z, z), max(last_z, z)
    return _any_within(below, s, first_y, last_y, first_z, last_z)


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
    """The part [t_in, t_out] of a ray inside slabs of this shape; empty when t_in >= t_out."""
    t_in, t_out = _clip_axis(ox, dx, shape[0] * SLAB - 1.0, 0.0, 1e9)
    t_in, t_out = _clip_axis(oy, dy, shape[2] - 2.0, t_in, t_out)
    return _clip_axis(oz, dz, shape[1] - 2.0, t_in, t_out)


@njit(cache=True, fastmath=True, error_model="numpy")
def _jacobian(m, c, cx, cy, r, unit, g, h):
    """Six derivatives about ``c`` (camera) from G and H in voxel axes, both to be multiplied by ``unit``."""
    g0 = m[0][0] * g[0] + m[1][0] * g[1] + m[2][0] * g[2]
    g1 = m[0][1] * g[0] + m[1][1] * g[1] + m[2][1] * g[2]
    g2 = m[0][2] * g[0] + m[1][2] * g[1] + m[2][2] * g[2]
    # along the ray the integral of the gradient is 0; what the samples leave there is noise
    along = (cx * g0 + cy * g1 + g2) * r * r
    g0 -= along * cx
    g1 -= along * cy
    g2 -= along
    h0 = (m[0][0] * h[0] + m[1][0] * h[1] + m[2][0] * h[2]) * r
    h1 = (m[0][1] * h[0] + m[1][1] * h[1] + m[2][1] * h[2]) * r
    h2 = (m[0][2] * h[0] + m[1][2] * h[1] + m[2][2] * h[2]) * r
    return (
        -unit * ((cy * h2 - h1) - (c[1] * g2 - c[2] * g1)),
        -unit * ((h0 - cx * h2) - (c[2] * g0 - c[0] * g2)),
        -unit * ((cx * h1 - cy * h0) - (c[0] * g1 - c[1] * g0)),
        -unit * g0,
        -unit * g1,
        -unit * g2,
    )


@njit(cache=True, inline="always")
def _planes(flat, slab, plane, row, y0, z0, sy, sz, y_max, z_max, jacobian):
    """A ray's sums over the planes of one slab: mu, its differences in y and z, and these by the plane's number."""
    total = np.float32(0.0)
    gy = np.float32(0.0)
    gz = np.float32(0.0)
    hy = np.float32(0.0)
    hz = np.float32(0.0)
    for k in range(SLAB):  # a loop of known length becomes vector instructions
        x = np.float32(k)
        y = _clamp(y0 + sy * x, y_max)
        z = _clamp(z0 + sz * x, z_max)
        j = np.int32(y)
        k0 = np.int32(z)
        fy = y - np.float32(j)
        fz = z - np.float32(k0)
        p = slab + np.uintp(k0) * plane + np.uintp(j) * row + np.uintp(k)
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
            hy += x * e0
            hz += x * c2
    return total, gy, gz, hy, hz


@njit(cache=True, parallel=True, fastmath=True, nogil=True, error_model="numpy")
def integrate_planes(slabs, below, scale, origin, linear, rays, centre, image, jacobian):
    """Joseph's method (IEEE TMI 1982): samples where rays cross the planes of x.

    There the field is bilinear: four voxels a sample instead of eight. Along a ray mu starts and ends
    at 0, so the integral of d mu / dt is 0 and that of t d mu / dt is -I: the x components of G and H
    follow from the other two.
    """
    # unsigned: Numba looks for negative indices otherwise, at every voxel
    row = np.uintp(SLAB + 1)
    plane = np.uintp(slabs.shape[2]) * row
    flat = slabs.ravel()
    n_poses, height, width = image.shape
    tiles = ((width + TILE - 1) // TILE) * ((height + TILE - 1) // TILE)
    y_max, z_max = np.float32(slabs.shape[2] - 2), np.float32(slabs.shape[1] - 2)
    for job in prange(n_poses * tiles):
        n, v0, u0 = _tile(job, width, height)
        rows, columns = min(TILE, height - v0), min(TILE, width - u0)
        ox, oy, oz = origin[n, 0], origin[n, 1], origin[n, 2]
        m = _nine(linear, n)
        corners = (
            _line(m, rays, ox, oy, oz, u0, v0),
            _line(m, rays, ox, oy, oz, u0 + columns - 1, v0),
            _line(m, rays, ox, oy, oz, u0, v0 + rows - 1),
            _line(m, rays, ox, oy, oz, u0 + columns - 1, v0 + rows - 1),
        )
        first = 0
        while first < slabs.shape[0] and not _tile_meets(below, first, corners):
            first += 1
        if first == slabs.shape[0]:
            image[n, v0 : v0 + rows, u0 : u0 + columns] = 0.0
            if jacobian is not None:
                jacobian[n, :, v0 : v0 + rows, u0 : u0 + columns] = 0.0
            continue
        lines = np.empty((rows * columns, 4), np.float32)
        sums = np.zeros((rows * columns, 5), np.float32)
        for i in range(rows * columns):
            lines[i, 0], lines[i, 1], lines[i, 2], lines[i, 3] = _line(
                m, rays, ox, oy, oz, u0 + i % columns, v0 + i // columns
            )
        for s in range(first, slabs.shape[0]):
            if not _tile_meets(below, s, corners):
                continue
            slab = np.uintp(s) * np.uintp(slabs.shape[1]) * plane
            x0 = np.float32(s * SLAB)
            for i in range(rows * columns):
                sy = lines[i, 1]
                sz = lines[i, 3]
                y0 = lines[i, 0] + sy * x0
                z0 = lines[i, 2] + sz * x0
                if not _meets(below, s, y0, z0, sy, sz, SLAB):
                    continue
                total, gy, gz, hy, hz = _planes(flat, slab, plane, row, y0, z0, sy, sz, y_max, z_max, jacobian)
                sums[i, 0] += total
                if jacobian is not None:
                    sums[i, 1] += gy
                    sums[i, 2] += gz
                    sums[i, 3] += x0 * gy + hy
                    sums[i, 4] += x0 * gz + hz
        for i in range(rows * columns):
            u, v = u0 + i % columns, v0 + i // columns
            cx, cy, r, dx, dy, dz = _direction(m, rays, u, v)
            length = 1.0 / abs(dx)
            total, gy, gz = sums[i, 0], sums[i, 1], sums[i, 2]
            image[n, v, u] = total * scale * length
            if jacobian is not None:
                gx = -(gy * dy + gz * dz) / dx
                ay = (sums[i, 3] - ox * gy) / dx
                az = (sums[i, 4] - ox * gz) / dx
                ax = -(total + ay * dy + az * dz) / dx
                g = (gx, gy, gz)
                h = (ax, ay, az)
                c = (centre[n, 0], centre[n, 1], centre[n, 2])
                values = _jacobian(m, c, cx, cy, r, scale * length, g, h)
                for k in range(6):
                    jacobian[n, k, v, u] = values[k]


@njit(cache=True, parallel=True, fastmath=True, nogil=True, error_model="numpy")
def integrate_steps(slabs, below, scale, origin, linear, rays, centre, step, image, jacobian):
    """Samples of the trilinear field at (k + 1/2) ``step`` mm from the source."""
    # unsigned: Numba looks for negative indices otherwise, at every voxel
    row, one = np.uintp(SLAB + 1), np.uintp(1)
    plane = np.uintp(slabs.shape[2]) * row
    flat = slabs.ravel()
    n_poses, height, width = image.shape
    tiles = ((width + TILE - 1) // TILE) * ((height + TILE - 1) // TILE)
    zero = np.float32(0.0)
    for job in prange(n_poses * tiles):
        n, v0, u0 = _tile(job, width, height)
        rows, columns = min(TILE, height - v0), min(TILE, width - u0)
        ox, oy, oz = origin[n, 0], origin[n, 1], origin[n, 2]
        m = _nine(linear, n)
        lines = np.empty((rows * columns, 5))  # direction, and where the ray enters and leaves
        sums = np.zeros((rows * columns, 7), np.float32)
        for i in range(rows * columns):
            _, _, _, dx, dy, dz = _direction(m, rays, u0 + i % columns, v0 + i // columns)
            dx = math.copysign(max(abs(dx), 1e-9), dx)
            t_in, t_out = _clip(slabs.shape, ox, oy, oz, dx, dy, dz)
            lines[i, 0] = dx
            lines[i, 1] = dy
            lines[i, 2] = dz
            lines[i, 3] = math.ceil(t_in / step - 0.5)
            lines[i, 4] = math.floor(t_out / step - 0.5) + 1
        for s in range(slabs.shape[0]):
            slab = np.uintp(s) * np.uintp(slabs.shape[1]) * plane
            x0 = s * SLAB
            for i in range(rows * columns):
                dx, dy, dz = lines[i, 0], lines[i, 1], lines[i, 2]
                # samples whose x is in [x0, x0 + SLAB): as half-open, each is in one slab only
                a = (x0 - ox) / (dx * step) - 0.5
                b = (x0 + SLAB - ox) / (dx * step) - 0.5
                if dx < 0:
                    a, b = b, a
                first = max(math.ceil(a), lines[i, 3])
                count = int(min(math.ceil(b), lines[i, 4]) - first)
                if count <= 0:
                    continue
                t0 = (first + 0.5) * step
                xa = np.float32(ox + dx * t0 - x0)
                y0 = np.float32(oy + dy * t0)
                z0 = np.float32(oz + dz * t0)
                sx = np.float32(dx * step)
                sy = np.float32(dy * step)
                sz = np.float32(dz * step)
                if not _meets(below, s, y0, z0, sy, sz, count):
                    continue
                total = zero
                gx = zero
                gy = zero
                gz = zero
                hx = zero
                hy = zero
                hz = zero
                for k in range(count):
                    at = np.float32(k)
                    x = _clamp(xa + sx * at, np.float32(SLAB))
                    y = y0 + sy * at
                    z = z0 + sz * at
                    i0 = min(np.int32(x), np.int32(SLAB - 1))
                    j = np.int32(y)
                    k0 = np.int32(z)
                    fx = x - np.float32(i0)
                    fy = y - np.float32(j)
                    fz = z - np.float32(k0)
                    p = slab + np.uintp(k0) * plane + np.uintp(j) * row + np.uintp(i0)
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
                        hx += at * d0
                        hy += at * e0
                        hz += at * c2
                sums[i, 0] += total
                if jacobian is not None:
                    sums[i, 1] += gx
                    sums[i, 2] += gy
                    sums[i, 3] += gz
                    sums[i, 4] += hx * step + t0 * gx
                    sums[i, 5] += hy * step + t0 * gy
                    sums[i, 6] += hz * step + t0 * gz
        for i in range(rows * columns):
            u, v = u0 + i % columns, v0 + i // columns
            image[n, v, u] = sums[i, 0] * scale * step
            if jacobian is not None:
                cx, cy, r, _, _, _ = _direction(m, rays, u, v)
                g = (sums[i, 1], sums[i, 2], sums[i, 3])
                h = (sums[i, 4], sums[i, 5], sums[i, 6])
                c = (centre[n, 0], centre[n, 1], centre[n, 2])
                values = _jacobian(m, c, cx, cy, r, scale * step, g, h)
                for k in range(6):
                    jacobian[n, k, v, u] = values[k]


@njit(cache=True, parallel=True, nogil=True, error_model="numpy")
def first_last_hit(slabs, scale, clearance, origin, linear, rays, step, threshold, out):
    """Fill ``out`` (n, 2, height, width) with the depths of the first and last crossing.

    ``clearance`` (z, y, x) of each cell between 8 voxels: how many cells away, along the axis on which it is most, the
    nearest one is that the threshold crosses. Samples that are nearer than that are left out; they would change nothing.
    """
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
            t_in, t_out = _clip(slabs.shape, origin[n, 0], origin[n, 1], origin[n, 2], dx, dy, dz)
            if t_in >= t_out:
                continue
            first = int(math.ceil(t_in / step - 0.5))
            last = int(math.floor(t_out / step - 0.5)) + 1
            o = (origin[n, 0], origin[n, 1], origin[n, 2])
            d = (dx, dy, dz)
            k, mu, before = _crossing(slabs, clearance, o, d, step, level, first, last, 1)
            if k == last:
                continue
            out[n, 0, v, u] = ((k + 0.5) * step - step * (mu - level) / (mu - before)) * r
            k, mu, before = _crossing(slabs, clearance, o, d, step, level, last - 1, first - 1, -1)
            out[n, 1, v, u] = ((k + 0.5) * step + step * (mu - level) / (mu - before)) * r


@njit(cache=True)
def _crossing(slabs, clearance, o, d, step, level, begin, end, way):
    """The first sample above the level from ``begin`` on, up or down: its number, its value, and that of the one before."""
    per_cell = 1.0 / (max(abs(d[0]), abs(d[1]), abs(d[2])) * step)
    before = 0.0
    k = begin
    while k != end:
        t = (k + 0.5) * step
        x, y, z = o[0] + d[0] * t, o[1] + d[1] * t, o[2] + d[2] * t
        mu = _value(slabs, x, y, z)
        if mu > level:
            return k, mu, before
        before = mu
        leap = max(int((clearance[int(z), int(y), int(x)] - 1) * per_cell), 1)
        k += way * min(leap, abs(end - k))
    return k, 0.0, before


@njit(cache=True, inline="always")
def _value(slabs, x, y, z):
    s = int(x) // SLAB
    i = int(x) % SLAB
    j = int(y)
    k = int(z)
    fx = x - int(x)
    fy = y - j
    fz = z - k
    c00 = slabs[s, k, j, i] * (1.0 - fx) + slabs[s, k, j, i + 1] * fx
    c01 = slabs[s, k, j + 1, i] * (1.0 - fx) + slabs[s, k, j + 1, i + 1] * fx
    c10 = slabs[s, k + 1, j, i] * (1.0 - fx) + slabs[s, k + 1, j, i + 1] * fx
    c11 = slabs[s, k + 1, j + 1, i] * (1.0 - fx) + slabs[s, k + 1, j + 1, i + 1] * fx
    return (c00 * (1.0 - fy) + c01 * fy) * (1.0 - fz) + (c10 * (1.0 - fy) + c11 * fy) * fz
