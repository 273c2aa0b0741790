"""A small bone-like phantom and X-rays of it at a known pose, for the tests of the slower solvers."""

from __future__ import annotations

import numpy as np

from XRayRegistrationLib.drr import AttenuationVolume, render
from XRayRegistrationLib.geometry import rigid
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.images.xray import XRay

CT_FROM_IJK = rigid.from_rotation_translation(rigid.rotation_exp([0.1, -0.2, 0.3]), [30.0, -20.0, 15.0]) @ np.diag(
    [2.0, 2.0, 2.0, 1.0]
)


def ellipsoids() -> AttenuationVolume:
    """40^3 voxels of 2 mm: a soft body, five bones in it, no symmetry."""
    k, j, i = np.indices((40, 40, 40), dtype=float)
    mu = np.zeros(i.shape)
    for (ci, cj, ck), (ri, rj, rk), value in (
        ((20, 20, 20), (17, 14, 18), 0.004),
        ((14, 17, 24), (5, 4, 9), 0.03),
        ((27, 22, 14), (4, 6, 5), 0.035),
        ((22, 28, 28), (8, 2.5, 3), 0.03),
        ((12, 24, 11), (3, 3, 3), 0.04),
        ((26, 13, 27), (2.5, 3, 6), 0.03),
    ):
        distance = np.sqrt(((i - ci) / ri) ** 2 + ((j - cj) / rj) ** 2 + ((k - ck) / rk) ** 2)
        mu += value * np.clip((1.0 - distance) * min(ri, rj, rk) + 0.5, 0.0, 1.0)  # edges one voxel soft
    return AttenuationVolume(mu, CT_FROM_IJK)


def true_pose(volume: AttenuationVolume, depth_mm: float = 500.0) -> np.ndarray:
    rotation = rigid.rotation_exp([1.3, 0.2, -0.3])
    centre = np.array([4.0, -3.0, depth_mm])
    return rigid.from_rotation_translation(rotation, centre - rotation @ volume.centre_ct)


def xray_at(volume: AttenuationVolume, camera: Camera, camera_from_ct: np.ndarray, *, seed: int = 0) -> XRay:
    """A noisy X-ray of another gain and offset, one corner of it collimated and full of junk."""
    rng = np.random.default_rng(seed)
    image = 3.0 * render(volume, camera, camera_from_ct, step_mm=0.7) + 5.0
    image += 0.02 * rng.normal(size=image.shape)
    mask = np.ones(image.shape, bool)
    mask[: camera.height // 6, : camera.width // 6] = False
    image[~mask] = 1e4
    return XRay(image.astype(np.float32), mask, camera)


def distance_mm(volume: AttenuationVolume, a: np.ndarray, b: np.ndarray) -> float:
    """Mean distance of the corners of the inner volume at two poses."""
    corners = np.array([[i, j, k] for i in (8, 32) for j in (8, 32) for k in (8, 32)], dtype=float)
    points = rigid.transform_points(volume.ct_from_ijk, corners)
    return float(np.linalg.norm(rigid.transform_points(a, points) - rigid.transform_points(b, points), axis=1).mean())


def moved(volume: AttenuationVolume, camera_from_ct: np.ndarray, step: list[float]) -> np.ndarray:
    """The pose after a step (degrees, mm) about the volume's centre, in camera axes."""
    centre = rigid.transform_points(camera_from_ct, volume.centre_ct)
    return rigid.increment_left(camera_from_ct, np.array([*np.radians(step[:3]), *step[3:]]), centre)
