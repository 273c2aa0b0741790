"""Scene coordinates: what the network's result means, its losses, and real training on a tiny CT."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lightning_fabric")
pytest.importorskip("poselib")
import torch

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.rigid import transform_points
from XRayRegistrationLib.images.volume import Volume
from XRayRegistrationLib.methods import get_method
from XRayRegistrationLib.methods.scene_coordinates import decode, propose_poses, solve_scene_coordinates
from XRayRegistrationLib.networks.weights_file import read_weights
from XRayRegistrationLib.simulation.poses import PoseRange, sample_pose
from XRayRegistrationLib.simulation.shots import shoot
from XRayRegistrationLib.simulation.subject import Subject
from XRayRegistrationLib.solvers.pnp import PnpFailure
from XRayRegistrationLib.training.options import TrainingOptions
from XRayRegistrationLib.training.scene_coordinates import SceneCoordinatesTask, paper_loss, robust_loss

CAMERA = Camera.from_spacing(64, 64, 4.6, 1020.0)


def pose_of(subject: Subject, seed: int) -> np.ndarray:
    near = PoseRange(orbital_deg=(-30, 30), tilt_deg=(-20, 20), least_in_view=0.9)
    return sample_pose(CAMERA, subject.bone.surface_points, subject.bone.centroid, np.random.default_rng(seed), near)


def perfect(subject: Subject, pose: np.ndarray, sigma_mm: float = 1.0) -> tuple[torch.Tensor, dict]:
    """What a network would say that knows everything."""
    hits = shoot(subject, CAMERA, pose, hits_stride=2).hits_ct[0]
    centre = torch.as_tensor(subject.bone.centroid, dtype=torch.float32)[None, :, None, None]
    bone = torch.isfinite(hits).all(1).all(0)
    scaled = torch.nan_to_num((hits - centre) / 100.0)
    scale = torch.full_like(scaled[:, :1], float(np.log(sigma_mm / 100.0)))
    out = torch.cat([scaled[0], scale[0], scaled[1], scale[1], torch.where(bone, 5.0, -5.0)[None]])
    header = {"architecture": {"paper_mode": False}, "centre_ct": subject.bone.centroid.tolist()}
    return out, header


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_perfect_network_gives_the_pose(subject: Subject, seed: int) -> None:
    pose = pose_of(subject, seed)
    out, header = perfect(subject, pose)
    found = solve_scene_coordinates(out, CAMERA, np.ones((64, 64), bool), header, seed=0)[0].camera_from_ct
    points = subject.bone.surface_points
    assert np.linalg.norm(transform_points(found, points) - transform_points(pose, points), axis=1).mean() < 0.05


def test_decoded_points_project_onto_their_pixels_and_the_field_is_kept_to(subject: Subject) -> None:
    pose = pose_of(subject, 3)
    out, header = perfect(subject, pose, sigma_mm=2.0)
    field = np.ones((64, 64), bool)
    field[:, :30] = False
    pairs = decode(out, CAMERA, field, header)
    everything = decode(out, CAMERA, np.ones((64, 64), bool), header)
    assert 0 < len(pairs.pixels) < len(everything.pixels)
    assert pairs.pixels[:, 0].min() == 30.5  # the middle of the first pair of columns inside
    np.testing.assert_allclose(CAMERA.project(transform_points(pose, pairs.points_ct)), pairs.pixels, atol=2e-3)
    np.testing.assert_allclose(pairs.sigma_mm, 2.0 / 1.596, rtol=1e-4)  # a mean distance is 1.6 times one axis' deviation


def test_nothing_in_view_is_a_failure_with_a_reason(subject: Subject) -> None:
    out, header = perfect(subject, pose_of(subject, 0))
    out[8] = -5.0
    with pytest.raises(PnpFailure, match="finds bone in 0 pixels"):
        solve_scene_coordinates(out, CAMERA, np.ones((64, 64), bool), header, seed=0)


def test_losses_by_hand() -> None:
    target = torch.full((1, 2, 3, 1, 2), float("nan"))
    target[..., 0] = torch.tensor([1.0, 0.0, 0.0])[None, None, :, None]  # one pixel on bone, one off
    out = torch.zeros(1, 9, 1, 2)
    out[:, [3, 7]] = float(np.log(2.0))  # error 1, scale 2
    loss, parts = robust_loss(out, target)
    assert float(loss) == pytest.approx(0.5 + np.log(2) + np.log(2), rel=1e-4)  # and cross-entropy log 2 of a logit 0
    assert parts["error_mm"] == pytest.approx(100.0, rel=1e-4)
    loss, _ = paper_loss(out[:, :8], target)
    assert float(loss) == pytest.approx(2 * (0.25 + 2 * np.log(2)) + 2 * 0.5, rel=1e-4)


@pytest.mark.parametrize("loss", [paper_loss, robust_loss])
def test_the_scale_that_minimises_the_loss_is_the_error(loss) -> None:
    target = torch.zeros(1, 2, 3, 4, 4)
    best = []
    for log_scale in np.linspace(-3, 1, 81):
        out = torch.zeros(1, 9, 4, 4)
        out[:, [0, 4]] = 0.3
        out[:, [3, 7]] = float(log_scale)
        best.append(float(loss(out[:, : 8 if loss is paper_loss else 9], target)[0]))
    assert np.exp(np.linspace(-3, 1, 81)[int(np.argmin(best))]) == pytest.approx(0.3, rel=0.06)


def test_some_seconds_of_training_beat_an_untrained_network(ct: Volume, subject: Subject, tmp_path: Path) -> None:
    method = get_method("scene_coordinates")
    training = TrainingOptions(minutes=None, iterations=100, learning_rate=3e-3, warmup=20, validate_every=100, device="cpu")
    out = tmp_path / "sc.safetensors"
    method.train([subject], out, method.options(), training, camera=CAMERA)
    task = method.task([subject], (), method.options(), training, CAMERA)
    assert isinstance(task, SceneCoordinatesTask)
    torch.manual_seed(0)
    network = task.network().eval()
    judged = task.held_out.batch(500, torch.device("cpu"))
    with torch.inference_mode():
        untrained = task.loss(network, judged)[1]
        tensors, header = read_weights(out)
        network.load_state_dict(tensors)
        trained = task.loss(network, judged)[1]
    assert trained["error_mm"] < 0.8 * untrained["error_mm"]
    assert trained["presence"] < 0.9 * untrained["presence"]
    assert header["cts"][0]["name"] == "phantom"

    # the weights serve this CT alone, whatever they are worth
    prepared = method.prepare(subject.ct, subject.bone, method.options({"weights": str(out)}))
    assert prepared.data["header"]["centre_ct"] == pytest.approx(subject.bone.centroid)
    with pytest.raises(InputError, match="not on this CT"):
        method.prepare(replace(ct, values=ct.values + 1), subject.bone, method.options({"weights": str(out)}))


def test_it_learns_one_ct_only(subject: Subject) -> None:
    method = get_method("scene_coordinates")
    with pytest.raises(InputError, match="learns one CT by heart and was given 2"):
        method.task([subject, subject], (), method.options(), TrainingOptions(), None)


def test_paper_mode_is_the_published_network_and_gives_the_pose(subject: Subject) -> None:
    method = get_method("scene_coordinates")
    task = method.task([subject], (), method.options({"paper_mode": True}), TrainingOptions(), None)
    header = task.header()
    assert header["input"]["camera"]["width"] == 512
    assert sum(p.numel() for p in task.network().parameters()) / 1e6 == pytest.approx(31.04, abs=0.01)
    pose = pose_of(subject, 2)
    hits = shoot(subject, CAMERA, pose, hits_stride=1).hits_ct[0]
    scale = torch.where(torch.isfinite(hits).all(1), -4.0, 1.0)  # off the bone its sigma is large
    scaled = torch.nan_to_num(hits / 100.0)
    out = torch.cat([scaled[0], scale[:1], scaled[1], scale[1:]])
    found = solve_scene_coordinates(out, CAMERA, np.ones((64, 64), bool), header, seed=0)[0].camera_from_ct
    points = subject.bone.surface_points
    assert np.linalg.norm(transform_points(found, points) - transform_points(pose, points), axis=1).mean() < 0.5
    # few pixels that are sure of bone: a pose, or none with a reason
    sure = torch.isfinite(hits[0]).all(0).nonzero()[::40]
    few = torch.full_like(out, 1.0)
    few[:, sure[:, 0], sure[:, 1]] = out[:, sure[:, 0], sure[:, 1]]
    assert 12 <= 2 * len(sure) < 100
    again = propose_poses(few, CAMERA, np.ones((64, 64), bool), header, seed=0)
    assert again is not None
    assert np.linalg.norm(transform_points(again, points) - transform_points(pose, points), axis=1).mean() < 5.0
