"""Landmarks: markups in 3D, and where the X-ray shows them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import slicer
import slicer.util
import vtk

from XRayRegistrationLib.bone.sampling import surface_points
from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.geometry.rigid import transform_points

from .bone_nodes import label_map_of
from .checks import check_node
from .xray_nodes import NOMINAL_SDD_MM, camera_from_world_of, camera_of, pose_node_of, xray_nodes

_PROJECTED, _PLACED = (1.0, 0.6, 0.1), (0.2, 0.9, 0.3)  # points of the CT on the image, and the user's own on it
_LEAST_PAIRS = 4  # three leave up to four poses
REFERENCE = "XRayRegistration.ProjectedLandmarks"  # of the X-ray node to the markups on its picture


@dataclass(frozen=True)
class ProjectedLandmarks:
    """Attributes: names; points (n, 3) world RAS mm; pixels (n, 2) = (u, v), NaN behind the source; in_view (n,)."""

    names: tuple
    points: np.ndarray
    pixels: np.ndarray
    in_view: np.ndarray


def points_of(markups):
    """Names and world positions (n, 3) of a point list's placed points.

    Raises:
        InputError: no point list of the scene.
    """
    check_node(markups, "vtkMRMLMarkupsNode", "a point list")
    placed = _placed(markups)
    positions = [markups.GetNthControlPointPositionWorld(n) for n in placed]
    return tuple(markups.GetNthControlPointLabel(n) for n in placed), np.array(positions, dtype=np.float64).reshape(-1, 3)


def project_landmarks(markups, xray_node):
    """Where the X-ray, at its pose in the scene, shows the markups' points."""
    names, points = points_of(markups)
    camera = camera_of(xray_node)
    pixels = camera.project(transform_points(camera_from_world_of(xray_node), points))
    return ProjectedLandmarks(names, points, pixels, camera.in_view(pixels))


def pixels_of(markups, xray_node):
    """Names and pixels (n, 2) of points that were placed on an X-ray's picture, wherever along their rays they lie.

    None of points that were placed on another X-ray.
    """
    names, points = points_of(markups)
    if _is_on_another(markups, xray_node):
        return (), np.zeros((0, 2))
    return names, camera_of(xray_node).project(transform_points(camera_from_world_of(xray_node), points))


def show_projected(projected, xray_node):
    """Mark the points in view on the X-ray's picture: a locked point list under its transform. Returns the node."""
    node = xray_node.GetNodeReference(REFERENCE)
    if node is None:
        node = slicer.mrmlScene.AddNewNodeByClass(
            "vtkMRMLMarkupsFiducialNode", f"{xray_node.GetName()} landmarks on the image"
        )
        node.CreateDefaultDisplayNodes()
        node.SetLocked(True)
        node.GetDisplayNode().SetSelectedColor(*_PROJECTED)
        node.GetDisplayNode().SetGlyphType(slicer.vtkMRMLMarkupsDisplayNode.Cross2D)
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


def sample_landmarks(ct_node, segmentation_node, count=12):
    """Points well apart on the bone's surface as a new point list, which moves with the CT.

    Raises:
        InputError: no bone, or fewer than one point.
    """
    check_node(segmentation_node, "vtkMRMLSegmentationNode", "a segmentation")
    points = surface_points(label_map_of(segmentation_node, ct_node), count)
    name = slicer.mrmlScene.GenerateUniqueName(f"{ct_node.GetName()} landmarks")
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", name)
    node.CreateDefaultDisplayNodes()
    node.SetAndObserveTransformNodeID(ct_node.GetTransformNodeID())
    for n, point in enumerate(points):
        node.AddControlPointWorld(vtk.vtkVector3d(*map(float, point)), str(n + 1))
    return node


def attach_new(markups, xray_node):
    """Attach points that stand on nothing yet to the X-ray that is being looked at, before it moves away from them."""
    if markups.GetTransformNodeID() is None and _placed(markups):
        attach_to_image(markups, xray_node)


