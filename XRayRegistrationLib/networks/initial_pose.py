"""SOPI's parameter initialisation: a CT and an X-ray in, a pose out, every number of it within bounds (Chen et al.)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.rigid import (
    from_rotation_translation,
    relative_motion,
    rotation_exp,
    rotation_log,
    transform_points,
)

Array = NDArray[np.float64]

_STEP = 1e-4  # of the numbers, for their derivatives
_REACH = 2.0  # of the spread of the poses that are learned, which is half as wide again as theirs


@dataclass(frozen=True)
class PoseBounds:
    """Six numbers from 0 to 1, and the poses that they stand for.

    They are a turn (w, rad) on the left of a mean rotation, and the bone's centre p as (x / z, y / z, log z): what is seen
    of it in the image, and its depth, each by itself. 0.5 is the mean pose of those that are learned.

    Attributes:
        rotation: (3, 3) of the mean. middle, half: (6,), of the range of each.
        focal_px, foot_px: of the camera that was learned, (2,) each; what is seen through a longer one is further away.
    """

    rotation: Array
    middle: Array
    half: Array
    focal_px: Array
    foot_px: Array

    @classmethod
    def of_poses(cls, mean: dict[str, Any], camera: Camera) -> PoseBounds:
        """About a mean pose with a spread (training.headers.poses_header), seen by ``camera``."""
        x, y, z = mean["centre_camera"]
        sigma = np.array(mean["sigma"])
        # by a log of depth, of more than a third, bounds would reach the source
        half = _REACH * np.concatenate([sigma[:3], sigma[3:5] / z, [min(sigma[5] / z, 0.35)]])
        middle = np.array([0.0, 0.0, 0.0, x / z, y / z, np.log(z)])
        return cls(np.array(mean["rotation"]), middle, half, np.diag(camera.K)[:2].copy(), camera.K[:2, 2].copy())

    def camera_from_ct(self, numbers: Array, centre_ct: Array, camera: Camera) -> Array:
        """(N, 4, 4) of numbers (N, 6), about bone centred at ``centre_ct`` (3,), as ``camera`` sees it."""
        turn_and_place = self.middle + (2.0 * numbers - 1.0) * self.half
        focal_px, foot_px = np.diag(camera.K)[:2], camera.K[:2, 2]
        pixels = self.focal_px * turn_and_place[:, 3:5] + self.foot_px
        z = np.exp(turn_and_place[:, 5:]) * (focal_px[0] / self.focal_px[0])
        place = np.concatenate([(pixels - foot_px) / focal_px * z, z], axis=1)
        rotation = rotation_exp(turn_and_place[:, :3]) @ self.rotation
        return from_rotation_translation(rotation, place - rotation @ centre_ct)

    def motions(self, numbers: Array, centre_ct: Array, camera: Camera) -> Array:
        """(N, 6, 6): how the pose moves, in (w, v) about the bone's centre, rad and mm, for each of the numbers (last axis)."""
        out = np.empty((*numbers.shape, 6))
        for k in range(6):
            step = np.zeros(6)
            step[k] = _STEP
            before, after = (self.camera_from_ct(numbers + sign * step, centre_ct, camera) for sign in (-1.0, 1.0))
            out[..., k] = relative_motion(before, after, centre_ct) / (2.0 * _STEP)
        return out

    def numbers(self, camera_from_ct: Array, centre_ct: Array) -> Array:
        """(N, 6) of poses (N, 4, 4) in front of the learned camera; beyond the bounds they are below 0 or above 1."""
        turn = rotation_log(camera_from_ct[:, :3, :3] @ self.rotation.T)
        place = np.stack([transform_points(pose, centre_ct) for pose in camera_from_ct])
        seen = np.concatenate([turn, place[:, :2] / place[:, 2:], np.log(place[:, 2:])], axis=1)
        return 0.5 + 0.5 * (seen - self.middle) / self.half

    def header(self) -> dict[str, Any]:
        """JSON."""
        return {name: np.asarray(value).tolist() for name, value in vars(self).items()}

    @classmethod
    def of_header(cls, values: dict[str, Any]) -> PoseBounds:
        """Back from :meth:`header`."""
        return cls(**{name: np.array(values[name]) for name in ("rotation", "middle", "half", "focal_px", "foot_px")})


