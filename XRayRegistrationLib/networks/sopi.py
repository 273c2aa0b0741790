"""Networks of SOPI: a pose to begin with, and a similarity of features at three scales to walk down (Chen et al., 2024)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from XRayRegistrationLib.networks.composite_encoder import LIGHT_WIDTHS, WIDTHS, CompositeEncoder
from XRayRegistrationLib.networks.initial_pose import LightInitialPose, PaperInitialPose, paper_voxels
from XRayRegistrationLib.networks.similarity_network import Projector, SimilarityNetwork, levelled

_BONE = 0.02  # of an image's largest projection: what is above is bone


class SopiNetwork(SimilarityNetwork):
    """SOPI's two stages in one module; the second is a similarity.

    Args:
        published: the paper's: an encoder for the X-ray and one for projections, and its initialisation; otherwise thinner
            ones, and one encoder for both.
        size: pixels along a side of the images.
    """

    def __init__(self, published: bool, size: int) -> None:
        super().__init__()
        self.cube = paper_voxels(size) if published else None
        widths = WIDTHS if published else LIGHT_WIDTHS
        self.start: nn.Module = PaperInitialPose() if published else LightInitialPose()
        self.moving = CompositeEncoder(1, widths, halved=published)
        self.target = CompositeEncoder(1, widths, halved=published) if published else None
        # log of what a unit of distance of features is worth
        self.unit = None if published else nn.Parameter(torch.zeros(()))

    def features(self, volume: Tensor) -> Tensor:
        """The volume as it is: SOPI has no network on it."""
        return volume

    def guess(self, volume: Tensor, xray: Tensor) -> Tensor:
        """Numbers (N, 6) of initial_pose.PoseBounds; the published network sees a cube with the bone in its middle, whole."""
        if self.cube is not None:
            if max(volume.shape[1:]) > self.cube:
                size = [round(n * self.cube / max(volume.shape[1:])) for n in volume.shape[1:]]
                volume = F.interpolate(volume[None], size, mode="trilinear")[0]
            margins = [self.cube - n for n in volume.shape[:0:-1]]
            volume = F.pad(volume, [m for margin in margins for m in (margin // 2, margin - margin // 2)])
        out: Tensor = self.start(volume, xray)
        return out

    def forward(self, volume: Tensor, project: Projector, xray: Tensor) -> tuple[Tensor, ...]:
        """As of every similarity, and the guess."""
        return *super().forward(volume, project, xray), self.guess(volume, xray)

    def similarity(self, projections: Tensor, xray: Tensor) -> Tensor:
        """Mean squared distance of features where the projection has bone, over three scales; ours is its root, scaled."""
        encode = self.moving if self.target is None else self.target
        mask = (projections > _BONE * projections.amax((-2, -1), keepdim=True)).to(projections.dtype).detach()
        total = projections.new_zeros(len(projections))
        for moving, target in zip(self.moving(levelled(projections)), encode(xray), strict=True):
            weight = F.adaptive_avg_pool2d(mask, moving.shape[-2:])
            distance = (moving - target).square().mean(1, keepdim=True)
            total = total + (weight * distance).sum((1, 2, 3)) / weight.sum((1, 2, 3)).clamp(min=1e-3)
        return total if self.unit is None else (total + 1e-4).sqrt() * self.unit.exp()


def sopi_network(architecture: dict[str, Any]) -> SopiNetwork:
    """As the header's ``architecture`` says."""
    return SopiNetwork(bool(architecture["published"]), int(architecture["size"]))
