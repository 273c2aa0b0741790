"""4x4 matrices between VTK and NumPy, and where a node stands in the world."""

from __future__ import annotations

import numpy as np
import vtk

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.geometry.rigid import check_rigid, inverse


def to_numpy(matrix):
    """(4, 4) float64 of a vtkMatrix4x4."""
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])


def to_vtk(matrix):
    """vtkMatrix4x4 of (4, 4)."""
    out = vtk.vtkMatrix4x4()
    out.DeepCopy(np.asarray(matrix, dtype=np.float64).ravel().tolist())
    return out


def world_from_parent(transform_node, what):
    """(4, 4) from a node's parent coordinates to the world's RAS; ``transform_node`` None is the world itself.

    Raises:
        InputError: a transform on the way bends space.
    """
    if transform_node is None:
        return np.eye(4)
    if not transform_node.IsTransformToWorldLinear():
        raise InputError(
            f"{what} is under the transform '{transform_node.GetName()}', which is not linear; allowed are linear "
            "transforms. Harden it, or take it off"
        )
    matrix = vtk.vtkMatrix4x4()
    transform_node.GetMatrixTransformToWorld(matrix)
    return to_numpy(matrix)


def set_world_from_node(transform_node, world_from_node):
    """Set a linear transform so that what lies under it stands at ``world_from_node`` (4, 4), whatever lies above it."""
    above = world_from_parent(transform_node.GetParentTransformNode(), f"the transform '{transform_node.GetName()}'")
    transform_node.SetMatrixTransformToParent(to_vtk(np.linalg.inv(above) @ world_from_node))


def rigid_world_from_parent(transform_node, what):
    """As :func:`world_from_parent`, for what must keep its size.

    Raises:
        InputError: the transform bends, scales, shears or mirrors.
    """
    return check_rigid(world_from_parent(transform_node, what), f"the transform of {what}")


def camera_from_world(transform_node, what):
    """(4, 4) of an X-ray under this transform: the inverse of what the scene carries."""
    return inverse(rigid_world_from_parent(transform_node, what))
