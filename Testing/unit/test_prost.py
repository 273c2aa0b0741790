"""ProST: its networks' sizes, slopes against finite differences, losses by hand, descents, and real training on a tiny CT."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("lightning_fabric")
import torch

from XRayRegistrationLib.bone.model import BoneModel
from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.rigid import increment_left, relative_motion, transform_points
from XRayRegistrationLib.images.volume import Volume
from XRayRegistrationLib.images.xray import XRay
from XRayRegistrationLib.methods import get_method
from XRayRegistrationLib.methods.base import Candidate, Prepared, Proposal
from XRayRegistrationLib.methods.learned import NothingProposedError
from XRayRegistrationLib.networks.cross_vit import CrossViT
from XRayRegistrationLib.networks.derivative_images import derivative_images
from XRayRegistrationLib.networks.prost import ProstNetwork
from XRayRegistrationLib.simulation.appearance_options import AppearanceOptions
from XRayRegistrationLib.simulation.pose_samplers import POSE_SAMPLERS
from XRayRegistrationLib.simulation.subject import Subject
from XRayRegistrationLib.solvers.learned_descent import (
    MICCAI2020,
    PUBLISHED_LENGTH_MM,
    ROUND_WITHIN,
    TMI2024,
    Descended,
    descend,
    descend_as_published,
    similarity_slope,
)
from XRayRegistrationLib.solvers.problem import SolveResult
from XRayRegistrationLib.training.loop import fit
from XRayRegistrationLib.training.options import TrainingOptions
from XRayRegistrationLib.training.pose_slope import (
    direction_loss,
    distance_loss,
    geodesic_loss,
    points_to_the_truth,
    pose_slope,
)
from XRayRegistrationLib.training.prost import ProstTask
from XRayRegistrationLib.training.similarity import network_volume
from XRayRegistrationLib.training.xray_stream import StreamOptions

SMALL = Camera.from_spacing(32, 32, 9.2, 1020.0)
METHOD = get_method("prost")
pytestmark = pytest.mark.usefixtures("one_thread")
OPTIONS = TrainingOptions(minutes=None, iterations=1, batch_size=8, device="cpu", precision="32", workers=0)


def parameters(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_published_sizes() -> None:
    network = ProstNetwork("tmi2024", 128)
    assert parameters(network.volume) == 8643  # type: ignore[arg-type]
    assert parameters(network) == pytest.approx(2.2e6, rel=0.02)
    assert parameters(CrossViT(128, 2, 1000)) < parameters(network)
    volume = torch.rand(1, 8, 9, 10)
    assert network.eval().features(volume).shape == (3, 8, 9, 10)
    assert torch.equal(ProstNetwork("light", 32, volume_network=False).features(volume), volume.expand(3, -1, -1, -1))


@pytest.mark.parametrize("kind", ["light", "tmi2024", "miccai2020"])
def test_slopes_are_those_of_the_similarity_and_can_be_learned_from(kind: str, subject: Subject) -> None:
    size = 64 if kind == "tmi2024" else 32
    camera = SMALL.resized(size, size)
    torch.manual_seed(1)
    network = ProstNetwork(kind, size).double().eval()  # type: ignore[arg-type]
    volume = network_volume(subject.bone, {"volume": "bone", "voxels": 24})
    pose = POSE_SAMPLERS["prost"].sample(subject, camera, np.random.default_rng(0))
    centre = transform_points(pose, subject.centre_ct)
    xray = torch.randn(1, 1, size, size, dtype=torch.float64)

    def similarity(pose: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        with torch.no_grad():
            features = network.features(torch.as_tensor(volume.mu, dtype=torch.float64)[None]).float()
            made = derivative_images(features, volume.ct_from_ijk, camera, pose[None], centre[None], 1.0)
        images, jacobian = (x.double() for x in made)
        images.requires_grad_()
        return network.similarity(images, xray), images, jacobian

    slope = pose_slope(*similarity(pose))
    numeric = []
    for step in np.diag([1e-3] * 3 + [0.1] * 3):
        ahead, behind = (similarity(increment_left(pose, sign * step, centre))[0].item() for sign in (1.0, -1.0))
        numeric.append((ahead - behind) / (2.0 * step.sum()))
    scale = np.array([100.0] * 3 + [1.0] * 3)
    ours = slope[0].detach().numpy()
    assert np.linalg.norm((ours - numeric) / scale) < 0.1 * np.linalg.norm(np.array(numeric) / scale)
    slope.square().sum().backward()
    weight = next(p for p in network.compare.parameters() if p.ndim > 1)
    assert torch.isfinite(weight.grad).all()  # type: ignore[arg-type]
    assert float(weight.grad.abs().max()) > 0  # type: ignore[union-attr]


def test_losses_by_hand() -> None:
    motion = torch.tensor([[0.3, 0.0, 0.0, 0.0, 40.0, 0.0]])
    # the slope of the squared geodesic distance, per rad and, at 100 mm a unit, per mm
    geodesic = -2.0 * torch.tensor([[0.3, 0.0, 0.0, 0.0, 0.4 / 100.0, 0.0]])
    assert float(geodesic_loss(geodesic, motion, 100.0)) == pytest.approx(0.0, abs=3e-6)
    assert float(geodesic_loss(0.0 * geodesic, motion, 100.0)) == pytest.approx(0.6**2 + 0.8**2, rel=1e-3)
    assert float(direction_loss(geodesic, motion)) == pytest.approx(0.0, abs=1e-6)
    assert float(direction_loss(-geodesic, motion)) == pytest.approx(8.0)
    # 0.3 rad and 40 mm are 0.5 of 100 mm away
    distance = torch.tensor([np.hypot(0.5, 0.05)], dtype=torch.float32)
    slope = torch.tensor([[-0.3, 0.0, 0.0, 0.0, -0.4 / 100.0, 0.0]]) / distance
    for loss in distance_loss(distance, slope, motion, 100.0):
        assert float(loss) == pytest.approx(0.0, abs=1e-9)
    assert float(distance_loss(distance + 0.2, slope, motion, 100.0)[1]) == pytest.approx(0.04, rel=1e-4)
    assert points_to_the_truth(slope, motion).tolist() == [True]
    assert points_to_the_truth(-slope, motion).tolist() == [False]


def test_descents_follow_a_distance_to_its_end_and_keep_their_lowest() -> None:
    centre_ct = np.zeros(3)
    rng = np.random.default_rng(4)
    true = POSE_SAMPLERS["prost"].sample(centre_ct, SMALL, rng)
    starts = np.stack([POSE_SAMPLERS["prost-start"].sample(centre_ct, SMALL, rng) for _ in range(5)])
    asked = []

    def slope(poses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        asked.append(len(poses))
        unit = np.array([1.0] * 3 + [100.0] * 3)
        motion = relative_motion(poses, true, centre_ct) / unit
        distance = np.sqrt((motion**2).sum(axis=1) + ROUND_WITHIN**2)  # what is learned
        return distance, -motion / distance[:, None] / unit

    ended = descend(slope, starts, centre_ct)
    assert (np.diff(ended.similarity) >= 0).all()
    assert ended.similarity[-1] < ROUND_WITHIN + 0.003
    assert np.linalg.norm(relative_motion(ended.camera_from_ct, true, centre_ct)[:, 3:], axis=1).max() < 2.0
    assert asked[0] == 5
    assert asked[-1] < 5  # those that have arrived are asked no more


def test_a_start_remembers_where_it_was_lowest_and_one_that_sees_nothing_is_last() -> None:
    centre_ct = np.zeros(3)
    true = POSE_SAMPLERS["prost"].sample(centre_ct, SMALL, np.random.default_rng(4))
    start = increment_left(true, (0.0, 0.0, 0.0, 40.0, 0.0, 0.0), transform_points(true, centre_ct))
    seen = []

    def walks_past(poses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        motion = relative_motion(poses, true, centre_ct)
        seen.append(np.abs(motion[0, 3]))  # the first start is not the one that sees nothing
        slope = np.zeros_like(motion)
        slope[:, 3] = 1.0  # to smaller x for ever
        return np.where(np.abs(motion[:, 4]) > 500.0, np.inf, np.abs(motion[:, 3]) / 100.0), slope

    away = increment_left(true, (0.0, 0.0, 0.0, 0.0, 1000.0, 0.0), transform_points(true, centre_ct))
    ended = descend(walks_past, np.stack([start, away]), centre_ct)
    assert seen[-1] > 2 * min(seen)
    assert 100.0 * ended.similarity[0] == pytest.approx(min(seen))
    assert abs(relative_motion(ended.camera_from_ct[0], true, centre_ct)[3]) == pytest.approx(min(seen))
    assert ended.similarity[1] == np.inf


def test_poses_that_show_nothing_of_the_ct_are_as_unlike_as_can_be(subject: Subject) -> None:
    torch.manual_seed(0)
    network = ProstNetwork("light", 32, volume_network=False).eval()
    volume = network_volume(subject.bone, {"volume": "bone", "voxels": 24})
    features = torch.as_tensor(volume.mu)[None].expand(3, -1, -1, -1)
    slope = similarity_slope(network, features, volume, torch.randn(1, 1, 32, 32), SMALL, subject.centre_ct)
    there = POSE_SAMPLERS["prost"].sample(subject, SMALL, np.random.default_rng(0))
    away = increment_left(there, (0.0, 0.0, 0.0, 3000.0, 0.0, 0.0), transform_points(there, subject.centre_ct))
    values, slopes = slope(np.stack([there] * 17 + [away]))
    assert np.isfinite(values[:17]).all()
    assert values[17] == np.inf
    assert np.ptp(values[:17]) < 1e-5  # the seventeenth is made in another batch
    np.testing.assert_array_equal(slopes[17], 0.0)
    nowhere = Descended(np.stack([away]), np.array([np.inf]))
    with pytest.raises(NothingProposedError, match="sees nothing of the CT"):
        METHOD.ended(nowhere)  # type: ignore[attr-defined]


def test_published_descents_go_down_at_their_own_rate() -> None:
    centre_ct = np.zeros(3)
    true = POSE_SAMPLERS["prost"].sample(centre_ct, SMALL, np.random.default_rng(4))
    start = increment_left(true, (0.0, 0.0, 0.0, 30.0, 0.0, 0.0), transform_points(true, centre_ct))[None]

    def squared(poses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        motion = relative_motion(poses, true, centre_ct)
        unit = np.array([1.0] * 3 + [PUBLISHED_LENGTH_MM] * 3)
        return ((motion / unit) ** 2).sum(axis=1), -2.0 * motion / unit**2

    for published in (TMI2024, MICCAI2020):
        one = descend_as_published(squared, start, centre_ct, replace(published, steps=1))
        left = 30.0 * (1.0 - 2.0 * published.rate)
        assert relative_motion(one.camera_from_ct, true, centre_ct)[0, 3] == pytest.approx(-left)
        ended = descend_as_published(squared, start, centre_ct, published)
        assert abs(relative_motion(ended.camera_from_ct, true, centre_ct)[0, 3]) < 10.0
        assert ended.similarity[0] == pytest.approx(squared(ended.camera_from_ct)[0][0])


def test_a_ct_in_two_ways(subject: Subject) -> None:
    bone = network_volume(subject.bone, {"volume": "bone", "voxels": 24})
    full = network_volume(subject.bone, {"volume": "full", "voxels": 24})
    assert bone.mu.max() == full.mu.max() == 1.0
    assert 12 <= max(bone.mu.shape) <= 40
    assert (full.mu > 0).mean() > 2 * (bone.mu > 0).mean()


@pytest.mark.parametrize(
    "changes",
    [{"paper_mode": True}, {"paper_mode": True, "variant": "miccai2020"}, {"loss": "mse"}, {"volume_network": False}, {}],
)
def test_every_variant_makes_a_step(subject: Subject, changes: dict) -> None:
    options = METHOD.options(changes)
    camera = SMALL.resized(64, 64) if changes.get("paper_mode") else SMALL
    task = METHOD.task([subject], [], options, replace(OPTIONS, batch_size=2), camera)
    torch.manual_seed(0)
    network = task.network()
    METHOD.network(task.header()).load_state_dict(network.state_dict())
    loss, parts = task.loss(network, task.batch(0, torch.device("cpu")))
    loss.backward()
    assert set(parts) == {"slope", "value", "direction"}
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)
    if network.volume is not None and changes.get("loss") != "mse":
        assert float(next(network.volume.parameters()).grad.abs().max()) > 0


def test_it_learns_and_registers(ct: Volume, model: BoneModel, subject: Subject, tmp_path: Path) -> None:
    stream = StreamOptions(SMALL, "prost", AppearanceOptions.clean())
    training = replace(OPTIONS, iterations=60, warmup=10, validate_every=60, averaging=0.95, learning_rate=2e-3)
    task = ProstTask([subject], [], METHOD.options(), stream, training)
    torch.manual_seed(0)
    untrained = task.validate(task.network().eval(), torch.device("cpu"))
    result = fit(task, tmp_path / "w.safetensors", training)
    last = json.loads((tmp_path / "w.jsonl").read_text().splitlines()[-1])
    assert untrained.details["direction"] < 0.65
    assert last["direction"] > 0.75
    assert last["correlation"] > 0.3 + untrained.details["correlation"]
    with pytest.raises(InputError, match="not of the published network"):
        METHOD.prepare(ct, model, METHOD.options({"weights": str(result.weights), "paper_mode": True}))
    prepared = METHOD.prepare(ct, model, METHOD.options({"weights": str(result.weights), "search_on_failure": False}))
    batch = task.held_out.batch(0, torch.device("cpu"))
    start = POSE_SAMPLERS["prost-moving"].sample(subject, SMALL, np.random.default_rng(0))
    xray = XRay(batch.xrays.image[0, 0].numpy(), np.ones((32, 32), bool), SMALL)
    proposal = METHOD.propose([xray], prepared, start)
    costs = [c.cost for c in proposal.candidates]
    assert 12 <= len(costs) <= 16  # the rest sees nothing of the phantom
    assert costs == sorted(costs)
    again = METHOD.propose([xray], prepared, start)
    np.testing.assert_array_equal(again.candidates[0].rig_from_ct, proposal.candidates[0].rig_from_ct)


def test_the_published_network_wants_its_own_size(subject: Subject) -> None:
    with pytest.raises(InputError, match="multiples of 64"):
        METHOD.task([subject], [], METHOD.options({"paper_mode": True}), OPTIONS, SMALL)



@pytest.mark.parametrize("search_on_failure", [False, True])
def test_cma_es_goes_on_from_the_networks_pose_and_from_nothing_else(
    ct: Volume, model: BoneModel, monkeypatch: pytest.MonkeyPatch, search_on_failure: bool
) -> None:
    method = get_method("prost")
    near, ended = np.eye(4), np.eye(4)
    near[2, 3], ended[2, 3] = 700.0 - model.centroid[2], 710.0 - model.centroid[2]
    begun: list[np.ndarray] = []

    def solve(views: Any, start: np.ndarray, *_: Any) -> SolveResult:
        begun.append(start)
        return SolveResult(ended, 0.1, 0.2, 3, True, "ended")

    monkeypatch.setattr("XRayRegistrationLib.methods.prost.cma_es.solve", solve)
    searched = Proposal((Candidate(np.eye(4), 0.3, "search"),))
    monkeypatch.setattr("XRayRegistrationLib.methods.learned.search_stages", lambda *_: searched)
    options = method.options({"finish": "cma_es", "search_on_failure": search_on_failure})
    prepared = Prepared("prost", ct, model, options)
    xray = XRay(np.ones((64, 64), np.float32), np.ones((64, 64), bool), SMALL)
    monkeypatch.setattr(type(method), "propose_view", lambda *_: [(near, 0.2, "descent")])
    proposal = method.propose([xray], prepared)
    np.testing.assert_array_equal(begun, [near])
    assert proposal.finished
    np.testing.assert_array_equal(proposal.candidates[0].rig_from_ct, ended)
    np.testing.assert_array_equal(proposal.proposed, near)
    assert (proposal.more is not None) == search_on_failure
    if search_on_failure:
        after = proposal.more()
        assert after.candidates == searched.candidates
        np.testing.assert_array_equal(after.proposed, near)

    def nothing(*_: Any) -> None:
        raise NothingProposedError("it sees nothing")

    monkeypatch.setattr(type(method), "propose_view", nothing)
    if search_on_failure:
        assert method.propose([xray], prepared) is searched
    else:
        with pytest.raises(NothingProposedError, match="it sees nothing"):
            method.propose([xray], prepared)
    assert len(begun) == 1
