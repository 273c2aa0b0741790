"""Going between a fine voxel grid and one of whole blocks of it, where morphology is cheap.

All arrays are (nk, nj, ni); a factor is (fk, fj, fi) fine voxels per coarse one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Mask = NDArray[np.bool_]
Factor = tuple[int, int, int]
Box = tuple[slice, slice, slice]


def block_factor(spacing_kji_mm: NDArray[np.float64], target_mm: float) -> Factor:
    """How many voxels along k, j, i make a block of about ``target_mm``, at least one each."""
    fk, fj, fi = (max(1, int(f)) for f in np.floor(target_mm / spacing_kji_mm + 0.25))
    return fk, fj, fi


def block_mean(values: NDArray[Any], factor: Factor) -> NDArray[np.float32]:
    """Mean of each block; blocks that reach over the edge repeat the last voxels."""
    out = _reduced(values.astype(np.float32, copy=False), factor, np.add)
    out /= float(np.prod(factor))
    return out


def block_any(mask: Mask, factor: Factor) -> Mask:
    """Whether any voxel of each block is set."""
    return _reduced(mask, factor, np.logical_or)


def enlarge(coarse: NDArray[Any], factor: Factor, shape: tuple[int, ...]) -> NDArray[Any]:
    """Each coarse voxel copied to its block, cut to ``shape``."""
    out = coarse
    for axis, f in enumerate(factor):
        if f > 1:
            out = np.repeat(out, f, axis=axis)
        out = out[(slice(None),) * axis + (slice(0, shape[axis]),)]
    return out


def ball(radius_mm: float, spacing_kji_mm: NDArray[np.float64]) -> Mask:
    """Structuring element: voxels within ``radius_mm`` of the centre, at least its neighbours' centre itself."""
    n = np.floor(radius_mm / spacing_kji_mm + 1e-6).astype(int)
    axes = [np.arange(-m, m + 1) * s for m, s in zip(n, spacing_kji_mm, strict=True)]
    k, j, i = np.meshgrid(*axes, indexing="ij")
    return k**2 + j**2 + i**2 <= radius_mm**2 + 1e-6


def dilate(mask: Mask, radius_mm: float, spacing_kji_mm: NDArray[np.float64]) -> Mask:
    """All voxels within ``radius_mm`` of the mask, by distances: cost does not grow with the radius."""
    out = np.zeros_like(mask)
    if mask.any():
        reach = np.ceil(radius_mm / spacing_kji_mm).astype(int)
        box = bounding_box(mask, (int(reach[0]), int(reach[1]), int(reach[2])))
        out[box] = _distance(~mask[box], spacing_kji_mm) <= radius_mm
    return out


def erode(mask: Mask, radius_mm: float, spacing_kji_mm: NDArray[np.float64]) -> Mask:
    """Voxels of the mask farther than ``radius_mm`` from what is outside it; beyond the grid counts as inside.

    A structure that the CT's edge cuts off is therefore not eroded there.
    """
    if mask.all() or not mask.any():
        return mask.copy()
    out = np.zeros_like(mask)
    box = bounding_box(mask, 1)
    out[box] = _distance(mask[box], spacing_kji_mm) > radius_mm if not mask[box].all() else mask[box]
    return out


def bounding_box(mask: Mask, margin: int | Factor = 0) -> Box:
    """The smallest box that holds the mask, with ``margin`` voxels around it inside the grid.

    Raises:
        ValueError: the mask is empty.
    """
    margins = (margin,) * 3 if isinstance(margin, int) else margin
    box = []
    for axis, m in enumerate(margins):
        others = tuple(a for a in range(3) if a != axis)
        hit = np.flatnonzero(mask.any(axis=others))
        if hit.size == 0:
            raise ValueError("the mask is empty")
        box.append(slice(max(int(hit[0]) - m, 0), min(int(hit[-1]) + 1 + m, mask.shape[axis])))
    return box[0], box[1], box[2]


def _distance(mask: Mask, spacing_kji_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance in mm of each voxel of the mask to the nearest outside it."""
    out: NDArray[np.float64] = ndimage.distance_transform_edt(mask, sampling=spacing_kji_mm)
    return out


def _reduced(values: NDArray[Any], factor: Factor, combine: Callable[..., NDArray[Any]]) -> NDArray[Any]:
    pad = [(0, -n % f) for n, f in zip(values.shape, factor, strict=True)]
    out = np.pad(values, pad, mode="edge") if any(p[1] for p in pad) else values
    # the last axis first: it is strided, and every later pass is over less
    for axis in (2, 1, 0):
        f = factor[axis]
        take = [out[(slice(None),) * axis + (slice(q, None, f),)] for q in range(f)]
        total = take[0].copy()
        for part in take[1:]:
            combine(total, part, out=total)
        out = total
    return out
