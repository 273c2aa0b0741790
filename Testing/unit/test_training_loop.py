"""The training loop on a task that takes milliseconds: budgets, repeatability, interruption, bad input."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("lightning_fabric")
import torch
from torch import Tensor, nn

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.networks.weights_file import read_header, read_weights, write_weights
from XRayRegistrationLib.networks.weights_store import state_path
from XRayRegistrationLib.training.checkpoint import check_same
from XRayRegistrationLib.training.log import read_log
from XRayRegistrationLib.training.loop import fit
from XRayRegistrationLib.training.options import TrainingOptions
from XRayRegistrationLib.training.schedule import learning_rate_factor
from XRayRegistrationLib.training.task import Task, Validation


class Line(Task):
    """Learns y = 3 x - 1 from noisy points, with dropout in the way; its validation is the error in "mm"."""

    method = "line"
    mixed_precision = False

    def __init__(self, seed: int = 0, stop_at: int | None = None, broken: bool = False) -> None:
        self.seed, self.stop_at, self.broken = seed, stop_at, broken

    def network(self) -> nn.Module:
        return nn.Sequential(nn.Linear(1, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 1))

    def batch(self, number: int, device: torch.device) -> Any:
        if number == self.stop_at:
            signal.raise_signal(signal.SIGINT)
        rng = np.random.default_rng([self.seed, number])
        x = rng.uniform(-1, 1, (16, 1)).astype(np.float32)
        y = 3 * x - 1 + rng.normal(0, 0.05, x.shape).astype(np.float32)
        return torch.from_numpy(x), torch.from_numpy(y)

    def loss(self, network: nn.Module, batch: Any) -> tuple[Tensor, dict[str, float]]:
        x, y = batch
        loss = (network(x) - y).square().mean() * (float("nan") if self.broken else 1.0)
        return loss, {"half": 0.5 * float(loss.detach())}

    def validate(self, network: nn.Module, device: torch.device) -> Validation:
        x = torch.linspace(-1, 1, 50)[:, None]
        return Validation(float((network(x) - (3 * x - 1)).abs().median().detach()), {"points": 50.0})

    def header(self) -> dict[str, Any]:
        return {"architecture": {"width": 8}, "cts": [{"name": "none", "fingerprint": "0" * 16}]}


OPTIONS = TrainingOptions(
    minutes=None, iterations=120, learning_rate=0.03, warmup=10, validate_every=40, averaging=0.9, device="cpu", checkpoint_s=1e9
)


def curve(out: Path) -> list[tuple[int, float]]:
    return [(e["iteration"], e["loss"]) for e in read_log(out.with_suffix(".jsonl")) if "loss" in e]


def test_it_learns_keeps_the_best_and_logs(tmp_path: Path) -> None:
    told: list[tuple[float, str]] = []
    out = tmp_path / "line.safetensors"
    result = fit(Line(), out, OPTIONS, progress=lambda f, t: told.append((f, t)))
    untrained = Line().validate(Line().network().eval(), torch.device("cpu")).median_mm
    assert result.iterations == 120
    assert result.validation_mm < 0.25 * untrained
    log = read_log(out.with_suffix(".jsonl"))
    validations = [e["validation_mm"] for e in log if "validation_mm" in e]
    assert len(validations) == 3
    assert result.validation_mm == pytest.approx(min(validations), rel=1e-5)
    assert [f for f, _ in told] == sorted(f for f, _ in told)
    assert told[-1][0] == 1.0
    assert "images/s" in told[-2][1]
    assert "validation" in told[-2][1]
    header = read_header(out)
    assert header["method"] == "line"
    assert header["training"]["iterations"] in (40, 80, 120)
    tensors, _ = read_weights(out)
    network = Line().network()
    network.load_state_dict(tensors)
    judged = Line().validate(network.eval(), torch.device("cpu")).median_mm
    assert judged == pytest.approx(result.validation_mm, abs=5e-3)  # the file is in half precision


def test_same_seed_same_curve_other_seed_other_curve(tmp_path: Path) -> None:
    for name in ("a", "b"):
        fit(Line(), tmp_path / f"{name}.safetensors", OPTIONS)
    fit(Line(seed=1), tmp_path / "c.safetensors", replace(OPTIONS, seed=1))
    a, b, c = (curve(tmp_path / f"{n}.safetensors") for n in "abc")
    assert a == b
    assert a != c


def test_interrupted_and_resumed_is_as_if_it_had_not_been(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    fit(Line(), whole, OPTIONS)
    for stop_at in (3, 57, 80):
        with pytest.raises(KeyboardInterrupt):
            fit(Line(stop_at=stop_at), parts, OPTIONS, resume=state_path(parts).exists())
    fit(Line(), parts, OPTIONS, resume=True)
    assert curve(parts) == curve(whole)
    a, b = (read_weights(state_path(p))[0] for p in (whole, parts))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert read_weights(whole)[0].keys() == read_weights(parts)[0].keys()


def test_killed_at_any_moment_it_resumes_from_the_last_checkpoint(tmp_path: Path) -> None:
    out, whole = tmp_path / "killed.safetensors", tmp_path / "whole.safetensors"
    script = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from dataclasses import replace
        from Testing.unit.test_training_loop import OPTIONS, Line, fit
        from XRayRegistrationLib.networks.weights_store import state_path
        out = Path(sys.argv[1])
        fit(Line(), out, replace(OPTIONS, iterations=300, checkpoint_s=0.0), resume=state_path(out).exists())
        """
    )
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", script]
    process = subprocess.Popen([*command, str(out)], env=environment)
    deadline = time.monotonic() + 60
    while not (state_path(out).exists() and read_header(state_path(out))["progressed"]["iteration"] > 10):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    reached = read_header(state_path(out))["progressed"]["iteration"]
    assert 0 < reached < 300
    for path in (out, whole):
        subprocess.run([*command, str(path)], env=environment, check=True)
    assert curve(out) == curve(whole)
    assert not list(tmp_path.glob(".xrayreg-*")) or len(list(tmp_path.glob(".xrayreg-*"))) == 1  # the kill's own half file


