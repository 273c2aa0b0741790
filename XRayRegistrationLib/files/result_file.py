"""``result.json`` and the files that Slicer reads beside it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.files.atomic import OutputFolder
from XRayRegistrationLib.files.json_file import json_text, read_json
from XRayRegistrationLib.files.landmarks import write_landmarks
from XRayRegistrationLib.files.transforms import write_slicer_transform
from XRayRegistrationLib.result import Result

PICTURE_STEMS = ("overlay", "drr", "edges", "checkerboard", "scene")


def write_result(out: OutputFolder, result: Result) -> list[str]:
    """Write the result, without pictures, into an open output folder; returns the files' names.

    - ``result.json``: :meth:`Result.to_dict`.
    - ``ct_from_camera.tfm`` and ``.h5``: the pose of the first view as Slicer reads it, and
      ``ct_from_camera_2`` and so on for further views; ``ct_from_rig`` for a rig.
    - ``landmarks.mrk.json``: the landmarks on the CT.
    """
    names = ["result.json"]
    out.path("result.json").write_text(json_text(result.to_dict()), encoding="utf-8")
    poses = {numbered("ct_from_camera", i): m for i, m in enumerate(result.camera_from_ct_views)}
    if result.rig_from_ct is not None:
        poses["ct_from_rig"] = result.rig_from_ct
    for stem, pose in poses.items():
        for suffix in (".tfm", ".h5"):
            write_slicer_transform(out.path(stem + suffix), pose)
            names.append(stem + suffix)
    write_landmarks(out.path("landmarks.mrk.json"), result.landmarks_ct, result.landmark_names)
    names.append("landmarks.mrk.json")
    return names


def read_result(path: str | os.PathLike[str]) -> Result:
    """Read a ``result.json``, or the one in a folder of results.

    Raises:
        InputError: missing, damaged, or of another version.
    """
    file = Path(path)
    if file.is_dir():
        file = file / "result.json"
    data = read_json(file, "the result", "a result.json of xrayreg")
    try:
        return Result.from_dict(data)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error


def files_of_earlier_result(folder: Path) -> list[str]:
    """Names of everything that an earlier result in ``folder`` may have written, ``result.json`` apart.

    What a new result does not write again is removed, or the folder would mix two results. Nothing
    is named where there is no ``result.json`` of ours.
    """
    try:
        views = len(read_result(folder).views)
    except InputError:
        return []
    stems = [(stem, ".png") for stem in PICTURE_STEMS]
    stems += [("ct_from_camera", ".tfm"), ("ct_from_camera", ".h5"), ("drr", ".nrrd")]
    names = [numbered(stem, view) + suffix for view in range(views) for stem, suffix in stems]
    return [*names, "ct_from_rig.tfm", "ct_from_rig.h5", "landmarks.csv", "report.html"]


def numbered(stem: str, view: int) -> str:
    """The name of a view's file: plain for the first, ``_2``, ``_3``, ... for the others."""
    return stem if view == 0 else f"{stem}_{view + 1}"


def describe_input(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Absolute path, bytes and SHA-256 of an input, for the record; a folder's files are hashed in order of name."""
    place = Path(path)
    files: Iterable[Path] = sorted(p for p in place.rglob("*") if p.is_file()) if place.is_dir() else [place]
    digest = hashlib.sha256()
    size = 0
    for file in files:
        if place.is_dir():
            digest.update(file.relative_to(place).as_posix().encode() + b"\0")
        with open(file, "rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
                size += len(block)
    return {"path": str(place.absolute()), "bytes": size, "sha256": digest.hexdigest()}
