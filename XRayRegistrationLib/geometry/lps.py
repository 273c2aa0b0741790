"""LPS, the patient space of DICOM and ITK, and RAS, that of this library and of 3D Slicer.

Both are in mm; they differ by the sign of the first two axes: F = diag(-1, -1, 1, 1), which is its
own inverse and a rotation (by 180 degrees about the long axis), so nothing is mirrored.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from XRayRegistrationLib.errors import InputError

Array = NDArray[np.float64]

RAS_FROM_LPS: Array = np.diag([-1.0, -1.0, 1.0, 1.0])


def points_ras_from_lps(points_lps: ArrayLike) -> Array:
    """Points (..., 3) mm from LPS to RAS, and just as well from RAS to LPS."""
    return np.asarray(points_lps, dtype=np.float64) * np.array([-1.0, -1.0, 1.0])


def affine_ras_from_lps(lps_from_ijk: ArrayLike) -> Array:
    """A volume's affine (4x4): F A. ``ras_from_ijk`` from ``lps_from_ijk``, and the other way."""
    return RAS_FROM_LPS @ np.asarray(lps_from_ijk, dtype=np.float64)


def pose_ras_from_lps(camera_from_lps: ArrayLike) -> Array:
    """A pose (4x4) whose camera frame stays: P F. ``camera_from_ct`` (RAS) from ``camera_from_lps``, and back."""
    return np.asarray(camera_from_lps, dtype=np.float64) @ RAS_FROM_LPS


def transform_ras_from_lps(transform_lps: ArrayLike) -> Array:
    """A motion (4x4) between two patient spaces: F T F, RAS to RAS from LPS to LPS, and back."""
    return RAS_FROM_LPS @ np.asarray(transform_lps, dtype=np.float64) @ RAS_FROM_LPS


def itk_from_matrix(to_parent_ras: ArrayLike) -> tuple[Array, Array]:
    """ITK affine transform of a Slicer node: (parameters (12,), fixed parameters (3,)).

    ``to_parent_ras`` (4x4) is the node's matrix *to parent* as Slicer shows it, such as
    ``ct_from_camera``. ITK keeps the map that resampling needs, from parent to node, in LPS:
    F inv(M) F, as nine numbers of the matrix by rows and the translation in mm. The fixed
    parameters are the centre, here 0.
    """
    m = transform_ras_from_lps(np.linalg.inv(np.asarray(to_parent_ras, dtype=np.float64)))
    return np.concatenate([m[:3, :3].ravel(), m[:3, 3]]), np.zeros(3)


def matrix_from_itk(parameters: ArrayLike, fixed_parameters: ArrayLike = (0.0, 0.0, 0.0)) -> Array:
    """The inverse of :func:`itk_from_matrix`: x -> A (x - c) + c + t becomes ``to_parent_ras`` (4x4).

    Raises:
        InputError: not 12 parameters (matrix by rows, translation) and 3 fixed ones (centre).
    """
    p = np.asarray(parameters, dtype=np.float64).ravel()
    centre = np.asarray(fixed_parameters, dtype=np.float64).ravel()
    if p.size != 12 or centre.size != 3:
        raise InputError(
            f"an ITK transform has {p.size} parameters and {centre.size} fixed ones; allowed are the 12 and 3 of an "
            "affine 3D transform; save it from Slicer as a linear transform"
        )
    m = np.eye(4)
    m[:3, :3] = p[:9].reshape(3, 3)
    m[:3, 3] = p[9:] + centre - m[:3, :3] @ centre
    return transform_ras_from_lps(np.linalg.inv(m))