def test_a_budget_of_minutes_ends_in_time_and_counts_across_pauses(tmp_path: Path) -> None:
    out = tmp_path / "line.safetensors"
    options = replace(OPTIONS, iterations=None, minutes=0.02)
    begin = time.monotonic()
    first = fit(Line(), out, options)
    assert time.monotonic() - begin < 10.0
    assert first.minutes == pytest.approx(0.02, abs=0.02)
    again = fit(Line(), out, options, resume=True)  # one that had ended gets the budget once more
    assert again.iterations > first.iterations
    assert again.minutes >= 0.04


def test_it_ends_early_when_nothing_gets_better(tmp_path: Path) -> None:
    class Stuck(Line):
        def validate(self, network: nn.Module, device: torch.device) -> Validation:
            return Validation(5.0)

    options = replace(OPTIONS, iterations=400, validate_every=5, patience=3)
    result = fit(Stuck(), tmp_path / "w.safetensors", options)
    assert result.early
    assert result.iterations == 210  # 195 of a high learning rate, and three validations


def test_weights_alone_can_be_trained_further(tmp_path: Path) -> None:
    out = tmp_path / "line.safetensors"
    first = fit(Line(), out, OPTIONS)
    state_path(out).unlink()
    options = replace(OPTIONS, iterations=20, validate_every=1)
    renamed = Line()
    renamed.header = lambda: {"architecture": {"width": 8}, "cts": [{"name": "moved", "fingerprint": "0" * 16}]}  # type: ignore[method-assign]
    again = fit(renamed, out, options, resume=True)
    assert again.validation_mm < 3 * first.validation_mm + 0.05


def test_weights_alone_are_not_replaced_by_worse_ones(tmp_path: Path) -> None:
    class Worse(Line):
        poses = "scr"

        def validate(self, network: nn.Module, device: torch.device) -> Validation:
            return Validation(9.0, {})

        def header(self) -> dict[str, Any]:
            return {**super().header(), "input": {"poses": self.poses}}

    out = tmp_path / "w.safetensors"
    header = {"method": "line", **Worse().header(), "training": {"validation_median_mm": 3.0}}
    write_weights(out, dict(Line().network().state_dict()), header)
    result = fit(Worse(), out, replace(OPTIONS, iterations=20), resume=True)
    assert result.validation_mm == 3.0
    assert read_header(out)["training"]["validation_median_mm"] == 3.0
    state_path(out).unlink()
    Worse.poses = "prost"  # other X-rays are judged, so that the errors cannot be compared
    assert fit(Worse(), out, replace(OPTIONS, iterations=20), resume=True).validation_mm == 9.0


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"input": {"camera": {"width": 64}, "poses": "scr"}}, "camera"),
        ({"recipe": {"sigma": 2.5}}, "recipe"),
        ({"landmarks": {"names": ["a", "c"]}}, "set of landmarks"),
        ({"cts": [{"fingerprint": "0", "landmarks_ct": [[1.0, 2.0, 4.0]]}]}, "set of landmarks"),
        ({"cts": [{"fingerprint": "1", "landmarks_ct": [[1.0, 2.0, 3.0]]}]}, "CT"),
    ],
)
def test_only_the_same_training_is_gone_on_with(changes: dict[str, Any], what: str) -> None:
    header = {
        "input": {"camera": {"width": 128}, "poses": "scr"},
        "recipe": {"sigma": (1.5,)},
        "landmarks": {"names": ("a", "b")},
        "cts": [{"fingerprint": "0", "landmarks_ct": [[1.0, 2.0, 3.0]]}],
    }
    found = json.loads(json.dumps(header))
    check_same(found, {**header, "input": {"camera": {"width": 128}, "poses": "prost"}}, Path("w.safetensors"))
    with pytest.raises(InputError, match=f"is of another {what} "):
        check_same(found, {**header, **changes}, Path("w.safetensors"))


