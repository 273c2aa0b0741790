"""Exact line integrals in float64, to measure every renderer's error against.

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
from numpy.typing import NDArray

Array = NDArray[np.float64]

_GAUSS = (0.5 - 0.5 / np.sqrt(3.0), 0.5 + 0.5 / np.sqrt(3.0))


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
    padded = np.pad(mu, 1)  # float32 holds the voxels; every product below is float64
    shape = np.array(padded.shape[::-1])
    out = np.zeros(len(target_ijk))
    for n, target in enumerate(target_ijk):
        start, direction = source_ijk + 1.0, target - source_ijk
        cuts = _cuts(start, direction, np.zeros(3), shape - 1.0)
        if len(cuts) < 2:
            continue
        width = np.diff(cuts)
        middle = start + 0.5 * (cuts[1:] + cuts[:-1])[:, None] * direction
        cell = np.clip(np.floor(middle).astype(np.int64), 0, shape - 2)
        corners = [
            padded[cell[:, 2] + c, cell[:, 1] + b, cell[:, 0] + a].astype(np.float64)
            for c in (0, 1) for b in (0, 1) for a in (0, 1)
        ]  # fmt: skip
        for node in _GAUSS:
            f = start + (cuts[:-1] + node * width)[:, None] * direction - cell
            rows = [corners[m] + f[:, 0] * (corners[m + 1] - corners[m]) for m in (0, 2, 4, 6)]
            near = rows[0] + f[:, 1] * (rows[1] - rows[0])
            far = rows[2] + f[:, 1] * (rows[3] - rows[2])
            out[n] += 0.5 * np.sum(width * (near + f[:, 2] * (far - near)))
    return out * length_mm


def integrate_piecewise_constant(
    mu: NDArray[np.float32], source_ijk: Array, target_ijk: Array, length_mm: Array
) -> Array:
    """Integral of the piecewise constant field; arguments as for :func:`integrate_trilinear`."""
    shape = np.array(mu.shape[::-1])
    out = np.zeros(len(target_ijk))
    for n, target in enumerate(target_ijk):
        start, direction = source_ijk + 0.5, target - source_ijk  # planes at integers
        cuts = _cuts(start, direction, np.zeros(3), shape.astype(np.float64))
        if len(cuts) < 2:
            continue
        middle = start + 0.5 * (cuts[1:] + cuts[:-1])[:, None] * direction
        i, j, k = np.clip(np.floor(middle).astype(np.int64), 0, shape - 1).T
        out[n] = np.sum(np.diff(cuts) * mu[k, j, i].astype(np.float64))
    return out * length_mm


def _cuts(start: Array, direction: Array, lower: Array, upper: Array) -> Array:
    """Sorted parameters in [0, 1] where start + t direction crosses integer planes within the box."""
    t_in, t_out = 0.0, 1.0
    cuts = []
    for axis in range(3):
        if direction[axis] == 0.0:
            if not lower[axis] <= start[axis] <= upper[axis]:
                return np.empty(0)
            continue
        t = (np.arange(lower[axis], upper[axis] + 1) - start[axis]) / direction[axis]
        t_in, t_out = max(t_in, min(t[0], t[-1])), min(t_out, max(t[0], t[-1]))
        cuts.append(t)
    if t_in >= t_out:
        return np.empty(0)
    inner = np.concatenate(cuts)
    inner = inner[(inner > t_in) & (inner < t_out)]
    return np.sort(np.concatenate([[t_in, t_out], inner]))
