"""SOPI's composite encoder: an image in, features at three scales out (Chen et al., ICASSP 2024).

Two branches of stages: the assistant's features are composed into the leader's, stage by stage; the leader's go back up and
are merged. Normalisations are of one image each (group normalisation), for a target and a rendering do not share statistics.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from XRayRegistrationLib.networks.split_attention import SplitAttentionBottleneck

WIDTHS = (64, 128, 256)
LIGHT_WIDTHS = (24, 48, 64)


class CompositeEncoder(nn.Module):
    """Features (N, widths[0], s, s), (N, widths[0], s, s) and (N, widths[1], s / 2, s / 2) of images (N, channels, 4 s, 4 s)."""

    def __init__(self, channels: int = 1, widths: tuple[int, int, int] = WIDTHS) -> None:
        super().__init__()
        first, second, third = widths
        self.stem = nn.Sequential(
            nn.Conv2d(channels, 8, 3, stride=2, padding=1), nn.GroupNorm(1, 8), nn.GELU(),
            nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.GroupNorm(1, 16), nn.GELU(),
            SplitAttentionBottleneck(16, first),
        )  # fmt: skip
        self.assistant = nn.ModuleList(
            (_Stage(first, first, False), _Stage(first, second, True), _Stage(second, third, True))
        )
        self.leader = nn.ModuleList((_Stage(first, first, False), _Stage(first, second, True)))
        self.compose = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 1), nn.GroupNorm(8, b)) for a, b in ((second, first), (third, second))
        )
        self.up = nn.Conv2d(second, first, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See the class; fine to coarse."""
        x = self.stem(image)
        helped = []
        y = x
        for stage in self.assistant:
            y = stage(y)
            helped.append(y)
        fine = self.leader[0](x + _resized(self.compose[0](helped[1]), x))
        middle = self.leader[1].enter(fine)
        coarse = self.leader[1].focus(middle + _resized(self.compose[1](helped[2]), middle))
        return helped[0], fine + _resized(self.up(coarse), fine), coarse


def _resized(x: Tensor, like: Tensor) -> Tensor:
    """By nearest neighbours, whose derivatives are plain."""
    return F.interpolate(x, like.shape[-2:], mode="nearest")


class _Stage(nn.Module):
    """Split attention, halved where asked, then a focal block."""

    def __init__(self, before: int, after: int, halve: bool) -> None:
        super().__init__()
        self.enter = nn.Sequential(
            SplitAttentionBottleneck(before, after),
            nn.Conv2d(after, after, 3, stride=2 if halve else 1, padding=1), nn.GroupNorm(8, after), nn.SiLU(),
        )  # fmt: skip
        self.focus = nn.Sequential(_Focal(after, 1), _Focal(after, 2))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.focus(self.enter(x))
        return out


class _Focal(nn.Module):
    """7 x 7 of each channel alone, dilated or not, then channels mixed four times as wide; added to what comes in."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(width, width, 7, padding=3 * dilation, dilation=dilation, groups=width), nn.GroupNorm(1, width),
            nn.Conv2d(width, 4 * width, 1), nn.GELU(), nn.Conv2d(4 * width, width, 1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.layers(x)
        return out
