"""A small CT with a body and bones of no symmetry, whose registration takes a second."""

from __future__ import annotations

import numpy as np

from XRayRegistrationLib.drr.render import render
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.rigid import rotation_exp
from XRayRegistrationLib.images.volume import Volume
from XRayRegistrationLib.images.xray import XRay
from XRayRegistrationLib.simulation.materials import BONE_MU_PER_MM, material_volume

CAMERA = Camera.from_spacing(96, 80, 3.0, 1000.0)

# centre mm, semi-axes mm, HU
_ELLIPSOIDS = (
    ((0, 0, 0), (85, 60, 95), 40),
    ((0, -30, 0), (14, 12, 80), 700),
    ((-45, 5, 30), (22, 10, 14), 900),
    ((50, 10, 12), (12, 18, 30), 800),
    ((30, 25, -45), (25, 8, 10), 1000),
    ((-35, -10, -40), (9, 9, 26), 1100),
)


def ct_phantom(spacing_mm: float = 2.5, tilt: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Volume:
    """HU on a grid that is turned by the rotation vector ``tilt`` against the patient; the patient is not."""
    n = np.array([80, 60, 84])  # i, j, k
    rotation = rotation_exp(tilt)
    centre = np.array([12.0, -7.0, 30.0])  # of the patient, in RAS
    ras_from_ijk = np.eye(4)
    ras_from_ijk[:3, :3] = rotation * spacing_mm
    ras_from_ijk[:3, 3] = centre - rotation @ ((n - 1) / 2 * spacing_mm)
    k, j, i = np.meshgrid(*(np.arange(m) for m in n[::-1]), indexing="ij")
    ras = np.stack([i, j, k], axis=-1) @ ras_from_ijk[:3, :3].T + ras_from_ijk[:3, 3] - centre
    hu = np.full(i.shape, -1000.0, np.float32)
    for middle, axes, value in _ELLIPSOIDS:
        # a soft edge of one voxel, so that nothing aliases
        radius = np.linalg.norm((ras - middle) / np.array(axes), axis=-1)
        inside = np.clip((1.0 - radius) * min(axes) / spacing_mm + 0.5, 0.0, 1.0)
        hu += inside * (value - hu)
    return Volume(hu, ras_from_ijk, "phantom")


def xray_of(ct: Volume, camera: Camera, camera_from_ct: np.ndarray, seed: int = 0, noise: float = 0.01) -> XRay:
    """An X-ray with beam hardening and noise, from two materials."""
    soft, bone = render(material_volume(ct), camera, camera_from_ct, backend="scipy", step_mm=1.1)
    hard = 0.6 * np.exp(-0.021 * soft - 0.062 * bone) + 0.4 * np.exp(-0.018 * soft - 0.8 * BONE_MU_PER_MM * bone)
    image = -np.log(hard) + np.random.default_rng(seed).normal(0, noise, hard.shape)
    return XRay(image.astype(np.float32), np.ones(hard.shape, bool), camera, source="simulated")
