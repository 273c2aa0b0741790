"""Exact line integrals in float64: what every renderer's error is measured against, and simulated X-rays.

Two fields, because renderers mean two different things by a volume:

- trilinear: mu is interpolated between voxel centres and falls linearly to 0 one voxel outside the
  grid. Between two planes through voxel centres it is a cubic along a straight ray, and two-point
  Gauss-Legendre integrates cubics exactly.
- piecewise constant: mu is constant in each voxel's box (Siddon 1985). Between two planes through
  voxel borders it is a constant.

Nothing here is shared with the library's renderers or with a peer: rays come in as points in voxel
coordinates, and the only step is to cut them at the planes.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from XRayRegistrationLib.geometry.camera import Camera

Array = NDArray[np.float64]

_GAUSS = 0.5 / np.sqrt(3.0)  # the two nodes, from the middle of a piece of length 1


def project(channels: NDArray[np.float32], ct_from_ijk: Array, camera: Camera, camera_from_ct: Array) -> Array:
    """A whole image of trilinear fields, from the source through the volume to the other side.

    Args:
        channels: (c, nk, nj, ni), one field for each material.
        ct_from_ijk: (4, 4), mm from voxels.
        camera: intrinsics.
        camera_from_ct: (4, 4).

    Returns:
        (c, height, width), in (unit of the fields) x mm.
    """
    ijk_from_camera = np.linalg.inv(camera_from_ct @ ct_from_ijk)
    rays = camera.ray_directions().reshape(-1, 3)
    rays = rays / np.linalg.norm(rays, axis=1, keepdims=True)
    out = np.zeros((len(rays), len(channels)))
    _trilinear(_ringed(channels), ijk_from_camera[:3, 3] + 1.0, rays @ ijk_from_camera[:3, :3].T, np.inf, out)
    return out.T.reshape(-1, camera.height, camera.width)


def integrate_trilinear(mu: NDArray[np.float32], source_ijk: Array, target_ijk: Array, length_mm: Array) -> Array:
    """Integral of the trilinear field from source to target.

    Args:
        mu: (nk, nj, ni), mm^-1.
        source_ijk: (3,) in voxels, (i, j, k), integer = voxel centre.
        target_ijk: (n, 3) in voxels.
        length_mm: (n,), distance from source to each target in mm.

    Returns:
        (n,), unitless.
    """
    out = np.zeros((len(target_ijk), 1))
    _trilinear(_ringed(mu[None]), source_ijk + 1.0, target_ijk - source_ijk, 1.0, out)
    return out[:, 0] * length_mm


def integrate_piecewise_constant(mu: NDArray[np.float32], source_ijk: Array, target_ijk: Array, length_mm: Array) -> Array:
    """Integral of the piecewise constant field; arguments as for :func:`integrate_trilinear`."""
    out = np.zeros(len(target_ijk))
    _piecewise_constant(np.ascontiguousarray(mu), source_ijk + 0.5, target_ijk - source_ijk, 1.0, out)
    return out * length_mm


def _ringed(channels: NDArray[np.float32]) -> NDArray[np.float32]:
    """(nk + 2, nj + 2, ni + 2, c): a ring of zeros around, and the materials of a voxel side by side."""
    ring = np.pad(np.asarray(channels, np.float32), [(0, 0), (1, 1), (1, 1), (1, 1)])
    return np.ascontiguousarray(np.moveaxis(ring, 0, -1))


@njit(cache=True, parallel=True)
def _trilinear(field, source, directions, end, out):
    """Adds to out (n, c) the integrals over t in [0, end] of field (nk, nj, ni, c) at source + t direction."""
    nk, nj, ni, channels = field.shape
    upper = np.array([ni - 1, nj - 1, nk - 1])
    for n in prange(len(directions)):
        d = directions[n]
        cuts = np.empty(3)
        planes = np.empty(3)
        t, last = _enter(source, d, upper, end, planes, cuts)
        while t < last:
            following = min(cuts.min(), last)
            middle, width = 0.5 * (t + following), following - t
            i = _cell(source[0] + middle * d[0], ni - 2)
            j = _cell(source[1] + middle * d[1], nj - 2)
            k = _cell(source[2] + middle * d[2], nk - 2)
            for side in (-_GAUSS, _GAUSS):
                s = middle + side * width
                x, y, z = source[0] + s * d[0] - i, source[1] + s * d[1] - j, source[2] + s * d[2] - k
                for c in range(channels):
                    a = (1 - x) * field[k, j, i, c] + x * field[k, j, i + 1, c]
                    b = (1 - x) * field[k, j + 1, i, c] + x * field[k, j + 1, i + 1, c]
                    near = (1 - y) * a + y * b
                    a = (1 - x) * field[k + 1, j, i, c] + x * field[k + 1, j, i + 1, c]
                    b = (1 - x) * field[k + 1, j + 1, i, c] + x * field[k + 1, j + 1, i + 1, c]
                    far = (1 - y) * a + y * b
                    out[n, c] += 0.5 * width * ((1 - z) * near + z * far)
            t = _pass(source, d, following, planes, cuts)


@njit(cache=True, parallel=True)
def _piecewise_constant(field, source, directions, end, out):
    """As :func:`_trilinear`, with field (nk, nj, ni) constant between planes at integers, and out (n,)."""
    nk, nj, ni = field.shape
    upper = np.array([ni, nj, nk])
    for n in prange(len(directions)):
        d = directions[n]
        cuts = np.empty(3)
        planes = np.empty(3)
        t, last = _enter(source, d, upper, end, planes, cuts)
        while t < last:
            following = min(cuts.min(), last)
            middle, width = 0.5 * (t + following), following - t
            i = _cell(source[0] + middle * d[0], ni - 1)
            j = _cell(source[1] + middle * d[1], nj - 1)
            k = _cell(source[2] + middle * d[2], nk - 1)
            out[n] += width * field[k, j, i]
            t = _pass(source, d, following, planes, cuts)


@njit(cache=True)
def _enter(source, direction, upper, end, planes, cuts):
    """Where the ray enters and leaves [0, upper]; sets the next plane of each axis and its t."""
    first, last = 0.0, end
    for a in range(3):
        if direction[a] == 0.0:
            if not 0.0 <= source[a] <= upper[a]:
                return 0.0, 0.0
            continue
        t0, t1 = -source[a] / direction[a], (upper[a] - source[a]) / direction[a]
        first, last = max(first, min(t0, t1)), min(last, max(t0, t1))
    for a in range(3):
        x = source[a] + first * direction[a]
        planes[a] = np.floor(x) if direction[a] > 0 else np.ceil(x)
        cuts[a] = np.inf if direction[a] == 0.0 else -np.inf
    _pass(source, direction, first, planes, cuts)
    return first, last


@njit(cache=True)
def _pass(source, direction, t, planes, cuts):
    """Moves on to the planes that the ray meets after t; returns t."""
    for a in range(3):
        while cuts[a] <= t:
            planes[a] += 1.0 if direction[a] > 0 else -1.0
            cuts[a] = (planes[a] - source[a]) / direction[a]
    return t


@njit(cache=True)
def _cell(x, largest):
    return min(max(int(np.floor(x)), 0), largest)
