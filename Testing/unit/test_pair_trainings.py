"""Trainings on pairs of poses, whichever method's: what they see, and that they repeat and resume."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lightning_fabric")

import torch

from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.methods import get_method
from XRayRegistrationLib.networks.weights_file import read_weights
from XRayRegistrationLib.networks.weights_store import state_path
from XRayRegistrationLib.simulation.appearance_options import AppearanceOptions
from XRayRegistrationLib.simulation.subject import Subject
from XRayRegistrationLib.training.loop import fit
from XRayRegistrationLib.training.options import TrainingOptions
from XRayRegistrationLib.training.pose_pairs import PairStream
from XRayRegistrationLib.training.workers import on_device
from XRayRegistrationLib.training.xray_stream import StreamOptions

pytestmark = pytest.mark.usefixtures("one_thread")
SMALL = Camera.from_spacing(32, 32, 9.2, 1020.0)
OPTIONS = TrainingOptions(
    minutes=None, iterations=3, batch_size=2, validate_every=3, warmup=1, device="cpu", precision="32", workers=0
)


@pytest.mark.parametrize("name", ["prost", "sopi", "deepim", "dmw"])
def test_the_same_seed_and_an_interruption_give_the_same_weights(name: str, subject: Subject, tmp_path: Path) -> None:
    method = get_method(name)
    whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    stop = [1]

    def train(out: Path, resume: bool = False) -> None:
        task = method.task([subject], [], method.options(), OPTIONS, SMALL)  # type: ignore[attr-defined]
        made = task.batch

        def batch(number: int, device: torch.device) -> object:
            if out == parts and number in stop:
                stop.clear()
                signal.raise_signal(signal.SIGINT)
            return made(number, device)

        task.batch = batch
        fit(task, out, OPTIONS, resume=resume)

    train(whole)
    with pytest.raises(KeyboardInterrupt):
        train(parts)
    assert not parts.exists()  # nothing was validated yet
    train(parts, resume=True)
    a, b = (read_weights(state_path(out))[0] for out in (whole, parts))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)
    a, b = (read_weights(out)[0] for out in (whole, parts))
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_batches_in_a_row_share_no_geometry_and_go_to_a_device_whole(subject: Subject) -> None:
    stream = PairStream([subject], StreamOptions(SMALL, "prost", AppearanceOptions.clean()), "prost-start", 0.5, 4, 0)
    batches = [stream.batch(n, torch.device("cpu")) for n in range(4)]
    poses = np.concatenate([b.xrays.camera_from_ct for b in batches]).reshape(-1, 16)
    assert len(np.unique(poses, axis=0)) == 16
    moved = on_device(batches[0], torch.device("meta"))
    assert {moved.motion.device.type, moved.xrays.image.device.type, moved.xrays.open_field.device.type} == {"meta"}
    assert moved.moving is batches[0].moving
