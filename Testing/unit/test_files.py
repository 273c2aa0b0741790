"""Files of the front ends: all or nothing, right in 3D Slicer's conventions, and read back alike."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.files.atomic import OutputFolder, uninterrupted, write_atomically
from XRayRegistrationLib.files.landmarks import read_landmarks, write_landmarks
from XRayRegistrationLib.files.result_file import describe_input, files_of_earlier_result, read_result, write_result
from XRayRegistrationLib.files.start_pose import read_start_pose
from XRayRegistrationLib.files.transforms import read_slicer_transform, write_slicer_transform
from XRayRegistrationLib.files.volume_file import write_image, write_volume
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.rigid import from_rotation_translation, inverse, rotation_exp
from XRayRegistrationLib.images.volume import Volume
from XRayRegistrationLib.result import Result, View

REPOSITORY = Path(__file__).parents[2]
POSE = from_rotation_translation(rotation_exp([0.3, -0.7, 1.1]), [10.0, -20.0, 700.0])


def make_result(n_views: int = 1, status: str = "success", landmarks: int = 3) -> Result:
    rng = np.random.default_rng(0)
    camera = Camera.from_spacing(64, 48, (1.5, 1.2), 1000.0)
    rig = from_rotation_translation(rotation_exp([0.0, 1.2, 0.0]), [0.0, 0.0, 5.0])
    if n_views > 1:
        camera = Camera(64, 48, camera.K, 1000.0, rig)
    factor = rng.normal(size=(6, 6))
    return Result(
        status=status,
        message="The bones agree.",
        method="diffdrr",
        views=tuple(View(camera, f"xray{i}.png", {"polarity": "found: bone bright"}) for i in range(n_views)),
        camera_from_ct_views=np.stack([POSE] * n_views),
        proposed_camera_from_ct_views=np.stack([np.eye(4)] * n_views),
        probability=0.93,
        covariance=factor @ factor.T,
        centre_ct=np.array([1.0, 2.0, 3.0]),
        similarity={"gradient_ncc": np.float32(0.7)},
        rig_from_ct=POSE if n_views > 1 else None,
        landmarks_ct=np.vstack([rng.normal(size=(landmarks, 3)) * 20, inverse(POSE)[:3, 3] - 1.0])[: landmarks + 1],
        landmark_names=tuple(f"L{i}" for i in range(landmarks + 1)),
        timings_s={"search": 1.25},
        inputs={"ct": {"path": "ct.nii.gz", "sha256": "00"}},
        versions={"numpy": "2.0"},
        seed=7,
        trace=({"cost": 0.5, "pose": np.eye(4)},),
    )


# --- the result ---------------------------------------------------------------------------------


@pytest.mark.parametrize("n_views", [1, 2])
def test_result_survives_json(n_views: int) -> None:
    result = make_result(n_views)
    text = json.dumps(result.to_dict(), allow_nan=False)  # a landmark behind the source must not become NaN
    back = Result.from_dict(json.loads(text))
    assert back.to_dict() == result.to_dict()
    np.testing.assert_array_equal(back.camera_from_ct, result.camera_from_ct)
    np.testing.assert_array_equal(back.covariance, result.covariance)
    np.testing.assert_array_equal(np.isnan(back.landmarks_px), np.isnan(result.landmarks_px))
    assert back.views[0].camera.pixel_spacing_mm == pytest.approx((1.5, 1.2))


def test_result_json_has_what_the_design_promises() -> None:
    data = make_result().to_dict()
    promised = (
        "status message method camera_from_ct proposed_camera_from_ct probability covariance similarity "
        "landmarks_px timings_s inputs versions seed"
    )
    assert set(promised.split()) <= set(data)
    # row-major, and maps ct to camera: the translation is the last column
    assert [row[3] for row in data["camera_from_ct"]] == pytest.approx([10.0, -20.0, 700.0, 1.0])


def test_result_projects_its_landmarks_by_hand_made_geometry() -> None:
    camera = Camera.from_spacing(101, 51, (2.0, 1.0), 1000.0)
    pose = from_rotation_translation(np.eye(3), [0.0, 0.0, 500.0])
    result = Result(
        "success", "", "m", (View(camera),), pose[None], pose[None], 1.0,
        landmarks_ct=np.array([[0.0, 0, 0], [10.0, 5.0, 0.0], [0, 0, -600.0]]),
    )  # fmt: skip
    # magnification 2: 10 mm is 20 mm on the detector, 10 columns of 2 mm; 5 mm is 10 rows of 1 mm
    np.testing.assert_allclose(result.landmarks_px[:2], [[50, 25], [60, 35]])
    assert np.isnan(result.landmarks_px[2]).all()
    assert [bool(b) for b in result.to_dict()["views"][0]["landmarks_in_view"]] == [True, True, False]


def test_standard_deviations_are_degrees_and_mm() -> None:
    covariance = np.diag([np.radians(2.0) ** 2] * 3 + [0.25, 0.25, 9.0])
    degrees, mm = Result(
        "failure", "", "m", (View(Camera(2, 2, np.eye(3))),), POSE[None], POSE[None], 0.0, covariance
    ).standard_deviations  # type: ignore[misc]
    np.testing.assert_allclose(degrees, 2.0)
    np.testing.assert_allclose(mm, [0.5, 0.5, 3.0])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"status": "maybe"}, "maybe"),
        ({"probability": 1.5}, "1.5"),
        ({"probability": float("nan")}, "nan"),
        ({"views": ()}, "no views"),
        ({"camera_from_ct_views": np.stack([np.eye(4)] * 2)}, "2 poses for 1 views"),
        ({"camera_from_ct_views": 2 * np.eye(4)[None]}, "camera_from_ct_views"),
        ({"covariance": np.eye(5)}, "(5, 5)"),
        ({"landmark_names": ("one",)}, "1 landmark names"),
    ],
)
def test_result_refuses_contradictions(change: dict, says: str) -> None:
    good = make_result()
    values = {name: getattr(good, name) for name in good.__dataclass_fields__}
    with pytest.raises(InputError, match=says.replace("(", r"\(").replace(")", r"\)")):
        Result(**{**values, **change})


@pytest.mark.parametrize(
    "damage", [lambda d: d.pop("views"), lambda d: d.update(format="x"), lambda d: d.update(views=3)]
)
def test_damaged_result_is_bad_input(damage, tmp_path: Path) -> None:
    data = make_result().to_dict()
    damage(data)
    (tmp_path / "result.json").write_text(json.dumps(data))
    with pytest.raises(InputError, match=r"result\.json"):
        read_result(tmp_path)


# --- all or nothing -----------------------------------------------------------------------------


def contents(folder: Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


def test_new_folder_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b"
    with OutputFolder(target) as out:
        out.path("x.txt").write_text("x")
        assert not target.exists()
        assert out.commit() == [target / "x.txt"]
    assert contents(tmp_path) == {"a": None, "a/b": None, "a/b/x.txt": b"x"}


def test_existing_folder_keeps_what_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "x.txt").write_text("old")
    (tmp_path / "x_2.txt").write_text("also mine")
    with OutputFolder(tmp_path) as out:
        out.path("x.txt").write_text("new")
        assert (tmp_path / "x.txt").read_text() == "old"
        out.commit()
    assert contents(tmp_path) == {"mine.txt": b"mine", "x.txt": b"new", "x_2.txt": b"also mine"}


@pytest.mark.parametrize("error", [ValueError("bug"), KeyboardInterrupt(), InputError("bad")])
@pytest.mark.parametrize("exists", [True, False])
def test_an_error_leaves_nothing_behind(tmp_path: Path, error: BaseException, exists: bool) -> None:
    target = tmp_path / "deep" / "out"
    if exists:
        target.mkdir(parents=True)
        (target / "x.txt").write_text("old")
    before = contents(tmp_path)

    def work() -> None:
        with OutputFolder(target) as out:
            out.path("x.txt").write_text("new")
            raise error

    with pytest.raises(type(error)):
        work()
    assert contents(tmp_path) == before


def test_leaving_without_commit_writes_nothing(tmp_path: Path) -> None:
    with OutputFolder(tmp_path / "out") as out:
        out.path("x.txt").write_text("x")
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_bad_input(tmp_path: Path, number: int) -> None:
    def work() -> None:
        with OutputFolder(tmp_path / "out"):
            raise OSError(number, os.strerror(number))

    with pytest.raises(InputError, match="free some space"):
        work()
    assert contents(tmp_path) == {}


def test_a_full_disk_while_renaming_undoes_the_parents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def work() -> None:
        with OutputFolder(tmp_path / "a" / "b" / "out") as out:
            out.path("x.txt").write_text("x")
            monkeypatch.setattr(os, "rename", full)
            out.commit()

    with pytest.raises(InputError, match="No space left"):
        work()
    assert contents(tmp_path) == {}


def test_an_error_about_another_file_is_not_blamed_on_the_output(tmp_path: Path) -> None:
    def work() -> None:
        with OutputFolder(tmp_path / "out"):
            (tmp_path / "missing.nii").read_bytes()

    with pytest.raises(FileNotFoundError):
        work()


def test_too_small_a_disk_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(InputError, match="0 MB free and 16 MB are needed"):
        OutputFolder(tmp_path / "out")


def test_places_that_cannot_take_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    for place in (file, file / "deeper" / "out"):
        with pytest.raises(InputError, match="is a file"):
            OutputFolder(place)
    (tmp_path / "out" / "result.json").mkdir(parents=True)
    with pytest.raises(InputError, match="is a folder where the file"):
        OutputFolder(tmp_path / "out").check(["result.json"])
    monkeypatch.setattr(os, "access", lambda *_: False)  # the tests may run as root, who may write anywhere
    with pytest.raises(InputError, match="no permission"):
        OutputFolder(tmp_path / "new")


def test_interrupts_wait_for_the_renames() -> None:
    order = []

    def work() -> None:
        with uninterrupted():
            signal.raise_signal(signal.SIGINT)
            order.append("still here")
        order.append("too far")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert order == ["still here"]


def test_single_files_are_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "new" / "f.json"
    write_atomically(target, "one")
    write_atomically(target, b"two")
    assert contents(tmp_path) == {"new": None, "new/f.json": b"two"}

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for place in (target, tmp_path / "other" / "g.json"):
        with pytest.raises(InputError, match="No space left"):
            write_atomically(place, "three")
    assert contents(tmp_path) == {"new": None, "new/f.json": b"two"}
    with pytest.raises(InputError, match="is a folder"):
        write_atomically(tmp_path, "x")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no file size limits")
def test_a_real_file_size_limit(tmp_path: Path) -> None:
    """The kernel itself refuses to write on: what a full disk does, without filling one."""
    code = """
        import resource, sys
        from XRayRegistrationLib.errors import InputError
        from XRayRegistrationLib.files.atomic import OutputFolder
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            with OutputFolder(sys.argv[1]) as out:
                out.path("big").write_bytes(bytes(100_000))
                out.commit()
        except InputError as error:
            print(error)
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "out")],
        cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert "cannot write to" in run.stdout
    assert "free some space" in run.stdout
    assert contents(tmp_path) == {}


