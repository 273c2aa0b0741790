"""A request does what register does, here and in a process that it was handed to as a folder."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from Testing.unit.ct_phantom import CAMERA, xray_of
from XRayRegistrationLib.bone.model import build_bone_model
from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.files.request_folder import read_request, write_request
from XRayRegistrationLib.files.result_file import read_result
from XRayRegistrationLib.geometry.rigid import from_rotation_translation, rotation_exp
from XRayRegistrationLib.images.prepare import HeaderHints
from XRayRegistrationLib.images.raw_xray import RawXRay
from XRayRegistrationLib.images.volume import Volume
from XRayRegistrationLib.images.xray_file import read_raw_xray
from XRayRegistrationLib.request import Request, fulfil
from XRayRegistrationLib.simulation.poses import pose_at, rotation_from_angles


@pytest.fixture(scope="module")
def request_(ct):
    model = build_bone_model(ct)
    pose = pose_at(rotation_from_angles(10.0, -6.0, 4.0), CAMERA, model.centroid, (50.0, 38.0), 690.0)
    lines = xray_of(ct, CAMERA, pose).line_integrals
    start = pose.copy()
    start[:3, 3] += (4.0, -3.0, 9.0)
    field = np.ones(lines.shape, bool)
    field[:3] = False
    hints = HeaderHints("bone_bright", True, field)
    xray = RawXRay(lines, CAMERA, "bone_bright", "auto", hints, {"camera": "given"}, "shot", {"frame": 0})
    return Request(
        ct,
        (xray,),
        bone=Volume(model.mask.values.astype(np.uint8), ct.ras_from_ijk, "drawn"),
        start=start,
        landmarks=model.surface_points[:2],
        landmark_names=("A", "B"),
        seed=3,
    )


def _write(folder, request):
    return list(write_request(folder, request))


def test_a_folder_holds_all_of_a_request(tmp_path, request_):
    told = _write(tmp_path, request_)
    assert [fraction for fraction, _ in told] == sorted(fraction for fraction, _ in told)
    assert told[-1][0] == 1.0
    back = read_request(tmp_path)
    np.testing.assert_array_equal(back.ct.values, request_.ct.values)
    np.testing.assert_array_equal(back.ct.ras_from_ijk, request_.ct.ras_from_ijk)
    np.testing.assert_array_equal(back.bone.values, request_.bone.values)
    np.testing.assert_array_equal(back.start, request_.start)
    np.testing.assert_array_equal(back.landmarks, request_.landmarks)
    (xray,), (was,) = back.xrays, request_.xrays
    np.testing.assert_array_equal(xray.values, was.values)
    np.testing.assert_array_equal(xray.camera.K, was.camera.K)
    np.testing.assert_array_equal(xray.header.open_field, was.header.open_field)
    assert (xray.header.polarity, xray.header.logarithmic) == ("bone_bright", True)
    for name in ("polarity", "mask", "provenance", "source", "metadata"):
        assert getattr(xray, name) == getattr(was, name)
    for name in ("method", "bone_alone", "landmark_names", "options", "backend", "seed"):
        assert getattr(back, name) == getattr(request_, name)


def test_a_mask_that_was_given_goes_along(tmp_path, request_):
    (xray,) = request_.xrays
    mask = np.arange(xray.values.size).reshape(xray.values.shape) % 3 > 0
    _write(tmp_path, replace(request_, xrays=(replace(xray, mask=mask),)))
    np.testing.assert_array_equal(read_request(tmp_path).xrays[0].mask, mask)


def test_a_process_finds_what_this_one_finds(tmp_path, request_):
    _write(tmp_path, request_)
    here = fulfil(request_)
    done = subprocess.run(
        [sys.executable, "-m", "XRayRegistrationLib", "work", str(tmp_path)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    progress = [json.loads(line)["progress"] for line in done.stderr.splitlines()]
    assert progress[-1] == 1.0
    assert progress == sorted(progress)
    there = read_result(tmp_path)
    assert here.ok
    np.testing.assert_allclose(there.camera_from_ct, here.camera_from_ct, atol=1e-3)
    assert there.landmark_names == ("A", "B")
    assert there.probability == pytest.approx(here.probability, abs=1e-3)


@pytest.mark.parametrize("text", ["", "{}", '{"format": "xrayregistration-request"}'])
def test_a_damaged_folder_is_refused(tmp_path, text):
    (tmp_path / "request.json").write_text(text)
    with pytest.raises(InputError):
        read_request(tmp_path)


def test_an_oblique_ct_keeps_its_place(tmp_path, request_):
    oblique = from_rotation_translation(rotation_exp((0.1, 0.2, 0.3)), (1.0, 2.0, 1 / 3))
    _write(tmp_path, Request(Volume(request_.ct.values, oblique), request_.xrays))
    np.testing.assert_array_equal(read_request(tmp_path).ct.ras_from_ijk, oblique)


def test_raw_pixels_are_the_files_own(tmp_path):
    import SimpleITK as sitk

    values = np.random.default_rng(0).integers(0, 60000, (30, 40)).astype(np.uint16)
    sitk.WriteImage(sitk.GetImageFromArray(values), str(tmp_path / "x.png"))
    with pytest.raises(InputError) as caught:
        read_raw_xray(tmp_path / "x.png")
    assert caught.value.value == "source_detector_distance_mm"
    with pytest.raises(InputError) as caught:
        read_raw_xray(tmp_path / "x.png", source_detector_distance_mm=1000.0)
    assert caught.value.value == "pixel_spacing_mm"
    raw = read_raw_xray(tmp_path / "x.png", source_detector_distance_mm=1000.0, pixel_spacing_mm=0.5)
    np.testing.assert_array_equal(raw.values, values)
    assert raw.camera.K[0, 0] == pytest.approx(2000.0)


@pytest.mark.parametrize("kind", [np.int16, np.float32, np.int32, np.float64])
def test_a_ct_handed_over_in_pieces_reads_as_it_was(tmp_path, kind, monkeypatch):
    from XRayRegistrationLib.files import volume_file
    from XRayRegistrationLib.images.ct import read_ct

    monkeypatch.setattr(volume_file, "_PIECE_BYTES", 5000)
    ras_from_ijk = from_rotation_translation(rotation_exp((0.1, 0.2, 0.3)), (1.0, 2.0, 1 / 3)) @ np.diag([0.5, -0.7, 2.0, 1.0])
    values = np.random.default_rng(0).integers(-1000, 1500, (9, 31, 40)).astype(kind)
    told = list(volume_file.write_ct_steps(tmp_path / "ct.nhdr", Volume(values, ras_from_ijk)))
    assert len(told) > 2
    assert told[-1][0] == 1.0
    back = read_ct(tmp_path / "ct.nhdr")
    np.testing.assert_array_equal(back.values, values)
    np.testing.assert_allclose(back.ras_from_ijk, ras_from_ijk, atol=1e-9)
