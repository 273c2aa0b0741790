"""Networks of ProST: a CT and an X-ray in, a similarity out whose slope in the pose is what is learned (Gao et al.).

The volume passes a small residual 3D network into three channels; their projections, made elsewhere
(networks.derivative_images), meet the X-ray in a 2D network. Smaller is more alike.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from XRayRegistrationLib.networks.cross_vit import CrossViT
from XRayRegistrationLib.networks.similarity_network import SimilarityNetwork, levelled

Kind = Literal["light", "tmi2024", "miccai2020"]
VOLUME_WIDTHS, LIGHT_VOLUME_WIDTHS = (4, 8, 16, 8), (8,)
PROJECTED = 3  # channels
_SMALL = 1 << 19  # voxels


class ResidualVolume(nn.Module):
    """Three channels (3, nk, nj, ni) of a volume (1, nk, nj, ni): the volume three times, and what convolutions add.

    Args:
        widths: of the convolutions but the last.
        norm: batch normalisation between them, as in 2024; the paper of 2020 has none.
    """

    def __init__(self, widths: tuple[int, ...], norm: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in zip((1, *widths), widths, strict=False):
            layers.append(nn.Conv3d(before, after, 3, padding=1))
            layers += [nn.BatchNorm3d(after)] if norm else []
            layers.append(nn.ReLU())
        self.layers = nn.Sequential(*layers, _FewChannels(widths[-1], PROJECTED, 3, padding=1))

    def forward(self, volume: Tensor) -> Tensor:
        """See the class."""
        out: Tensor = volume.expand(PROJECTED, -1, -1, -1) + self.layers(volume[None])[0]
        return out


class _FewChannels(nn.Conv3d):
    """As Conv3d; small volumes on a CPU as a 2D convolution of neighbouring slices, which is three times as fast."""

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or x.numel() > _SMALL * x.shape[1]:
            return super().forward(x)
        slices = nn.functional.pad(x[0], (0, 0, 0, 0, 1, 1)).unfold(1, 3, 1)  # (channels, nk, nj, ni, 3)
        stacked = slices.permute(1, 0, 4, 2, 3).flatten(1, 2)
        out = nn.functional.conv2d(stacked, self.weight.flatten(1, 2), self.bias, padding=1)
        return out.transpose(0, 1)[None]


class ProstNetwork(SimilarityNetwork):
    """The similarity of projections and an X-ray.

    Args:
        kind: ``tmi2024`` (CrossViT, 2.2 million parameters), ``miccai2020`` (two encoders, distance of their outputs), or
            ``light``: convolutions on fewer pixels, smooth everywhere.
        size: pixels along a side of the images.
        volume_network: False leaves the volume as it is (the paper's ablation).
    """

    def __init__(self, kind: Kind, size: int, volume_network: bool = True) -> None:
        super().__init__()
        self.kind = kind
        self.volume = None
        if volume_network:
            widths = LIGHT_VOLUME_WIDTHS if kind == "light" else VOLUME_WIDTHS
            self.volume = ResidualVolume(widths, norm=kind == "tmi2024")
        self.compare: nn.Module
        if kind == "tmi2024":
            self.compare = _CrossViTComparison(size)
        elif kind == "miccai2020":
            self.compare = _EncodedDistance()
        else:
            self.compare = _LightComparison()

    def features(self, volume: Tensor) -> Tensor:
        """(3, nk, nj, ni) of a volume (1, nk, nj, ni)."""
        out: Tensor = volume.expand(PROJECTED, -1, -1, -1) if self.volume is None else self.volume(volume)
        return out

    def similarity(self, projections: Tensor, xray: Tensor) -> Tensor:
        """(N,) of projections (N, 3, size, size) and X-rays (N, 1, size, size)."""
        out: Tensor = self.compare(levelled(projections), xray)
        return out


class _CrossViTComparison(nn.Module):
    """The TMI paper's: three projections become one image, then CrossViT and one number."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(PROJECTED, 1, 3, padding=1)
        self.encoder = CrossViT(size, 2, 1000)
        self.out = nn.Linear(1000, 1)

    def forward(self, projections: Tensor, xray: Tensor) -> Tensor:
        both = torch.cat([self.mix(projections), xray], 1)
        out: Tensor = self.out(self.encoder(both))[:, 0]
        return out


class _EncodedDistance(nn.Module):
    """The MICCAI paper's: an encoder each, and the mean squared distance between what they say."""

    def __init__(self) -> None:
        super().__init__()
        self.moving, self.target = _encoder(PROJECTED), _encoder(1)

    def forward(self, projections: Tensor, xray: Tensor) -> Tensor:
        return (self.moving(projections) - self.target(xray)).square().mean((1, 2, 3))


def _encoder(channels: int) -> nn.Sequential:
    """To 64 channels on an eighth of the pixels; 756,000 parameters in all, where the paper's have 782,000."""
    layers: list[nn.Module] = [nn.Conv2d(channels, 16, 3, padding=1), nn.ReLU()]
    for before, after in ((16, 64), (64, 128), (128, 128)):
        layers += [_Bottleneck(before, after), _Bottleneck(after, after), _Bottleneck(after, after), nn.AvgPool2d(2)]
    return nn.Sequential(*layers, nn.Conv2d(128, 64, 1))


class _Bottleneck(nn.Module):
    """Narrow 3 x 3 between two 1 x 1 convolutions, added to what comes in."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        narrow = after // 2
        self.layers = nn.Sequential(
            nn.Conv2d(before, narrow, 1), nn.ReLU(), nn.Conv2d(narrow, narrow, 3, padding=1), nn.ReLU(),
            nn.Conv2d(narrow, after, 1),
        )  # fmt: skip
        self.past = nn.Conv2d(before, after, 1) if before != after else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.relu(self.past(x) + self.layers(x))


class _LightComparison(nn.Module):
    """Convolutions on both images together, halved four times; what is left on 4 x 4 cells, and two layers."""

    widths = (32, 64, 96, 128)

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = PROJECTED + 1
        for number, width in enumerate(self.widths):
            side = 5 if number == 0 else 3
            layers += [nn.Conv2d(before, width, side, stride=2, padding=side // 2), nn.GroupNorm(4, width), nn.SiLU()]
            layers += [] if number == 0 else [_Residual(width)]
            before = width
        self.layers = nn.Sequential(*layers)
        self.out = nn.Sequential(nn.Linear(before * 16, 128), nn.SiLU(), nn.Linear(128, 1))

    def forward(self, projections: Tensor, xray: Tensor) -> Tensor:
        x = nn.functional.adaptive_avg_pool2d(self.layers(torch.cat([projections, xray], 1)), 4)
        out: Tensor = self.out(x.flatten(1))[:, 0]
        return out


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.GroupNorm(4, width), nn.SiLU())

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.layers(x)
        return out


def prost_network(architecture: dict[str, Any]) -> ProstNetwork:
    """As the header's ``architecture`` says: kind, size, volume_network."""
    return ProstNetwork(architecture["kind"], int(architecture["size"]), bool(architecture["volume_network"]))
