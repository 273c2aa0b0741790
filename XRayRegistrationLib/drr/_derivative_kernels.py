"""Compiled loops of networks.derivative_images: sums along rays through a learned volume, and their adjoint.

The volume is (nk + 2, nj + 2, ni + 2, channels), padded with one zero voxel on every side, values of any sign. A ray is
sampled at t = (k + 1/2) step between the planes where the padding ends.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

SUMS = 7  # mu; its differences along i, j, k; these times the distance from the source


@njit(cache=True, inline="always")
def _span(origin, direction, upper):
    """First and last distance (mm) at which origin + t direction lies in [0, upper] on every axis."""
    t_in, t_out = 0.0, 1e9
    for axis in range(3):
        if abs(direction[axis]) < 1e-12:
            if origin[axis] < 0.0 or origin[axis] > upper[axis]:
                return 1.0, 0.0
        else:
            a = -origin[axis] / direction[axis]
            b = (upper[axis] - origin[axis]) / direction[axis]
            t_in, t_out = max(t_in, min(a, b)), min(t_out, max(a, b))
    return t_in, t_out


@njit(cache=True, inline="always")
def _cell(origin, direction, t, ni, nj, nk):
    """First corner (i, j, k) of the cell that holds origin + t direction, and how far in it that is."""
    x, y, z = origin[0] + t * direction[0], origin[1] + t * direction[1], origin[2] + t * direction[2]
    i, j, k = min(max(int(x), 0), ni - 2), min(max(int(y), 0), nj - 2), min(max(int(z), 0), nk - 2)
    return i, j, k, np.float32(x - i), np.float32(y - j), np.float32(z - k)


@njit(cache=True, parallel=True, nogil=True, error_model="numpy", fastmath=True)
def line_sums(volume, origin, direction, step, out):
    """Fill ``out`` (poses, rays, channels, SUMS) with sums over samples times ``step``.

    ``origin`` (poses, 3) and ``direction`` (poses, rays, 3) are padded voxels, and padded voxels per mm.
    """
    nk, nj, ni, channels = volume.shape
    poses, rays = direction.shape[:2]
    for job in prange(poses * rays):
        pose, ray = job // rays, job % rays
        o, d = origin[pose], direction[pose, ray]
        t_in, t_out = _span(o, d, (ni - 1.0, nj - 1.0, nk - 1.0))
        row = out[pose, ray]
        row[:] = 0.0
        first, last = math.ceil(t_in / step - 0.5), math.floor(t_out / step - 0.5)
        for k in range(first, last + 1):
            t = (k + 0.5) * step
            i, j, h, fx, fy, fz = _cell(o, d, t, ni, nj, nk)
            far = np.float32(t)
            for c in range(channels):
                a0, a1 = volume[h, j, i, c], volume[h, j, i + 1, c]
                b0, b1 = volume[h, j + 1, i, c], volume[h, j + 1, i + 1, c]
                c0, c1 = volume[h + 1, j, i, c], volume[h + 1, j, i + 1, c]
                d0, d1 = volume[h + 1, j + 1, i, c], volume[h + 1, j + 1, i + 1, c]
                a, b = a0 + fx * (a1 - a0), b0 + fx * (b1 - b0)
                e, f = c0 + fx * (c1 - c0), d0 + fx * (d1 - d0)
                near, beyond = a + fy * (b - a), e + fy * (f - e)
                low = (a1 - a0) + fy * ((b1 - b0) - (a1 - a0))
                gi = low + fz * ((c1 - c0) + fy * ((d1 - d0) - (c1 - c0)) - low)
                gj = (b - a) + fz * ((f - e) - (b - a))
                gk = beyond - near
                row[c, 0] += near + fz * gk
                row[c, 1] += gi
                row[c, 2] += gj
                row[c, 3] += gk
                row[c, 4] += far * gi
                row[c, 5] += far * gj
                row[c, 6] += far * gk
        for c in range(channels):
            for s in range(SUMS):
                row[c, s] *= np.float32(step)


@njit(cache=True, parallel=True, nogil=True, error_model="numpy", fastmath=True)
def line_sums_adjoint(slope, origin, direction, step, out):
    """Add to ``out`` (workers, nk, nj, ni, channels) what ``slope``, of the loss in ``line_sums``' output, says of the volume.

    Each worker has a copy of its own, and every ``workers``-th pose: nothing is written by two.
    """
    workers, nk, nj, ni, channels = out.shape
    poses, rays = direction.shape[:2]
    for worker in prange(workers):
        sink = out[worker]
        for job in range(worker, poses * rays, workers):
            pose, ray = job // rays, job % rays
            o, d = origin[pose], direction[pose, ray]
            t_in, t_out = _span(o, d, (ni - 1.0, nj - 1.0, nk - 1.0))
            row = slope[pose, ray]
            first, last = math.ceil(t_in / step - 0.5), math.floor(t_out / step - 0.5)
            for k in range(first, last + 1):
                t = (k + 0.5) * step
                i, j, h, fx, fy, fz = _cell(o, d, t, ni, nj, nk)
                gx, gy, gz = np.float32(1.0) - fx, np.float32(1.0) - fy, np.float32(1.0) - fz
                far, size = np.float32(t), np.float32(step)
                for c in range(channels):
                    value = size * row[c, 0]
                    si = size * (row[c, 1] + far * row[c, 4])
                    sj = size * (row[c, 2] + far * row[c, 5])
                    sk = size * (row[c, 3] + far * row[c, 6])
                    # weight of a corner: product of three factors; of a difference: one of them is -1 or 1
                    for dk in range(2):
                        wz, ez = (fz, np.float32(1.0)) if dk else (gz, np.float32(-1.0))
                        for dj in range(2):
                            wy, ey = (fy, np.float32(1.0)) if dj else (gy, np.float32(-1.0))
                            yz = wy * wz
                            common = value * yz + sj * ey * wz + sk * ez * wy
                            sink[h + dk, j + dj, i, c] += gx * common - si * yz
                            sink[h + dk, j + dj, i + 1, c] += fx * common + si * yz
