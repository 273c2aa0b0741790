"""Who is X-rayed: a CT made ready for simulation, with what a learner is told about it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from XRayRegistrationLib.bone.body import body_mask
from XRayRegistrationLib.bone.checks import empty_background, in_hounsfield
from XRayRegistrationLib.bone.model import BoneModel, build_bone_model
from XRayRegistrationLib.drr.volume import AttenuationVolume, cropped
from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.files.landmarks import Landmarks
from XRayRegistrationLib.images.volume import Volume
from XRayRegistrationLib.simulation.materials import material_volume

MATERIALS = ("soft", "bone", "metal")
# Metal saturates most CTs at 3071 HU; tooth enamel and dense cortex stay below 2500. Between, the share grows.
METAL_HU = (2500.0, 3000.0)
DEFAULT_LANDMARKS = 14


@dataclass(frozen=True, eq=False)
class Subject:
    """A CT, its bone, and its materials on a grid that renders fast.

    Attributes:
        name: of the subject, for files and reports.
        ct: HU.
        bone: the model of what is rigid; its mask is what rays hit.
        materials: three channels (soft, bone, metal), 1 where a voxel is full of water, cortical bone
            or metal: line integrals of them are path lengths in mm. See :func:`three_materials`.
        landmarks_ct: (n, 3) mm, RAS.
        landmark_names: n names.
        labels: whole numbers on the CT's grid, 0 for none; None where there are none.
    """

    name: str
    ct: Volume
    bone: BoneModel
    materials: AttenuationVolume
    landmarks_ct: NDArray[np.float64]
    landmark_names: tuple[str, ...]
    labels: Volume | None = None

    @property
    def centre_ct(self) -> NDArray[np.float64]:
        """(3,) mm, the bone's centroid: what poses are drawn about."""
        return self.bone.centroid

    @property
    def voxel_mm(self) -> float:
        """The smallest edge of the materials' voxels."""
        return float(self.materials.spacing_mm.min())

    @property
    def label_values(self) -> tuple[int, ...]:
        """The labels above 0, ascending: the order of ``shots.label_shadows``."""
        return () if self.labels is None else tuple(int(v) for v in np.unique(self.labels.values) if v > 0)

    @cached_property
    def present(self) -> tuple[int, ...]:
        """Which channels of the materials hold anything; the others need no rays."""
        return tuple(c for c, channel in enumerate(self.materials.channels) if channel.any())

    @cached_property
    def rendered(self) -> AttenuationVolume:
        """The materials that are present."""
        if len(self.present) == len(MATERIALS):
            return self.materials
        return AttenuationVolume(self.materials.channels[list(self.present)], self.materials.ct_from_ijk)

    @cached_property
    def bone_share(self) -> AttenuationVolume:
        """How much of each voxel is in the bone's mask, 0 to 1, about as fine as the materials.

        Its level 1/2 is the mask's surface: what first and last hits are looked for on.
        """
        mask = AttenuationVolume(_ones(self.bone.mask.values > 0), self.bone.mask.ras_from_ijk)
        return cropped(mask).coarser(self.voxel_mm)

    @cached_property
    def label_share(self) -> AttenuationVolume:
        """As :attr:`bone_share`, a channel for each of :attr:`label_values`.

        Raises:
            InputError: the subject has no labels.
        """
        if self.labels is None:
            raise InputError(f"the subject {self.name} has no labels; make it with a label map (labels=)")
        everything = cropped(AttenuationVolume(_ones(self.labels.values > 0), self.labels.ras_from_ijk))
        shift = np.rint(np.linalg.solve(self.labels.ras_from_ijk, everything.ct_from_ijk)[:3, 3]).astype(int)[::-1]
        box = tuple(slice(s, s + n) for s, n in zip(shift, everything.mu.shape, strict=True))
        values = self.labels.values[box]
        shares = [
            AttenuationVolume(_ones(values == label), everything.ct_from_ijk).coarser(self.voxel_mm)
            for label in self.label_values
        ]
        return AttenuationVolume(np.stack([s.mu for s in shares]), shares[0].ct_from_ijk)


