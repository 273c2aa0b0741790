"""An X-ray ready to register: bone bright, a mask of what to believe, and its camera."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from XRayRegistrationLib.geometry.camera import Camera


@dataclass(frozen=True)
class XRay:
    """One prepared X-ray.

    Attributes:
        line_integrals: (height, width) float32, bone **bright**: -log of transmission where the
            input allows it, else a monotone stand-in for it.
        mask: (height, width) bool, True where the pixel may be believed (inside the collimator
            and the image-intensifier circle, not saturated).
        camera: intrinsics of this image.
        provenance: for each camera value and decision, ``"found: ..."`` or ``"assumed: ..."``,
            e.g. ``{"source_detector_distance_mm": "found: DICOM (0018,1110)"}``.
        source: path or description.
        metadata: what else the file says (positioner angles in degrees, frame, ...).
        alternative: the same image taken with the other polarity, where the pixels did not tell
            for certain; a registration that fails tries it too.
    """

    line_integrals: NDArray[np.float32]
    mask: NDArray[np.bool_]
    camera: Camera
    provenance: dict[str, str] = field(default_factory=dict)
    source: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    alternative: XRay | None = None
