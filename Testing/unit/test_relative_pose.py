"""DeepIM and DMW: motions by hand, sizes, steps, and real training on a tiny CT that leads nearer to the pose."""

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
from XRayRegistrationLib.networks.relative_pose import DeepIm, Dmw, moved
from XRayRegistrationLib.simulation.appearance_options import AppearanceOptions
from XRayRegistrationLib.simulation.pose_samplers import POSE_SAMPLERS
from XRayRegistrationLib.simulation.subject import Subject
from XRayRegistrationLib.solvers import learned_steps
from XRayRegistrationLib.training.loop import fit
from XRayRegistrationLib.training.options import TrainingOptions
from XRayRegistrationLib.training.relative_pose import RelativePoseTask
from XRayRegistrationLib.training.similarity import network_volume
from XRayRegistrationLib.training.xray_stream import StreamOptions

SMALL = Camera.from_spacing(32, 32, 9.2, 1020.0)
KINDS = ("deepim", "dmw")
pytestmark = pytest.mark.usefixtures("one_thread")
OPTIONS = TrainingOptions(minutes=None, iterations=1, batch_size=8, device="cpu", precision="32", workers=0)


def shifted_mm(poses: np.ndarray, true: np.ndarray, centre_ct: np.ndarray) -> float:
    """Mean distance across the beam between the bone's places."""
    a, b = (np.stack([transform_points(p, centre_ct) for p in ps]) for ps in (poses, true))
    return float(np.linalg.norm((a - b)[:, :2], axis=1).mean())


def test_motions_by_hand() -> None:
    rotation, place = torch.eye(3)[None], torch.tensor([[10.0, -20.0, 800.0]])
    focal = torch.tensor([100.0, 100.0])
    turned, at = moved("dmw", torch.tensor([[0.0, 0, 0.1, 0.2, 0, -0.3]]), rotation, place, focal, 32)
    np.testing.assert_allclose(turned[0], rotation_exp([0, 0, 0.1]), atol=1e-6)
    np.testing.assert_allclose(at[0], [30.0, -20.0, 770.0], rtol=1e-6)
    half = np.tan(0.05)  # (1, 0, 0, tan(a / 2)) turns by a about z
    numbers = torch.tensor([[0.0, 0, 0, half, 0.5, 0.0, np.log(2.0)]], dtype=torch.float32)
    turned, at = moved("deepim", numbers, rotation, place, focal, 32)
    np.testing.assert_allclose(turned[0], rotation_exp([0, 0, 0.1]), atol=1e-6)
    assert float(at[0, 2]) == pytest.approx(400.0)
    before, after = (100.0 * (p[0, :2] / p[0, 2]).numpy() for p in (place, at))
    np.testing.assert_allclose(after - before, [8.0, 0.0], atol=1e-4)  # a quarter of the 32 pixels, and no other


def test_sizes() -> None:
    sizes = {name: sum(p.numel() for p in n.parameters()) for name, n in (("deepim", DeepIm(True, 128)), ("dmw", Dmw(True)))}
    assert sizes["dmw"] == pytest.approx(7.0e6, rel=0.03)  # DenseNet-121 without its classes
    assert sizes["deepim"] > 14e6  # FlowNetS' convolutions
    for light in (DeepIm(False, 64), Dmw(False)):
        assert sum(p.numel() for p in light.parameters()) < 1.0e6


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_at_rest_stays_and_one_that_knows_arrives(kind: str, subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    volume, centre = network_volume(subject.bone, {"volume": "bone", "voxels": 24}), subject.centre_ct
    rng = np.random.default_rng(2)
    start, true = (POSE_SAMPLERS[name].sample(subject, SMALL, rng) for name in ("prost-start", "prost"))
    network = (DeepIm(False, 32) if kind == "deepim" else Dmw(False)).eval()
    image = torch.zeros(1, 1, 32, 32)
    stayed = learned_steps.walk(network, volume, image, SMALL, start, centre)
    np.testing.assert_allclose(stayed, start, atol=1e-3)

    asked = []

    def knows(network, volume, image, camera, poses, centre_ct):  # type: ignore[no-untyped-def]
        asked.append(poses)
        return true[None]

    monkeypatch.setattr(learned_steps, "step", knows)
    np.testing.assert_array_equal(learned_steps.walk(network, volume, image, SMALL, start, centre), true)
    assert len(asked) == 2  # there, and no further


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("changes", [{"paper_mode": True}, {}])
def test_every_variant_makes_a_step(kind: str, subject: Subject, changes: dict) -> None:
    method = get_method(kind)
    camera = SMALL.resized(64, 64) if changes else SMALL
    task = method.task([subject, subject], [], method.options(changes), replace(OPTIONS, batch_size=4), camera)
    torch.manual_seed(0)
    network = task.network()
    method.network(task.header()).load_state_dict(network.state_dict())
    loss, parts = task.loss(network, task.batch(0, torch.device("cpu")))
    loss.backward()
    assert parts["points_mm"] > 1.0
    assert max(float(p.grad.abs().max()) for p in network.parameters() if p.grad is not None) > 0


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_and_registers(kind: str, ct: Volume, model: BoneModel, subject: Subject, tmp_path: Path) -> None:
    method = get_method(kind)
    stream = StreamOptions(SMALL, "prost", AppearanceOptions.clean())
    count = 150 if kind == "deepim" else 90
    training = replace(OPTIONS, iterations=count, warmup=10, validate_every=count, averaging=0.95)
    task = RelativePoseTask(kind, [subject], [], method.options({"moving": "prost-moving"}), stream, training)  # type: ignore[arg-type]
    result = fit(task, tmp_path / "w.safetensors", training)
    prepared = method.prepare(ct, model, method.options({"weights": str(result.weights), "search_on_failure": False}))
    batch = task.held_out.batch(0, torch.device("cpu"))
    volume, network = task.volumes[id(subject)], prepared.data["network"]
    after = learned_steps.step(network, volume, batch.xrays.image, SMALL, batch.moving, subject.centre_ct)
    before, now = (shifted_mm(poses, batch.xrays.camera_from_ct, subject.centre_ct) for poses in (batch.moving, after))
    assert now < 0.6 * before  # an untrained one stays where it is
    xray = XRay(batch.xrays.image[0, 0].numpy(), np.ones((32, 32), bool), SMALL)
    (told,) = method.propose([xray], prepared, batch.moving[0]).candidates
    (untold,) = method.propose([xray], prepared).candidates
    assert not np.array_equal(told.rig_from_ct, untold.rig_from_ct)


def test_sizes_that_cannot_be_are_refused(subject: Subject) -> None:
    method = get_method("deepim")
    with pytest.raises(InputError, match="multiples of 16"):
        method.task([subject], [], method.options(), OPTIONS, SMALL.resized(40, 40))
    with pytest.raises(InputError, match="at least one CT"):
        method.task([], [], method.options(), OPTIONS, None)
