"""A file of DeepFluoro's layout, written here: points land where the data set's own convention puts them."""

from __future__ import annotations

import csv
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from XRayRegistrationLib.cli import OK
from XRayRegistrationLib.commands import evaluate
from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.evaluation import predict as predict_module
from XRayRegistrationLib.evaluation.deepfluoro import DeepFluoroCases, DeepFluoroFile
from XRayRegistrationLib.evaluation.protocols import PLAIN, TRUNCATED
from XRayRegistrationLib.geometry.rigid import inverse, rotation_exp, transform_points
from XRayRegistrationLib.result import Result, View

h5py = pytest.importorskip("h5py")

SIZE, FOCAL, CENTRE = 240, 900.0, (119.5, 119.5)
SPACING_MM = 1020.0 / FOCAL
INTRINSIC = np.array([[-FOCAL, 0, CENTRE[0]], [0, -FOCAL, CENTRE[1]], [0, 0, 1.0]])
ORIGIN_LPS, VOXEL_MM, SHAPE = np.array([-62.0, 40.0, -940.0]), 4.0, (34, 26, 32)  # k, j, i
LANDMARKS_LPS = {"FH-l": [30.0, 80.0, -880.0], "ASIS-r": [-40.0, 60.0, -840.0], "GSN-l": [10.0, 110.0, -900.0]}
BEAD_LPS = np.array([-14.0, 70.0, -870.0])


def rigid(rotation_vector: tuple[float, float, float], translation: tuple[float, float, float]) -> np.ndarray:
    out = np.eye(4)
    out[:3, :3], out[:3, 3] = rotation_exp(rotation_vector), translation
    return out


def xreg_from_lps(rng: np.random.Generator) -> np.ndarray:
    """A pose in xReg's camera (z towards the source, so that all that is seen has z < 0): about AP, head up.

    x along columns is the patient's left, y along rows the feet, which leaves z = x cross y = the back.
    """
    about_ap = np.array([[-1.0, 0, 0], [0, 0, -1.0], [0, -1.0, 0]]) @ rotation_exp(rng.normal(size=3) * 0.15)
    out = np.eye(4)
    out[:3, :3] = about_ap
    middle = ORIGIN_LPS + VOXEL_MM * (np.array(SHAPE[::-1]) - 1) / 2
    out[:3, 3] = np.array([6.0, -9.0, -700.0]) - about_ap @ middle
    return out


def project(xreg_pose: np.ndarray, points_lps: np.ndarray) -> np.ndarray:
    """Stored pixels (column, row) by the data set's own words: K x, divided by its third entry."""
    p = (INTRINSIC @ transform_points(xreg_pose, points_lps).T).T
    return p[:, :2] / p[:, 2:]