def test_a_batch_that_is_not_finite_leaves_no_trace(tmp_path: Path) -> None:
    class OneBad(Line):
        def batch(self, number: int, device: torch.device) -> Any:
            x, y = super().batch(number, device)
            return (x * float("nan"), y) if number == 7 else (x, y)

    out = tmp_path / "w.safetensors"
    result = fit(OneBad(), out, replace(OPTIONS, iterations=40))
    assert np.isfinite(result.validation_mm)
    tensors, _ = read_weights(out)
    assert all(torch.isfinite(tensor.float()).all() for tensor in tensors.values())


def test_what_cannot_be_done_is_said_in_one_line_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "line.safetensors"
    with pytest.raises(InputError, match="nothing to resume"):
        fit(Line(), out, OPTIONS, resume=True)
    with pytest.raises(InputError, match=r"does not end in \.safetensors"):
        fit(Line(), tmp_path / "line.pt", OPTIONS)
    with pytest.raises(InputError, match="not finite"):
        fit(Line(broken=True), tmp_path / "nan.safetensors", OPTIONS)
    fit(Line(), out, OPTIONS)
    kept = {p.name: p.read_bytes() for p in tmp_path.glob("line*")}
    other = Line()
    other.method = "parabola"
    with pytest.raises(InputError, match="of another method"):
        fit(other, out, OPTIONS, resume=True)
    other = Line()
    other.header = lambda: {"architecture": {"width": 8}, "cts": [{"name": "none", "fingerprint": "1" * 16}]}  # type: ignore[method-assign]
    with pytest.raises(InputError, match="of another CT"):
        fit(other, out, OPTIONS, resume=True)
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="no CUDA device"):
            fit(Line(), out, replace(OPTIONS, device="cuda"))
    assert {p.name: p.read_bytes() for p in tmp_path.glob("line*")} == kept


def test_a_full_disk_ends_the_training_in_one_line_and_keeps_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "line.safetensors"
    fit(Line(), out, OPTIONS)
    kept = state_path(out).read_bytes()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(InputError, match=r"cannot write to .* No space left on device; free some space"):
        fit(Line(), out, OPTIONS, resume=True)
    monkeypatch.undo()
    assert state_path(out).read_bytes() == kept
    assert fit(Line(), out, OPTIONS, resume=True).iterations == 240


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"minutes": None}, "needs a budget"),
        ({"minutes": -1.0}, "allowed is a number above 0"),
        ({"iterations": 0}, "allowed is a number above 0"),
        ({"averaging": 1.0}, "allowed is 0 up to"),
        ({"precision": "16"}, "allowed are auto, 32, bf16"),
        ({"device": "abacus"}, "allowed are auto, cpu, cuda"),
        ({"workers": -1}, "allowed is a whole number from 0"),
    ],
)
def test_options_that_make_no_sense(values: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        TrainingOptions(**values)


def test_learning_rate_rises_stays_and_falls() -> None:
    assert learning_rate_factor(0, 0.0, 100) == pytest.approx(0.01)
    assert learning_rate_factor(99, 0.1, 100) == 1.0
    assert learning_rate_factor(500, 0.5, 100) == 1.0
    assert learning_rate_factor(750, 0.75, 100) == pytest.approx(0.5)
    assert learning_rate_factor(1000, 1.0, 100) == pytest.approx(0.0, abs=1e-12)


def test_a_file_that_is_no_weights_file_is_refused(tmp_path: Path) -> None:
    junk = tmp_path / "junk.safetensors"
    junk.write_bytes(b"no weights")
    with pytest.raises(InputError, match="is no weights file"):
        read_header(junk)
    with pytest.raises(InputError, match="there is no weights file"):
        read_weights(tmp_path / "nothing.safetensors")
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(2)}, tmp_path / "foreign.safetensors")
    with pytest.raises(InputError, match="no header of this software"):
        read_weights(tmp_path / "foreign.safetensors")
    newer = write_weights(tmp_path / "newer.safetensors", {"x": torch.zeros(2)}, {})
    newer.write_bytes(newer.read_bytes().replace(b'\\"version\\": 1', b'\\"version\\": 9'))
    with pytest.raises(InputError, match="version 9"):
        read_header(newer)
