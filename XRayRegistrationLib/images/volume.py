"""A volume in patient space: values and where each voxel lies."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Volume:
    """Values on a regular, possibly oblique, flipped or anisotropic grid.

    Attributes:
        values: (nk, nj, ni), as SimpleITK and Slicer give them; a CT in HU or integer labels.
        ras_from_ijk: 4x4, RAS mm of voxel index (i, j, k); integer = voxel centre.
        source: where it came from, for messages and ``result.json``.
    """

    values: NDArray[Any]
    ras_from_ijk: NDArray[np.float64]
    source: str = ""

    @property
    def spacing_mm(self) -> NDArray[np.float64]:
        """Voxel size along i, j, k in mm."""
        return np.linalg.norm(self.ras_from_ijk[:3, :3], axis=0)


def fingerprint(volume: Volume) -> str:
    """16 hexadecimal digits that tell one CT from another: its shape, place (to 0.001 mm) and values (to 1 HU).

    Reading the same CT from another file format, or through a program that keeps whole HU, changes nothing.
    """
    digest = hashlib.sha256()
    digest.update(np.asarray(volume.values.shape, dtype="<i8").tobytes())
    digest.update(np.rint(volume.ras_from_ijk * 1000.0).astype("<i8").tobytes())
    for plane in volume.values:  # plane by plane: no second copy of a large CT
        digest.update(np.rint(plane).astype("<i4").tobytes())
    return digest.hexdigest()[:16]
