"""Step by step as a network says, from a start: DeepIM's and DMW's way to a pose."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from XRayRegistrationLib.drr.render import render
from XRayRegistrationLib.geometry.rigid import from_rotation_translation, rotation_log, transform_points

if TYPE_CHECKING:
    from torch import Tensor

    from XRayRegistrationLib.drr.volume import AttenuationVolume
    from XRayRegistrationLib.geometry.camera import Camera
    from XRayRegistrationLib.networks.relative_pose import RelativePoseNetwork

Array = NDArray[np.float64]

STEPS = 12
_STILL_RAD, _STILL_MM = 0.002, 0.5  # a step below both is the last


def step(
    network: RelativePoseNetwork,
    volume: AttenuationVolume,
    image: Tensor,
    camera: Camera,
    camera_from_ct: Array,
    centre_ct: Array,
) -> Array:
    """Poses (N, 4, 4) after one step from ``camera_from_ct`` (N, 4, 4), of X-rays (N, 1, H, W)."""
    import torch

    from XRayRegistrationLib.networks.relative_pose import moved

    projections = projected(volume, camera, camera_from_ct).to(image.device)
    rotation, place = rotations_and_places(camera_from_ct, centre_ct)
    with torch.no_grad():
        numbers = network(projections, image).double().cpu()
        focal = torch.as_tensor(np.diag(camera.K)[:2].copy())
        turned, there = (x.numpy() for x in moved(network.kind, numbers, rotation, place, focal, camera.width))
    return from_rotation_translation(turned, there - turned @ centre_ct)


def walk(
    network: RelativePoseNetwork, volume: AttenuationVolume, image: Tensor, camera: Camera, start: Array, centre_ct: Array
) -> Array:
    """Where one X-ray (1, 1, H, W) leads from a start (4, 4): until the steps are small, twelve at most."""
    pose = start
    for _ in range(STEPS):
        after = step(network, volume, image, camera, pose[None], centre_ct)[0]
        turn = np.linalg.norm(rotation_log(after[:3, :3] @ pose[:3, :3].T))
        shift = np.linalg.norm(transform_points(after, centre_ct) - transform_points(pose, centre_ct))
        pose = after
        if turn < _STILL_RAD and shift < _STILL_MM:
            break
    return pose


def projected(volume: AttenuationVolume, camera: Camera, camera_from_ct: Array) -> Tensor:
    """(N, 1, H, W) projections at poses (N, 4, 4)."""
    import torch

    images = render(volume, camera, camera_from_ct, step_mm=float(volume.spacing_mm.min()))
    return torch.as_tensor(np.asarray(images, dtype=np.float32))[:, None]


def rotations_and_places(camera_from_ct: Array, centre_ct: Array) -> tuple[Tensor, Tensor]:
    """(N, 3, 3) and (N, 3) mm of poses (N, 4, 4): how the bone is turned, and where its centre is."""
    import torch

    places = np.stack([transform_points(pose, centre_ct) for pose in camera_from_ct])
    return torch.as_tensor(camera_from_ct[:, :3, :3].copy()), torch.as_tensor(places)
