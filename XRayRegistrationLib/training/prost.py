"""Training of ProST: at a pose beside the true one, the similarity's slope is to lead there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from XRayRegistrationLib.networks.prost import ProstNetwork, prost_network
from XRayRegistrationLib.solvers.learned_descent import (
    MICCAI2020,
    PUBLISHED_LENGTH_MM,
    TMI2024,
    Descended,
    Slope,
    descend,
    descend_as_published,
)
from XRayRegistrationLib.training.options import TrainingOptions
from XRayRegistrationLib.training.pose_pairs import PosePairs, moving_poses
from XRayRegistrationLib.training.pose_slope import direction_loss, geodesic_loss
from XRayRegistrationLib.training.similarity import VALIDATION_STEPS, Array, SimilarityTask

if TYPE_CHECKING:
    from XRayRegistrationLib.methods.prost import ProstOptions
    from XRayRegistrationLib.simulation.subject import Subject
    from XRayRegistrationLib.training.xray_stream import StreamOptions

VOXELS, PAPER_VOXELS = 64, 128  # on the volume's longest side
_PAPER_RATE, _PAPER_NORM = 1e-4, 10.0


class ProstTask(SimilarityTask):
    """Some CTs, and a similarity of any CT with its X-rays.

    Args:
        subjects: to learn from. held_out: to validate on; none are other poses of ``subjects``.
        options: of the method.
        stream: what X-rays it learns from.
        training: batch size and seed.
    """

    method = "prost"

    def __init__(
        self,
        subjects: Sequence[Subject],
        held_out: Sequence[Subject],
        options: ProstOptions,
        stream: StreamOptions,
        training: TrainingOptions,
    ) -> None:
        self.options = options
        self.gradient_norm = _PAPER_NORM if options.paper_mode else self.gradient_norm
        voxels = PAPER_VOXELS if options.paper_mode else VOXELS
        on_the_way = 0.0 if options.paper_mode else options.on_the_way
        moving = moving_poses(options.moving, options.paper_mode)
        super().__init__(subjects, held_out, stream, moving, on_the_way, options.volume, voxels, training)
        self.kind = options.variant if options.paper_mode else "light"
        self._header["architecture"] = {
            "kind": self.kind, "size": stream.camera.width, "volume_network": options.volume_network
        }  # fmt: skip

    def network(self) -> ProstNetwork:
        """A new one."""
        return prost_network(self._header["architecture"])

    def loss(self, network: nn.Module, batch: PosePairs) -> tuple[Tensor, dict[str, float]]:
        """Of the slope, each variant's own; with it, ours also of the similarity itself."""
        similarity, slope = self.slopes(network, batch, self.subjects)
        ours, of_value, parts = self.distance_parts(similarity, slope, batch.motion)
        if self.options.loss == "mse":
            return of_value, parts
        if self.kind == "tmi2024":
            return geodesic_loss(slope, batch.motion, PUBLISHED_LENGTH_MM).mean(), parts
        if self.kind == "miccai2020":
            return direction_loss(slope, batch.motion).mean(), parts
        return ours, parts

    def optimizer(self, network: nn.Module, options: TrainingOptions) -> torch.optim.Optimizer:
        """The papers' is SGD with momentum; its rate went up and down between 1e-6 and 1e-4."""
        if self.options.paper_mode:
            return torch.optim.SGD(network.parameters(), lr=options.learning_rate_or(_PAPER_RATE), momentum=0.9)
        return super().optimizer(network, options)

    def descend(self, slope: Slope, starts: Array, centre_ct: Array) -> Descended:
        """By the descent that belongs to the network, cut short."""
        return prost_descent(self.kind, slope, starts, centre_ct, VALIDATION_STEPS)


def prost_descent(kind: str, slope: Slope, starts: Array, centre_ct: Array, most_steps: int | None = None) -> Descended:
    """Ours for the light network, a paper's for its own."""
    if kind == "light":
        return descend(slope, starts, centre_ct)
    return descend_as_published(slope, starts, centre_ct, TMI2024 if kind == "tmi2024" else MICCAI2020, most_steps)
