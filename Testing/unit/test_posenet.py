"""PoseNet: numbers and poses, the network's view, losses by hand, published sizes, and real training on a tiny CT."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lightning_fabric")
import torch

from XRayRegistrationLib.bone.model import BoneModel
from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.rigid import rotation_exp, transform_points
from XRayRegistrationLib.images.volume import Volume
from XRayRegistrationLib.images.xray import XRay
from XRayRegistrationLib.methods import get_method
from XRayRegistrationLib.networks.network_input import learned_view
from XRayRegistrationLib.networks.pose_parameters import PoseParameters, rotation_of_columns, rotation_of_quaternion
from XRayRegistrationLib.networks.resnet import LightPoseNet, PaperPoseNet, ResNet
from XRayRegistrationLib.simulation.appearance_options import AppearanceOptions
from XRayRegistrationLib.simulation.pose_samplers import POSE_SAMPLERS
from XRayRegistrationLib.simulation.subject import Subject
from XRayRegistrationLib.training.headers import poses_header
from XRayRegistrationLib.training.loop import fit
from XRayRegistrationLib.training.options import TrainingOptions
from XRayRegistrationLib.training.posenet import PoseNetTask, point_distances
from XRayRegistrationLib.training.xray_stream import StreamOptions

SMALL = Camera.from_spacing(64, 64, 4.6, 1020.0)
METHOD = get_method("posenet")
OPTIONS = TrainingOptions(minutes=None, iterations=1, batch_size=8, device="cpu", precision="32")
MEAN = (rotation_exp([1.5, 0.2, 0.1]), np.array([5.0, -3.0, 640.0]), np.array([10.0, 20.0, 30.0]))
FOCAL = float(SMALL.K[0, 0])


@pytest.mark.parametrize(("kind", "numbers"), [("detector", 9), ("metric", 7)])
def test_numbers_of_zero_are_the_mean_pose_or_straight_ahead_of_it(kind, numbers) -> None:
    parameters = PoseParameters(kind, *MEAN, FOCAL)
    pose = parameters.camera_from_ct(torch.zeros(1, numbers), SMALL)[0]
    np.testing.assert_allclose(pose[:3, :3], MEAN[0], atol=1e-9)
    middle = MEAN[1] if kind == "metric" else [0.0, 0.0, 640.0]
    np.testing.assert_allclose(transform_points(pose, MEAN[2]), middle, atol=1e-9)
    again = PoseParameters.of_header(parameters.header())
    np.testing.assert_array_equal(again.camera_from_ct(torch.zeros(1, numbers), SMALL)[0], pose)


def test_numbers_by_hand() -> None:
    detector, metric = (PoseParameters(kind, *MEAN, FOCAL) for kind in ("detector", "metric"))
    numbers = torch.tensor([[0.2, -0.1, np.log(1.25), 0, 0, 0, 0, 0, 0]], dtype=torch.float64)
    pose = detector.camera_from_ct(numbers, SMALL)[0]
    # 100 pixels of 128 are 50 of 64: seen 10 right of and 5 above the middle, at 800 mm
    np.testing.assert_allclose(SMALL.project(transform_points(pose, MEAN[2])), [31.5 + 10.0, 31.5 - 5.0], atol=1e-9)
    assert transform_points(pose, MEAN[2])[2] == pytest.approx(800.0)
    # a camera whose foot is elsewhere, and that enlarges by a hundredth more
    other = Camera(64, 64, [[1.01 * FOCAL, 0, 31.9], [0, 1.01 * FOCAL, 31.2], [0, 0, 1]])
    there = detector.camera_from_ct(numbers, other)[0]
    np.testing.assert_allclose(other.project(transform_points(there, MEAN[2])), [41.5, 26.5], atol=1e-9)
    assert transform_points(there, MEAN[2])[2] == pytest.approx(808.0)
    half = 0.5 * 0.3
    numbers = torch.tensor([[1.0, 0, -2.0, np.cos(half) - 1, 0, np.sin(half), 0]], dtype=torch.float64)
    pose = metric.camera_from_ct(numbers, SMALL)[0]
    np.testing.assert_allclose(pose[:3, :3], rotation_exp([0, 0.3, 0]) @ MEAN[0], atol=1e-9)
    np.testing.assert_allclose(transform_points(pose, MEAN[2]), [105.0, -3.0, 440.0], atol=1e-9)


def test_any_rotation_can_be_given_and_nothing_but_rotations() -> None:
    rng = np.random.default_rng(0)
    for turn in rng.normal(size=(5, 3)):
        r = rotation_exp(turn)
        six = torch.as_tensor(np.r_[3 * r[:, 0] - [1, 0, 0], 2 * r[:, 1] + 0.7 * r[:, 0] - [0, 1, 0]])[None]
        np.testing.assert_allclose(rotation_of_columns(six)[0], r, atol=1e-9)
        angle = np.linalg.norm(turn)
        q = 5.0 * np.r_[np.cos(angle / 2), np.sin(angle / 2) * turn / angle]
        np.testing.assert_allclose(rotation_of_quaternion(torch.as_tensor(q)[None])[0], r, atol=1e-9)


def test_distances_by_hand() -> None:
    true = torch.tensor([[[0.0, 0.0, 600.0], [10.0, 0.0, 600.0]]])
    points = true + torch.tensor([[[3.0, 4.0, 0.0], [0.0, 0.0, 600.0]]])
    on_detector, in_space = point_distances(points, true, SMALL)
    assert float(in_space) == pytest.approx((5.0 + 600.0) / 2, rel=1e-4)
    assert float(on_detector) == pytest.approx((FOCAL * 5.0 / 600.0 + FOCAL * 10.0 * (1 / 600 - 1 / 1200)) / 2, rel=1e-3)


def test_the_view_is_just_what_was_learned() -> None:
    rng = np.random.default_rng(0)
    image = rng.normal(size=(90, 50)).astype(np.float32)
    camera = Camera(50, 90, [[FOCAL, 0, 20.3], [0, FOCAL, 60.0], [0, 0, 1]])
    view = learned_view(XRay(image, np.ones(image.shape, bool), camera), SMALL)
    assert view.image.shape == (1, 1, 64, 64)
    np.testing.assert_allclose(view.camera.K[:2, 2], [31.5, 31.5], atol=0.5)
    left, top = (np.rint(camera.K[:2, 2] - view.camera.K[:2, 2])).astype(int)  # of the view in the image
    assert (left, top) == (-11, 28)
    assert view.field.tolist() == [[11 <= u < 61 and v < 62 for u in range(64)] for v in range(64)]
    inside = view.image[0, 0].numpy()[:62, 11:61]
    np.testing.assert_allclose(np.corrcoef(inside.ravel(), image[28:90].ravel())[0, 1], 1.0, atol=1e-6)
    assert float(view.image[0, 0][~torch.as_tensor(view.field)].abs().max()) == 0.0
    assert inside.mean() == pytest.approx(0.0, abs=1e-5)


def test_networks_are_of_the_published_size() -> None:
    def size(network: torch.nn.Module) -> int:
        return sum(p.numel() for p in network.parameters())

    # 11.69, 21.80 and 25.56 million with three colours and 1000 classes
    for depth, published in ((18, 11_689_512), (34, 21_797_672), (50, 25_557_032)):
        network = ResNet(depth)
        assert size(network) + 2 * 64 * 49 + 1000 * (network.channels + 1) == published
    assert PaperPoseNet().eval()(torch.zeros(1, 1, 64, 64)).shape == (1, 7)
    light = LightPoseNet()
    assert 2 * sum(v.numel() for v in light.state_dict().values()) < 4e6  # bytes in half precision
    assert light.eval()(torch.zeros(2, 1, 128, 160)).shape == (2, 9)
    grouped = ResNet(18, 16, "group")
    assert grouped(torch.zeros(1, 1, 64, 64)).shape == (1, 128, 2, 2)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in grouped.modules())


@pytest.mark.parametrize("poses", ["scr", "rayemb", "uniform"])
def test_the_mean_pose_is_amid_those_that_are_drawn(subject: Subject, poses: str) -> None:
    found = poses_header(poses, SMALL)
    rng = np.random.default_rng(9)
    drawn = np.stack([POSE_SAMPLERS[poses].sample(np.zeros(3), SMALL, rng) for _ in range(200)])
    rotation, sigma = np.array(found["rotation"]), np.array(found["sigma"])
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-9)
    offsets = (drawn[:, :3, 3] - found["centre_camera"]) / sigma[3:]
    assert (np.abs(offsets.mean(axis=0)) < 0.3).all()
    assert (offsets.std(axis=0) < 1.0).all()


def test_one_ct_only(subject: Subject) -> None:
    with pytest.raises(InputError, match="learns one CT by heart and was given 2; give one --ct"):
        METHOD.task([subject, subject], [], METHOD.options(), OPTIONS, None)


@pytest.mark.parametrize("paper_mode", [False, True])
def test_headers_rebuild_their_networks_which_start_at_the_mean_pose(subject: Subject, paper_mode: bool) -> None:
    task = METHOD.task([subject], [], METHOD.options({"paper_mode": paper_mode}), OPTIONS, SMALL)
    network = task.network()
    METHOD.network(task.header()).load_state_dict(network.state_dict())
    numbers = network.eval()(torch.randn(2, 1, 64, 64))
    assert float(numbers.detach().abs().max()) < 0.5
    loss, parts = task.loss(network.train(), task.batch(0, torch.device("cpu")))
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters())
    assert set(parts) == {"detector_px", "space_mm"}
    assert task.optimizer(network, OPTIONS).param_groups[0]["lr"] == (1e-4 if paper_mode else 1e-3)


def test_it_learns_and_registers(ct: Volume, model: BoneModel, subject: Subject, tmp_path: Path) -> None:
    stream = StreamOptions(SMALL, "prost", AppearanceOptions.clean())
    training = replace(OPTIONS, iterations=200, warmup=20, validate_every=200, averaging=0.95, learning_rate=2e-3)
    task = PoseNetTask(subject, METHOD.options(), stream, training)
    torch.manual_seed(0)
    untrained = task.validate(task.network().eval(), torch.device("cpu")).median_mm
    result = fit(task, tmp_path / "w.safetensors", training)
    assert result.validation_mm < 0.8 * untrained
    prepared = METHOD.prepare(ct, model, METHOD.options({"weights": str(result.weights), "search_on_failure": False}))
    batch = task.held_out.batch(0, torch.device("cpu"))
    points, errors = subject.bone.surface_points, []
    for image, pose in zip(batch.image[:, 0], batch.camera_from_ct, strict=True):
        proposal = METHOD.propose([XRay(image.numpy(), np.ones((64, 64), bool), SMALL)], prepared)
        found = proposal.candidates[0].rig_from_ct
        errors.append(np.linalg.norm(transform_points(found, points) - transform_points(pose, points), axis=1).mean())
    assert np.median(errors) < 0.9 * untrained
