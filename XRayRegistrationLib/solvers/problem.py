"""What a solver is given and what it returns: views that share one pose, and one result object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from XRayRegistrationLib.drr.volume import AttenuationVolume
from XRayRegistrationLib.images.xray import XRay


@dataclass(frozen=True)
class View:
    """One X-ray and the volume that is rendered to match it.

    The pose that is sought is ``rig_from_ct``, shared by all views;
    camera_from_ct = camera_from_rig @ rig_from_ct. A single X-ray's rig is its camera.

    ``alone`` says that the X-ray shows more than the volume (one bone of several, or bone without
    its flesh): images are then compared only where the volume projects.
    """

    volume: AttenuationVolume
    xray: XRay
    camera_from_rig: NDArray[np.float64] = field(default_factory=lambda: np.eye(4))
    alone: bool = False


def views_of(xrays: Sequence[XRay], volume: AttenuationVolume, alone: bool = False) -> list[View]:
    """Each X-ray with the volume to render; one whose camera has no rig is a rig of its own."""
    rigs = [np.eye(4) if x.camera.camera_from_rig is None else x.camera.camera_from_rig for x in xrays]
    return [View(volume, xray, rig, alone) for xray, rig in zip(xrays, rigs, strict=True)]


@dataclass(frozen=True)
class SolveResult:
    """Where a solver ended.

    Attributes:
        rig_from_ct: 4x4, the best pose seen; never worse than the start.
        cost, start_cost: the solver's own cost, smaller is better, there and at the start.
        iterations: number of steps taken.
        converged: whether it stopped because nothing improved, not because its budget ended.
        message: a sentence on why it stopped.
        trace: one dictionary an iteration or level, for reports.
    """

    rig_from_ct: NDArray[np.float64]
    cost: float
    start_cost: float
    iterations: int
    converged: bool
    message: str
    trace: tuple[dict[str, Any], ...] = ()
