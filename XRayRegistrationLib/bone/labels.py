"""A bone mask from a label map that someone else made."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.images.volume import Volume


def mask_from_labels(label_map: Volume, ct: Volume, labels: Sequence[int] | None = None) -> Volume:
    """The voxels of chosen labels (all above 0 by default) as a uint8 mask on the CT's grid.

    A label map on another grid, such as a crop or another orientation of the CT, is sampled at the
    CT's voxel centres (nearest neighbour); outside it there is no label.

    Raises:
        InputError: labels that are not in the map (the message lists those that are), or a label
            map that nowhere overlaps the CT or is not three-dimensional.
    """
    name = label_map.source or "the label map"
    if label_map.values.ndim != 3:
        raise InputError(f"{name} has {label_map.values.ndim} dimensions; allowed is a label map with three")
    present = [int(v) for v in np.unique(label_map.values) if v > 0]
    if not present:
        raise InputError(f"{name} holds no label above 0; allowed is a label map with bone labelled; check the file")
    wanted = present if labels is None else [int(v) for v in labels]
    missing = sorted(set(wanted) - set(present))
    if missing or not wanted:
        asked = ", ".join(map(str, missing)) or "none"
        raise InputError(f"labels {asked} are not in {name}; allowed are {_short_list(present)}")
    inside = np.isin(label_map.values, wanted)
    if label_map.values.shape != ct.values.shape or not np.allclose(
        label_map.ras_from_ijk, ct.ras_from_ijk, rtol=0, atol=1e-3
    ):
        inside = _on_grid_of(inside, label_map.ras_from_ijk, ct)
        if not inside.any():
            raise InputError(
                f"{name} has none of its chosen labels inside the CT {ct.source}; allowed is a label map in the "
                "same patient space; check that it was drawn on this CT"
            )
    return Volume(inside.astype(np.uint8), ct.ras_from_ijk, name)


def _on_grid_of(inside: NDArray[np.bool_], ras_from_ijk: NDArray[np.float64], ct: Volume) -> NDArray[np.bool_]:
    label_from_ct = np.linalg.solve(ras_from_ijk, ct.ras_from_ijk)
    reversed_axes = label_from_ct[:3, :3][::-1, ::-1]  # arrays are k, j, i
    out = ndimage.affine_transform(
        inside.astype(np.uint8), reversed_axes, label_from_ct[:3, 3][::-1], ct.values.shape, order=0, mode="constant"
    )
    return out > 0


def _short_list(values: Sequence[int]) -> str:
    shown = ", ".join(map(str, values[:30]))
    return shown if len(values) <= 30 else f"{shown} and {len(values) - 30} more"