# --- transforms ---------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".tfm", ".h5"])
def test_transform_is_the_inverse_of_slicers_node_in_lps(tmp_path: Path, suffix: str) -> None:
    """Slicer 5.13's own reader gave ct_from_camera to 1e-13 for such a file.

    Oracle: ITK maps an LPS point of the CT into the camera, by its own arithmetic.
    """
    write_slicer_transform(tmp_path / f"t{suffix}", POSE)
    transform = sitk.ReadTransform(str(tmp_path / f"t{suffix}"))
    point_ras = np.array([12.0, -34.0, 56.0])
    x, y, z = transform.TransformPoint((-12.0, 34.0, 56.0))
    np.testing.assert_allclose([-x, -y, z], POSE[:3, :3] @ point_ras + POSE[:3, 3], atol=1e-9)
    np.testing.assert_allclose(read_slicer_transform(tmp_path / f"t{suffix}"), POSE, atol=1e-9)


def test_transforms_of_other_classes_are_read(tmp_path: Path) -> None:
    euler = sitk.Euler3DTransform((5.0, 6.0, 7.0), 0.1, 0.2, 0.3, (1.0, 2.0, 3.0))
    nested = sitk.CompositeTransform([euler, sitk.TranslationTransform(3, (1.0, 1.0, 1.0))])
    for name, transform in (("euler", euler), ("nested", nested)):
        sitk.WriteTransform(transform, str(tmp_path / f"{name}.tfm"))
        pose = read_slicer_transform(tmp_path / f"{name}.tfm")
        x, y, z = transform.TransformPoint((-1.0, -2.0, 3.0))
        np.testing.assert_allclose(pose[:3, :3] @ [1, 2, 3] + pose[:3, 3], [-x, -y, z], atol=1e-9)


