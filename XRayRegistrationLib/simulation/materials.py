"""Split a CT into soft tissue and bone, whose path lengths make an X-ray."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from XRayRegistrationLib.drr.volume import AIR_HU, WATER_MU_PER_MM, AttenuationVolume
from XRayRegistrationLib.images.volume import Volume

# Cortical bone (ICRU-44, 1.92 g/cm^3) at about 70 keV, the energy at which mu_water is WATER_MU_PER_MM.
BONE_MU_PER_MM = 0.0515
BONE_FROM_HU = 100.0  # above it, a voxel is a mixture of water and bone of the same attenuation


def material_volume(ct: Volume, inside: NDArray[np.bool_] | None = None) -> AttenuationVolume:
    """Two channels, (soft, bone): water-equivalent and cortical-bone-equivalent density, 0 to 1 and more.

    A voxel up to 100 HU is soft tissue of relative density 1 + HU / 1000; above, the mixture of
    water and cortical bone that attenuates alike at 70 keV. Metal comes out as very dense bone.
    Line integrals of the two channels are path lengths in mm.

    Args:
        ct: HU.
        inside: (nk, nj, ni) mask of what is rendered; None for everything that is not air.
    """
    hu = np.asarray(ct.values, dtype=np.float32)
    per_hu = WATER_MU_PER_MM / 1000.0 / (BONE_MU_PER_MM - WATER_MU_PER_MM)
    bone = np.where(hu > BONE_FROM_HU, hu * per_hu, 0.0).astype(np.float32)
    soft = np.where(hu > BONE_FROM_HU, np.maximum(1.0 - bone, 0.0), np.maximum(1.0 + hu / 1000.0, 0.0))
    keep = hu >= AIR_HU
    if inside is not None:
        keep &= inside
    return AttenuationVolume(np.stack([soft * keep, bone * keep]).astype(np.float32), ct.ras_from_ijk)
