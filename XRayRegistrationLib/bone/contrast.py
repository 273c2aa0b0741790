"""Contrast agent that thresholds take for bone: heart, great vessels, kidneys, the injected vein."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from XRayRegistrationLib.bone.grids import Mask, ball, block_any, block_factor, block_mean, dilate, enlarge, erode
from XRayRegistrationLib.images.volume import Volume

_GRID_MM = 3.0
_THICK_MM = 4.5  # half the width of the thinnest vessel that is looked for
_POOL_HU = (150.0, 600.0)  # mean of an opacified organ; cortex that thick is denser
_RIM_MM = 8.0
_RIM_SHARE = 0.33  # of a pool's mean: bone has a cortex brighter than its inside by more than half
_FLESH_HU = (-200.0, 150.0)
_FLESH_SHARE = 0.3  # of the body, for there to be vessels
_SMALLEST_MM3 = 200.0
_BOLUS_HU = 1000.0
_BOLUS_GAP_MM = 6.0  # between its parts, where a vein is pinched between clavicle and rib
_BOLUS_AROUND_HU = 150.0  # a vein lies in fat, muscle and lung; a screw lies in bone


def contrast_mask(ct: Volume, body: Mask) -> Mask:
    """Voxels (nk, nj, ni) of blood and organs full of contrast agent, all False where there is none.

    A pool is a thick region above 150 HU whose edge is no brighter than its inside. Bone that
    thick (a vertebral body, a femoral head) has a cortex around it, 160 to 1000 HU above its
    inside on the CTs tried; in heart, aorta and kidneys the edge is within noise of the inside. The
    undiluted bolus is as dense as metal and is told from it by where it ends, in such a pool, and by
    what lies around it.
    """
    spacing = ct.spacing_mm[::-1]
    factor = block_factor(spacing, _GRID_MM)
    grid = spacing * factor
    hu = block_mean(ct.values, factor)
    inside = block_any(body, factor)
    hu[~inside] = -1000.0
    flesh = np.count_nonzero((hu > _FLESH_HU[0]) & (hu < _FLESH_HU[1]))
    if flesh < _FLESH_SHARE * np.count_nonzero(inside):  # a specimen or a plastic bone, perhaps without cortex
        return np.zeros(ct.values.shape, dtype=bool)
    pools = _pools(hu, grid)
    if not pools.any():
        return np.zeros(ct.values.shape, dtype=bool)
    bright = hu > _POOL_HU[0]
    bolus = _bolus(hu, pools, grid)
    out = dilate(pools, _THICK_MM + float(grid.max()), grid) & bright
    if bolus.any():
        out |= dilate(bolus, 1.5 * float(grid.max()), grid) & bright
    return enlarge(out, factor, ct.values.shape)


def _pools(hu: NDArray[np.float32], grid: NDArray[np.float64]) -> Mask:
    """The inner parts, _THICK_MM from their edges, of thick regions without a brighter rim."""
    core = erode(hu > _POOL_HU[0], _THICK_MM, grid)
    labels, count = ndimage.label(core)
    size = np.bincount(labels.ravel(), minlength=count + 1) * float(np.prod(grid))
    pool = np.zeros(count + 1, dtype=bool)
    around = ball(_RIM_MM, grid)
    margin = [int(m) // 2 for m in around.shape]
    for label, box in enumerate(ndimage.find_objects(labels), start=1):
        if size[label] < _SMALLEST_MM3:
            continue
        near = tuple(slice(max(s.start - m, 0), s.stop + m) for s, m in zip(box, margin, strict=True))
        inside, values = labels[near] == label, hu[near]
        mean = float(np.median(values[inside]))
        if mean > _POOL_HU[1]:
            continue
        edge = inside & ~ndimage.binary_erosion(inside)
        brightest = ndimage.maximum_filter(values, footprint=around)
        pool[label] = float(np.median(brightest[edge])) - mean < _RIM_SHARE * mean
    return pool[labels]


def _bolus(hu: NDArray[np.float32], pools: Mask, grid: NDArray[np.float64]) -> Mask:
    """Very dense parts that end in a pool and do not lie in bone."""
    dense = hu > _BOLUS_HU
    labels, _ = ndimage.label(dilate(dense, _BOLUS_GAP_MM / 2, grid), structure=np.ones((3, 3, 3)))
    reached = dilate(pools, _THICK_MM, grid) & dense
    out = np.zeros_like(dense)
    for label in np.unique(labels[reached]):
        if label == 0:
            continue
        part = (labels == label) & dense
        shell = dilate(part, 3 * float(grid.max()), grid) & ~dilate(part, 1.5 * float(grid.max()), grid) & ~pools
        if shell.any() and np.median(hu[shell]) < _BOLUS_AROUND_HU:
            out |= part
    return out
