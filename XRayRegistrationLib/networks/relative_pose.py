"""Networks that look at a projection and an X-ray and say how the pose has to move: DeepIM's and DMW's."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from XRayRegistrationLib.networks.pose_parameters import rotation_of_quaternion, rotation_of_vector
from XRayRegistrationLib.networks.similarity_network import levelled

LENGTH_MM = 100.0
_BONE = 0.02  # of an image's largest projection: what is above is bone
_SEEN = 0.5  # of the image's width, for a unit of DeepIM's shift in the image


Kind = Literal["deepim", "dmw"]


class RelativePoseNetwork(nn.Module):
    """From a projection and an X-ray to a motion of the bone, in numbers of its kind (:func:`moved`)."""

    kind: Kind


def moved(
    kind: Kind, numbers: Tensor, rotation: Tensor, place: Tensor, focal: Tensor, width: int
) -> tuple[Tensor, Tensor]:
    """Rotations (N, 3, 3) and the bone's places (N, 3) mm in the camera, after the motion that numbers stand for.

    ``deepim``, 7 numbers: a quaternion, what is seen of the shift in the image, and the log of the depths' ratio.
    ``dmw``, 6: a rotation vector in rad, and a shift in units of 100 mm.

    Args:
        numbers: (N, k), the network's. rotation, place: before. focal: (2,) px, of images ``width`` px wide.
    """
    if kind == "deepim":
        turn = rotation_of_quaternion(numbers[:, :4] + numbers.new_tensor([1.0, 0, 0, 0]))
        depth = place[:, 2:] * torch.exp(-numbers[:, 6:].clamp(-1.0, 1.0))
        seen = place[:, :2] / place[:, 2:] + numbers[:, 4:6] * (_SEEN * width) / focal
        return turn @ rotation, torch.cat([seen * depth, depth], 1)
    return rotation_of_vector(numbers[:, :3]) @ rotation, place + LENGTH_MM * numbers[:, 3:]


class DeepIm(RelativePoseNetwork):
    """DeepIM (Li et al., ECCV 2018): the convolutions of FlowNetS, two layers, a quaternion and a shift.

    An X-ray has no mask of its bone and bone fills it, so the mask is the projection's alone, and nothing is zoomed.

    Args:
        published: FlowNetS's widths; otherwise an eighth of them and fewer strides.
        size: pixels along a side.

    Takes projections and X-rays (N, 1, size, size), gives (N, 7).
    """

    kind = "deepim"

    def __init__(self, published: bool, size: int) -> None:
        super().__init__()
        later = 2 if published else 1
        rows = (
            (64, 7, 2), (128, 5, 2), (256, 5, 2), (256, 3, 1), (512, 3, later), (512, 3, 1), (512, 3, later), (512, 3, 1),
            (1024, 3, later),
        )  # fmt: skip
        layers: list[nn.Module] = []
        before, side = 3, size
        for width, kernel, stride in rows:
            width = width if published else width // 8
            layers.append(nn.Conv2d(before, width, kernel, stride=stride, padding=kernel // 2))
            layers += [] if published else [nn.GroupNorm(8, width)]
            layers.append(nn.LeakyReLU(0.1))
            before, side = width, -(-side // stride)
        if not published:
            layers.append(nn.AdaptiveAvgPool2d(side := 4))
        self.layers = nn.Sequential(*layers, nn.Flatten())
        self.out = nn.Sequential(
            nn.Linear(before * side**2, 256), nn.LeakyReLU(0.1), nn.Linear(256, 256), nn.LeakyReLU(0.1), nn.Linear(256, 7)
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, a=0.1)
        _begin_at_rest(self.out[-1])

    def forward(self, projections: Tensor, xray: Tensor) -> Tensor:
        """See the class."""
        mask = (projections > _BONE * projections.amax((-2, -1), keepdim=True)).to(projections.dtype)
        out: Tensor = self.out(self.layers(torch.cat([levelled(projections), mask, xray], 1)))
        return out


class Dmw(RelativePoseNetwork):
    """DMW (Gu et al. 2020): dense blocks on the two images, and a turn and a shift, a step of gradient descent.

    The paper's layers are not in our sources; published are DenseNet-121's.

    Args:
        published: DenseNet-121; otherwise three blocks of four layers.

    Takes projections and X-rays (N, 1, H, W), gives (N, 6).
    """

    kind = "dmw"

    def __init__(self, published: bool) -> None:
        super().__init__()
        growth, blocks, width = (32, (6, 12, 24, 16), 64) if published else (12, (4, 4, 4), 24)
        stem = [nn.Conv2d(2, width, 7, stride=2, padding=3, bias=False), _norm(width, published), nn.ReLU()]
        layers: list[nn.Module] = [*stem, nn.MaxPool2d(3, 2, 1)] if published else stem
        for number, count in enumerate(blocks):
            for _ in range(count):
                layers.append(_Dense(width, growth, published))
                width += growth
            if number + 1 < len(blocks):
                halved = width // 16 * 8
                layers += [_norm(width, published), nn.ReLU(), nn.Conv2d(width, halved, 1, bias=False), nn.AvgPool2d(2)]
                width = halved
        pooled = 1 if published else 4
        self.layers = nn.Sequential(*layers, _norm(width, published), nn.ReLU(), nn.AdaptiveAvgPool2d(pooled), nn.Flatten())
        self.out = nn.Linear(width * pooled**2, 6)
        _begin_at_rest(self.out)

    def forward(self, projections: Tensor, xray: Tensor) -> Tensor:
        """See the class."""
        out: Tensor = self.out(self.layers(torch.cat([levelled(projections), xray], 1)))
        return out


class _Dense(nn.Module):
    """1 x 1 to four times the growth, 3 x 3 to the growth, put beside what came in (Huang et al., CVPR 2017)."""

    def __init__(self, width: int, growth: int, batch_norm: bool) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            _norm(width, batch_norm), nn.ReLU(), nn.Conv2d(width, 4 * growth, 1, bias=False),
            _norm(4 * growth, batch_norm), nn.ReLU(), nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.layers(x)], 1)


def _norm(width: int, batch: bool) -> nn.Module:
    return nn.BatchNorm2d(width) if batch else nn.GroupNorm(4, width)


def _begin_at_rest(layer: nn.Module) -> None:
    assert isinstance(layer, nn.Linear)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)


def relative_pose_network(architecture: dict[str, Any]) -> RelativePoseNetwork:
    """As the header's ``architecture`` says: kind, published, size."""
    published = bool(architecture["published"])
    return DeepIm(published, int(architecture["size"])) if architecture["kind"] == "deepim" else Dmw(published)