@pytest.fixture(scope="module")
def h5_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("deepfluoro") / "data.h5"
    rng = np.random.default_rng(0)
    extrinsic = rigid((0.4, -1.2, 0.9), (-157.0, -2.7, -631.8))
    k, j, i = np.indices(SHAPE)
    labels = np.zeros(SHAPE, np.uint8)
    for label, (ck, cj, ci), (rk, rj, ri) in (
        (1, (17, 12, 22), (12, 5, 6)), (2, (15, 14, 9), (10, 6, 5)), (4, (24, 9, 16), (6, 4, 4)), (5, (5, 5, 27), (4, 4, 3)),
    ):  # fmt: skip
        labels[((k - ck) / rk) ** 2 + ((j - cj) / rj) ** 2 + ((i - ci) / ri) ** 2 < 1] = label
    hu = np.where(labels > 0, 700.0, 30.0).astype(np.float32)
    with h5py.File(path, "w") as h5:
        params = h5.create_group("proj-params")
        params["intrinsic"], params["extrinsic"] = INTRINSIC, extrinsic
        params["num-cols"] = params["num-rows"] = SIZE
        params["pixel-col-spacing"] = params["pixel-row-spacing"] = SPACING_MM
        for name, count in (("17-0001", 2), ("18-0002", 3)):
            specimen = h5.create_group(name)
            for where, values in (("vol", hu), ("vol-seg/image", labels)):
                volume = specimen.create_group(where)
                volume["pixels"], volume["dir-mat"] = values, np.eye(3)
                volume["origin"], volume["spacing"] = ORIGIN_LPS[:, None], np.full((3, 1), VOXEL_MM)
            for mark, point in LANDMARKS_LPS.items():
                specimen[f"vol-landmarks/{mark}"] = np.array(point)[:, None]
            for number in range(count):
                group = specimen.create_group(f"projections/{number:03d}")
                pose = xreg_from_lps(rng)
                turned = number == 1
                if turned:  # the C-arm stood the other way round: the picture has the feet up
                    pose = np.diag([-1.0, -1.0, 1.0, 1.0]) @ pose
                group["gt-poses/cam-to-pelvis-vol"] = inverse(pose) @ extrinsic
                group["rot-180-for-up"] = int(turned)
                counts = 40_000 + 200 * rng.normal(size=(SIZE, SIZE))
                u, v = project(pose, BEAD_LPS[None])[0]
                rows, columns = np.indices((SIZE, SIZE))
                counts *= 1 - 0.9 * np.exp(-((columns - u) ** 2 + (rows - v) ** 2) / (2 * 2.0**2))
                group["image/pixels"] = counts.astype(np.float32)
                for mark, point in LANDMARKS_LPS.items():
                    group[f"gt-landmarks/{mark}"] = project(pose, np.array([point]))[0][:, None]
    return path


def dark_spot(values: np.ndarray) -> np.ndarray:
    """(u, v) of the bead: the centroid of what is far darker than the rest."""
    depth = np.clip(0.7 * np.median(values) - values, 0, None)
    rows, columns = np.indices(values.shape)
    return np.array([(depth * columns).sum(), (depth * rows).sum()]) / depth.sum()


@pytest.mark.parametrize("number", [0, 1])
def test_a_bead_of_the_ct_is_seen_where_the_true_pose_projects_it(h5_file, number):
    projection = DeepFluoroFile(h5_file).projection("17-0001", number)
    assert projection.turned == (number == 1)
    bead_ras = BEAD_LPS * [-1, -1, 1]
    pixel = projection.camera.project(transform_points(projection.camera_from_ct, bead_ras))
    np.testing.assert_allclose(dark_spot(projection.values), pixel, atol=0.1)
    assert projection.camera.source_detector_distance_mm == pytest.approx(1020.0)
    # with the head up, as the flag promises: what lies higher in the patient lies higher in the picture
    above = projection.camera.project(transform_points(projection.camera_from_ct, bead_ras + np.array([0, 0, 40])))
    assert above[1] < pixel[1] - 20


@pytest.mark.parametrize("number", [0, 1])
def test_stored_landmarks_are_the_projected_ones(h5_file, number):
    file = DeepFluoroFile(h5_file)
    projection, landmarks = file.projection("17-0001", number), file.landmarks("17-0001")
    assert landmarks.names == ("ASIS-r", "FH-l", "GSN-l")
    np.testing.assert_allclose(landmarks.points_ct[1], [-30.0, -80.0, -880.0])
    pixels = projection.camera.project(transform_points(projection.camera_from_ct, landmarks.points_ct))
    np.testing.assert_allclose(pixels, projection.landmarks_px, atol=1e-6)


def test_the_ct_is_in_patient_space(h5_file):
    file = DeepFluoroFile(h5_file)
    ct, labels = file.ct("18-0002"), file.labels("18-0002")
    first = transform_points(ct.ras_from_ijk, [0.0, 0, 0])
    np.testing.assert_allclose(first, ORIGIN_LPS * [-1, -1, 1])
    last = transform_points(ct.ras_from_ijk, np.array(SHAPE[::-1]) - 1.0)
    np.testing.assert_allclose(last, (ORIGIN_LPS + VOXEL_MM * (np.array(SHAPE[::-1]) - 1)) * [-1, -1, 1])
    assert ct.values.shape == labels.values.shape == SHAPE


