"""Landmarks as 3D Slicer markups (``.mrk.json``)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.files.json_file import json_text, read_json

SCHEMA = "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/markups-schema-v1.0.3.json#"
# "0" and "1" are what early versions of the format wrote
_SIGNS = {"RAS": (1.0, 1.0, 1.0), "0": (1.0, 1.0, 1.0), "LPS": (-1.0, -1.0, 1.0), "1": (-1.0, -1.0, 1.0)}


@dataclass(frozen=True)
class Landmarks:
    """Named points on the CT.

    Attributes:
        points_ct: (n, 3) RAS mm.
        names: n labels.
    """

    points_ct: NDArray[np.float64]
    names: tuple[str, ...]


def read_landmarks(path: str | os.PathLike[str]) -> Landmarks:
    """Read a Slicer markups file; its ``coordinateSystem`` (LPS unless it says RAS) is honoured.

    Control points that were never placed are left out.

    Raises:
        InputError: not such a file, no placed point, a coordinate that is no number, or other units than mm.
    """
    data = read_json(path, "the landmarks", "a .mrk.json file as Slicer saves it")
    markups = data.get("markups") if isinstance(data, dict) else None
    if not isinstance(markups, list) or not markups or not all(isinstance(m, dict) for m in markups):
        raise InputError(f"{path} has no markups; allowed is a .mrk.json file as Slicer saves it")
    points: list[list[float]] = []
    names: list[str] = []
    for markup in markups:
        system = str(markup.get("coordinateSystem", "LPS"))
        if system not in _SIGNS:
            raise InputError(f"{path} has coordinateSystem {system!r}; allowed are 'LPS' and 'RAS'")
        units = markup.get("coordinateUnits", "mm")
        if units not in ("mm", ["mm", "mm", "mm"]):
            raise InputError(f"{path} has coordinateUnits {units!r}; allowed is 'mm'")
        control_points = markup.get("controlPoints", [])
        if not isinstance(control_points, list) or not all(isinstance(p, dict) for p in control_points):
            raise InputError(f"{path} has no list of control points; allowed is a .mrk.json file as Slicer saves it")
        for index, point in enumerate(control_points):
            if point.get("positionStatus", "defined") in ("undefined", "preview"):
                continue
            names.append(str(point.get("label") or point.get("id") or index + 1))
            points.append(_position(point.get("position"), _SIGNS[system], names[-1], path))
    if not points:
        raise InputError(f"{path} has no placed control point; allowed is at least one")
    return Landmarks(np.array(points), tuple(names))


def write_landmarks(
    path: str | os.PathLike[str],
    points_ct: ArrayLike,
    names: Sequence[str] = (),
    descriptions: Sequence[str] = (),
) -> None:
    """Write points (n, 3) in ct (RAS mm) as a Slicer fiducial list, with ``coordinateSystem`` RAS."""
    points = np.asarray(points_ct, dtype=np.float64).reshape(-1, 3)
    if not np.isfinite(points).all():
        raise InputError("a landmark has NaN or infinite coordinates; allowed are finite RAS positions in mm")
    control_points = [
        {
            "id": str(i + 1),
            "label": str(names[i]) if names else str(i + 1),
            "description": str(descriptions[i]) if descriptions else "",
            "associatedNodeID": "",
            "position": point.tolist(),
            "orientation": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
            "selected": True,
            "locked": True,
            "visibility": True,
            "positionStatus": "defined",
        }
        for i, point in enumerate(points)
    ]
    markup = {
        "type": "Fiducial",
        "coordinateSystem": "RAS",
        "coordinateUnits": "mm",
        "locked": True,
        "fixedNumberOfControlPoints": False,
        "labelFormat": "%N-%d",
        "lastUsedControlPointNumber": len(points),
        "controlPoints": control_points,
        "measurements": [],
    }
    Path(path).write_text(json_text({"@schema": SCHEMA, "markups": [markup]}), encoding="utf-8")


def _position(value: Any, signs: tuple[float, float, float], name: str, path: Any) -> list[float]:
    try:
        point = np.array(value, dtype=np.float64)
    except (TypeError, ValueError):
        point = np.empty(0)
    if point.shape != (3,) or not np.isfinite(point).all():
        raise InputError(
            f"{path}: landmark {name!r} has the position {value!r}; allowed are three finite numbers in mm"
        )
    return (point * signs).tolist()
