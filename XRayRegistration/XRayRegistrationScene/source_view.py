"""The view from the X-ray's source: bone lies on its shadow exactly where the pose is right."""

from __future__ import annotations

import numpy as np
import slicer

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.geometry.rigid import inverse, transform_points

from .frustum import corners
from .xray_nodes import camera_from_world_of, camera_of


def look_from_source(xray_node, camera_node, aspect=1.0):
    """Put a 3D view's camera at the source, upright on the picture, aimed at the image's centre.

    A scene's cameras know no off-axis principal point: they look at the middle of the picture, and the
    opening angle is that of its longer side, so that all of it is seen.

    Args:
        aspect: width of the view by its height; the opening angle of a scene's camera is the vertical one.
    """
    if camera_node is None:
        raise InputError("there is no 3D view to look with; choose a layout that has one (Arrange views)")
    camera = camera_of(xray_node)
    world_from_camera = inverse(camera_from_world_of(xray_node))
    ends = corners(camera)
    middle = ends.mean(axis=0)
    source, focus = transform_points(world_from_camera, np.stack([np.zeros(3), middle]))
    up = world_from_camera[:3, :3] @ (ends[0] - ends[3])  # image rows run downwards
    camera_node.SetPosition(*source)
    camera_node.SetFocalPoint(*focus)
    camera_node.SetViewUp(*(up / np.linalg.norm(up)))
    half = 0.5 / min(aspect, 1.0) * max(np.linalg.norm(ends[0] - ends[3]), np.linalg.norm(ends[1] - ends[0]))
    camera_node.SetViewAngle(float(np.degrees(2 * np.arctan(half / np.linalg.norm(middle)))))
    camera_node.ResetClippingRange()


def show_plane(xray_node, slice_node):
    """Show the X-ray in a slice view, and its plane in every 3D view."""
    composite = slicer.app.applicationLogic().GetSliceLogic(slice_node)
    if composite is not None:
        composite.GetSliceCompositeNode().SetBackgroundVolumeID(xray_node.GetID())
    slice_node.RotateToVolumePlane(xray_node)
    slice_node.SetSliceVisible(1)