def test_transforms_that_are_no_rigid_motion(tmp_path: Path) -> None:
    scale = sitk.ScaleTransform(3, (1.0, 2.0, 1.0))
    flat = sitk.Euler2DTransform()
    spline = sitk.BSplineTransform(3)
    for name, transform, says in (("s", scale, "scales"), ("f", flat, "Euler2D"), ("b", spline, "BSpline")):
        sitk.WriteTransform(transform, str(tmp_path / f"{name}.tfm"))
        with pytest.raises(InputError, match=says):
            read_slicer_transform(tmp_path / f"{name}.tfm")
    with pytest.raises(InputError, match=r"'\.txt'"):
        write_slicer_transform(tmp_path / "t.txt", POSE)
    with pytest.raises(InputError, match="mirrors"):
        write_slicer_transform(tmp_path / "t.tfm", np.diag([1.0, 1, -1, 1]))


# --- landmarks ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ({"coordinateSystem": "RAS"}, [1, 2, 3]),
        ({"coordinateSystem": "LPS"}, [-1, -2, 3]),
        ({}, [-1, -2, 3]),
        ({"coordinateSystem": "0"}, [1, 2, 3]),
    ],
)
def test_landmarks_honour_their_coordinate_system(tmp_path: Path, header: dict, expected: list) -> None:
    points = [
        {"id": "1", "label": "tip", "position": [1, 2, 3], "positionStatus": "defined"},
        {"id": "2", "label": "unplaced", "position": [0, 0, 0], "positionStatus": "undefined"},
    ]
    (tmp_path / "l.mrk.json").write_text(json.dumps({"markups": [{**header, "controlPoints": points}]}))
    landmarks = read_landmarks(tmp_path / "l.mrk.json")
    assert landmarks.names == ("tip",)
    np.testing.assert_array_equal(landmarks.points_ct, [expected])


