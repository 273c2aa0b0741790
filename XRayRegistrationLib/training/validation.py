"""How good proposed poses are, for the validations of a training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from XRayRegistrationLib.geometry.rigid import transform_points
from XRayRegistrationLib.training.task import Validation

Array = NDArray[np.float64]


def median_mtre(
    found: Sequence[Array | None], true: Sequence[Array], points_ct: Array | Sequence[Array]
) -> Validation:
    """Median and 95th percentile of the mTRE, and the share above 10 mm; no pose counts as infinite.

    Args:
        found, true: camera_from_ct (4, 4) of each case.
        points_ct: (n, 3) mm, or such points of each case, where cases show different CTs.
    """
    every = [points_ct] * len(true) if isinstance(points_ct, np.ndarray) else points_ct
    errors = [
        np.inf
        if pose is None
        else float(np.linalg.norm(transform_points(pose, points) - transform_points(right, points), axis=1).mean())
        for pose, right, points in zip(found, true, every, strict=True)
    ]
    ordered = np.sort(errors)
    return Validation(
        float(ordered[(len(ordered) - 1) // 2]),
        {"p95_mm": float(ordered[int(np.ceil(0.95 * len(ordered))) - 1]), "above_10_mm": float(np.mean(~(ordered <= 10.0)))},
    )
