"""Bad input: exit status 2, one line that names the bad value and the way out, and nothing written."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from front_phantom import CAMERA, POSE, write_array, write_files
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from XRayRegistrationLib.cli import main
from XRayRegistrationLib.images.camera_file import read_camera

REPOSITORY = Path(__file__).parents[2]
Folder = Path


@pytest.fixture(scope="session")
def good_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    write_files(folder)
    return folder


@pytest.fixture
def folder(good_files: Path, tmp_path: Path) -> Path:
    """Good files to spoil, and an output folder with an earlier file in it."""
    shutil.copytree(good_files, tmp_path, dirs_exist_ok=True)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "result.json").write_text("earlier")
    return tmp_path


@pytest.fixture(autouse=True)
def no_registration(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every argument is checked before the heavy work, so it must never start."""

    def started(*_: object, **__: object) -> None:
        raise AssertionError("the registration was started")

    monkeypatch.setattr("XRayRegistrationLib.commands.register.register", started)


def contents(folder: Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


def refused(capfd: pytest.CaptureFixture[str], arguments: list[str], *says: str) -> str:
    """Run, and check status, the one line, and that it says all of ``says``; returns the line."""
    status = main(arguments)
    captured = capfd.readouterr()
    assert status == 2, captured.err
    assert captured.out == ""
    assert captured.err.startswith("xrayreg: ")
    assert captured.err.endswith("\n")
    assert captured.err.count("\n") == 1, captured.err
    for words in says:
        assert words in captured.err, captured.err
    return captured.err


def register_arguments(folder: Path, **changes: str | list[str] | None) -> list[str]:
    """A good call of register, with some options changed (None drops one)."""
    options: dict[str, str | list[str] | None] = {
        "ct": str(folder / "ct.nii.gz"),
        "xray": str(folder / "xray.png"),
        "camera": str(folder / "camera.json"),
        "out": str(folder / "out"),
        **changes,
    }
    arguments = ["register"]
    for name, value in options.items():
        if value is not None:
            arguments += ["--" + name.replace("_", "-"), *([value] if isinstance(value, str) else value)]
    return arguments


# --- arguments ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ct", "xray", "camera", "landmarks", "mask", "bone", "start"])
def test_missing_files(folder: Path, capfd: pytest.CaptureFixture[str], name: str) -> None:
    before = contents(folder)
    refused(capfd, register_arguments(folder, **{name: str(folder / "missing.json")}), "missing.json")
    assert contents(folder) == before


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"method": "difdrr"}, ("'difdrr'", "did you mean 'diffdrr'")),
        ({"backend": "nunba"}, ("'nunba'", "did you mean 'numba'")),
        ({"solver": "cma"}, ("'cma'", "cma_es")),
        ({"polarity": "dark"}, ("'dark'", "bone-dark")),
        ({"pictures": "some"}, ("'some'", "basic, all, none")),
        ({"start": "lat"}, ("'lat'", "lat-left")),
        ({"sdd": "0"}, ("--sdd", "'0'", "above 0")),
        ({"sdd": "nan"}, ("--sdd", "'nan'")),
        ({"pixel_spacing": "1,2,3"}, ("1,2,3", "SX,SY")),
        ({"seed": "-1"}, ("--seed",)),
        ({"seed": "1.5"}, ("'1.5'", "whole number")),
        ({"frame": "x"}, ("'x'", "whole number")),
        ({"progress": "yes"}, ("'yes'", "bar")),
        ({"sdd": "1000"}, ("--sdd", "--camera", "drop one")),
        ({"bone": "labels.nii.gz:1,x"}, ("'1,x'", "labels.nii.gz:1,2")),
        ({"bone": "everything"}, ("'everything'", "auto, full")),
        ({"xray": ["a.png", "b.png"]}, ("a.png", "does not exist")),
        ({"colour": "red"}, ("--colour",)),
    ],
)
def test_bad_options(folder: Path, capfd: pytest.CaptureFixture[str], changes: dict, says: tuple) -> None:
    before = contents(folder)
    refused(capfd, register_arguments(folder, **changes), *says)
    assert contents(folder) == before


