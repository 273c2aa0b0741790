"""Landmarks: markups in 3D, and where the X-ray shows them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import slicer
import slicer.util

from XRayRegistrationLib.geometry.rigid import transform_points

from .xray_nodes import NOMINAL_SDD_MM, camera_from_world_of, camera_of

REFERENCE = "XRayRegistration.ProjectedLandmarks"  # of the X-ray node to the markups on its picture


@dataclass(frozen=True)
class ProjectedLandmarks:
    """Attributes: names; points (n, 3) world RAS mm; pixels (n, 2) = (u, v), NaN behind the source; in_view (n,)."""

    names: tuple
    points: np.ndarray
    pixels: np.ndarray
    in_view: np.ndarray


def points_of(markups):
    """Names and world positions (n, 3) of a point list's placed points."""
    placed = [n for n in range(markups.GetNumberOfControlPoints()) if markups.GetNthControlPointPositionStatus(n) == 2]
    positions = [markups.GetNthControlPointPositionWorld(n) for n in placed]
    return tuple(markups.GetNthControlPointLabel(n) for n in placed), np.array(positions, dtype=np.float64).reshape(-1, 3)


def project_landmarks(markups, xray_node):
    """Where the X-ray, at its pose in the scene, shows the markups' points."""
    names, points = points_of(markups)
    camera = camera_of(xray_node)
    pixels = camera.project(transform_points(camera_from_world_of(xray_node), points))
    return ProjectedLandmarks(names, points, pixels, camera.in_view(pixels))


def show_projected(projected, xray_node):
    """Mark the points in view on the X-ray's picture: a locked point list under its transform. Returns the node."""
    node = xray_node.GetNodeReference(REFERENCE)
    if node is None:
        node = slicer.mrmlScene.AddNewNodeByClass(
            "vtkMRMLMarkupsFiducialNode", f"{xray_node.GetName()} landmarks on the image"
        )
        node.CreateDefaultDisplayNodes()
        node.SetLocked(True)
        xray_node.SetNodeReferenceID(REFERENCE, node.GetID())
    camera = camera_of(xray_node)
    sdd = camera.source_detector_distance_mm or NOMINAL_SDD_MM
    node.RemoveAllControlPoints()
    node.SetAndObserveTransformNodeID(xray_node.GetTransformNodeID())
    for name, (u, v), seen in zip(projected.names, projected.pixels, projected.in_view, strict=True):
        if seen:
            x, y, z = sdd * np.linalg.inv(camera.K) @ (u, v, 1.0)
            node.AddControlPoint((float(x), float(y), float(z)), name)
    return node
