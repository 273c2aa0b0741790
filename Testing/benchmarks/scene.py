"""What every contender renders: the sample chest CT, one oblique view, one detector in three sizes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from XRayRegistrationLib.drr.volume import AttenuationVolume, attenuation_from_hu
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.rigid import from_rotation_translation, inverse, rotation_exp, transform_points
from XRayRegistrationLib.images.sample import load_sample_ct

SOURCE_DETECTOR_MM = 1020.0
SOURCE_CENTRE_MM = 750.0
DETECTOR_MM = 430.0
SIZES = (128, 256, 512)


def load_volume() -> AttenuationVolume:
    """The whole chest CT with its table, in mm^-1."""
    ct = load_sample_ct()
    return AttenuationVolume(attenuation_from_hu(ct.values), ct.ras_from_ijk)


def make_camera(size: int) -> Camera:
    """A square detector of 43 cm with ``size`` pixels on a side."""
    return Camera.from_spacing(size, size, DETECTOR_MM / size, SOURCE_DETECTOR_MM)


def make_pose(volume: AttenuationVolume) -> NDArray[np.float64]:
    """camera_from_ct (4, 4): from the front, turned by 30 degrees and tilted by 10, a little off centre.

    Oblique, so that no contender gains from rays that run along the rows of its volume.
    """
    from_front = np.array([[-1.0, 0, 0], [0, 0, -1.0], [0, -1.0, 0]])  # left is right, superior is up
    rotation = rotation_exp([0, np.deg2rad(30), 0]) @ rotation_exp([np.deg2rad(10), 0, 0]) @ from_front
    centre_camera = np.array([7.0, -11.0, SOURCE_CENTRE_MM])
    return from_rotation_translation(rotation, centre_camera - rotation @ volume.centre_ct)


def rays_in_voxels(
    volume: AttenuationVolume, camera: Camera, camera_from_ct: NDArray[np.float64], pixels: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Source (3,), detector points (n, 3) in voxels (i, j, k) and their distances (n,) in mm.

    ``pixels`` are flat indices, row by row.
    """
    ct_from_camera = inverse(camera_from_ct)
    row, column = np.divmod(pixels, camera.width)
    x = (column - camera.K[0, 2]) / camera.K[0, 0]
    y = (row - camera.K[1, 2]) / camera.K[1, 1]
    points = SOURCE_DETECTOR_MM * np.stack([x, y, np.ones(len(pixels))], axis=1)
    ijk_from_ct = np.linalg.inv(volume.ct_from_ijk)
    source = transform_points(ijk_from_ct, ct_from_camera[:3, 3])
    return source, transform_points(ijk_from_ct @ ct_from_camera, points), np.linalg.norm(points, axis=1)
