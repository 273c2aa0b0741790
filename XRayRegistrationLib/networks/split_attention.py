"""Split attention (ResNeSt, Zhang et al. 2020): groups of channels are weighed against one another, image by image."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

_RADIX = 2
_LEAST_HIDDEN = 32


class SplitAttention(nn.Module):
    """A 3 x 3 convolution to two groups of ``width`` channels, and their sum, each weighed by what both look like."""

    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        hidden = max(width * _RADIX // 4, _LEAST_HIDDEN)
        self.width = width
        self.split = nn.Sequential(
            nn.Conv2d(before, width * _RADIX, 3, padding=1, groups=_RADIX, bias=False), nn.GroupNorm(8, width * _RADIX), nn.SiLU()
        )
        self.weigh = nn.Sequential(nn.Conv2d(width, hidden, 1), nn.SiLU(), nn.Conv2d(hidden, width * _RADIX, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, width, H, W) of (N, before, H, W)."""
        groups = self.split(x).unflatten(1, (_RADIX, self.width))
        weight = self.weigh(groups.sum(1).mean((-2, -1), keepdim=True)).unflatten(1, (_RADIX, self.width)).softmax(1)
        return (groups * weight).sum(1)


class SplitAttentionBottleneck(nn.Module):
    """1 x 1 to a quarter of the channels, split attention, 1 x 1 back; added to what comes in."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        narrow = max(after // 4, 16)
        self.layers = nn.Sequential(
            nn.Conv2d(before, narrow, 1, bias=False), nn.GroupNorm(8, narrow), nn.SiLU(),
            SplitAttention(narrow, narrow),
            nn.Conv2d(narrow, after, 1, bias=False), nn.GroupNorm(8, after),
        )  # fmt: skip
        self.past = nn.Conv2d(before, after, 1, bias=False) if before != after else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(N, after, H, W) of (N, before, H, W)."""
        return F.silu(self.past(x) + self.layers(x))