def test_landmarks_round_trip(tmp_path: Path) -> None:
    points = np.random.default_rng(1).normal(size=(4, 3)) * 100
    write_landmarks(tmp_path / "l.mrk.json", points, ["a", "b", "c", "ü"])
    landmarks = read_landmarks(tmp_path / "l.mrk.json")
    np.testing.assert_array_equal(landmarks.points_ct, points)
    assert landmarks.names == ("a", "b", "c", "ü")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "no valid JSON"),
        ("[]", "no markups"),
        ('{"markups": []}', "no markups"),
        ('{"markups": [{"controlPoints": []}]}', "no placed"),
        ('{"markups": [{"coordinateSystem": "XYZ"}]}', "'XYZ'"),
        ('{"markups": [{"coordinateUnits": "m"}]}', "'m'"),
        ('{"markups": [{"controlPoints": [{"position": [1, 2]}]}]}', r"\[1, 2\]"),
        ('{"markups": [{"controlPoints": [{"position": [1, 2, "x"]}]}]}', "'x'"),
        ('{"markups": [{"controlPoints": [{"position": [1, 2, NaN]}]}]}', "nan"),
        ('{"markups": [{"controlPoints": [3]}]}', "control point"),
        ('{"markups": [{"controlPoints": 3}]}', "control point"),
        ('{"markups": [3]}', "markups"),
    ],
)
def test_bad_landmarks(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "l.mrk.json").write_text(content)
    with pytest.raises(InputError, match=says) as caught:
        read_landmarks(tmp_path / "l.mrk.json")
    assert "\n" not in str(caught.value)
    assert "l.mrk.json" in str(caught.value)


# --- start poses --------------------------------------------------------------------------------


