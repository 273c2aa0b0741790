"""The pose as an ITK transform file that 3D Slicer reads.

Loaded into Slicer, the file gives a linear transform node whose matrix *to parent* is
``ct_from_camera`` in RAS mm: an X-ray plane placed under this node lies where the detector was.

ITK keeps the map that resampling needs, from the parent (the CT) to the node (the camera), with
points in LPS. So the numbers in the file are ``F camera_from_ct F`` with F = diag(-1, -1, 1, 1);
Slicer inverts and flips them back when it reads the file.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import ArrayLike, NDArray

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.geometry.lps import transform_ras_from_lps
from XRayRegistrationLib.geometry.rigid import check_rigid
from XRayRegistrationLib.images.itk_file import quiet_stderr

Array = NDArray[np.float64]

TRANSFORM_SUFFIXES = (".tfm", ".h5")


def write_slicer_transform(path: str | os.PathLike[str], camera_from_ct: ArrayLike) -> None:
    """Write the pose so that Slicer's transform node carries ``ct_from_camera``.

    Args:
        path: ends in ``.tfm`` (text) or ``.h5``.
        camera_from_ct: 4x4 rigid, ct in RAS mm. For a rig pass ``rig_from_ct``.

    Raises:
        InputError: the pose is not rigid, the ending is another, or the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in TRANSFORM_SUFFIXES:
        raise InputError(
            f"{path} ends in {path.suffix!r}; allowed for a transform are {' and '.join(TRANSFORM_SUFFIXES)}"
        )
    pose = check_rigid(camera_from_ct, "camera_from_ct")
    lps = transform_ras_from_lps(pose)  # its own inverse
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(lps[:3, :3].ravel().tolist())
    transform.SetTranslation(lps[:3, 3].tolist())
    try:
        with quiet_stderr():
            sitk.WriteTransform(transform, str(path))
        written = read_slicer_transform(path)  # the writer does not report a full disk
    except (RuntimeError, InputError) as error:
        raise InputError(
            f"cannot write the transform {path.name}; the disk may be full, free some space or choose another folder"
        ) from error
    if np.abs(written - pose).max() > 1e-6:
        raise InputError(f"the transform {path.name} did not read back as written; choose another disk")


def read_slicer_transform(path: str | os.PathLike[str]) -> Array:
    """``camera_from_ct`` (4x4, RAS mm) of a linear transform that Slicer, or we, saved.

    The node's matrix to parent is taken to be ``ct_from_camera``, as in
    :func:`write_slicer_transform`.

    Raises:
        InputError: not a readable transform, not linear, or not rigid.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"the transform {path} does not exist; give a .tfm or .h5 file")
    try:
        with quiet_stderr():  # HDF5 prints its whole error stack
            transform = sitk.ReadTransform(str(path))
    except RuntimeError as error:
        raise InputError(
            f"{path} is not a transform that ITK reads; give a linear .tfm or .h5 as Slicer saves it"
        ) from error
    if transform.GetDimension() != 3 or not transform.IsLinear():
        raise InputError(f"{path} holds a {transform.GetName()}; allowed is one linear 3D transform")
    # a linear map is its value at four points, whatever its class, centre and nesting
    origin = np.array(transform.TransformPoint((0.0, 0.0, 0.0)))
    lps = np.eye(4)
    lps[:3, :3] = np.stack([np.array(transform.TransformPoint(tuple(e))) - origin for e in np.eye(3)], axis=1)
    lps[:3, 3] = origin
    return check_rigid(transform_ras_from_lps(lps), f"the transform {path}")
