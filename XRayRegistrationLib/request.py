"""A registration to be done: everything it needs, read but not yet worked on, so that it can be done anywhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from XRayRegistrationLib.bone.model import build_bone_model
from XRayRegistrationLib.images.raw_xray import RawXRay
from XRayRegistrationLib.images.volume import Volume
from XRayRegistrationLib.registration import register
from XRayRegistrationLib.result import Result


@dataclass(frozen=True)
class Request:
    """One registration; see :func:`registration.register` for what is not said here.

    Attributes:
        ct: HU.
        xrays: one, or the views of a rig.
        method, options, backend, seed: as in ``register``.
        bone: ``"auto"``, ``"full"``, or a label map on the CT's grid, above 0 where bone is.
        bone_alone: the bone was chosen among others, so nothing else is rendered; else the flesh around it helps.
        start: ``"none"``, a named view, or camera_from_ct (rig_from_ct) 4x4.
        landmarks: (n, 3) ct mm to be projected, or None; landmark_names: n names.
    """

    ct: Volume
    xrays: tuple[RawXRay, ...]
    method: str = "diffdrr"
    bone: str | Volume = "auto"
    bone_alone: bool = False
    start: str | NDArray[np.float64] = "none"
    landmarks: NDArray[np.float64] | None = None
    landmark_names: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    backend: str = "auto"
    seed: int = 0


def fulfil(request: Request, progress: Callable[[float, str], None] | None = None) -> Result:
    """Register; ``progress`` is called with (fraction, text), and raising from it cancels.

    Raises:
        InputError: something in the request cannot be used.
    """
    tell = progress or (lambda fraction, text: None)
    tell(0.0, "reading the X-ray")
    xrays = [xray.prepared() for xray in request.xrays]
    bone: Any = request.bone
    if isinstance(bone, Volume):
        tell(0.04, "measuring the bone")
        bone = build_bone_model(request.ct, bone=bone, seed=request.seed)
        if not request.bone_alone:
            bone = replace(bone, rendered=("full",) if bone.bone_only_ct else ("full", "bone"))
    result = register(
        request.ct,
        xrays,
        method=request.method,
        bone=bone,
        start=request.start,
        landmarks=request.landmarks,
        options=request.options,
        backend=request.backend,
        seed=request.seed,
        progress=lambda fraction, text: tell(0.06 + 0.94 * fraction, text),
    )
    return replace(result, landmark_names=request.landmark_names) if request.landmark_names else result