def test_start_poses_of_every_kind(tmp_path: Path) -> None:
    with OutputFolder(tmp_path / "out") as out:
        write_result(out, make_result(2))
        out.commit()
    for name, content in (
        ("p.json", {"camera_from_ct": POSE.tolist()}),
        ("q.json", {"ct_from_camera": inverse(POSE).tolist()}),
    ):
        (tmp_path / name).write_text(json.dumps(content))
    places = [tmp_path / "p.json", tmp_path / "q.json", tmp_path / "out" / "result.json"]
    places += [tmp_path / "out" / f"ct_from_camera{suffix}" for suffix in (".tfm", ".h5")]
    for place in places:
        np.testing.assert_allclose(read_start_pose(place), POSE, atol=1e-9)


def test_start_poses_of_a_rig(tmp_path: Path) -> None:
    """rig_from_ct where the file has it, or else the first X-ray's pose through its camera_from_rig."""
    camera_from_rig = from_rotation_translation(rotation_exp([0.1, 1.2, -0.3]), [10.0, -20.0, 900.0])
    first = camera_from_rig @ POSE  # of the first X-ray, if the rig is at POSE
    for content in (
        {"rig_from_ct": POSE.tolist()},
        {"ct_from_rig": inverse(POSE).tolist()},
        {"camera_from_ct": first.tolist()},
        {"ct_from_camera": inverse(first).tolist()},
        {"camera_from_ct": np.eye(4).tolist(), "rig_from_ct": POSE.tolist()},
        {"camera_from_ct": first.tolist(), "rig_from_ct": None},  # the result.json of one X-ray
    ):
        (tmp_path / "p.json").write_text(json.dumps(content))
        np.testing.assert_allclose(read_start_pose(tmp_path / "p.json", camera_from_rig), POSE, atol=1e-9)
    (tmp_path / "p.json").write_text("{}")
    with pytest.raises(InputError, match="neither rig_from_ct nor the first X-ray's camera_from_ct"):
        read_start_pose(tmp_path / "p.json", camera_from_rig)
    (tmp_path / "p.json").write_text(json.dumps({"primary_deg": 10}))
    for rig in (None, camera_from_rig):
        with pytest.raises(InputError, match="xrayreg convert"):
            read_start_pose(tmp_path / "p.json", rig)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("p.json", '{"camera_from_ct": [[2,0,0,0],[0,2,0,0],[0,0,2,0],[0,0,0,1]]}', "scales or shears"),
        ("p.json", '{"camera_from_ct": [[-1,0,0,0],[0,1,0,0],[0,0,1,0],[0,0,0,1]]}', "mirrors"),
        ("p.json", '{"camera_from_ct": [[1,0,0,0],[0,1,0,0],[0,0,1,0],[0,0,1,1]]}', "last row"),
        ("p.json", '{"camera_from_ct": [[NaN,0,0,0],[0,1,0,0],[0,0,1,0],[0,0,0,1]]}', "NaN"),
        ("p.json", '{"camera_from_ct": [1, 2, 3]}', "4x4"),
        ("p.json", '{"camera_from_ct": "x"}', "4x4"),
        ("p.json", '{"pose": 1}', "no camera_from_ct"),
        ("p.json", "[1]", "no camera_from_ct"),
        ("p.json", '{"camera_from_ct": [[1', "line 1"),
        ("p.tfm", "not a transform", "not a transform"),
        ("p.h5", "not a transform", "not a transform"),
    ],
)
def test_bad_start_poses(tmp_path: Path, name: str, content: str, says: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=says) as caught:
        read_start_pose(tmp_path / name)
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


ANY_NUMBER = st.floats(allow_nan=True, allow_infinity=True, width=32)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    turn=st.tuples(*[st.floats(-3, 3)] * 3),
    shift=st.tuples(*[st.floats(-2000, 2000)] * 3),
    spoiled=st.dictionaries(st.integers(0, 15), ANY_NUMBER, max_size=2),
    entries=st.integers(0, 16).flatmap(lambda n: st.sampled_from([16, n])),
)
def test_any_numbers_as_a_pose_are_a_pose_or_bad_input(tmp_path: Path, turn, shift, spoiled, entries) -> None:
    """A pose, with some numbers replaced and some cut off: read as it stands, or refused in one line."""
    good = from_rotation_translation(rotation_exp(turn), shift)
    held = good.copy()
    held.ravel()[list(spoiled)] = list(spoiled.values())
    rows = held.ravel()[:entries].tolist()
    rows = [rows[i : i + 4] for i in range(0, entries, 4)]
    (tmp_path / "p.json").write_text(json.dumps({"camera_from_ct": rows}))
    try:
        pose = read_start_pose(tmp_path / "p.json")
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017
        assert spoiled or entries < 16
    else:
        np.testing.assert_allclose(pose, held, atol=1e-3)
        np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-9)


