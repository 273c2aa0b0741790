"""MayaCam 2.0, the text file of a calibrated X-ray rig (XMALab, Autoscoper).

Four titled blocks: image size, camera matrix (by rows), rotation (by rows) and translation. With X in
the rig's world in mm: x_camera = R X + t, pixel = K x_camera; y down, integer = pixel centre, no
mirroring, which is our camera frame.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.rigid import check_rigid

_BLOCKS = {"image size": 2, "camera matrix": 9, "rotation": 9, "translation": 3}
_WAY_OUT = f"allowed is a MayaCam 2.0 text with the blocks {', '.join(_BLOCKS)}; export it again from XMALab"


def camera_from_mayacam(text: str) -> Camera:
    """The camera of a MayaCam 2.0 text, with ``camera_from_rig``.

    Raises:
        InputError: a block is missing, has another number of values, or makes no camera.
    """
    values = _blocks(text)
    width, height = values["image size"]
    if width != int(width) or height != int(height):
        raise InputError(f"MayaCam image size is {width:g}, {height:g}; allowed are whole numbers of pixels")
    k = values["camera matrix"].reshape(3, 3)
    rig = np.eye(4)
    rig[:3, :3] = values["rotation"].reshape(3, 3)
    rig[:3, 3] = values["translation"]
    # written with 6 to 12 digits, so rigid only to as many
    return Camera(int(width), int(height), k, None, check_rigid(rig, "MayaCam rotation and translation", 1e-3))


def mayacam_from_camera(camera: Camera) -> str:
    """The MayaCam 2.0 text of a camera; without ``camera_from_rig`` the rig's world is the camera frame."""
    rig = np.eye(4) if camera.camera_from_rig is None else camera.camera_from_rig
    blocks = {
        "image size": [[camera.width, camera.height]],
        "camera matrix": camera.K.tolist(),
        "rotation": rig[:3, :3].tolist(),
        "translation": [[t] for t in rig[:3, 3].tolist()],
    }
    return "\n".join(
        f"{title}\n" + "".join(",".join(f"{v:.17g}" for v in row) + "\n" for row in rows)
        for title, rows in blocks.items()
    )


def _blocks(text: str) -> dict[str, NDArray[np.float64]]:
    found: dict[str, list[float]] = {}
    title = ""
    for line in text.splitlines():
        words = line.strip()
        if words.lower() in _BLOCKS:
            title = words.lower()
            found[title] = []
        elif words and title:
            try:
                found[title] += [float(v) for v in re.split(r"[,;\s]+", words.strip(",; "))]
            except ValueError:
                raise InputError(f"MayaCam block {title!r} has the line {words[:60]!r}; {_WAY_OUT}") from None
        elif words:
            raise InputError(f"a camera text starts with {words[:60]!r}; {_WAY_OUT}")
    for name, count in _BLOCKS.items():
        if name not in found:
            raise InputError(f"a MayaCam text lacks the block {name!r}; {_WAY_OUT}")
        if len(found[name]) != count or not np.isfinite(found[name]).all():
            raise InputError(f"MayaCam block {name!r} has {len(found[name])} numbers instead of {count}; {_WAY_OUT}")
    return {name: np.array(v) for name, v in found.items()}
