"""Trainings on pairs of poses, whichever method's: repeatable, and interrupted and resumed to the same weights."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

pytest.importorskip("lightning_fabric")

import torch

from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.methods import get_method
from XRayRegistrationLib.networks.weights_file import read_weights
from XRayRegistrationLib.simulation.subject import Subject
from XRayRegistrationLib.training.checkpoint import state_path
from XRayRegistrationLib.training.loop import fit
from XRayRegistrationLib.training.options import TrainingOptions

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