# --- the files of a result, volumes, hashes ------------------------------------------------------


@pytest.mark.parametrize("n_views", [1, 2])
def test_files_of_a_result(tmp_path: Path, n_views: int) -> None:
    result = make_result(n_views)
    with OutputFolder(tmp_path / "out") as out:
        names = write_result(out, result)
        written = out.commit()
    assert sorted(names) == [p.name for p in written]
    expected = {"result.json", "landmarks.mrk.json", "ct_from_camera.tfm", "ct_from_camera.h5"}
    if n_views == 2:
        expected |= {"ct_from_camera_2.tfm", "ct_from_camera_2.h5", "ct_from_rig.tfm", "ct_from_rig.h5"}
    assert set(names) == expected
    assert read_result(tmp_path / "out").to_dict() == result.to_dict()
    assert read_landmarks(tmp_path / "out" / "landmarks.mrk.json").names == result.landmark_names


def test_a_smaller_result_leaves_nothing_of_a_larger(tmp_path: Path) -> None:
    def save(n_views: int, pictures: list[str]) -> None:
        with OutputFolder(tmp_path) as out:
            write_result(out, make_result(n_views))
            for name in pictures:
                out.path(name).write_bytes(b"picture")
            out.commit(remove=files_of_earlier_result(tmp_path))

    (tmp_path / "overlay_2.png").write_bytes(b"of someone else, before any result of ours")
    save(1, ["overlay.png"])
    assert (tmp_path / "overlay_2.png").exists()
    save(2, ["overlay.png", "overlay_2.png", "scene.png"])
    save(1, ["overlay.png"])
    names = {p.name for p in tmp_path.iterdir()}
    assert names == {"result.json", "landmarks.mrk.json", "ct_from_camera.tfm", "ct_from_camera.h5", "overlay.png"}


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_volumes_keep_their_place(tmp_path: Path, suffix: str) -> None:
    affine = np.eye(4)
    affine[:3, :3] = rotation_exp([0.2, 0.3, -0.1]) @ np.diag([-0.7, 0.8, 2.5])  # oblique and flipped
    affine[:3, 3] = [10.0, 20.0, -30.0]
    values = np.random.default_rng(0).integers(0, 5, (3, 4, 5)).astype(np.uint8)
    write_volume(tmp_path / f"v{suffix}", Volume(values, affine))
    image = sitk.ReadImage(str(tmp_path / f"v{suffix}"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), values)
    x, y, z = image.TransformIndexToPhysicalPoint((4, 3, 2))
    np.testing.assert_allclose([-x, -y, z], affine[:3] @ [4, 3, 2, 1], atol=1e-4)


def test_images_keep_their_spacing_and_endings_are_checked(tmp_path: Path) -> None:
    write_image(tmp_path / "i.mha", np.arange(6.0).reshape(2, 3), (0.5, 0.25))
    image = sitk.ReadImage(str(tmp_path / "i.mha"))
    assert image.GetSpacing() == (0.5, 0.25)
    assert image.GetSize() == (3, 2)
    with pytest.raises(InputError, match="unknown ending"):
        write_volume(tmp_path / "v.png", Volume(np.zeros((2, 2, 2)), np.eye(4)))
    with pytest.raises(InputError, match="cannot write"):
        write_volume(tmp_path / "missing" / "v.mha", Volume(np.zeros((2, 2, 2)), np.eye(4)))


def test_hashes_are_of_the_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert describe_input(tmp_path / "a")["sha256"] == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, example B.1
    )
    first = describe_input(tmp_path)
    (tmp_path / "b").write_bytes(b"")
    assert describe_input(tmp_path)["sha256"] != first["sha256"]
