"""Parts of a weights file's header that every method writes alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.rigid import rotation_log
from XRayRegistrationLib.images.volume import fingerprint
from XRayRegistrationLib.simulation.pose_samplers import pose_sampler

if TYPE_CHECKING:
    from XRayRegistrationLib.simulation.subject import Subject

_POSES, _POSES_SEED, _SLACK = 400, 5, 1.5


def camera_header(camera: Camera) -> dict[str, Any]:
    """JSON of the camera that a network looks through."""
    return {
        "width": camera.width,
        "height": camera.height,
        "K": np.asarray(camera.K).tolist(),
        "source_detector_distance_mm": camera.source_detector_distance_mm,
    }


def camera_of_header(header: dict[str, Any]) -> Camera:
    """Back from :func:`camera_header`."""
    values = header["input"]["camera"]
    return Camera(values["width"], values["height"], np.array(values["K"]), values["source_detector_distance_mm"])


def ct_header(subject: Subject) -> dict[str, str]:
    """Name and fingerprint of a CT."""
    return {"name": subject.name, "fingerprint": fingerprint(subject.ct)}


def poses_header(poses: str, camera: Camera) -> dict[str, Any]:
    """Mean and spread of the poses that a network learns from, about a point of the CT that is drawn about (the bone's centre).

    ``rotation`` (3, 3) and ``centre_camera`` (3,) mm of the mean; ``sigma`` (6,) in (rad, mm) along the camera's axes, half as
    wide again as what is drawn, since X-rays are taken otherwise too.
    """
    rng, origin, sampler = np.random.default_rng([_POSES_SEED]), np.zeros(3), pose_sampler(poses)
    drawn = np.stack([sampler.sample(origin, camera, rng) for _ in range(_POSES)])
    u, _, vt = np.linalg.svd(drawn[:, :3, :3].mean(axis=0))
    rotation = u @ np.diag([1.0, 1.0, np.linalg.det(u @ vt)]) @ vt
    turns, at = rotation_log(drawn[:, :3, :3] @ rotation.T), drawn[:, :3, 3].mean(axis=0)
    sigma = _SLACK * np.sqrt(np.concatenate([(turns**2).mean(axis=0), ((drawn[:, :3, 3] - at) ** 2).mean(axis=0)]))
    floor = np.array([0.02] * 3 + [2.0] * 3)
    return {"rotation": rotation.tolist(), "centre_camera": at.tolist(), "sigma": np.maximum(sigma, floor).tolist()}
