"""The whole state of a training in one safetensors file, so that it can go on from any interruption."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.networks.weights_file import read_weights, write_weights


@dataclass
class Progressed:
    """How far a training has got.

    Attributes:
        iteration: iterations done.
        spent_s: seconds trained, pauses not counted.
        begun_s, begun_iteration: the same when the present budget began (above 0 after a training was prolonged).
        best_mm: of the validations so far.
        without_better: validations since the best one.
        skipped: iterations whose gradient was not finite.
        done: the budget was spent, or patience ended.
    """

    iteration: int = 0
    spent_s: float = 0.0
    begun_s: float = 0.0
    begun_iteration: int = 0
    best_mm: float = float("inf")
    without_better: int = 0
    skipped: int = 0
    done: bool = False


def state_path(weights: Path) -> Path:
    """Where the state of a training that writes ``weights`` is kept: W.training.safetensors beside W.safetensors."""
    return weights.with_name(weights.name.removesuffix(".safetensors") + ".training.safetensors")


def save_state(
    path: Path,
    network: nn.Module,
    average: nn.Module,
    optimizer: torch.optim.Optimizer,
    progressed: Progressed,
    header: dict[str, Any],
) -> None:
    """Write everything that the next iteration depends on.

    Raises:
        InputError: the place cannot be written, or the disk is full; an earlier state is kept.
    """
    tensors: dict[str, Tensor] = {f"network/{n}": t for n, t in network.state_dict().items()}
    tensors |= {f"average/{n}": t for n, t in average.state_dict().items()}
    for number, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{number}/{n}": torch.as_tensor(t) for n, t in moments.items()}
    numbers = {k: (None if v == float("inf") else v) for k, v in asdict(progressed).items()}
    write_weights(path, tensors, {**header, "progressed": numbers}, half=False)


def load_state(
    path: Path, network: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer, header: dict[str, Any]
) -> Progressed:
    """Put a state back; the header must be the one it was saved with.

    Raises:
        InputError: the state is of another training.
    """
    tensors, found = read_weights(path)
    check_same(found, header, path)
    parts: dict[str, dict[str, Tensor]] = {"network": {}, "average": {}, "optimizer": {}}
    for name, tensor in tensors.items():
        part, rest = name.split("/", 1)
        parts[part][rest] = tensor
    network.load_state_dict(parts["network"])
    average.load_state_dict(parts["average"])
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in parts["optimizer"].items():
        number, key = name.split("/")
        state.setdefault(int(number), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    numbers: dict[str, Any] = found["progressed"]
    restored: dict[str, Any] = {k: (float("inf") if v is None else v) for k, v in numbers.items()}
    return Progressed(**restored)


def check_same(found: dict[str, Any], header: dict[str, Any], path: Path) -> None:
    """Raise InputError where a file is of another method, network, seed or CT than this training."""
    for key, what in (("method", "method"), ("architecture", "network"), ("cts", "CT"), ("seed", "seed")):
        if key in header and _compared(key, found.get(key)) != _compared(key, header[key]):
            raise InputError(
                f"{path} is of another {what} ({_short(found.get(key))}) than this training ({_short(header[key])}); "
                "resume with what it was begun with, or give another --out"
            )


def _compared(key: str, value: Any) -> Any:
    """Of CTs their contents alone, for files are renamed."""
    return [ct.get("fingerprint") for ct in value or []] if key == "cts" else value


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
