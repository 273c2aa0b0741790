"""A start pose from a file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.files.json_file import read_json
from XRayRegistrationLib.files.transforms import TRANSFORM_SUFFIXES, read_slicer_transform
from XRayRegistrationLib.geometry.rigid import check_rigid, inverse

_ALLOWED = 'a result.json, a JSON file with "camera_from_ct" (4x4, CT in RAS mm), or a .tfm or .h5 transform'
_ANGLES = "; make a pose of C-arm angles with xrayreg convert FILE --to xrayreg --ct CT --out pose.json"


def read_start_pose(
    path: str | os.PathLike[str], camera_from_rig: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """A 4x4 ``camera_from_ct`` (``rig_from_ct`` for X-rays of a rig), ct in RAS mm.

    Accepts a ``result.json``; JSON with ``camera_from_ct`` or its inverse ``ct_from_camera``; and
    ``.tfm`` or ``.h5`` as Slicer saves the linear transform that carries ``ct_from_camera``.
    For a rig JSON may hold ``rig_from_ct`` or ``ct_from_rig``, or else the pose of the first X-ray,
    and a transform carries ``ct_from_rig``.

    Args:
        path: the file.
        camera_from_rig: 4x4, of the first X-ray of a rig; None where there is no rig.

    Raises:
        InputError: missing, unreadable, without such a pose, or not a rigid motion.
    """
    file = Path(path)
    if file.suffix.lower() in TRANSFORM_SUFFIXES:
        return read_slicer_transform(file)
    data = read_json(file, "the start pose", _ALLOWED)
    if not isinstance(data, dict):
        data = {}
    if camera_from_rig is not None:
        rig_from_ct = _pose(data, "rig", file)
        if rig_from_ct is not None:
            return rig_from_ct
    camera_from_ct = _pose(data, "camera", file)
    if camera_from_ct is None:
        way_out = _ANGLES if "primary_deg" in data else ""
        if camera_from_rig is None:
            raise InputError(f"{file} has no camera_from_ct; allowed as a start pose is {_ALLOWED}{way_out}")
        raise InputError(
            f"{file} has neither rig_from_ct nor the first X-ray's camera_from_ct; allowed as a start pose for X-rays "
            f'of a calibrated rig is a result.json, a JSON file with "rig_from_ct" or "camera_from_ct" '
            f"(4x4, CT in RAS mm), or a .tfm or .h5 transform{way_out}"
        )
    return camera_from_ct if camera_from_rig is None else inverse(camera_from_rig) @ camera_from_ct


def _pose(data: dict[str, Any], frame: str, file: Path) -> NDArray[np.float64] | None:
    """``<frame>_from_ct``, or the inverse of ``ct_from_<frame>``; None where the file has neither."""
    forward, backward = f"{frame}_from_ct", f"ct_from_{frame}"
    if data.get(forward) is not None:
        return check_rigid(data[forward], f"{forward} in {file}")
    if data.get(backward) is not None:
        return inverse(check_rigid(data[backward], f"{backward} in {file}"))
    return None
