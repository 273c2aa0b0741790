"""The patient in a CT: without the room's air, the table, the mattress and the head rest."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from XRayRegistrationLib.bone.grids import Mask, ball, block_factor, block_mean, dilate, enlarge, erode
from XRayRegistrationLib.images.volume import Volume

_GRID_MM = 3.0
_BODY_HU = -300.0  # between fat (-100) and lung, foam and cloth (below -500)
_OPENING_MM = 6.0  # table shells, sheets, tubes and arms of a head rest are thinner than twice this
_DENSE_HU = -10.0  # muscle, blood and bone; a table's filling and cushions are not
_DENSE_SHARE = 0.2  # of a part, for it to be flesh; a leg has half or more of it
_PART_SHARE = 0.02  # of the largest part


def body_mask(ct: Volume) -> Mask:
    """The patient's voxels (nk, nj, ni), with the air inside (lungs, bowel, airways).

    Works on blocks of about 3 mm: everything denser than fat, opened by 6 mm so that the table
    comes off, parts that hold hardly any flesh dropped, then grown back and filled in each axial
    slice. ``ct`` is in HU. All False when there is no patient.
    """
    spacing = ct.spacing_mm[::-1]
    factor = block_factor(spacing, _GRID_MM)
    coarse_spacing = spacing * factor
    hu = block_mean(ct.values, factor)
    dense = hu > _BODY_HU
    core = erode(dense, _OPENING_MM, coarse_spacing)
    labels, count = ndimage.label(core)
    if count == 0:  # thinner than the opening everywhere: a finger, a specimen
        labels, count = ndimage.label(dense)
        core = dense
    if count == 0:
        return np.zeros(ct.values.shape, dtype=bool)
    flesh = _flesh(labels, count, hu)
    body = dilate(flesh, _OPENING_MM + float(coarse_spacing.max()), coarse_spacing) & dense
    axial = _axial_axis(ct.ras_from_ijk)
    body = _filled_in_slices(body, axial)
    # one block more, for the skin's partial volume
    body = ndimage.binary_dilation(body, ball(float(coarse_spacing.max()), coarse_spacing))
    return enlarge(body, factor, ct.values.shape)


def _flesh(labels: NDArray[Any], count: int, hu: NDArray[np.float32]) -> Mask:
    size = np.bincount(labels.ravel(), minlength=count + 1).astype(float)
    size[0] = 0.0
    dense = np.bincount(labels.ravel(), weights=(hu > _DENSE_HU).ravel(), minlength=count + 1)
    keep = (dense >= _DENSE_SHARE * size) & (size > 0)
    if not keep.any():
        keep = size == size.max()
    keep &= size >= _PART_SHARE * size[keep].max()
    return keep[labels]


def _axial_axis(ras_from_ijk: NDArray[np.float64]) -> int:
    """The array axis (0 = k) that runs most along the patient."""
    along = np.abs(ras_from_ijk[2, :3]) / np.linalg.norm(ras_from_ijk[:3, :3], axis=0)
    return 2 - int(np.argmax(along))


def _filled_in_slices(mask: Mask, axis: int) -> Mask:
    """Holes filled slice by slice: the lungs are open in 3D where the CT ends, not in a slice."""
    element = ndimage.generate_binary_structure(3, 1)
    element[tuple(slice(None) if a != axis else slice(0, None, 2) for a in range(3))] = False
    outside, count = ndimage.label(~mask, structure=element)
    faces = np.zeros(count + 1, dtype=bool)
    for other in (a for a in range(3) if a != axis):
        for end in (0, -1):
            faces[np.unique(outside.take(end, axis=other))] = True
    faces[0] = False
    return ~faces[outside]
