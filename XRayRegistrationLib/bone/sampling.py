"""Points on a bone's surface, spread evenly."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.geometry.rigid import transform_points
from XRayRegistrationLib.images.volume import Volume

_CANDIDATES_PER_POINT = 20


def surface_points(mask: Volume, n: int, seed: int = 0) -> NDArray[np.float64]:
    """``n`` points (n, 3) in ct mm on the surface of a mask, in farthest-point order.

    Candidates are the centres of the faces between a voxel of the mask and a neighbour outside
    it, so there is no half-voxel bias; faces at the edge of the CT, where bone is cut off and not
    ended, are none. They are drawn by area with ``seed``, then each next point is the candidate
    farthest from all before it (Gonzalez 1985): the first m points are spread evenly for every m.
    Fewer than ``n`` come back only where the mask has fewer faces.

    Raises:
        InputError: ``n`` below 1, or a mask without surface.
    """
    if n < 1:
        raise InputError(f"the number of surface points is {n}; allowed is at least 1")
    ijk, area = _faces(mask)
    if len(ijk) == 0:
        raise InputError(
            f"{mask.source or 'the mask'} has no surface inside the CT; allowed is a mask with voxels in and outside"
        )
    rng = np.random.default_rng(seed)
    wanted = min(len(ijk), max(_CANDIDATES_PER_POINT * n, 1000))
    if wanted < len(ijk):
        # drawing with weights and without repeats by exponential keys (Efraimidis and Spirakis 2006)
        keys = rng.exponential(size=len(ijk)) / area
        ijk = ijk[np.argpartition(keys, wanted - 1)[:wanted]]
    points = transform_points(mask.ras_from_ijk, ijk)
    return points[farthest_point_order(points, min(n, len(points)))]


def farthest_point_order(points: NDArray[np.float64], n: int) -> NDArray[np.int64]:
    """Indices (n,) of points (m, 3): first the one farthest from the mean, then the farthest from all so far."""
    x, y, z = (np.ascontiguousarray(c, dtype=np.float32) for c in (points - points.mean(axis=0)).T)
    distance2 = np.full(len(points), np.inf, dtype=np.float32)
    order = np.empty(n, dtype=np.int64)
    nearest = int(np.argmax(x * x + y * y + z * z))
    for step in range(n):
        order[step] = nearest
        dx, dy, dz = x - x[nearest], y - y[nearest], z - z[nearest]
        np.minimum(distance2, dx * dx + dy * dy + dz * dz, out=distance2)
        nearest = int(np.argmax(distance2))
    return order


def _faces(mask: Volume) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centres (m, 3) in ijk and areas (m,) in mm^2 of the faces between mask and not mask."""
    inside = mask.values > 0
    a = mask.ras_from_ijk[:3, :3]
    centres, areas = [], []
    for axis in range(3):  # of the array: k, j, i
        lower = tuple(slice(None, -1) if d == axis else slice(None) for d in range(3))
        upper = tuple(slice(1, None) if d == axis else slice(None) for d in range(3))
        kji = np.argwhere(inside[lower] != inside[upper]).astype(np.float64)
        kji[:, axis] += 0.5
        i, j = (d for d in range(3) if d != 2 - axis)
        centres.append(kji[:, ::-1])
        areas.append(np.full(len(kji), np.linalg.norm(np.cross(a[:, i], a[:, j]))))
    return np.concatenate(centres), np.concatenate(areas)
