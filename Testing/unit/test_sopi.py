"""SOPI: its networks' sizes, bounds by hand, slopes, and real training on a tiny CT that guesses and registers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lightning_fabric")
import torch

from XRayRegistrationLib.bone.model import BoneModel
from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.perlove import perlove_camera
from XRayRegistrationLib.geometry.rigid import transform_points
from XRayRegistrationLib.images.volume import Volume
from XRayRegistrationLib.images.xray import XRay
from XRayRegistrationLib.methods import get_method
from XRayRegistrationLib.networks.composite_encoder import LIGHT_WIDTHS, WIDTHS, CompositeEncoder
from XRayRegistrationLib.networks.initial_pose import PaperInitialPose, PoseBounds, paper_voxels
from XRayRegistrationLib.networks.sopi import SopiNetwork
from XRayRegistrationLib.simulation.appearance_options import AppearanceOptions
from XRayRegistrationLib.simulation.pose_samplers import POSE_SAMPLERS
from XRayRegistrationLib.simulation.subject import Subject
from XRayRegistrationLib.training.gradient_difference import gradient_difference_loss
from XRayRegistrationLib.training.headers import poses_header
from XRayRegistrationLib.training.loop import fit
from XRayRegistrationLib.training.options import TrainingOptions
from XRayRegistrationLib.training.sopi import SopiTask
from XRayRegistrationLib.training.xray_stream import StreamOptions

SMALL = Camera.from_spacing(32, 32, 9.2, 1020.0)
_FOOT = np.array([[0.0, 0, 3], [0, 0, -2], [0, 0, 0]])
METHOD = get_method("sopi")
pytestmark = pytest.mark.usefixtures("one_thread")
OPTIONS = TrainingOptions(minutes=None, iterations=1, batch_size=8, device="cpu", precision="32", workers=0)


def parameters(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_sizes() -> None:
    assert (paper_voxels(256), paper_voxels(32)) == (128, 32)  # 16^3 = 64^2, and 4^3 = 8^2
    with pytest.raises(InputError, match="takes 32 or 256"):
        paper_voxels(128)
    assert perlove_camera().width * perlove_camera().pixel_spacing_mm[0] == pytest.approx(204.4, abs=0.1)  # type: ignore[index]
    assert parameters(PaperInitialPose()) == pytest.approx(0.49e6, rel=0.1)
    assert parameters(SopiNetwork(published=True, size=32).moving) == pytest.approx(5.35e6, rel=0.1)
    for widths, halved in ((WIDTHS, True), (LIGHT_WIDTHS, False)):
        side = 8 if halved else 16
        fine, middle, coarse = CompositeEncoder(1, widths, halved)(torch.randn(2, 1, 64, 64))
        assert fine.shape == middle.shape == (2, widths[0], side, side)
        assert coarse.shape == (2, widths[1], side // 2, side // 2)


def test_numbers_and_poses_go_both_ways() -> None:
    bounds = PoseBounds.of_poses(poses_header("sopi", SMALL), SMALL)
    centre_ct = np.array([5.0, -7.0, 11.0])
    rng = np.random.default_rng(0)
    poses = np.stack([POSE_SAMPLERS["sopi"].sample(centre_ct, SMALL, rng) for _ in range(200)])
    numbers = bounds.numbers(poses, centre_ct)
    assert (np.abs(numbers - 0.5) < 0.5).mean() > 0.99  # three standard deviations
    np.testing.assert_allclose(numbers.mean(axis=0), 0.5, atol=0.05)
    np.testing.assert_allclose(bounds.camera_from_ct(numbers, centre_ct, SMALL), poses, atol=1e-6)
    np.testing.assert_allclose(PoseBounds.of_header(json.loads(json.dumps(bounds.header()))).half, bounds.half)
    # twice as long a lens, and its foot elsewhere: the bone is seen at the same pixel, and as large
    longer = Camera(32, 32, SMALL.K * [[2.0, 1, 1], [1, 2.0, 1], [1, 1, 1]] + _FOOT, 2040.0)
    there, here = (transform_points(bounds.camera_from_ct(numbers[:1], centre_ct, c)[0], centre_ct) for c in (longer, SMALL))
    np.testing.assert_allclose(longer.project(there[None]), SMALL.project(here[None]), atol=1e-6)
    assert there[2] == pytest.approx(2.0 * here[2])


def test_similarities_have_a_slope_and_a_pair_looks_at_no_other() -> None:
    torch.manual_seed(0)
    network = SopiNetwork(published=False, size=32).eval()
    projections, xray = torch.zeros(2, 1, 32, 32), torch.randn(2, 1, 32, 32)
    projections[:, :, 8:20, 8:20] = torch.rand(2, 1, 12, 12) + 0.5
    projections.requires_grad_()
    both = network.similarity(projections, xray)
    alone = network.similarity(projections[1:], xray[1:])
    assert float(both[1].detach()) == pytest.approx(float(alone[0].detach()), rel=1e-5)
    (slope,) = torch.autograd.grad(both.sum(), projections, create_graph=True)
    slope.square().sum().backward()
    for name, parameter in network.moving.named_parameters():
        assert parameter.grad is not None, name
    assert float(network.moving.stem[0].weight.grad.abs().max()) > 0  # type: ignore[union-attr, operator, index]


def test_features_are_compared_where_the_projection_has_bone(monkeypatch: pytest.MonkeyPatch) -> None:
    network = SopiNetwork(published=False, size=32).eval()
    monkeypatch.setattr(network.moving, "forward", lambda image: (image, image, image))  # an encoder that changes nothing
    projection = torch.zeros(1, 1, 32, 32)
    projection[:, :, 8:20, 8:20] = 1.0
    xray = torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    outside, inside = xray.clone(), xray.clone()
    outside[:, :, 24:, 24:] += 5.0
    inside[:, :, 8:20, 8:20] -= 5.0
    with torch.no_grad():
        value, same, other = (float(network.similarity(projection, x)) for x in (xray, outside, inside))
    assert same == pytest.approx(value)
    assert other > 1.5 * value


def test_the_published_initialisation_gets_a_cube_with_the_bone_in_its_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    network, seen = SopiNetwork(published=True, size=32), []
    monkeypatch.setattr(network.start, "forward", lambda volume, xray: seen.append(volume))
    for shape in ((10, 20, 30), (10, 32, 30)):
        volume = torch.zeros(1, *shape)
        volume[0, 4:6, shape[1] // 2 - 1 : shape[1] // 2 + 1, 14:16] = 1.0
        network.guess(volume, torch.zeros(1, 1, 32, 32))
        assert seen[-1].shape == (1, 32, 32, 32)
        assert [float(i.float().mean()) for i in seen[-1][0].nonzero().T] == [15.5] * 3
    network.guess(torch.ones(1, 40, 64, 20), torch.zeros(1, 1, 32, 32))  # larger than the cube: all of it, smaller
    assert seen[-1].shape == (1, 32, 32, 32)
    assert [int(i.max() - i.min()) + 1 for i in seen[-1][0].nonzero().T] == [20, 32, 10]


@pytest.mark.parametrize("changes", [{"paper_mode": True}, {}])
def test_every_variant_makes_a_step(subject: Subject, changes: dict) -> None:
    task = METHOD.task([subject], [], METHOD.options(changes), replace(OPTIONS, batch_size=2), SMALL)
    torch.manual_seed(0)
    network = task.network()
    METHOD.network(task.header()).load_state_dict(network.state_dict())
    loss, parts = task.loss(network, task.batch(0, torch.device("cpu")))
    loss.backward()
    assert set(parts) == {"slope", "value", "direction", "initial"} | ({"picture"} if changes else set())
    for part in (network.start, network.moving):
        assert max(float(p.grad.abs().max()) for p in part.parameters() if p.grad is not None) > 0


def test_the_gradient_difference_by_hand() -> None:
    ramp = torch.arange(6.0).expand(1, 1, 6, 6)
    noise = torch.randn(1, 1, 6, 6)
    assert float(gradient_difference_loss(noise, noise)) == pytest.approx(0.0, abs=1e-6)
    step = (ramp > 2).float()  # derivatives along x of 0, 1/2, 1/2, 0 in the 4 inner columns, none along y
    spread = torch.tensor([0.0, 0.5, 0.5, 0.0]).repeat(4).var()
    halves = spread / (spread + torch.tensor([0.0, 0.5, 0.5, 0.0]).square())
    wrong = gradient_difference_loss(torch.zeros_like(step), step)
    assert float(wrong) == pytest.approx(1.0 - (float(halves.mean()) + 1.0) / 2.0, rel=1e-4)


def test_the_guess_learns_from_its_picture(subject: Subject) -> None:
    task = METHOD.task([subject], [], METHOD.options({"paper_mode": True}), replace(OPTIONS, batch_size=2), SMALL)
    batch = task.batch(0, torch.device("cpu"))
    true = task.true_numbers(batch.xrays, [subject])
    numbers = (true + 0.1).requires_grad_()
    smooth = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    weight = torch.nn.functional.interpolate(smooth, (32, 32), mode="bicubic")

    def at(numbers: torch.Tensor) -> torch.Tensor:
        return (task.pictures(numbers, batch.xrays, [subject]) * weight).sum((1, 2, 3))

    (slope,) = torch.autograd.grad(at(numbers).sum(), numbers)
    steps = 0.005 * torch.eye(6)
    measured = torch.stack([(at(numbers.detach() + step) - at(numbers.detach() - step)) / 0.01 for step in steps], 1)
    assert float(torch.cosine_similarity(slope, measured).min()) > 0.99  # over steps of 0.005 coarse voxels are not straight
    torch.testing.assert_close(slope.norm(dim=1), measured.norm(dim=1), rtol=0.1, atol=0.0)
    wrong = gradient_difference_loss(task.pictures(true + 0.1, batch.xrays, [subject]), batch.xrays.image)
    right = gradient_difference_loss(task.pictures(true, batch.xrays, [subject]), batch.xrays.image)
    assert (right < wrong).all()


def test_it_learns_and_registers(ct: Volume, model: BoneModel, subject: Subject, tmp_path: Path) -> None:
    stream = StreamOptions(SMALL, "sopi", AppearanceOptions.clean())
    training = replace(OPTIONS, iterations=160, warmup=10, validate_every=160, averaging=0.95, learning_rate=3e-3)
    task = SopiTask([subject], [], METHOD.options(), stream, training)
    torch.manual_seed(0)
    new = task.network().eval()
    device = torch.device("cpu")
    batches = [task.held_out.batch(n, device) for n in range(3)]
    batch = batches[0]

    def initial_error(network: SopiNetwork) -> float:
        with torch.no_grad():
            given = [network.guess(task.values(subject, device), b.xrays.image) for b in batches]
        true = [task.true_numbers(b.xrays, [subject]) for b in batches]
        return float((torch.cat(given) - torch.cat(true)).square().mean())

    untrained = task.validate(new, device)
    result = fit(task, tmp_path / "w.safetensors", training)
    last = json.loads((tmp_path / "w.jsonl").read_text().splitlines()[-1])
    assert last["direction"] > 0.15 + untrained.details["direction"]
    prepared = METHOD.prepare(ct, model, METHOD.options({"weights": str(result.weights), "search_on_failure": False}))
    assert initial_error(prepared.data["network"]) < 0.85 * initial_error(new)
    xray = XRay(batch.xrays.image[0, 0].numpy(), np.ones((32, 32), bool), SMALL)
    assert len(METHOD.propose([xray], prepared).candidates) == 1
    start = POSE_SAMPLERS["sopi-start"].sample(subject, SMALL, np.random.default_rng(0))
    proposal = METHOD.propose([xray], prepared, start)
    assert len(proposal.candidates) == 2
    guess = METHOD.propose([xray], replace(prepared, options=replace(prepared.options, descend=False))).candidates
    assert guess[0].origin == "the network's guess"
    assert proposal.candidates[0].cost <= guess[0].cost


def test_the_published_sizes_are_asked_for(subject: Subject) -> None:
    with pytest.raises(InputError, match="takes 32 or 256"):
        METHOD.task([subject], [], METHOD.options({"paper_mode": True}), OPTIONS, SMALL.resized(64, 64))
    with pytest.raises(InputError, match="multiples of 16"):
        METHOD.task([subject], [], METHOD.options(), OPTIONS, SMALL.resized(40, 40))
