"""What a method brings to the training loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from XRayRegistrationLib.training.muon import Muon
from XRayRegistrationLib.training.options import TrainingOptions


@dataclass(frozen=True)
class Validation:
    """How well a network does on X-rays that it was not trained on.

    Attributes:
        median_mm: median mTRE of the proposed poses; a case without a pose counts as infinite. Of a network that is not
            for poses, its error in its task's ``unit``.
        details: more numbers, for the log.
    """

    median_mm: float
    details: Mapping[str, float] = field(default_factory=dict)


class Task(ABC):
    """A network, what it is shown, and how it is judged.

    Everything random depends on the training's seed and the batch's number alone, which is why a training that was
    interrupted goes on as if it had not been.

    Attributes:
        method: name of the method.
        mixed_precision: the network may run in bfloat16 (losses are always float32).
        unit: that validation is measured in.
        learning_rate: that this method learns well with. gradient_norm: to which its longer gradients are cut.
    """

    method: str
    mixed_precision: bool = True
    unit: str = "mm"
    learning_rate: float = 1e-3
    gradient_norm: float = 1.0

    @abstractmethod
    def network(self) -> nn.Module:
        """A new network; torch's seed is set before."""

    @abstractmethod
    def batch(self, number: int, device: torch.device) -> Any:
        """Batch ``number`` (from 0), on the device."""

    @abstractmethod
    def loss(self, network: nn.Module, batch: Any) -> tuple[Tensor, dict[str, float]]:
        """The loss of a batch, and its parts for the log."""

    @abstractmethod
    def validate(self, network: nn.Module, device: torch.device) -> Validation:
        """Judge a network in evaluation mode, on the same held-out cases every time."""

    @abstractmethod
    def header(self) -> dict[str, Any]:
        """Of the weights file: architecture, input, units, CTs (see networks.weights_file.read_header)."""

    def optimizer(self, network: nn.Module, options: TrainingOptions) -> torch.optim.Optimizer:
        """Muon; a paper's recipe may bring its own."""
        return Muon(network, options.learning_rate_or(self.learning_rate), options.weight_decay)
