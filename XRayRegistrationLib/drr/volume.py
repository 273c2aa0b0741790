"""The attenuation field that is rendered, and its pyramid."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

WATER_MU_PER_MM = 0.0192  # linear attenuation of water at about 70 keV (effective, 120 kV)
AIR_HU = -900.0  # below this it is air, and rendered as nothing: lungs stay, the room does not


def attenuation_from_hu(hu: ArrayLike) -> NDArray[np.float32]:
    """Attenuation in mm^-1 from HU: mu = mu_water (1 + HU / 1000), and 0 in air (below -900 HU)."""
    hu = np.asarray(hu, dtype=np.float32)
    mu = np.multiply(hu, np.float32(WATER_MU_PER_MM / 1000.0))
    mu += np.float32(WATER_MU_PER_MM)
    mu[hu < AIR_HU] = 0.0
    return np.maximum(mu, 0.0, out=mu)


@dataclass(frozen=True, eq=False)
class AttenuationVolume:
    """Attenuation on a regular grid in the ct frame.

    The field is trilinear between voxel centres and falls linearly to 0 one voxel outside the
    grid, so it is continuous everywhere and its line integrals are differentiable in the pose.

    Attributes:
        mu: mm^-1, float32, (nk, nj, ni), or (channels, nk, nj, ni) for several labels.
        ct_from_ijk: 4x4, ct mm (RAS) of voxel index (i, j, k); integer = voxel centre.
    """

    mu: NDArray[np.float32]
    ct_from_ijk: NDArray[np.float64]

    def __post_init__(self) -> None:
        object.__setattr__(self, "mu", np.ascontiguousarray(self.mu, dtype=np.float32))
        object.__setattr__(self, "ct_from_ijk", np.asarray(self.ct_from_ijk, dtype=np.float64))
        if self.mu.ndim not in (3, 4):
            raise ValueError(f"mu has shape {self.mu.shape}; expected (nk, nj, ni) or (channels, nk, nj, ni)")

    @property
    def spacing_mm(self) -> NDArray[np.float64]:
        """Voxel size along i, j, k in mm."""
        return np.linalg.norm(self.ct_from_ijk[:3, :3], axis=0)

    @property
    def channels(self) -> NDArray[np.float32]:
        """mu as (channels, nk, nj, ni), a view."""
        return self.mu if self.mu.ndim == 4 else self.mu[None]

    @property
    def centre_ct(self) -> NDArray[np.float64]:
        """Centre of the grid in ct mm."""
        ijk = (np.array(self.mu.shape[:-4:-1]) - 1) / 2.0
        return self.ct_from_ijk[:3, :3] @ ijk + self.ct_from_ijk[:3, 3]

    @cached_property
    def cache(self) -> dict[str, Any]:
        """What a backend keeps beside the volume: padded, packed or uploaded copies of it."""
        return {}

    @property
    def occupied_points_ct(self) -> NDArray[np.float64]:
        """Some 300 points (n, 3) in ct mm spread over where there is attenuation. Cached."""
        if "points" not in self.cache:
            occupied = np.flatnonzero((self.channels > 0).any(axis=0))
            chosen = occupied[np.linspace(0, len(occupied) - 1, min(300, len(occupied))).astype(int)]
            kji = np.stack(np.unravel_index(chosen, self.mu.shape[-3:]), axis=-1)
            self.cache["points"] = kji[:, ::-1] @ self.ct_from_ijk[:3, :3].T + self.ct_from_ijk[:3, 3]
        return self.cache["points"]

    def coarser(self, voxel_mm: float) -> AttenuationVolume:
        """The same field on voxels of about ``voxel_mm``, averaged so that nothing aliases.

        Axes that are coarser already stay as they are. The averages are of whole blocks of voxels
        after padding with 0, so line integrals keep their value. Cached.
        """
        factor = np.maximum(1, np.round(voxel_mm / self.spacing_mm)).astype(int)  # i, j, k
        if (factor == 1).all():
            return self
        key = "coarser-" + "-".join(map(str, factor))  # not the size itself: every pose asks for another one
        if key not in self.cache:
            self.cache[key] = _block_mean(self, factor)
        return self.cache[key]


def _block_mean(volume: AttenuationVolume, factor: NDArray[np.int64]) -> AttenuationVolume:
    fi, fj, fk = (int(f) for f in factor)
    out = []
    for mu in volume.channels:
        nk, nj, ni = mu.shape
        smooth = np.pad(mu, [(0, -nk % fk), (0, -nj % fj), (0, -ni % fi)])
        nk, nj, ni = smooth.shape
        blocks = smooth.reshape(nk // fk, fk, nj // fj, fj, ni // fi, fi)
        # one axis at a time: the short axis last, so the large array is read once, in order
        out.append(blocks.mean(axis=5).mean(axis=3).mean(axis=1))
    # the centre of the first block is (f - 1) / 2 voxels from the first voxel's centre
    coarse_from = np.diag([fi, fj, fk, 1.0])
    coarse_from[:3, 3] = (np.array([fi, fj, fk]) - 1) / 2.0
    mu = np.stack(out) if volume.mu.ndim == 4 else out[0]
    return AttenuationVolume(mu, volume.ct_from_ijk @ coarse_from)


def cropped(volume: AttenuationVolume, margin: int = 1) -> AttenuationVolume:
    """The smallest box that holds all non-zero attenuation, with ``margin`` voxels around it."""
    box = ndimage.find_objects((volume.channels > 0).any(axis=0).astype(np.uint8))
    if not box:
        return volume
    lo = [max(s.start - margin, 0) for s in box[0]]
    hi = [min(s.stop + margin, n) for s, n in zip(box[0], volume.mu.shape[-3:], strict=True)]
    shift = np.eye(4)
    shift[:3, 3] = lo[::-1]
    mu = volume.mu[..., lo[0] : hi[0], lo[1] : hi[1], lo[2] : hi[2]]
    return AttenuationVolume(mu, volume.ct_from_ijk @ shift)
