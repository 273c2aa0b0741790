"""Residual networks (He et al., CVPR 2016) for images of one channel, and PoseNet on top of one."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

#: Blocks at each of four levels, and whether they are bottlenecks.
_BLOCKS = {18: ((2, 2, 2, 2), False), 34: ((3, 4, 6, 3), False), 50: ((3, 4, 6, 3), True)}
_BOTTLENECK = 4
_GROUPS = 8

Norm = Literal["batch", "group"]


class ResNet(nn.Module):
    """The convolutions of a ResNet: 7x7 of stride 2, max-pooling, and four levels that double the channels.

    Args:
        depth: 18 or 34, of blocks with two 3x3 convolutions, or 50, of bottlenecks (their Table 1).
        width: channels of the first level; 64 in the paper.
        norm: batch norm, or group norm of 8 groups for batches of a few images.

    Takes (N, 1, H, W), gives (N, :attr:`channels`, H / 32, W / 32).
    """

    def __init__(self, depth: int, width: int = 64, norm: Norm = "batch"):
        super().__init__()
        counts, bottleneck = _BLOCKS[depth]
        expansion = _BOTTLENECK if bottleneck else 1
        self.stem = nn.Sequential(
            nn.Conv2d(1, width, 7, stride=2, padding=3, bias=False), _norm(norm, width), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        )
        blocks: list[nn.Module] = []
        entering = width
        for level, count in enumerate(counts):
            inner = width * 2**level
            for number in range(count):
                stride = 2 if level > 0 and number == 0 else 1
                blocks.append(_Residual(entering, inner, inner * expansion, stride, bottleneck, norm))
                entering = inner * expansion
        self.blocks = nn.Sequential(*blocks)
        self.channels = entering
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, image: Tensor) -> Tensor:
        """See the class."""
        out: Tensor = self.blocks(self.stem(image))
        return out


class _Residual(nn.Module):
    """ReLU(F(x) + x), with a 1x1 convolution on x where the size changes."""

    def __init__(self, entering: int, inner: int, leaving: int, stride: int, bottleneck: bool, norm: Norm):
        super().__init__()
        if bottleneck:
            steps = [(entering, inner, 1, 1), (inner, inner, 3, stride), (inner, leaving, 1, 1)]
        else:
            steps = [(entering, inner, 3, stride), (inner, leaving, 3, 1)]
        layers: list[nn.Module] = []
        for i, o, size, by in steps:
            layers += [nn.Conv2d(i, o, size, stride=by, padding=size // 2, bias=False), _norm(norm, o), nn.ReLU()]
        self.body = nn.Sequential(*layers[:-1])
        self.around = (
            nn.Identity()
            if entering == leaving and stride == 1
            else nn.Sequential(nn.Conv2d(entering, leaving, 1, stride=stride, bias=False), _norm(norm, leaving))
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = torch.relu(self.body(x) + self.around(x))
        return out


def _norm(kind: Norm, channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels) if kind == "batch" else nn.GroupNorm(_GROUPS, channels)


class PaperPoseNet(nn.Module):
    """PoseNet (Kendall et al. 2015 and 2017) on ResNet-50: mean over the image, 2048 hidden units, 3 + 4 numbers.

    Takes (N, 1, H, W), gives (N, 7): translation and quaternion.
    """

    multiple = 32

    def __init__(self) -> None:
        super().__init__()
        self.trunk = ResNet(50)
        self.hidden = nn.Sequential(nn.Linear(self.trunk.channels, 2048), nn.ReLU(), nn.Dropout(0.5))
        self.out = nn.Linear(2048, 7)

    def forward(self, image: Tensor) -> Tensor:
        """See the class."""
        out: Tensor = self.out(self.hidden(self.trunk(image).mean((-2, -1))))
        return out


class LightPoseNet(nn.Module):
    """ResNet-18 of a third of the width, whose last maps are not averaged: where things lie is what is asked.

    Takes (N, 1, H, W), gives (N, 9): two numbers for the place on the detector, one for the depth, six for the rotation.
    """

    multiple = 32
    _GRID, _KEPT = 4, 32

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.trunk = ResNet(18, width)
        self.fewer = nn.Sequential(nn.Conv2d(self.trunk.channels, self._KEPT, 1), nn.AdaptiveAvgPool2d(self._GRID))
        self.hidden = nn.Sequential(nn.Flatten(), nn.Linear(self._KEPT * self._GRID**2, 256), nn.ReLU())
        self.out = nn.Linear(256, 9)

    def forward(self, image: Tensor) -> Tensor:
        """See the class."""
        hidden = self.hidden(self.fewer(self.trunk(image)))
        with torch.autocast(hidden.device.type, enabled=False):  # bfloat16 has less than three digits
            out: Tensor = self.out(hidden.float())
        return out


def pose_network(architecture: dict[str, Any]) -> nn.Module:
    """The paper's or the light one."""
    return PaperPoseNet() if architecture["paper_mode"] else LightPoseNet(int(architecture["width"]))
