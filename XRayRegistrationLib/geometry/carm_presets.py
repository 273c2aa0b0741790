"""Presets of common X-ray devices: the camera of an image whose file says nothing of its geometry."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.files.json_file import read_json
from XRayRegistrationLib.geometry.camera import Camera

_KEYS = (
    "name",
    "source_detector_distance_mm",
    "width",
    "height",
    "pixel_spacing_mm",
    "detector_size_mm",
    "round_field",
    "source",
    "note",
)
_OPTIONAL = ("note",)
_WAY_OUT = "a preset like those in the extension's folder Resources/CArms"
_SIZE_TOLERANCE = 0.01  # between detector_size_mm and the pixels
_SHAPE_TOLERANCE = 0.005  # of an image's aspect, besides half a pixel of rounding


@dataclass(frozen=True)
class CArmPreset:
    """One device, as it is usually set up.

    Attributes:
        name: shown to the user.
        source_detector_distance_mm: where it can be changed, the usual one.
        width, height: pixels of the full detector.
        pixel_spacing_mm: (column, row) of these pixels, on the detector.
        round_field: the image is a disc, of an image intensifier.
        source: where the figures come from, a sentence.
        note: what to mind, or "".
    """

    name: str
    source_detector_distance_mm: float
    width: int
    height: int
    pixel_spacing_mm: tuple[float, float]
    round_field: bool
    source: str
    note: str = ""

    @property
    def detector_size_mm(self) -> tuple[float, float]:
        """(width, height) of the detector."""
        return self.width * self.pixel_spacing_mm[0], self.height * self.pixel_spacing_mm[1]

    @property
    def provenance(self) -> dict[str, str]:
        """Where each value of the camera comes from: every one is assumed, and may be edited."""
        said = f"assumed: preset '{self.name}'"
        return {
            "source_detector_distance_mm": said,
            "pixel_spacing_mm": f"{said}, the image shows the full detector",
            "principal_point_px": "assumed: the image's centre",
        }


def read_preset(path: str | os.PathLike[str]) -> CArmPreset:
    """Read one preset.

    Raises:
        InputError: unreadable, unknown or missing keys, or values that cannot be.
    """
    file = Path(path)
    data = read_json(file, "the preset", _WAY_OUT)
    if not isinstance(data, dict):
        raise InputError(f"the preset {file} is no JSON object; give {_WAY_OUT}")
    for key in data:
        if key not in _KEYS:
            near = difflib.get_close_matches(str(key), _KEYS, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise InputError(f"the preset {file} has the unknown key {key!r}{hint}; allowed are {', '.join(_KEYS)}")
    missing = [key for key in _KEYS if key not in _OPTIONAL and data.get(key) is None]
    if missing:
        raise InputError(f"the preset {file} lacks {', '.join(missing)}; give {_WAY_OUT}")
    for key in ("name", "source"):
        if not isinstance(data[key], str) or not data[key].strip():
            raise InputError(f"the preset {file} has {key} {data[key]!r}; allowed is a text")
    note = data.get("note") or ""
    if not isinstance(note, str):
        raise InputError(f"the preset {file} has note {note!r}; allowed is a text")
    if not isinstance(data["round_field"], bool):
        raise InputError(f"the preset {file} has round_field {data['round_field']!r}; allowed are true and false")
    width, height = (_number(data, key, file, whole=True) for key in ("width", "height"))
    spacing, size = _pair(data, "pixel_spacing_mm", file), _pair(data, "detector_size_mm", file)
    for side, pixels in enumerate((width, height)):
        if abs(size[side] / (pixels * spacing[side]) - 1) > _SIZE_TOLERANCE:
            raise InputError(
                f"the preset {file} has detector_size_mm {data['detector_size_mm']!r}, but its pixels make "
                f"{width * spacing[0]:.1f} x {height * spacing[1]:.1f} mm; make them agree"
            )
    return CArmPreset(
        data["name"],
        _number(data, "source_detector_distance_mm", file),
        int(width),
        int(height),
        spacing,
        data["round_field"],
        data["source"],
        note,
    )


def read_presets(folder: str | os.PathLike[str]) -> dict[str, CArmPreset]:
    """All presets (*.json) of a folder by name, sorted.

    Raises:
        InputError: the folder or a file cannot be read, or two have one name.
    """
    if not Path(folder).is_dir():
        raise InputError(f"the folder of presets {folder} does not exist; give {_WAY_OUT}")
    presets: dict[str, CArmPreset] = {}
    for file in sorted(Path(folder).glob("*.json")):
        preset = read_preset(file)
        if preset.name in presets:
            raise InputError(f"two presets in {folder} have the name {preset.name!r}; give each its own")
        presets[preset.name] = preset
    return {name: presets[name] for name in sorted(presets, key=str.lower)}


def camera_of(preset: CArmPreset, width: int, height: int) -> Camera:
    """The camera of an image of the full detector, resampled to ``width`` x ``height`` pixels.

    The principal point is the image's centre. A detector that is not square may stand upright or lie.

    Raises:
        InputError: the image has another shape than the detector, so it does not show all of it.
    """
    if width < 1 or height < 1:
        raise InputError(f"the image has {width} x {height} pixels; allowed are whole numbers of at least 1")
    columns, rows, spacing = preset.width, preset.height, preset.pixel_spacing_mm
    if not _fits(columns, rows, width, height) and _fits(rows, columns, width, height):
        columns, rows, spacing = rows, columns, (spacing[1], spacing[0])
    if not _fits(columns, rows, width, height):
        wide, high = preset.detector_size_mm
        raise InputError(
            f"the image has {width} x {height} pixels, and the detector of {preset.name!r} {preset.width} x "
            f"{preset.height} ({wide:.0f} x {high:.0f} mm); a preset holds for images of the full detector. "
            "This one is cropped or of another device: choose another preset, or give pixel size and source-detector distance"
        )
    full = Camera.from_spacing(columns, rows, spacing, preset.source_detector_distance_mm)
    return full.resized(width, height)


def _fits(columns: int, rows: int, width: int, height: int) -> bool:
    """Whether the aspect is the same but for the rounding of the smaller image to whole pixels."""
    rounding = 0.5 / width + 0.5 / height
    return abs((width / columns) / (height / rows) - 1) <= _SHAPE_TOLERANCE + rounding


def _number(data: dict[str, Any], key: str, file: Path, whole: bool = False) -> float:
    value = data[key]
    number = isinstance(value, int | float) and not isinstance(value, bool) and np.isfinite(value) and value > 0
    if not number or (whole and value != int(value)):
        kind = "a whole number of pixels, at least 1" if whole else "a positive number of mm"
        raise InputError(f"the preset {file} has {key} {value!r}; allowed is {kind}")
    return float(value)


def _pair(data: dict[str, Any], key: str, file: Path) -> tuple[float, float]:
    value = data[key]
    if not isinstance(value, list) or len(value) != 2:
        raise InputError(f"the preset {file} has {key} {value!r}; allowed are two positive numbers of mm")
    first, second = (_number({key: part}, key, file) for part in value)
    return first, second
