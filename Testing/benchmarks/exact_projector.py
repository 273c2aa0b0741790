"""Line integrals of a trilinear field without a step: an oracle that shares no code with the renderers.

Each ray is cut at every plane of voxel centres; between two cuts the trilinear field is a cubic in
the distance, which two Gauss-Legendre points integrate exactly. Float64 throughout.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange


def project(channels, ct_from_ijk, camera, camera_from_ct):
    """(channels, height, width) float64 line integrals in (unit of the field) x mm.

    ``channels`` is (C, nk, nj, ni); outside the grid the field falls linearly to 0 within a voxel.
    """
    padded = np.pad(np.asarray(channels, np.float32), [(0, 0), (1, 1), (1, 1), (1, 1)])
    padded = np.ascontiguousarray(np.moveaxis(padded, 0, -1))
    ijk_from_camera = np.linalg.inv(camera_from_ct @ ct_from_ijk)
    origin = ijk_from_camera[:3, 3] + 1.0
    d = camera.ray_directions().reshape(-1, 3)
    d /= np.linalg.norm(d, axis=1, keepdims=True)
    out = np.zeros((len(d), padded.shape[-1]))
    _project(padded, origin, d @ ijk_from_camera[:3, :3].T, out)
    return out.T.reshape(-1, camera.height, camera.width)


@njit(cache=True, parallel=True)
def _project(field, origin, directions, out):
    nk, nj, ni, channels = field.shape
    upper = np.array([ni - 1.0, nj - 1.0, nk - 1.0])
    gauss = 0.5 / np.sqrt(3.0)
    for n in prange(len(directions)):
        d = directions[n]
        t_in, t_out = 0.0, 1e12
        for a in range(3):
            if abs(d[a]) < 1e-14:
                if origin[a] <= 0.0 or origin[a] >= upper[a]:
                    t_out = -1.0
                continue
            t0, t1 = -origin[a] / d[a], (upper[a] - origin[a]) / d[a]
            t_in, t_out = max(t_in, min(t0, t1)), min(t_out, max(t0, t1))
        t = t_in
        while t < t_out - 1e-9:
            following = t_out
            for a in range(3):
                if abs(d[a]) >= 1e-14:
                    x = origin[a] + d[a] * (t + 1e-9)
                    plane = np.floor(x) + 1.0 if d[a] > 0 else np.ceil(x) - 1.0
                    following = min(following, (plane - origin[a]) / d[a])
            following = max(following, t + 1e-9)
            length, middle = following - t, 0.5 * (following + t)
            for side in (-gauss, gauss):
                s = middle + side * length
                x, y, z = origin[0] + d[0] * s, origin[1] + d[1] * s, origin[2] + d[2] * s
                i, j, k = min(max(int(x), 0), ni - 2), min(max(int(y), 0), nj - 2), min(max(int(z), 0), nk - 2)
                fx, fy, fz = x - i, y - j, z - k
                for c in range(channels):
                    low = (field[k, j, i, c] * (1 - fx) + field[k, j, i + 1, c] * fx) * (1 - fy) + (
                        field[k, j + 1, i, c] * (1 - fx) + field[k, j + 1, i + 1, c] * fx
                    ) * fy
                    high = (field[k + 1, j, i, c] * (1 - fx) + field[k + 1, j, i + 1, c] * fx) * (1 - fy) + (
                        field[k + 1, j + 1, i, c] * (1 - fx) + field[k + 1, j + 1, i + 1, c] * fx
                    ) * fy
                    out[n, c] += 0.5 * length * (low * (1 - fz) + high * fz)
            t = following
