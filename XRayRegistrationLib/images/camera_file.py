"""The camera's file: ``camera.json``, or the MayaCam 2.0 text of a calibrated rig."""

from __future__ import annotations

import difflib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.files.atomic import write_atomically
from XRayRegistrationLib.files.json_file import read_json
from XRayRegistrationLib.geometry.adapters import camera_from_mayacam
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.images.itk_file import check_file

_SIZE = ("width", "height")
_BY_SPACING = ("pixel_spacing_mm", "source_detector_distance_mm")
_KEYS = (*_SIZE, *_BY_SPACING, "principal_point_px", "K", "camera_from_rig")
_WAY_OUT = (
    'a camera.json such as {"width": 1536, "height": 1536, "pixel_spacing_mm": [0.194, 0.194], '
    '"source_detector_distance_mm": 1020}'
)


def read_camera(path: str | os.PathLike[str], image_size: tuple[int, int] | None = None) -> Camera:
    """Read a camera from ``camera.json`` or a MayaCam 2.0 text file.

    The JSON has ``width``, ``height`` and either ``pixel_spacing_mm`` [column, row],
    ``source_detector_distance_mm`` and, unless it is the image's centre, ``principal_point_px``
    [u, v]; or ``K`` (3x3, pixels) and, where known, ``source_detector_distance_mm``. A rig adds
    ``camera_from_rig`` (4x4, mm).

    Args:
        path: the file.
        image_size: (width, height) in pixels of the X-ray that it belongs to, checked when given.

    Raises:
        InputError: unreadable, unknown or missing keys, bad values, or another image size.
    """
    file = check_file(path, "the camera")
    if file.suffix.lower() == ".json":
        camera = _from_json(read_json(file, "the camera", _WAY_OUT), file)
    else:
        camera = _from_text(file)
    if image_size is not None:
        check_camera_size(camera, image_size, f"the camera {file}")
    return camera


def write_camera(path: str | os.PathLike[str], camera: Camera) -> Path:
    """Write ``camera.json`` so that :func:`read_camera` gives the same numbers back.

    Raises:
        InputError: the place cannot be written.
    """
    data: dict[str, Any] = {"width": camera.width, "height": camera.height, "K": camera.K.tolist()}
    if camera.source_detector_distance_mm is not None:
        data["source_detector_distance_mm"] = camera.source_detector_distance_mm
    if camera.camera_from_rig is not None:
        data["camera_from_rig"] = camera.camera_from_rig.tolist()
    return write_atomically(path, json.dumps(data, indent=2) + "\n")


def check_camera_size(camera: Camera, image_size: tuple[int, int], what: str = "the camera") -> None:
    """Raise InputError unless the camera is for images of this (width, height)."""
    if (camera.width, camera.height) != tuple(image_size):
        raise InputError(
            f"{what} is for {camera.width} x {camera.height} pixels, the X-ray has {image_size[0]} x {image_size[1]} "
            "(width x height); give the camera of this very image: was it cropped or resized since?"
        )


def _from_json(data: Any, file: Path) -> Camera:
    if not isinstance(data, dict):
        raise InputError(f"the camera {file} is no JSON object; give {_WAY_OUT}")
    for key in data:
        if key not in _KEYS:
            near = difflib.get_close_matches(str(key), _KEYS, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise InputError(f"the camera {file} has the unknown key {key!r}{hint}; allowed are {', '.join(_KEYS)}")
    needed = _SIZE + (("K",) if "K" in data else _BY_SPACING)
    missing = [key for key in needed if data.get(key) is None]
    if missing:
        raise InputError(f"the camera {file} lacks {', '.join(missing)}; give {_WAY_OUT}")
    doubled = [key for key in ("pixel_spacing_mm", "principal_point_px") if "K" in data and key in data]
    if doubled:
        raise InputError(f"the camera {file} has both K and {' and '.join(doubled)}, which say the same; leave one out")
    for key in _SIZE:
        if not _whole(data[key]):
            raise InputError(f"the camera {file} has {key} {data[key]!r}; allowed is a whole number of pixels, at least 1")
    width, height = (int(data[key]) for key in _SIZE)
    rig = _array(data, "camera_from_rig", (4, 4), file) if data.get("camera_from_rig") is not None else None
    given = data.get("source_detector_distance_mm")
    distance = None if given is None else float(_array(data, "source_detector_distance_mm", (), file))
    try:
        if "K" in data:
            return Camera(width, height, _array(data, "K", (3, 3), file), distance, rig)
        spacing = _array(data, "pixel_spacing_mm", (2,), file)
        point = _array(data, "principal_point_px", (2,), file) if data.get("principal_point_px") is not None else None
        return Camera.from_spacing(
            width,
            height,
            (float(spacing[0]), float(spacing[1])),
            distance if distance is not None else np.nan,
            None if point is None else (float(point[0]), float(point[1])),
            rig,
        )
    except InputError as error:
        raise InputError(f"the camera {file}: {error}") from error


def _whole(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and float(value).is_integer()


def _array(data: dict[str, Any], key: str, shape: tuple[int, ...], file: Path) -> Any:
    """The value as finite numbers of this shape; a single spacing may stand for both."""
    kind = " x ".join(map(str, shape)) + " finite numbers" if shape else "a finite number"
    try:
        found = np.asarray(data[key], dtype=np.float64)
    except (TypeError, ValueError):
        found = np.full(1, np.nan)
    if key == "pixel_spacing_mm" and found.shape == ():
        found = np.repeat(found, 2)
    if found.shape != shape or not np.isfinite(found).all() or isinstance(data[key], bool | str):
        raise InputError(f"the camera {file} has {key} {data[key]!r}; allowed is {kind}")
    return found


def _from_text(file: Path) -> Camera:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"the camera {file} is no text; give {_WAY_OUT}, or a MayaCam 2.0 text file") from error
    try:
        return camera_from_mayacam(text)
    except InputError as error:
        raise InputError(f"the camera {file}: {error}") from error
