"""An X-ray in a slice view: upright as it is stored, whole, and still there when its pose changes.

Slicer's own ``RotateToVolumePlane`` chooses among a volume's axes what is nearest to a standard
orientation: an X-ray then appears mirrored or upside down, and jumps from one to the other while it is
turned. Here the view's axes are the picture's: columns to the right, rows downwards.
"""

from __future__ import annotations

import numpy as np
import slicer
import slicer.util

from XRayRegistrationLib.geometry.rigid import inverse

from .frustum import corners
from .matrices import to_numpy, to_vtk
from .xray_nodes import camera_from_world_of, camera_of

_ANGLE = 1e-4  # rad; closer planes are the same one
_DEPTH_MM = 0.3  # the picture is a voxel of 1 mm thick


def world_from_picture(xray_node):
    """(4, 4) rigid: origin at the image's centre on the detector; x along its columns, y **up**, z to the source."""
    camera_from_picture = np.diag([1.0, -1.0, -1.0, 1.0])
    camera_from_picture[:3, 3] = corners(camera_of(xray_node)).mean(axis=0)
    return inverse(camera_from_world_of(xray_node)) @ camera_from_picture


def show_xray(xray_node, slice_node):
    """Show an X-ray in a slice view. One that is shown already keeps its zoom and pan.

    Returns:
        The view's composite node.
    """
    composite = composite_of(slice_node)
    world_from_view = world_from_picture(xray_node)
    if composite.GetBackgroundVolumeID() != xray_node.GetID() or not _same_plane(slice_node, world_from_view):
        composite.SetBackgroundVolumeID(xray_node.GetID())
        _set_plane(slice_node, world_from_view)
        fit(xray_node, slice_node)
    return composite


def views_of(xray_node):
    """The slice nodes that show this X-ray in the background."""
    nodes = slicer.util.getNodesByClass("vtkMRMLSliceNode")
    shown = [(node, composite_of(node)) for node in nodes]
    return [node for node, composite in shown if composite and composite.GetBackgroundVolumeID() == xray_node.GetID()]


def carry(xray_node, world_from_picture_before):
    """Move the views of an X-ray along with it, zoom and pan kept.

    Args:
        world_from_picture_before: (4, 4), where its picture was: :func:`world_from_picture`.
    """
    now = world_from_picture(xray_node)
    motion = now @ inverse(world_from_picture_before)
    if np.abs(motion - np.eye(4)).max() < 1e-9:
        return
    for slice_node in views_of(xray_node):
        if np.allclose(to_numpy(slice_node.GetSliceToRAS()), now, atol=1e-6):
            continue  # show_xray has brought it there already
        _set_plane(slice_node, motion @ to_numpy(slice_node.GetSliceToRAS()))


def composite_of(slice_node):
    """The node that says what a slice view shows; None while the view does not exist yet."""
    logic = slicer.app.applicationLogic().GetSliceLogic(slice_node)
    return None if logic is None else logic.GetSliceCompositeNode()


def _set_plane(slice_node, world_from_view):
    slice_node.GetSliceToRAS().DeepCopy(to_vtk(world_from_view))
    slice_node.UpdateMatrices()


def _same_plane(slice_node, world_from_view):
    between = inverse(world_from_view) @ to_numpy(slice_node.GetSliceToRAS())
    return np.abs(between[:3, :3] - np.eye(3)).max() < _ANGLE and abs(between[2, 3]) < _DEPTH_MM


def fit(xray_node, slice_node):
    """Zoom a slice view that shows an X-ray so that all of it is seen."""
    ends = corners(camera_of(xray_node))
    wide, high = np.linalg.norm(ends[1] - ends[0]), np.linalg.norm(ends[3] - ends[0])
    columns, rows, _ = slice_node.GetDimensions()
    pixel = max(wide / max(columns, 1), high / max(rows, 1))
    slice_node.SetFieldOfView(pixel * columns, pixel * rows, 1.0)
