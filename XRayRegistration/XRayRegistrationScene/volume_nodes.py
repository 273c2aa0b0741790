"""CT volumes: from a volume node to the library's Volume, and back."""

from __future__ import annotations

import zlib

import numpy as np
import slicer
import slicer.util
import vtk

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.images.volume import Volume

from .checks import check_node
from .matrices import to_numpy, to_vtk, world_from_parent
from .xray_nodes import ROLE, XRAY

_MARKED_VOXELS = 4096


def volume_of(node):
    """The node's voxels where they stand in the world (RAS mm), parent transform included. The values are not copied.

    Raises:
        InputError: no volume of the scene, an X-ray, no voxels, several components, or a transform that bends space.
    """
    if node is None:
        raise InputError("no CT is selected; choose a volume")
    check_node(node, "vtkMRMLVolumeNode", "a CT volume")
    name = node.GetName()
    if node.GetAttribute(ROLE) == XRAY:
        raise InputError(f"'{name}' is an X-ray; allowed is a CT volume")
    image = node.GetImageData()
    if image is None or image.GetNumberOfPoints() == 0:
        raise InputError(f"the volume '{name}' holds no voxels; load its data or choose another")
    if image.GetNumberOfScalarComponents() != 1:
        raise InputError(
            f"the volume '{name}' has {image.GetNumberOfScalarComponents()} values a voxel; allowed is one (HU or labels)"
        )
    return Volume(slicer.util.arrayFromVolume(node), world_from_ijk_of(node), name)


def world_from_ijk_of(node):
    """(4, 4) mm: where a volume's voxels stand in the world, parent transforms included.

    Raises:
        InputError: a transform above bends space.
    """
    return world_from_parent(node.GetParentTransformNode(), f"the volume '{node.GetName()}'") @ ras_from_ijk_of(node)


def ras_from_ijk_of(node):
    """(4, 4) mm: the node's own geometry, without any transform above it."""
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return to_numpy(matrix)


def set_volume(node, volume):
    """Fill a volume node with a Volume in the world's coordinates; the node is taken from under any transform."""
    node.SetAndObserveTransformNodeID(None)
    node.SetIJKToRASMatrix(to_vtk(volume.ras_from_ijk))
    values = np.asarray(volume.values)
    slicer.util.updateVolumeFromArray(node, values.astype(np.uint8) if values.dtype == bool else values)


def mark_of(node):
    """Eight characters of a volume's geometry and of some of its voxels: others, in all likelihood, for another volume.

    Raises:
        InputError: as :func:`volume_of`.
    """
    volume = volume_of(node)
    flat = volume.values.reshape(-1)
    some = np.rint(flat[:: max(1, len(flat) // _MARKED_VOXELS)]).astype(np.int32)
    geometry = np.concatenate([volume.values.shape, (1000.0 * volume.ras_from_ijk).ravel()])
    return f"{zlib.crc32(some.tobytes(), zlib.crc32(np.rint(geometry).astype(np.int64).tobytes())):08x}"


def centre_of(node):
    """(3,) world mm of a volume's middle; None where there is none, or it holds no voxels.

    Raises:
        InputError: as :func:`volume_of`, for what is no CT.
    """
    if node is None:
        return None
    check_node(node, "vtkMRMLVolumeNode", "a CT volume")
    if node.GetImageData() is None:
        return None
    volume = volume_of(node)
    last = np.array(volume.values.shape[::-1]) - 1.0
    return volume.ras_from_ijk[:3, :3] @ (0.5 * last) + volume.ras_from_ijk[:3, 3]


def only_ct():
    """The scene's volume of several slices, where there is just one; else None."""
    nodes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
    found = [
        node
        for node in nodes
        if not node.IsA("vtkMRMLLabelMapVolumeNode") and node.GetImageData() and node.GetImageData().GetDimensions()[2] > 1
    ]
    return found[0] if len(found) == 1 else None
