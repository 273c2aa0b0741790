"""The DeepFluoro data set and xReg: a camera whose z points from the detector to the source.

xReg's frame has its origin at the source, x along the columns, y along the rows, and z towards
the source, so that all that is seen has z < 0 and the camera matrix has negative focal lengths:
u = -f x / z + cx. These axes are right-handed only if the picture is looked at from the detector's
side, as radiographs are shown. From the source, as our camera looks, the stored picture is
mirrored. So images of the data set are mirrored left to right when they are read, and

    u = W - 1 - u_stored,   cx = W - 1 - cx_stored,   x_camera = diag(-1, 1, -1) x_xreg .

The data set flags images to be turned by 180 degrees to have the head up (``rot-180-for-up``); this
turns picture and camera about the beam.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.lps import pose_ras_from_lps
from XRayRegistrationLib.geometry.rigid import check_rigid, inverse

Array = NDArray[np.float64]

_OURS_FROM_XREG = np.diag([-1.0, 1.0, -1.0, 1.0])  # half a turn about y
_HALF_TURN = np.diag([-1.0, -1.0, 1.0, 1.0])  # about the beam


def camera_from_deepfluoro(
    intrinsic: ArrayLike, width: int, height: int, pixel_spacing_mm: float | None = None, *, turned: bool = False
) -> Camera:
    """The camera of a stored image once :func:`image_from_deepfluoro` has been applied.

    Args:
        intrinsic: 3x3, ``[[-f, 0, cx], [0, -f, cy], [0, 0, 1]]`` in pixels.
        width, height: of the stored image.
        pixel_spacing_mm: gives the SDD, f times it, where known (0.194 mm on the data set's C-arm).
        turned: the flag ``rot-180-for-up``.

    Raises:
        InputError: the focal lengths are not negative.
    """
    k = np.array(intrinsic, dtype=np.float64)
    if k.shape != (3, 3) or not (k[0, 0] < 0 and k[1, 1] < 0):
        raise InputError(
            f"the DeepFluoro intrinsic is {k.tolist()}; allowed is [[-f,0,cx],[0,-f,cy],[0,0,1]] with f > 0; "
            "a matrix with positive focal lengths needs no adapter"
        )
    cx, cy = width - 1 - k[0, 2], k[1, 2]
    if turned:
        cx, cy = width - 1 - cx, height - 1 - cy
    ours = np.array([[-k[0, 0], 0.0, cx], [0.0, -k[1, 1], cy], [0.0, 0.0, 1.0]])
    return Camera(width, height, ours, None if pixel_spacing_mm is None else -float(k[0, 0]) * pixel_spacing_mm)


def camera_from_ct_from_deepfluoro(extrinsic: ArrayLike, cam_to_pelvis: ArrayLike, *, turned: bool = False) -> Array:
    """``camera_from_ct`` (4x4, ct in RAS mm) of an image of the data set.

    x_xreg = Ext inv(cam_to_pelvis) x_LPS.

    Args:
        extrinsic: Ext, 4x4, the C-arm's fixed camera-from-world.
        cam_to_pelvis: 4x4 as stored, from the world of the C-arm to the CT's LPS
            (``cam-to-pelvis-vol``, or that of a femur).
        turned: the flag ``rot-180-for-up``.

    Raises:
        InputError: one of the two is not a rigid motion.
    """
    ct_from_world = check_rigid(cam_to_pelvis, "cam-to-pelvis-vol")
    xreg_from_lps = check_rigid(extrinsic, "DeepFluoro's extrinsic") @ inverse(ct_from_world)
    camera_from_ct = _OURS_FROM_XREG @ pose_ras_from_lps(xreg_from_lps)
    return _HALF_TURN @ camera_from_ct if turned else camera_from_ct


def deepfluoro_from_camera_from_ct(camera_from_ct: ArrayLike, extrinsic: ArrayLike, *, turned: bool = False) -> Array:
    """``cam_to_pelvis`` (4x4) of a pose; the inverse of :func:`camera_from_ct_from_deepfluoro`."""
    pose = check_rigid(camera_from_ct, "camera_from_ct")
    pose = _HALF_TURN @ pose if turned else pose
    xreg_from_lps = pose_ras_from_lps(_OURS_FROM_XREG @ pose)
    return inverse(xreg_from_lps) @ check_rigid(extrinsic, "DeepFluoro's extrinsic")


def image_from_deepfluoro(stored: NDArray[np.generic], *, turned: bool = False) -> NDArray[np.generic]:
    """An image or mask (height, width) as our camera sees it: mirrored, and turned where flagged."""
    mirrored = stored[:, ::-1]
    return mirrored[::-1, ::-1] if turned else mirrored


def pixels_from_deepfluoro(pixels: ArrayLike, width: int, height: int, *, turned: bool = False) -> Array:
    """Our pixels (..., 2) of stored ones (column, row), such as the 2D landmarks; and just as well back."""
    p = np.array(pixels, dtype=np.float64)
    if turned:  # mirrored and turned: upside down
        p[..., 1] = height - 1 - p[..., 1]
    else:
        p[..., 0] = width - 1 - p[..., 0]
    return p