def make_subject(
    ct: Volume,
    *,
    bone: BoneModel | None = None,
    landmarks: Landmarks | ArrayLike | None = None,
    labels: Volume | None = None,
    voxel_mm: float = 2.0,
    name: str = "",
    bone_threshold_hu: float | None = None,
    bone_from_hu: float | None = None,
) -> Subject:
    """A subject of a CT: whole, or bone alone on an empty background, in HU or in units of its own.

    Args:
        ct: as ``images.ct.read_ct`` gives it.
        bone: None to find the bone (``bone_threshold_hu`` as for ``build_bone_model``).
        landmarks: named points, or points (n, 3) in ct mm; None for the first 14 surface points in
            farthest-point order, which are spread over the bone.
        labels: whole numbers on the CT's grid.
        voxel_mm: the materials are averaged to voxels of about this size.
        name: for files and reports; "" takes the CT's source.
        bone_from_hu: above it a voxel is taken as a mixture of water and bone; None for 100 HU.

    Raises:
        InputError: no CT, no bone, labels on another grid, landmarks that are no points, or a
            voxel size that is not positive.
    """
    if not (np.isfinite(voxel_mm) and voxel_mm > 0):
        raise InputError(f"voxel_mm is {voxel_mm!r}; allowed is a positive length in mm, such as 2")
    if labels is not None and labels.values.shape != ct.values.shape:
        raise InputError(
            f"the label map has {labels.values.shape} voxels and the CT {ct.values.shape} (k, j, i); "
            "give it on the CT's grid, as images.ct.read_labels(path, ct) does"
        )
    model = bone if bone is not None else build_bone_model(ct, threshold_hu=bone_threshold_hu)
    points, names = _landmarks(landmarks, model)
    background = empty_background(ct)
    inside = body_mask(ct) if background is None else ct.values != background
    if background is None and not inside.any():
        inside = np.ones(ct.values.shape, bool)
    metal = True
    if background is not None and not in_hounsfield(ct, background):
        # units of its own, in which water is about 1000; its brightest voxels are dense bone
        ct, metal = Volume(ct.values.astype(np.float32) - np.float32(background + 1000.0), ct.ras_from_ijk, ct.source), False
    materials = three_materials(ct, inside, bone_from_hu=bone_from_hu, metal=metal)
    return Subject(
        name or ct.source or "subject", ct, model, cropped(cropped(materials).coarser(voxel_mm)), points, names, labels
    )


def three_materials(
    ct: Volume, inside: NDArray[np.bool_] | None = None, *, bone_from_hu: float | None = None, metal: bool = True
) -> AttenuationVolume:
    """Three channels (soft, bone, metal) of ``ct`` (HU), 1 where a voxel is full of it.

    Soft tissue and bone as :func:`materials.material_volume` tells them; the share of metal grows from
    0 at 2500 HU to 1 at 3000, and takes the place of both.

    Args:
        inside: (nk, nj, ni) mask of what is there; None for everything that is not air.
        bone_from_hu: above it a voxel is a mixture of water and bone; None for 100 HU.
        metal: False where bright voxels are bone too.
    """
    soft, bone = material_volume(ct, inside).channels
    if bone_from_hu is not None:
        hu = np.asarray(ct.values)
        keep = np.ones(hu.shape, bool) if inside is None else inside
        below = (hu <= bone_from_hu) & (bone > 0) & keep
        soft, bone = soft.copy(), bone.copy()
        soft[below], bone[below] = 1.0 + hu[below] / 1000.0, 0.0
    share = np.zeros_like(bone)
    if metal:
        low, high = METAL_HU
        share = np.clip((np.asarray(ct.values, dtype=np.float32) - low) / (high - low), 0.0, 1.0)
        if inside is not None:
            share *= inside
    if share.any():
        soft, bone = soft * (1.0 - share), bone * (1.0 - share)
    return AttenuationVolume(np.stack([soft, bone, share]), ct.ras_from_ijk)


def _ones(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    return mask.astype(np.float32)


def _landmarks(landmarks: Landmarks | ArrayLike | None, model: BoneModel) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    if isinstance(landmarks, Landmarks):
        return landmarks.points_ct, landmarks.names
    if landmarks is None:
        points = model.surface_points[:DEFAULT_LANDMARKS]
    else:
        points = np.asarray(landmarks, dtype=np.float64)
        if points.ndim != 2 or points.shape[1] != 3 or not np.isfinite(points).all():
            raise InputError(f"landmarks have the shape {points.shape}; allowed are (n, 3) finite RAS positions in mm")
    return points, tuple(f"P{n + 1}" for n in range(len(points)))
