"""A start pose from a file."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.files.json_file import read_json
from XRayRegistrationLib.files.transforms import TRANSFORM_SUFFIXES, read_slicer_transform
from XRayRegistrationLib.geometry.rigid import check_rigid, inverse

_ALLOWED = 'a result.json, a JSON file with "camera_from_ct" (4x4, CT in RAS mm), or a .tfm or .h5 transform'


def read_start_pose(path: str | os.PathLike[str], *, rig: bool = False) -> NDArray[np.float64]:
    """A 4x4 ``camera_from_ct`` (``rig_from_ct`` with ``rig``), ct in RAS mm.

    Accepts a ``result.json``; JSON with ``camera_from_ct`` or its inverse ``ct_from_camera``
    (``rig_from_ct`` or ``ct_from_rig`` for a rig); and ``.tfm`` or ``.h5`` as Slicer saves
    the linear transform that carries ``ct_from_camera``.

    Raises:
        InputError: missing, unreadable, without such a pose, or not a rigid motion.
    """
    file = Path(path)
    if file.suffix.lower() in TRANSFORM_SUFFIXES:
        return read_slicer_transform(file)
    data = read_json(file, "the start pose", _ALLOWED)
    frame = "rig" if rig else "camera"
    if isinstance(data, dict):
        forward, backward = f"{frame}_from_ct", f"ct_from_{frame}"
        if data.get(forward) is not None:
            return check_rigid(data[forward], f"{forward} in {file}")
        if data.get(backward) is not None:
            return inverse(check_rigid(data[backward], f"{backward} in {file}"))
    allowed = _ALLOWED.replace("camera_from_ct", f"{frame}_from_ct")
    hint = " for X-rays of a calibrated rig" if rig else ""
    raise InputError(f"{file} has no {frame}_from_ct; allowed as a start pose{hint} is {allowed}")