def test_cases_are_cropped_and_of_the_pelvis_alone(h5_file):
    source = DeepFluoroCases(h5_file, size_px=70)
    assert source.names() == ("17-0001", "18-0002")
    assert source.numbers("18-0002") == [0, 1, 2]
    few = source.numbers("18-0002", 1)
    assert len(few) == 1
    assert set(few) < set(source.numbers("18-0002", 2)) < {0, 1, 2}
    case = source.case("17-0001", 0)
    assert case.xray.line_integrals.shape == (70, 70)  # of 240 - 2 x 50
    full = DeepFluoroFile(h5_file).projection("17-0001", 0)
    bead = transform_points(case.camera_from_ct, BEAD_LPS * [-1, -1, 1])
    expected = (full.camera.project(bead) - 50 + 0.5) / 2 - 0.5
    np.testing.assert_allclose(case.camera.project(bead), expected, atol=1e-9)
    brightest = np.unravel_index(np.argmax(case.xray.line_integrals), (70, 70))  # bone bright, and so is the bead
    np.testing.assert_allclose(brightest[::-1], expected, atol=1.0)
    patient = source.patient("17-0001")
    femur = source.patient("17-0001").bone.mask.values[5, 5, 27]
    assert femur == 0
    assert patient.bone.mask.values[17, 12, 22] == 1
    assert patient.bone.rendered == ("bone",)
    assert patient.landmark_names == ("ASIS-r", "FH-l", "GSN-l")
    assert case.tags == (PLAIN,)
    assert TRUNCATED in replace(source, border_px=105).case("17-0001", 0).tags  # 30 pixels are left


def test_other_files_are_refused_in_one_line(h5_file, tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        DeepFluoroFile(tmp_path / "no.h5").specimens()
    (tmp_path / "text.h5").write_text("hello")
    with pytest.raises(InputError, match="no HDF5"):
        DeepFluoroFile(tmp_path / "text.h5").specimens()
    with h5py.File(tmp_path / "other.h5", "w") as h5:
        h5["something"] = 1
    with pytest.raises(InputError, match="no specimen"):
        DeepFluoroFile(tmp_path / "other.h5").specimens()
    with pytest.raises(InputError, match="no 17-0001/projections/009"):
        DeepFluoroFile(h5_file).projection("17-0001", 9)
    with pytest.raises(InputError, match="allowed are 17-0001, 18-0002"):
        DeepFluoroCases(h5_file, ("17-9999",)).names()


def test_the_command_evaluates_on_it(h5_file, tmp_path, monkeypatch):
    file = DeepFluoroFile(h5_file)

    def two_mm_deep(ct, xray, *, method, bone, start, options, backend, seed):
        specimen, number = xray.source.split()[1:]
        pose = file.projection(specimen, int(number)).camera_from_ct.copy()
        pose[2, 3] += 2.0
        return Result("success", "", method, (View(xray.camera),), pose[None], pose[None], 0.9, timings_s={"total_s": 1.0})

    monkeypatch.setattr(predict_module, "register", two_mm_deep)
    values = {
        "protocol": "deepfluoro", "method": ["diffdrr"], "ct": ["18-0002"], "bone": None, "landmarks": None,
        "deepfluoro": str(h5_file), "cases": None, "weights": None, "paper_mode": False,
        "appearance": None, "with_search": False, "backend": "auto", "jobs": 1,
        "scheduler": None, "landscapes": 0, "failures": 4,
        "out": str(tmp_path / "out"), "seed": 0, "resume": False, "progress": "none",
        "quiet": True,
    }  # fmt: skip
    assert evaluate.run(Namespace(**values)) == OK
    with open(tmp_path / "out" / "scores.csv") as stream:
        row = next(r for r in csv.DictReader(stream) if (r["group"], r["stage"]) == (PLAIN, "refined"))
    assert (row["ct"], row["n"], row["gfr10"]) == ("18-0002", "3", "0")
    assert float(row["mtre_p50"]) == pytest.approx(2.0)
    assert float(row["depth_p50"]) == pytest.approx(2.0)
    assert float(row["in_plane_p50"]) == pytest.approx(0.0, abs=1e-6)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "RayEmb* (other patients)" in page
    assert "PoseNet" in page  # SCR's table, by the distance on the detector