def test_several_xrays_need_a_calibrated_camera_each(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    two, camera = [str(folder / "xray.png")] * 2, str(folder / "camera.json")
    refused(capfd, register_arguments(folder, xray=two, camera=None), "2 X-rays", "camera_from_rig", "MayaCam")
    refused(capfd, register_arguments(folder, xray=two), "1 --camera for 2 --xray")
    refused(capfd, register_arguments(folder, xray=two, camera=[camera, camera]), "camera.json", "camera_from_rig")


def test_commands(capfd: pytest.CaptureFixture[str]) -> None:
    refused(capfd, ["regster"], "'regster'", "did you mean 'register'")
    refused(capfd, [], "no command", "register", "--help")
    refused(capfd, ["register"], "--ct")
    refused(capfd, ["trian"], "did you mean 'train'")
    refused(capfd, ["methods", "--jsn"], "'--jsn' is unknown to xrayreg methods", "did you mean '--json'")


def test_training(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ct, out = str(folder / "ct.nii.gz"), str(folder / "w.safetensors")
    before = sorted(folder.rglob("*"))
    train = ["train", "scene_coordinates", "--ct", ct, "--out", out]
    refused(capfd, ["train", "scene_coordinate", "--ct", ct], "did you mean 'scene_coordinates'")
    refused(capfd, ["train", "diffdrr", "--ct", ct, "--out", out], "learns nothing")
    refused(capfd, ["train", "prost", "--ct", ct, "--out", out, "--set", "variant"], "allowed is NAME=VALUE")
    refused(capfd, ["train", "prost", "--ct", ct, "--out", out, "--set", "variant=miccai"], "one of 'tmi2024', 'miccai2020'")
    refused(capfd, ["train", "prost", "--ct", ct, "--out", out, "--set", "volum=full"], "did you mean 'volume'")
    refused(capfd, [*train[:3], "nothing.nii", "--out", out], "nothing.nii", "does not exist")
    refused(capfd, [*train, "--minutes", "1", "--iterations", "5"], "give one of them")
    refused(capfd, [*train, "--iterations", "0"], "allowed is a number above 0")
    refused(capfd, [*train, "--resume"], "nothing to resume")
    refused(capfd, [*train, "--device", "abacus"], "allowed are auto, cpu, cuda")
    refused(capfd, [*train, "--precision", "16"], "allowed are auto, 32, bf16")
    refused(capfd, [*train, "--hold-out", ct], "one --ct and no --hold-out")
    refused(capfd, [*train, "--poses", "standing"], "standing", "scr")
    refused(capfd, [*train, "--landmarks", "no.mrk.json"], "no.mrk.json", "does not exist")
    refused(capfd, [*train[:4], "--out", str(folder)], "is a folder")
    refused(capfd, [*train[:4], "--out", str(folder / "w.pt")], ".safetensors")
    if not torch.cuda.is_available():
        refused(capfd, [*train, "--device", "cuda"], "no CUDA device")
    assert sorted(folder.rglob("*")) == before


# --- the CT -------------------------------------------------------------------------------------


def bad_ct(folder: Path, values: np.ndarray, name: str = "bad.nrrd", **options: object) -> str:
    write_array(folder / name, values, **options)  # type: ignore[arg-type]
    return str(folder / name)


def truncated(file: Path, keep: float = 0.6) -> str:
    data = file.read_bytes()
    target = file.with_name("cut_" + file.name)
    target.write_bytes(data[: int(keep * len(data))])
    return str(target)


CT_CASES: dict[str, tuple[Callable[[Path], str], tuple[str, ...]]] = {
    "truncated": (lambda f: truncated(f / "ct.nii.gz"), ("cut_ct.nii.gz",)),
    "empty file": (lambda f: truncated(f / "ct.nii.gz", 0.0), ("cut_ct.nii.gz",)),
    "text": (lambda f: str((f / "note.nii.gz", (f / "note.nii.gz").write_text("hello"))[0]), ("note.nii.gz",)),
    "photograph": (
        lambda f: bad_ct(
            f, np.random.default_rng(0).integers(0, 255, (40, 50, 3)).astype(np.uint8), "p.png", vector=True
        ),
        ("p.png",),
    ),
    "one slice": (lambda f: bad_ct(f, np.full((1, 40, 50), 900, np.int16)), ("bad.nrrd",)),
    "0..255": (
        lambda f: bad_ct(f, np.random.default_rng(0).integers(0, 256, (20, 30, 30)).astype(np.int16)),
        ("255", "HU"),
    ),
    "no bone": (
        lambda f: bad_ct(f, np.random.default_rng(0).integers(-1000, 90, (20, 30, 30)).astype(np.int16)),
        ("bone",),
    ),
    "constant": (lambda f: bad_ct(f, np.full((20, 30, 30), -1000, np.int16)), ("-1000",)),
    "NaN": (lambda f: bad_ct(f, np.full((20, 30, 30), np.nan, np.float32)), ("NaN",)),
    "empty folder": (lambda f: str((f / "empty", (f / "empty").mkdir())[0]), ("empty",)),
}


@pytest.mark.parametrize("case", list(CT_CASES))
def test_bad_ct(folder: Path, capfd: pytest.CaptureFixture[str], case: str) -> None:
    make, says = CT_CASES[case]
    path = make(folder)
    before = contents(folder)
    refused(capfd, register_arguments(folder, ct=path), *says)
    refused(capfd, ["segment", "--ct", path, "--out", str(folder / "new" / "bone.nii.gz")], *says)
    assert contents(folder) == before


def test_labels(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = contents(folder)
    labels = str(folder / "labels.nii.gz")
    refused(capfd, register_arguments(folder, bone=labels + ":2,7"), "7", "1, 2, 3, 5")
    refused(capfd, register_arguments(folder, bone=str(folder / "ct.nii.gz")), "ct.nii.gz")
    assert contents(folder) == before
    far = np.zeros((5, 5, 5), np.uint8)
    far[2, 2, 2] = 1
    write_array(folder / "far.nrrd", far)
    import SimpleITK as sitk

    image = sitk.ReadImage(str(folder / "far.nrrd"))
    image.SetOrigin((5000.0, 0.0, 0.0))
    sitk.WriteImage(image, str(folder / "far.nrrd"))
    refused(capfd, register_arguments(folder, bone=str(folder / "far.nrrd")), "far.nrrd")


# --- the X-ray and its camera -------------------------------------------------------------------


def bad_xray(folder: Path, values: np.ndarray, name: str = "bad.png", vector: bool = False) -> str:
    write_array(folder / name, values, vector)
    return str(folder / name)


SHAPE = (CAMERA.height, CAMERA.width)
XRAY_CASES: dict[str, tuple[Callable[[Path], str], tuple[str, ...]]] = {
    "colour": (
        lambda f: bad_xray(f, np.random.default_rng(0).integers(0, 255, (*SHAPE, 3)).astype(np.uint8), vector=True),
        ("bad.png", "colour"),
    ),
    "constant": (lambda f: bad_xray(f, np.full(SHAPE, 77, np.uint8)), ("bad.png", "77")),
    "NaN": (lambda f: bad_xray(f, np.full(SHAPE, np.nan, np.float32), "bad.mha"), ("bad.mha", "NaN")),
    "some NaN": (
        lambda f: bad_xray(
            f,
            np.where(np.eye(*SHAPE) > 0, np.nan, np.random.default_rng(0).random(SHAPE)).astype(np.float32),
            "bad.tif",
        ),
        ("bad.tif", "NaN"),
    ),
    "truncated png": (lambda f: truncated(f / "xray.png"), ("cut_xray.png",)),
    "empty": (lambda f: truncated(f / "xray.png", 0.0), ("cut_xray.png",)),
    "volume": (lambda f: str(f / "ct.nii.gz"), ("ct.nii.gz",)),
    "other size": (
        lambda f: bad_xray(f, np.random.default_rng(0).integers(0, 255, (50, 60)).astype(np.uint8)),
        ("96 x 80", "60 x 50"),
    ),
    "text": (lambda f: str((f / "note.png", (f / "note.png").write_text("hello"))[0]), ("note.png",)),
    "unknown ending": (lambda f: str((f / "x.xyz", (f / "x.xyz").write_text("hello"))[0]), ("x.xyz",)),
}


@pytest.mark.parametrize("case", list(XRAY_CASES))
def test_bad_xray(folder: Path, capfd: pytest.CaptureFixture[str], case: str) -> None:
    make, says = XRAY_CASES[case]
    path = make(folder)
    before = contents(folder)
    refused(capfd, register_arguments(folder, xray=path), *says)
    assert contents(folder) == before


def test_xray_without_geometry(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = contents(folder)
    refused(capfd, register_arguments(folder, camera=None), "xray.png", "--sdd")
    refused(capfd, register_arguments(folder, camera=None, sdd="1000"), "pixel", "--pixel-spacing")
    refused(capfd, register_arguments(folder, camera=None, pixel_spacing="2.5"), "--sdd")
    refused(capfd, register_arguments(folder, frame="3"), "frame", "3")
    assert contents(folder) == before


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"width": 96', "line 1"),
        ("[]", "JSON object"),
        ('{"width": 96, "height": 80}', "pixel_spacing_mm"),
        ('{"width": 96, "height": 80, "pixel_spacing_mm": [2.5, 2.5]}', "source_detector_distance_mm"),
        ('{"width": 96, "height": 80, "source_detector_distance_mm": 1000}', "pixel_spacing_mm"),
        ('{"width": 0, "height": 80, "pixel_spacing_mm": 1, "source_detector_distance_mm": 1}', "width"),
        ('{"width": 96, "height": 80, "pixel_spacing_mm": -1, "source_detector_distance_mm": 1}', "-1"),
        ('{"width": 96, "height": 80, "K": [[1, 0], [0, 1]]}', "K"),
        ('{"width": 96, "height": 80, "K": [[-9, 0, 1], [0, -9, 1], [0, 0, 1]]}', "K"),
        ('{"width": 96, "hieght": 80}', "did you mean 'height'"),
        ("\x00\x01binary", "camera.json"),
    ],
)
def test_bad_camera(folder: Path, capfd: pytest.CaptureFixture[str], content: str, says: str) -> None:
    (folder / "camera.json").write_text(content)
    before = contents(folder)
    refused(capfd, register_arguments(folder), "camera.json", says)
    assert contents(folder) == before


@pytest.mark.parametrize(
    ("matrix", "says"),
    [
        ((2 * np.eye(4)).tolist(), "last row"),
        (np.diag([1.0, 1, 1.01, 1]).tolist(), "scales or shears"),
        (np.diag([1.0, 1, -1, 1]).tolist(), "mirrors"),
        ([[1, 2], [3, 4]], "4x4"),
        (POSE[:3].tolist(), "4x4"),
        ([[float("nan")] * 4] * 4, "NaN"),
    ],
)
def test_start_pose_that_is_no_rigid_motion(
    folder: Path, capfd: pytest.CaptureFixture[str], matrix: list, says: str
) -> None:
    (folder / "pose.json").write_text(json.dumps({"camera_from_ct": matrix}))
    before = contents(folder)
    refused(capfd, register_arguments(folder, start=str(folder / "pose.json")), "pose.json", says)
    refused(
        capfd,
        ["drr", "--ct", str(folder / "ct.nii.gz"), "--pose", str(folder / "pose.json"), "--out", str(folder / "o")],
        "pose.json", says,
    )  # fmt: skip
    assert contents(folder) == before


def test_drr_that_shows_nothing(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    away = POSE.copy()
    away[2, 3] = -700.0
    (folder / "pose.json").write_text(json.dumps({"camera_from_ct": away.tolist()}))
    before = contents(folder)
    arguments = ["drr", "--ct", str(folder / "ct.nii.gz"), "--pose", str(folder / "pose.json"), "--size", "32"]
    refused(capfd, [*arguments, "--out", str(folder / "o")], "no part of the CT")
    assert contents(folder) == before


# --- the output folder --------------------------------------------------------------------------


def test_output_in_the_way(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = contents(folder)
    refused(capfd, register_arguments(folder, out=str(folder / "ct.nii.gz")), "ct.nii.gz", "is a file", "--out")
    refused(capfd, register_arguments(folder, out=str(folder / "ct.nii.gz" / "deeper")), "is a file", "--out")
    assert contents(folder) == before
    (folder / "blocked" / "result.json").mkdir(parents=True)
    refused(capfd, register_arguments(folder, out=str(folder / "blocked")), "result.json", "is a folder")


def test_output_that_cannot_be_written(
    folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # a test that runs as root may write anywhere
    before = contents(folder)
    refused(capfd, register_arguments(folder), "no permission", "--out")
    assert contents(folder) == before


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a file system that refuses to make folders")
def test_output_on_a_file_system_that_refuses(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    line = refused(capfd, register_arguments(folder, out="/proc/xrayreg-out"), "/proc/xrayreg-out", "--out")
    assert "Traceback" not in line


def test_a_disk_with_no_space_left(
    folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(folder)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 3 * 2**20}))
    refused(capfd, register_arguments(folder), "3 MB free", "free some space")
    assert contents(folder) == before


def test_a_disk_that_fills_up_while_writing(
    folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, *_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))

    before = contents(folder)
    monkeypatch.setattr(Path, "write_bytes", full)
    arguments = ["drr", "--ct", str(folder / "ct.nii.gz"), "--size", "16", "--out", str(folder / "new")]
    refused(capfd, arguments, "No space left", "free some space", "--out")
    assert {name for name in contents(folder)} == set(before)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no file size limits")
@pytest.mark.parametrize("limit", [100, 800])
def test_a_real_limit_on_file_size(folder: Path, limit: int) -> None:
    """The kernel refuses to write on, first the very first file and then a later one, as on a full disk."""
    before = contents(folder)
    code = (
        f"import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit})); "
        "from XRayRegistrationLib.cli import main; sys.exit(main())"
    )
    run = subprocess.run(
        [sys.executable, "-B", "-c", code, "segment", "--ct", str(folder / "ct.nii.gz"),
         "--out", str(folder / "new" / "bone.mha")],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert run.returncode == 2, run.stderr
    assert run.stderr.startswith("xrayreg: cannot write")
    assert run.stderr.count("\n") == 1
    assert contents(folder) == before


# --- anything at all ----------------------------------------------------------------------------

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
KEYS = ["width", "height", "pixel_spacing_mm", "source_detector_distance_mm", "principal_point_px", "K"]
RELAXED = settings(max_examples=60, suppress_health_check=list(HealthCheck))


@RELAXED
@given(
    spoiled=st.dictionaries(st.sampled_from(KEYS), ANY_JSON | st.integers(1, 300) | st.floats(0.01, 2000), max_size=3),
    dropped=st.none() | st.sampled_from(KEYS),
)
def test_any_camera_header_is_a_camera_or_bad_input(good_files: Path, capfd, spoiled: dict, dropped: str | None) -> None:
    """Whatever a header says, it is refused in one line, or is a camera of the image's own size."""
    folder = good_files
    camera = {**json.loads((folder / "camera.json").read_text()), **spoiled}
    camera.pop(dropped, None)
    file = folder / "any_camera.json"
    file.write_text(json.dumps(camera))
    out = folder / "never"
    try:
        status = main(register_arguments(folder, camera=str(file), out=str(out)))
    except AssertionError:  # every check passed, and the registration was started
        assert (camera["width"], camera["height"]) == (96, 80)
        assert np.isfinite(read_camera(file).K).all()
        return
    captured = capfd.readouterr()
    assert status == 2
    assert captured.err.count("\n") == 1
    assert spoiled or dropped
    assert not out.exists()


@RELAXED
@given(shape=st.tuples(st.integers(1, 40), st.integers(1, 40)), low=st.integers(0, 200), span=st.integers(0, 55))
def test_any_image_size_that_is_not_the_cameras_is_refused(good_files: Path, capfd, shape, low, span) -> None:
    folder = good_files
    values = np.random.default_rng(0).integers(low, low + span + 1, shape).astype(np.uint8)
    write_array(folder / "any.png", values)
    status = main(register_arguments(folder, xray=str(folder / "any.png"), out=str(folder / "never")))
    captured = capfd.readouterr()
    assert status == 2
    assert captured.err.count("\n") == 1
    assert "any.png" in captured.err
    assert not (folder / "never").exists()


@RELAXED
@given(data=st.binary(max_size=600), start=st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"NRRD0004\n", b"\x1f\x8b\x08"]))
@pytest.mark.parametrize("name", ["any.png", "any.nrrd", "any.nii.gz", "any.mha", "any.tif", "any.dcm"])
def test_any_bytes_as_a_file_are_refused(good_files: Path, capfd, name: str, data: bytes, start: bytes) -> None:
    folder = good_files
    (folder / name).write_bytes(start + data)
    for option in ("ct", "xray"):
        status = main(register_arguments(folder, **{option: str(folder / name)}, out=str(folder / "never")))
        captured = capfd.readouterr()
        assert status == 2
        assert captured.err.count("\n") == 1, captured.err
        assert not (folder / "never").exists()


@RELAXED
@given(words=st.lists(st.text(max_size=8).filter(lambda w: w not in ("-h", "--help", "--version")), max_size=5))
def test_any_words_are_refused_in_one_line(capfd, words: list[str]) -> None:
    status = main(["register", *words])
    captured = capfd.readouterr()
    assert status == 2 or "-h" in words
    assert captured.err.count("\n") == 1