def paper_voxels(size: int) -> int:
    """Sides of the cube that goes with images of ``size`` pixels: 16^3 cells become 64^2, of 128^3 voxels and 256^2 pixels.

    Raises:
        InputError: no cube does.
    """
    cells = round((size / 4) ** (2 / 3))
    if cells**3 != (size // 4) ** 2 or size % 4:
        raise InputError(f"the camera has {size} pixels; SOPI's published initialisation takes 32 or 256")
    return 8 * cells


class PaperInitialPose(nn.Module):
    """The first of the paper's three: a 3D and a 2D branch, whose maps are laid on one another, then three layers.

    Takes (1, V, V, V) and (N, 1, H, W) with V of :func:`paper_voxels`, gives (N, 6) in 0 to 1. Sigmoids end it in place of
    ReLU6 / 6, whose slope is 0 at its ends.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ct = nn.Sequential(
            *_paper_block(nn.Conv3d, nn.BatchNorm3d, 1, 64), nn.AvgPool3d(2),
            *_paper_block(nn.Conv3d, nn.BatchNorm3d, 64, 32), nn.AvgPool3d(2),
            *_paper_block(nn.Conv3d, nn.BatchNorm3d, 32, 32), nn.AvgPool3d(2),
        )  # fmt: skip
        self.xray = nn.Sequential(
            *_paper_block(nn.Conv2d, nn.BatchNorm2d, 1, 64), nn.AvgPool2d(2),
            *_paper_block(nn.Conv2d, nn.BatchNorm2d, 64, 32), nn.AvgPool2d(2),
        )  # fmt: skip
        self.both = nn.Sequential(
            *_paper_block(nn.Conv2d, nn.BatchNorm2d, 64, 32), nn.AvgPool2d(2),
            *_paper_block(nn.Conv2d, nn.BatchNorm2d, 32, 16), nn.AvgPool2d(2),
            nn.Conv2d(16, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(8),
        )  # fmt: skip
        self.out = nn.Sequential(nn.Flatten(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 6), nn.Sigmoid())

    def forward(self, volume: Tensor, xray: Tensor) -> Tensor:
        """See the class."""
        of_ct = self.ct(volume[None])
        of_xray = self.xray(xray)
        laid_out = of_ct.reshape(1, of_ct.shape[1], *of_xray.shape[-2:]).expand(len(xray), -1, -1, -1)
        out: Tensor = self.out(self.both(torch.cat([laid_out, of_xray], 1)))
        return out


def _paper_block(convolution: Any, norm: Any, before: int, after: int) -> list[nn.Module]:
    """Two convolutions with one normalisation that they share, ReLU and dropout."""
    shared = norm(after)
    return [
        convolution(before, after, 3, padding=1), shared, nn.ReLU(), nn.Dropout(0.2),
        convolution(after, after, 3, padding=1), shared, nn.ReLU(), nn.Dropout(0.2),
    ]  # fmt: skip


class LightInitialPose(nn.Module):
    """Strided convolutions: of the X-ray to 4 x 4 cells, of the CT to one code; two layers on both.

    Takes (1, nk, nj, ni) and (N, 1, H, W), gives (N, 6) in 0 to 1.
    """

    def __init__(self) -> None:
        super().__init__()
        self.xray = nn.Sequential(*_strided(nn.Conv2d, (1, 24, 48, 64, 96)), nn.AdaptiveAvgPool2d(4), nn.Flatten())
        self.ct = nn.Sequential(*_strided(nn.Conv3d, (1, 8, 16, 32)), nn.AdaptiveAvgPool3d(2), nn.Flatten(), nn.Linear(256, 64))
        self.out = nn.Sequential(nn.Linear(96 * 16 + 64, 256), nn.SiLU(), nn.Linear(256, 6), nn.Sigmoid())

    def forward(self, volume: Tensor, xray: Tensor) -> Tensor:
        """See the class."""
        out: Tensor = self.out(torch.cat([self.xray(xray), self.ct(volume[None]).expand(len(xray), -1)], 1))
        return out


def _strided(convolution: Any, widths: tuple[int, ...]) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [convolution(before, after, 3, stride=2, padding=1), nn.GroupNorm(8, after), nn.SiLU()]
    return layers
