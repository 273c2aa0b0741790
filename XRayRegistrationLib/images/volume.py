"""A volume in patient space: values and where each voxel lies."""

from __future__ import annotations

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
