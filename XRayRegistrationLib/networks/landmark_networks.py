"""Networks that give a map for each landmark, and for each label where it is seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from XRayRegistrationLib.networks.unet import LIGHT_WIDTHS, PAPER_WIDTHS, UNet

#: Of DFLNet (Grupp et al., IPCAI 2020).
DFLNET_WIDTHS = (32, 64, 128, 256, 512, 1024)
_FEATURES = 64


class LightLandmarkNet(nn.Module):
    """The light U-Net, and a nonlinear reading of its 64 features in each cell.

    With no more features than 16, the maps of 40 landmarks would depend on one another.

    Takes (N, 1, H, W), gives maps of landmarks (N, landmarks, H / 4, W / 4) and of labels (N, labels, H / 4, W / 4).
    """

    def __init__(self, landmarks: int, labels: int, widths: Sequence[int] = LIGHT_WIDTHS):
        super().__init__()
        self.landmarks = landmarks
        self.body = UNet(1, _FEATURES, widths, stem=4)
        self.head = nn.Conv2d(_FEATURES, landmarks + labels, 1)
        self.stride, self.multiple = self.body.stride, self.body.multiple

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        features = self.body(image)
        with torch.autocast(features.device.type, enabled=False):  # bfloat16 is too coarse for what tells cells apart
            out = self.head(torch.relu(features.float()))
        return out[:, : self.landmarks], out[:, self.landmarks :]


class ScrLandmarkNet(nn.Module):
    """The landmark baseline of scene coordinate regression (Shrestha et al., MICCAI 2023): its U-Net, 31 M parameters.

    Takes (N, 1, H, W), gives (N, landmarks, H, W) and no labels.
    """

    def __init__(self, landmarks: int):
        super().__init__()
        self.body = UNet(1, landmarks, PAPER_WIDTHS, stem=1)
        self.stride, self.multiple = self.body.stride, self.body.multiple

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        maps = self.body(image)
        return maps, maps[:, :0]


class DflNet(nn.Module):
    """DFLNet (Grupp et al., IPCAI 2020): a residual U-Net with 6 levels that segments, then finds landmarks.

    Two convolutions, each followed by ReLU and batch norm, and a 1x1 convolution around both; down by 2x2 convolutions of
    stride 2, up by transposed ones. The landmarks' head sees 32 features and the logits of the labels.

    It has 33.9 million parameters with 7 labels and 14 landmarks; published are 38.1, the difference being just that of
    one more convolution down from the lowest level, which could not reach the result.

    Takes (N, 1, H, W), multiples of 32; gives (N, landmarks, H, W) and logits (N, labels, H, W).
    """

    def __init__(self, landmarks: int, labels: int, widths: Sequence[int] = DFLNET_WIDTHS):
        super().__init__()
        self.stride, self.multiple = 1, 2 ** (len(widths) - 1)
        self.down = nn.ModuleList(_ResidualBlock(i, o) for i, o in zip((1, *widths[:-1]), widths, strict=True))
        self.halve = nn.ModuleList(nn.Conv2d(w, w, 2, stride=2) for w in widths[:-1])
        pairs = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.widen = nn.ModuleList(nn.ConvTranspose2d(i, o, 2, stride=2) for i, o in pairs)
        self.up = nn.ModuleList(_ResidualBlock(2 * o, o) for _, o in pairs)
        self.segmentation = nn.Conv2d(widths[0], labels, 1)
        both = widths[0] + labels
        hidden = labels + landmarks
        self.heatmaps = nn.Sequential(nn.Conv2d(both, hidden, 1), nn.Conv2d(hidden, landmarks, 1))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        x = self.down[0](image)
        skips: list[Tensor] = []
        for halve, block in zip(self.halve, list(self.down)[1:], strict=True):
            skips.append(x)
            x = block(halve(x))
        for widen, block in zip(self.widen, self.up, strict=True):
            x = block(torch.cat([widen(x), skips.pop()], dim=1))
        labels = self.segmentation(x)
        return self.heatmaps(torch.cat([x, labels], dim=1)), labels


class _ResidualBlock(nn.Module):
    def __init__(self, inside: int, outside: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inside, outside, 3, padding=1),
            nn.ReLU(),
            nn.BatchNorm2d(outside),
            nn.Conv2d(outside, outside, 3, padding=1),
            nn.ReLU(),
            nn.BatchNorm2d(outside),
        )
        self.around = nn.Conv2d(inside, outside, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x) + self.around(x)
        return out


def landmark_network(architecture: dict[str, Any]) -> nn.Module:
    """By name: ``light``, ``scr`` or ``dflnet``; for as many ``landmarks`` and ``labels`` as it says.

    Raises:
        ValueError: another name.
    """
    name, landmarks, labels = architecture["network"], int(architecture["landmarks"]), int(architecture["labels"])
    if name == "light":
        return LightLandmarkNet(landmarks, labels)
    if name == "scr":
        return ScrLandmarkNet(landmarks)
    if name == "dflnet":
        return DflNet(landmarks, labels)
    raise ValueError(f"network {name!r} is unknown")
