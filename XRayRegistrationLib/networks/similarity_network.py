"""What a learned similarity is to those that train it and walk down it: a CT and an X-ray in, a number out."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

from torch import Tensor, nn

Projector = Callable[[Tensor], tuple[Tensor, Tensor]]


class SimilarityNetwork(nn.Module):
    """A similarity of projections of a volume with an X-ray; smaller is more alike."""

    @abstractmethod
    def features(self, volume: Tensor) -> Tensor:
        """(C, nk, nj, ni), what is projected of a volume (1, nk, nj, ni)."""

    @abstractmethod
    def similarity(self, projections: Tensor, xray: Tensor) -> Tensor:
        """(N,) of projections (N, C, size, size) and X-rays (N, 1, size, size), each of its own pair alone."""

    def forward(self, volume: Tensor, project: Projector, xray: Tensor) -> tuple[Tensor, ...]:
        """Similarities (N,), and the projections and derivative images behind them.

        Args:
            volume: (1, nk, nj, ni).
            project: gives (N, C, size, size) and (N, C, 6, size, size) of the volume's C features.
            xray: (N, 1, size, size), standardised.
        """
        projections, jacobian = project(self.features(volume))
        if not projections.requires_grad:  # of a volume that no network changes
            projections.requires_grad_()
        return self.similarity(projections, xray), projections, jacobian


def levelled(projections: Tensor) -> Tensor:
    """Each image and channel without its mean, over its spread: units and exposure tell nothing of the pose."""
    centred = projections - projections.mean((-2, -1), keepdim=True)
    return centred / (centred.square().mean((-2, -1), keepdim=True) + 1e-4).sqrt()