def _is_on_another(markups, xray_node):
    """Whether points move with an X-ray that is not this one."""
    under = markups.GetTransformNodeID()
    others = [node.GetTransformNodeID() for node in xray_nodes() if node is not xray_node]
    return under is not None and under != xray_node.GetTransformNodeID() and under in others


def attach_to_image(markups, xray_node):
    """Let points that were placed on an X-ray's picture move with it from now on."""
    pose_node_of(xray_node)  # one that somebody took from under its transform gets a new one to move with
    if markups.GetTransformNodeID() == xray_node.GetTransformNodeID():
        return
    places = {n: markups.GetNthControlPointPositionWorld(n) for n in _placed(markups)}
    markups.SetAndObserveTransformNodeID(xray_node.GetTransformNodeID())
    for n, place in places.items():
        markups.SetNthControlPointPositionWorld(n, place)
    if markups.GetDisplayNode() is not None:
        markups.GetDisplayNode().SetSelectedColor(*_PLACED)


def pairs_of(landmarks, image_landmarks, xray_node):
    """Points of the same names on the CT and on an X-ray: names, (n, 3) world mm, (n, 2) pixels.

    Raises:
        InputError: a list is missing, or two points of one list have one name.
    """
    if landmarks is None or image_landmarks is None:
        raise InputError("points on the CT and on the X-ray are needed, of the same names; choose both lists")
    on_ct, on_image = points_of(landmarks), pixels_of(image_landmarks, xray_node)
    for markups, (names, _) in ((landmarks, on_ct), (image_landmarks, on_image)):
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise InputError(f"'{markups.GetName()}' has several points named {doubled[0]!r}; give each its own name")
    pixels = dict(zip(*on_image, strict=True))
    both = [(name, point, pixels[name]) for name, point in zip(*on_ct, strict=True) if name in pixels]
    if len(both) < _LEAST_PAIRS:
        alone = [name for name in on_image[0] if name not in on_ct[0]]
        raise InputError(
            f"{len(both)} points have the same name on the CT and on the X-ray"
            + (f" ({', '.join(name for name, _, _ in both)})" if both else "")
            + (f"; on the X-ray alone: {', '.join(alone)}" if alone else "")
            + f"; give at least {_LEAST_PAIRS} points on the X-ray the names that they have on the CT"
        )
    names = tuple(name for name, _, _ in both)
    return names, np.array([p for _, p, _ in both]).reshape(-1, 3), np.array([p for _, _, p in both]).reshape(-1, 2)


def table_of(landmarks, xray_node, image_landmarks=None):
    """One dictionary a landmark: name, world, pixel, in_view, and off_px and off_mm from the image's own point.

    ``off_mm`` is across the beam at the landmark's depth.
    """
    projected = project_landmarks(landmarks, xray_node)
    seen = {} if image_landmarks is None else dict(zip(*pixels_of(image_landmarks, xray_node), strict=True))
    k_inverse = np.linalg.inv(camera_of(xray_node).K)
    depths = transform_points(camera_from_world_of(xray_node), projected.points)[:, 2]
    rows = []
    for name, point, pixel, in_view, depth in zip(
        projected.names, projected.points, projected.pixels, projected.in_view, depths, strict=True
    ):
        off = seen[name] - pixel if name in seen else None
        if off is not None and not np.isfinite(off).all():
            off = None  # one of the two lies behind the source
        rows.append(
            {
                "name": name,
                "world": tuple(map(float, point)),
                "pixel": tuple(map(float, pixel)),
                "in_view": bool(in_view),
                "off_px": None if off is None else float(np.linalg.norm(off)),
                "off_mm": None if off is None else float(depth * np.linalg.norm(k_inverse[:2, :2] @ off)),
            }
        )
    return rows


def _placed(markups):
    """Indices of the points that have a position."""
    defined = slicer.vtkMRMLMarkupsNode.PositionDefined
    return [n for n in range(markups.GetNumberOfControlPoints()) if markups.GetNthControlPointPositionStatus(n) == defined]
