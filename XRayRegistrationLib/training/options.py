"""Settings of a training, the same for every method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from XRayRegistrationLib.errors import InputError


@dataclass(frozen=True)
class TrainingOptions:
    """Each default is for a CPU with a few cores and half an hour.

    Attributes:
        minutes: budget of time, pauses not counted; the learning rate falls to 0 by its end.
        iterations: budget of iterations in its place. With it, the same seed gives the same weights on one device;
            a budget of minutes ends where the machine has got to.
        batch_size: images an iteration, on each device.
        learning_rate: at its highest, after ``warmup``; None is the method's own.
        warmup: iterations over which the learning rate rises.
        weight_decay: of Muon and AdamW, a share of the learning rate.
        gradient_norm: to which longer gradients are cut; None is the method's own.
        averaging: decay an iteration of the running average of the weights, which is what is validated and kept.
        validate_every: iterations between validations.
        patience: validations without a better one, while the learning rate falls, after which training ends early.
        checkpoint_s: seconds between checkpoints.
        seed: of everything random.
        device: ``"auto"`` is CUDA where there is one.
        devices, nodes: more than one trains in parallel, through Fabric's launchers.
        workers: processes that make X-rays ahead of the training; 0 for none, None for what suits the device.
        precision: ``"auto"`` is bfloat16 for the network where that is fast and the method says that it is safe.
    """

    minutes: float | None = 30.0
    iterations: int | None = None
    batch_size: int = 16
    learning_rate: float | None = None
    warmup: int = 200
    weight_decay: float = 1e-2
    gradient_norm: float | None = None
    averaging: float = 0.998
    validate_every: int = 500
    patience: int = 20
    checkpoint_s: float = 60.0
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    devices: int = 1
    nodes: int = 1
    workers: int | None = None
    precision: Literal["auto", "32", "bf16"] = "auto"

    def __post_init__(self) -> None:
        if self.iterations is None and self.minutes is None:
            raise InputError("a training needs a budget; give --minutes or --iterations")
        for name in ("minutes", "iterations", "batch_size", "learning_rate", "validate_every", "patience", "devices", "nodes"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"{name} of the training is {value!r}; allowed is a number above 0")
        for name, allowed in (("device", ("auto", "cpu", "cuda")), ("precision", ("auto", "32", "bf16"))):
            if getattr(self, name) not in allowed:
                raise InputError(f"{name} of the training is {getattr(self, name)!r}; allowed are {', '.join(allowed)}")
        if self.workers is not None and self.workers < 0:
            raise InputError(f"workers of the training is {self.workers!r}; allowed is a whole number from 0")
        if not 0.0 <= self.averaging < 1.0:
            raise InputError(f"averaging of the training is {self.averaging!r}; allowed is 0 up to, not including, 1")

    def learning_rate_or(self, usual: float) -> float:
        """The method's or its paper's usual learning rate, unless one was asked for."""
        return usual if self.learning_rate is None else self.learning_rate
