"""The rigid model of the bone that every method registers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from XRayRegistrationLib.bone.body import body_mask
from XRayRegistrationLib.bone.checks import check_ct, empty_background, in_hounsfield
from XRayRegistrationLib.bone.grids import Box, Mask, block_factor, block_mean, bounding_box, dilate
from XRayRegistrationLib.bone.labels import mask_from_labels
from XRayRegistrationLib.bone.sampling import surface_points
from XRayRegistrationLib.bone.segmentation import segment_bone
from XRayRegistrationLib.drr.volume import WATER_MU_PER_MM, AttenuationVolume, attenuation_from_hu
from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.images.volume import Volume

_SHELL_MM = (2.0, 6.0)  # how far from bone its surrounding is looked at
_SOFT_HU = (-250.0, 150.0)  # fat to enhanced muscle
_SOFT_SHARE = 0.3  # of the surrounding, for it to be flesh and not air


@dataclass(frozen=True)
class Rendering:
    """A volume to render, and whether it stands ``alone``: whether the X-ray shows more than it (solvers.problem.View)."""

    volume: AttenuationVolume
    alone: bool


@dataclass(frozen=True)
class BoneModel:
    """What is registered, in the ct frame (RAS mm).

    Attributes:
        full: the whole patient in the CT; air and table have no attenuation. Cropped to the patient.
        bone: bone alone, cropped to its box with a margin of one voxel: the attenuation above that
            of the soft tissue around it (never negative), inside a slightly dilated mask with a
            soft edge. Without soft tissue around, the attenuation itself.
        surface_points: (n, 3) mm, in farthest-point order.
        centroid: (3,) mm, the mean of all bone voxels, each counted once.
        mask: uint8 (nk, nj, ni) on the CT's grid, 1 in bone.
        bone_only_ct: the CT shows only bone, on an empty background or on air.
        rendered: which of ``"full"`` and ``"bone"`` a registration may render. Chosen labels are
            rendered alone, for what lies around them may have moved; where both are allowed the
            image decides.
    """

    full: AttenuationVolume
    bone: AttenuationVolume
    surface_points: NDArray[np.float64]
    centroid: NDArray[np.float64]
    mask: Volume
    bone_only_ct: bool
    rendered: tuple[str, ...] = ("full", "bone")

    @property
    def renderings(self) -> dict[str, Rendering]:
        """What may be rendered, by name.

        A CT that shows only bone is rendered as both: alone, for a patient has flesh around it and other bones, and as all
        that the X-ray shows, for it may be of a dry bone or a phantom. The image decides.
        """
        if self.bone_only_ct and "full" in self.rendered:
            return {"bone": Rendering(self.full, alone=True), "full": Rendering(self.full, alone=False)}
        return {name: Rendering(getattr(self, name), alone=name == "bone") for name in self.rendered}


def build_bone_model(
    ct: Volume,
    *,
    bone: Literal["auto", "full"] | Volume = "auto",
    labels: Sequence[int] | None = None,
    threshold_hu: float | None = None,
    n_points: int = 2000,
    seed: int = 0,
) -> BoneModel:
    """Segment a CT (or take a label map) and build what is rendered and registered.

    ``bone`` is ``"auto"`` (:func:`segment_bone`, with ``threshold_hu`` where given), a label map
    (``labels`` chooses among its numbers; all above 0 by default), or ``"full"``: then everything
    in the patient is the rigid body and is rendered, flesh and all, while the points and the
    centroid are those of the bone where there is any, else of the body.

    Raises:
        InputError: the volume is no CT, there is no bone, the labels do not exist, ``bone`` is
            something else, or ``labels`` comes without a label map.
    """
    check_ct(ct)
    if isinstance(bone, str) and bone not in ("auto", "full"):
        raise InputError(f"bone is {bone!r}; allowed is 'auto', 'full' or a label map")
    if labels is not None and isinstance(bone, str):
        raise InputError(f"labels {list(labels)} were chosen without a label map; give the label map as bone")
    background = empty_background(ct)
    body = body_mask(ct) if background is None else ct.values != background
    mask = _bone_mask(ct, bone, labels, threshold_hu, body)
    inside = mask.values > 0

    if background is not None:
        full = _bone_alone(ct, body, background)
        field = full if bone == "full" else _bone_alone(ct, inside, background)
        bone_only = True
    else:
        full = _attenuation(ct, body)
        soft_hu = _soft_tissue_around(ct, inside)
        field = full if bone == "full" else _above_soft_tissue(ct, inside, soft_hu)
        bone_only = soft_hu is None
    centroid = _centroid(mask)
    points = surface_points(mask, n_points, seed)
    rendered: tuple[str, ...] = ("full", "bone")
    if isinstance(bone, Volume):
        rendered = ("bone",)
    elif bone == "full" or bone_only:
        rendered = ("full",)
    return BoneModel(full, field, points, centroid, mask, bone_only, rendered)


def _bone_mask(
    ct: Volume, bone: str | Volume, labels: Sequence[int] | None, threshold_hu: float | None, body: Mask
) -> Volume:
    if isinstance(bone, Volume):
        return mask_from_labels(bone, ct, labels)
    if bone == "auto":
        return segment_bone(ct, threshold_hu, body=body)
    try:
        return segment_bone(ct, threshold_hu, body=body)
    except InputError:
        if not body.any():
            raise
        return Volume(body.astype(np.uint8), ct.ras_from_ijk, f"body in {ct.source}")


def _attenuation(ct: Volume, body: Mask) -> AttenuationVolume:
    """The whole patient; a CT in which no patient was found is kept whole."""
    if not body.any():
        return AttenuationVolume(attenuation_from_hu(ct.values), ct.ras_from_ijk)
    box = bounding_box(body)
    mu = attenuation_from_hu(ct.values[box])
    mu[~body[box]] = 0.0
    return AttenuationVolume(mu, _box_affine(ct, box))


def _bone_alone(ct: Volume, inside: Mask, background: float) -> AttenuationVolume:
    """Bone on nothing: mu of HU, or mu proportional to arbitrary units in which water is about 1000."""
    box = bounding_box(inside, 1)
    values = ct.values[box].astype(np.float32)
    if in_hounsfield(ct, background):
        mu = attenuation_from_hu(values)
    else:
        mu = np.maximum((values - np.float32(background)) * np.float32(WATER_MU_PER_MM / 1000.0), 0.0)
    mu[~inside[box]] = 0.0
    return AttenuationVolume(mu, _box_affine(ct, box))


def _above_soft_tissue(ct: Volume, inside: Mask, soft_hu: float | None) -> AttenuationVolume:
    """max(mu - mu_soft, 0) under a mask that is 1 to one voxel outside bone and 0 three voxels out."""
    box = bounding_box(inside, 3)
    mu = attenuation_from_hu(ct.values[box])
    if soft_hu is not None:
        mu -= attenuation_from_hu([soft_hu])
        np.maximum(mu, 0.0, out=mu)
    weight = inside[box].astype(np.float32)
    # the edge of bone lies within a voxel of the mask's, by its partial volume
    weight = ndimage.maximum_filter(weight, 3, mode="constant")
    for axis in range(3):
        weight = ndimage.uniform_filter1d(weight, 3, axis=axis, mode="nearest")
    mu *= np.where(inside[box], np.float32(1.0), weight)
    return AttenuationVolume(mu, _box_affine(ct, box))


def _soft_tissue_around(ct: Volume, inside: Mask) -> float | None:
    """Median HU of the flesh 2 to 6 mm from bone, None where bone stands in air."""
    spacing = ct.spacing_mm[::-1]
    box = bounding_box(inside, tuple(int(np.ceil(_SHELL_MM[1] / s)) for s in spacing))  # type: ignore[arg-type]
    factor = block_factor(spacing, 2.0)
    near = block_mean(inside[box], factor) > 0
    hu = block_mean(ct.values[box], factor)
    grid = spacing * factor
    shell = dilate(near, _SHELL_MM[1], grid) & ~dilate(near, _SHELL_MM[0], grid)
    around = hu[shell]
    soft = around[(around > _SOFT_HU[0]) & (around < _SOFT_HU[1])]
    if around.size == 0:  # bone fills the CT
        return 40.0
    return float(np.median(soft)) if soft.size >= _SOFT_SHARE * around.size else None


def _box_affine(ct: Volume, box: Box) -> NDArray[np.float64]:
    shift = np.eye(4)
    shift[:3, 3] = [s.start for s in box[::-1]]
    return ct.ras_from_ijk @ shift


def _centroid(mask: Volume) -> NDArray[np.float64]:
    inside = mask.values > 0
    total = float(np.count_nonzero(inside))
    ijk = []
    for axis in (2, 1, 0):
        counts = inside.sum(axis=tuple(a for a in range(3) if a != axis))
        ijk.append(float(counts @ np.arange(len(counts))) / total)
    centroid: NDArray[np.float64] = mask.ras_from_ijk[:3, :3] @ np.array(ijk) + mask.ras_from_ijk[:3, 3]
    return centroid
