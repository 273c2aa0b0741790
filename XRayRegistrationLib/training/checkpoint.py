"""The whole state of a training in one safetensors file, so that it can go on from any interruption."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.networks.weights_file import read_weights, write_weights

# of a header, and in words, in which a training that is gone on with must not differ
_SAME = (
    ("method", "method"), ("architecture", "network"), ("camera", "camera"), ("cts", "CT"), ("landmarks_ct", "set of landmarks"),
    ("landmarks", "set of landmarks"), ("recipe", "recipe"), ("seed", "seed"),
)  # fmt: skip


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
    progressed = Progressed(**restored)
    if not judged_alike(found, header):
        progressed.best_mm, progressed.without_better = float("inf"), 0
    return progressed


def check_same(found: dict[str, Any], header: dict[str, Any], path: Path) -> None:
    """Raise InputError where a file is of another method, network, camera, CT, landmarks, recipe or seed than this training.

    Other poses may be learned from than before.
    """
    for key, what in _SAME:
        was, now = _compared(key, found), _compared(key, header)
        if now is not None and was != now:
            raise InputError(
                f"{path} is of another {what} ({_short(was)}) than this training ({_short(now)}); "
                "resume with what it was begun with, or give another --out"
            )


def judged_alike(found: dict[str, Any], header: dict[str, Any]) -> bool:
    """Whether validations of both are of the same X-rays, so that their errors can be compared."""
    return all(_compared(key, found) == _compared(key, header) for key in ("input", "held_out"))


def _compared(key: str, header: dict[str, Any]) -> Any:
    """A header's value, None where it has none; of CTs their contents alone, for files are renamed."""
    if key == "camera":
        return header.get("input", {}).get("camera")
    if key == "landmarks_ct":
        return [ct.get("landmarks_ct") for ct in header.get("cts", [])]
    value = header.get(key)
    if key in ("cts", "held_out"):
        return [ct.get("fingerprint") for ct in value or []]
    return json.loads(json.dumps(value))  # as a file has it, which knows no tuples


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
