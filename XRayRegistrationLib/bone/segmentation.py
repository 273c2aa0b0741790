"""Bone in a CT without a network: hysteresis thresholds, table off, small parts dropped, holes filled."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from XRayRegistrationLib.bone.body import body_mask
from XRayRegistrationLib.bone.checks import check_ct, empty_background
from XRayRegistrationLib.bone.contrast import contrast_mask
from XRayRegistrationLib.bone.grids import (
    Factor,
    Mask,
    block_any,
    block_factor,
    block_mean,
    bounding_box,
    dilate,
    enlarge,
    erode,
)
from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.images.volume import Volume


@dataclass(frozen=True)
class SegmentationOptions:
    """Thresholds and sizes of :func:`segment_bone`.

    Attributes:
        seed_hu: a part of bone holds voxels above this: cortex and metal do, soft tissue does not.
        reach_mm: and no bone is farther from such voxels: a kidney that touches a rib is not bone.
        cortex_hu: single voxels above this are bone where they touch such a part.
        cancellous_hu: so are voxels whose surrounding (about 2.5 mm) has a mean above this: the
            inside of a vertebra is not dense, but soft tissue without contrast stays below.
        without_contrast: whether vessels and organs full of contrast agent are taken out.
        closing_mm: gaps in the cortex up to twice this are sealed before holes are filled.
        largest_hole_mm3: larger holes stay: the cranial cavity is not bone.
        smallest_part_share: parts smaller than this share of all bone are dropped (calcified vessels,
            stones, electrodes).
        grid_mm: the size of the blocks on which parts and holes are found.
    """

    seed_hu: float = 350.0
    reach_mm: float = 15.0
    cortex_hu: float = 250.0
    cancellous_hu: float = 150.0
    without_contrast: bool = True
    closing_mm: float = 2.5
    largest_hole_mm3: float = 1.5e5
    smallest_part_share: float = 0.002
    grid_mm: float = 2.0


def segment_bone(
    ct: Volume,
    threshold_hu: float | None = None,
    options: SegmentationOptions | None = None,
    body: Mask | None = None,
) -> Volume:
    """Bone (and metal in it) of a CT as a label map: 1 in bone, 0 elsewhere, uint8 on the CT's grid.

    ``threshold_hu`` (in the file's units) replaces the hysteresis: every voxel of the patient
    above it is bone, before small parts are dropped and holes filled. On a CT that holds only
    bone on an empty background, what is not background is bone. ``body`` (nk, nj, ni) saves the
    time of finding the patient again where :func:`body_mask` was called before.

    Raises:
        InputError: the volume is no CT (2D, 8-bit, not finite), or there is no bone in it.
    """
    options = options or SegmentationOptions()
    check_ct(ct)
    background = empty_background(ct)
    if background is not None:
        mask = _on_empty_background(ct, background, threshold_hu, options)
    else:
        mask = _in_body(ct, body_mask(ct) if body is None else body, threshold_hu, options)
    if not mask.any():
        raise InputError(_no_bone_message(ct, threshold_hu, options, background))
    return Volume(mask.astype(np.uint8), ct.ras_from_ijk, f"bone of {ct.source}" if ct.source else "bone")


def _on_empty_background(
    ct: Volume, background: float, threshold: float | None, options: SegmentationOptions
) -> Mask:
    mask = ct.values != background if threshold is None else ct.values > threshold
    if not mask.any():
        return mask
    factor = block_factor(ct.spacing_mm[::-1], options.grid_mm)
    return _solid_parts(mask, None, factor, ct.spacing_mm[::-1], options)


def _in_body(ct: Volume, body: Mask, threshold: float | None, options: SegmentationOptions) -> Mask:
    out = np.zeros(ct.values.shape, dtype=bool)
    if not body.any():
        return out
    spacing = ct.spacing_mm[::-1]
    factor = block_factor(spacing, options.grid_mm)
    box = bounding_box(body)
    hu = ct.values[box].astype(np.float32)
    hu[~body[box]] = -1000.0
    if threshold is not None:
        bone, seed = hu > threshold, None
    else:
        bone = hu > options.cortex_hu
        bone |= _local_mean(hu, spacing, options.cancellous_hu) > options.cancellous_hu
        seed = block_mean(hu, factor) > options.seed_hu
        if options.without_contrast:
            bone &= ~contrast_mask(ct, body)[box]
    if bone.any():
        out[box] = _solid_parts(bone, seed, factor, spacing, options)
    return out


def _solid_parts(
    bone: Mask, seed: Mask | None, factor: Factor, spacing: NDArray[np.float64], options: SegmentationOptions
) -> Mask:
    """Parts that are large enough and hold a seed, their holes filled."""
    coarse_spacing = spacing * factor
    block_mm3 = float(np.prod(coarse_spacing))
    coarse = block_any(bone, factor)
    if seed is not None:
        coarse &= dilate(seed & coarse, options.reach_mm, coarse_spacing)
    labels, count = ndimage.label(coarse)
    # size by voxels, not blocks: blocks count a speck as large as themselves
    amount = block_mean(bone, factor)
    size = np.bincount(labels.ravel(), weights=amount.ravel(), minlength=count + 1) * block_mm3
    keep = size >= options.smallest_part_share * size[1:].sum()
    keep[0] = False
    kept = keep[labels]
    out = bone & enlarge(kept, factor, bone.shape)
    marrow = _sealed(kept, coarse_spacing, options)
    if marrow.any():
        out |= enlarge(marrow, factor, bone.shape)
    if out.any():
        # between the blocks of marrow and the cortex
        box = bounding_box(out, 1)
        out[box] |= _enclosed(out[box], options.largest_hole_mm3 / float(np.prod(spacing)))
    return out


def _sealed(solid: Mask, spacing: NDArray[np.float64], options: SegmentationOptions) -> Mask:
    """Blocks without bone that it encloses once gaps in the cortex are closed: marrow, not the skull's inside."""
    out = np.zeros_like(solid)
    if not solid.any():
        return out
    box = bounding_box(solid, 2)
    closed = erode(dilate(solid[box], options.closing_mm, spacing), options.closing_mm, spacing)
    hole = _enclosed(closed, options.largest_hole_mm3 / float(np.prod(spacing)))
    # the closing also filled what lies between a hole and its cortex
    out[box] = (hole | (dilate(hole, 2 * options.closing_mm, spacing) & closed)) & ~solid[box]
    return out


def _enclosed(mask: Mask, largest: float) -> Mask:
    """Holes of at most ``largest`` voxels: parts outside the mask that do not reach the grid's faces."""
    labels, count = ndimage.label(~mask)
    inside = np.bincount(labels.ravel(), minlength=count + 1) <= largest
    for axis in range(3):
        for end in (0, -1):
            inside[np.unique(labels.take(end, axis=axis))] = False
    inside[0] = False
    return inside[labels]


def _local_mean(hu: NDArray[np.float32], spacing: NDArray[np.float64], level: float) -> NDArray[np.float32]:
    """Mean over about 2.5 mm of HU clipped evenly about ``level``, so that an edge stays where it is.

    Unclipped, dense cortex would lift the mean of the soft tissue beside it, and grow by 1 mm.
    """
    out = np.clip(hu, 0.0, 2.0 * level)
    for axis in range(3):
        size = 2 * round((2.5 / float(spacing[axis]) - 1.0) / 2.0) + 1  # odd: an even one shifts by half a voxel
        if size > 1:
            out = ndimage.uniform_filter1d(out, size, axis=axis, mode="nearest")
    return out


def _no_bone_message(
    ct: Volume, threshold: float | None, options: SegmentationOptions, background: float | None
) -> str:
    name = ct.source or "the CT"
    low, high = float(np.min(ct.values)), float(np.max(ct.values))
    wanted = f"above {threshold:g}" if threshold is not None else f"of {options.seed_hu:g} HU and more"
    return (
        f"no bone found in {name}: its values run from {low:g} to {high:g}, and no part {wanted} is large enough; "
        "allowed is a CT in HU that shows bone; check the file, give another threshold, a label map, or bone 'full'"
    )
