"""From the numbers that a network gives to a pose, so that all of them are of about the same size.

Both kinds are relative to a mean pose: its rotation R0 = ``rotation``, and the bone's centre c at ``centre_camera`` = (x0, y0,
z0). R is built on the left, R = dR R0, and camera_from_ct = [R | p - R c] with the centre at p:

- ``detector`` (9 numbers): p is seen 100 (n0, n1) pixels from the middle of an image of 128 pixels (and as much more as it
  is larger), at the depth z0 exp(n2); dR from two columns of a matrix (Zhou et al., CVPR 2019).
- ``metric`` (7 numbers): p = p0 + 100 mm (n0, n1, n2); dR is the unit quaternion (w, x, y, z) along (n3 + 1, n4, n5, n6).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from XRayRegistrationLib.geometry.camera import Camera

_DETECTOR = 100.0 / 128.0  # of the image's width
_UNIT_MM = 100.0
_LEAST_DEPTH_MM = 50.0


@dataclass(frozen=True)
class PoseParameters:
    """How numbers are read as poses.

    Attributes:
        kind: see the file.
        rotation: (3, 3), camera_from_ct of the mean pose.
        centre_camera: (3,) mm, of the bone's centre in it.
        centre_ct: (3,) mm.
        focal_px: of the camera that was learned.
    """

    kind: Literal["detector", "metric"]
    rotation: NDArray[np.float64]
    centre_camera: NDArray[np.float64]
    centre_ct: NDArray[np.float64]
    focal_px: float

    def poses(self, numbers: Tensor, camera: Camera) -> tuple[Tensor, Tensor]:
        """Rotations (N, 3, 3) and the centre's places (N, 3) mm in the camera, from (N, 9) or (N, 7).

        Args:
            camera: of the image, as large as the one that was learned; its beam's foot and focal length may be a
                little off, which ``detector`` makes up for: what is seen twice as large is taken to be twice as near.
        """
        mean = torch.as_tensor(self.rotation, dtype=numbers.dtype, device=numbers.device)
        at = torch.as_tensor(self.centre_camera, dtype=numbers.dtype, device=numbers.device)
        if self.kind == "metric":
            place = at + _UNIT_MM * numbers[:, :3]
            place = torch.cat([place[:, :2], place[:, 2:].clamp(min=_LEAST_DEPTH_MM)], dim=1)
            return rotation_of_quaternion(numbers[:, 3:7] + numbers.new_tensor([1.0, 0, 0, 0])) @ mean, place
        depth = at[2] * torch.exp(numbers[:, 2].clamp(-1.5, 1.5)) * (float(camera.K[0, 0]) / self.focal_px)
        off = camera.K[:2, 2] - (np.array([camera.width, camera.height]) - 1) / 2
        seen = numbers[:, :2] * (_DETECTOR * camera.width) - torch.as_tensor(off, dtype=numbers.dtype, device=numbers.device)
        focal = numbers.new_tensor([float(camera.K[0, 0]), float(camera.K[1, 1])])
        place = torch.cat([seen / focal * depth[:, None], depth[:, None]], dim=1)
        return rotation_of_columns(numbers[:, 3:9]) @ mean, place

    def camera_from_ct(self, numbers: Tensor, camera: Camera) -> NDArray[np.float64]:
        """(N, 4, 4)."""
        rotation, place = (x.detach().cpu().numpy() for x in self.poses(numbers.double(), camera))
        out = np.tile(np.eye(4), (len(place), 1, 1))
        out[:, :3, :3] = rotation
        out[:, :3, 3] = place - rotation @ self.centre_ct
        return out

    def header(self) -> dict[str, Any]:
        """JSON."""
        return {
            "kind": self.kind,
            "focal_px": self.focal_px,
            **{name: np.asarray(getattr(self, name)).tolist() for name in ("rotation", "centre_camera", "centre_ct")},
        }

    @classmethod
    def of_header(cls, values: dict[str, Any]) -> PoseParameters:
        """Back from :meth:`header`."""
        rotation, centre_camera, centre_ct = (np.array(values[name]) for name in ("rotation", "centre_camera", "centre_ct"))
        return cls(values["kind"], rotation, centre_camera, centre_ct, float(values["focal_px"]))


def rotation_of_columns(numbers: Tensor) -> Tensor:
    """(N, 6) to (N, 3, 3) by Gram-Schmidt; 0 is no rotation."""
    a, b = numbers[:, :3] + numbers.new_tensor([1.0, 0, 0]), numbers[:, 3:] + numbers.new_tensor([0, 1.0, 0])
    x = torch.nn.functional.normalize(a, dim=1)
    y = torch.nn.functional.normalize(b - (x * b).sum(1, keepdim=True) * x, dim=1)
    return torch.stack([x, y, torch.linalg.cross(x, y)], dim=2)


def rotation_of_quaternion(q: Tensor) -> Tensor:
    """(N, 4) = (w, x, y, z), of any length, to (N, 3, 3)."""
    w, x, y, z = torch.nn.functional.normalize(q, dim=1).unbind(1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)


def rotation_of_vector(w: Tensor) -> Tensor:
    """Rotations (N, 3, 3) of rotation vectors (N, 3) in rad; differentiable everywhere, as often as is wanted."""
    zero = torch.zeros_like(w[:, 0])
    x, y, z = w.unbind(1)
    skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], 1).reshape(-1, 3, 3)
    return torch.linalg.matrix_exp(skew)
