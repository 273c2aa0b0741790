"""SOPI's composite encoder: an image in, features at three scales out (Chen et al., ICASSP 2024).

Two branches of blocks: what the assistant's make is composed into the leader's, block by block. Each block goes down to a
quarter of its pixels and comes back up. Normalisations are of one image each (group normalisation), for a target and a
rendering do not share statistics.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from XRayRegistrationLib.networks.split_attention import SplitAttentionBottleneck

WIDTHS = (64, 128, 256)
LIGHT_WIDTHS = (16, 32, 64)
_ASSISTANT, _LEADER = 3, 2  # blocks


class CompositeEncoder(nn.Module):
    """Features (N, widths[0], s, s), (N, widths[0], s, s) and (N, widths[1], s / 2, s / 2) of images (N, channels, 8 s, 8 s).

    Args:
        widths: of a block, fine to coarse.
        halved: the stem ends by halving once more; otherwise the images are (N, channels, 4 s, 4 s).
    """

    def __init__(self, channels: int = 1, widths: tuple[int, int, int] = WIDTHS, halved: bool = True) -> None:
        super().__init__()
        first = widths[0]
        self.stem = nn.Sequential(
            nn.Conv2d(channels, 4, 3, stride=2, padding=1), nn.GroupNorm(1, 4), nn.GELU(),
            nn.Conv2d(4, 16, 3, stride=2, padding=1), nn.GroupNorm(1, 16), nn.GELU(),
            SplitAttentionBottleneck(16, first),
            nn.Conv2d(first, first, 3, stride=2 if halved else 1, padding=1),
        )  # fmt: skip
        self.assistant = nn.ModuleList(CompositeFocalBlock(widths) for _ in range(_ASSISTANT))
        self.leader = nn.ModuleList(CompositeFocalBlock(widths) for _ in range(_LEADER))
        self.compose = nn.ModuleList(
            nn.Sequential(nn.Conv2d(first, first, 1), nn.GroupNorm(8, first)) for _ in range(_LEADER)
        )

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See the class; fine to coarse."""
        x = helped = self.stem(image)
        helped = self.assistant[0](helped)[0]
        fine = []
        coarse = x
        for assistant, compose, leader in zip(self.assistant[1:], self.compose, self.leader, strict=True):
            helped = assistant(helped)[0]
            x, coarse = leader(x + compose(helped))
            fine.append(x)
        return fine[0], fine[1], coarse


class CompositeFocalBlock(nn.Module):
    """Down to a quarter of the pixels by split attention and strides, a focal block there, and up again.

    Takes (N, widths[0], s, s), gives that shape again and (N, widths[1], s / 2, s / 2) on the way up.
    """

    def __init__(self, widths: tuple[int, int, int]) -> None:
        super().__init__()
        first, second, third = widths
        self.fine = SplitAttentionBottleneck(first, first)
        self.to_middle = nn.Sequential(_halved(first, second), SplitAttentionBottleneck(second, second))
        self.to_coarse = nn.Sequential(_halved(second, third), _Focal(third))
        self.coarse_up, self.middle_up = nn.Conv2d(third, second, 1), nn.Conv2d(second, first, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        fine = self.fine(x)
        middle = self.to_middle(fine)
        middle = middle + _resized(self.coarse_up(self.to_coarse(middle)), middle)
        return fine + _resized(self.middle_up(middle), fine), middle


def _halved(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GroupNorm(8, after), nn.SiLU())


def _resized(x: Tensor, like: Tensor) -> Tensor:
    """By nearest neighbours, whose derivatives are plain."""
    return F.interpolate(x, like.shape[-2:], mode="nearest")


class _Focal(nn.Module):
    """Near and far: 7 x 7 of each channel alone, then the same dilated; channels mixed four times as wide."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.around = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, width, 7, padding=3 * dilation, dilation=dilation, groups=width),
                nn.GroupNorm(1, width), nn.GELU(),
            )
            for dilation in (1, 2)
        )  # fmt: skip
        self.mix = nn.Sequential(nn.Conv2d(width, 4 * width, 1), nn.GELU(), nn.Conv2d(4 * width, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        for around in self.around:
            x = x + around(x)
        out: Tensor = x + self.mix(x)
        return out
