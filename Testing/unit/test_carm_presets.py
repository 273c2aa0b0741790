"""Presets of X-ray devices: those that come with the extension, and what a preset may not be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.geometry.carm_presets import camera_of, read_preset, read_presets

FOLDER = Path(__file__).resolve().parents[2] / "XRayRegistration" / "Resources" / "CArms"
FILES = sorted(FOLDER.glob("*.json"))
FINE: dict[str, Any] = {
    "name": "Test device",
    "source_detector_distance_mm": 1000,
    "width": 800,
    "height": 600,
    "pixel_spacing_mm": [0.4, 0.5],
    "detector_size_mm": [320, 300],
    "round_field": False,
    "source": "Made up.",
}


def _written(tmp_path: Path, **changes: Any) -> Path:
    data = {key: value for key, value in {**FINE, **changes}.items() if value != "leave out"}
    path = tmp_path / "device.json"
    path.write_text(json.dumps(data))
    return path


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_presets_of_the_extension(file: Path) -> None:
    preset = read_preset(file)
    assert 400 < preset.source_detector_distance_mm < 2000
    assert all(100 < side < 500 for side in preset.detector_size_mm)
    assert preset.source.endswith(".")
    camera = camera_of(preset, preset.width, preset.height)
    np.testing.assert_allclose(camera.K[:2, 2], [(preset.width - 1) / 2, (preset.height - 1) / 2])
    assert camera.pixel_spacing_mm == pytest.approx(preset.pixel_spacing_mm)


def test_the_folder() -> None:
    presets = read_presets(FOLDER)
    assert len(presets) == len(FILES) >= 8
    names = list(presets)
    assert names == [preset.name for preset in presets.values()]
    assert names == sorted(names, key=str.lower)
    assert any("CIOS Fusion" in name for name in names)
    assert any("Perlove" in name for name in names)


def test_the_camera_of_deepfluoro() -> None:
    preset = read_preset(FOLDER / "siemens-cios-fusion.json")
    camera = camera_of(preset, 1536, 1536)
    assert camera.K[0, 0] == pytest.approx(5257.732, abs=1e-3)
    assert camera.K[0, 2] == 767.5
    small = camera_of(preset, 180, 180)
    assert small.pixel_spacing_mm == pytest.approx((0.194 * 1536 / 180,) * 2)
    assert small.source_detector_distance_mm == 1020
    assert small.K[0, 2] == pytest.approx(89.5)


def test_resampled_and_turned_images(tmp_path) -> None:
    preset = read_preset(_written(tmp_path))
    half = camera_of(preset, 400, 300)
    assert half.pixel_spacing_mm == pytest.approx((0.8, 1.0))
    uneven = camera_of(preset, 301, 226)  # rounded to whole pixels
    assert uneven.pixel_spacing_mm == pytest.approx((320 / 301, 300 / 226))
    upright = camera_of(preset, 600, 800)
    assert upright.pixel_spacing_mm == pytest.approx((0.5, 0.4))
    assert preset.provenance["source_detector_distance_mm"] == "assumed: preset 'Test device'"


@pytest.mark.parametrize("size", [(800, 800), (700, 600), (1436, 1000), (0, 5)])
def test_images_that_are_not_the_full_detector(tmp_path, size) -> None:
    with pytest.raises(InputError, match=f"{size[0]} x {size[1]}") as error:
        camera_of(read_preset(_written(tmp_path)), *size)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": "leave out"}, "lacks width"),
        ({"source": None}, "lacks source"),
        ({"width": 0}, "width 0; allowed is a whole number"),
        ({"height": 600.5}, "height 600.5"),
        ({"height": True}, "height True"),
        ({"source_detector_distance_mm": -1}, "allowed is a positive number"),
        ({"source_detector_distance_mm": "1000"}, "allowed is a positive number"),
        ({"source_detector_distance_mm": float("nan")}, "allowed is a positive number"),
        ({"pixel_spacing_mm": 0.4}, "allowed are two positive numbers"),
        ({"pixel_spacing_mm": [0.4, 0]}, "allowed is a positive number"),
        ({"detector_size_mm": [300, 300]}, "its pixels make 320.0 x 300.0 mm"),
        ({"round_field": "no"}, "allowed are true and false"),
        ({"name": " "}, "allowed is a text"),
        ({"note": 3}, "allowed is a text"),
        ({"pixel_spacing": 1}, "did you mean 'pixel_spacing_mm'"),
    ],
)
def test_bad_presets(tmp_path, changes, message) -> None:
    with pytest.raises(InputError, match=message) as error:
        read_preset(_written(tmp_path, **changes))
    assert "\n" not in str(error.value)
    assert "device.json" in str(error.value)


def test_bad_files(tmp_path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_preset(tmp_path / "none.json")
    with pytest.raises(InputError, match="does not exist"):
        read_presets(tmp_path / "none")
    (tmp_path / "list.json").write_text("[1, 2]")
    with pytest.raises(InputError, match="no JSON object"):
        read_preset(tmp_path / "list.json")
    (tmp_path / "cut.json").write_text('{"name": ')
    with pytest.raises(InputError, match="no valid JSON"):
        read_presets(tmp_path)


def test_names_are_unique(tmp_path) -> None:
    path = _written(tmp_path)
    (tmp_path / "again.json").write_text(path.read_text())
    with pytest.raises(InputError, match="two presets"):
        read_presets(tmp_path)
