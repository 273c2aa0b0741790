"""X-rays in the scene: a one-slice volume whose own geometry is its detector, in camera coordinates.

The camera's origin is the source, z points at the detector (docs/conventions.md). Pixel (u, v) of
the volume lies at

    x = (u - cx) SDD / fx,   y = (v - cy) SDD / fy,   z = SDD,

so the volume's IJKToRAS *is* the camera: spacing SDD / f, origin (-cx SDD / fx, -cy SDD / fy, SDD).
Above it stands one linear transform, ``ct_from_camera``; of a rig's views each has its
``rig_from_camera``, and above them stands ``ct_from_rig``. Whoever moves that transform moves
X-ray, source and frustum with it. What is not geometry (where each value came from, polarity) is in
the node's attributes, and all of it is saved with the scene.
"""

from __future__ import annotations

import json

import numpy as np
import slicer
import slicer.util
import vtk

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.carm import named_view
from XRayRegistrationLib.geometry.rigid import inverse
from XRayRegistrationLib.images.prepare import prepare_xray

from .matrices import camera_from_world, set_world_from_node, to_numpy, to_vtk

ROLE = "XRayRegistration.Role"  # attribute that says what a node is to this module
XRAY, POSE, RIG_VIEW = "xray", "ct_from_camera", "rig_from_camera"
RESULT = "XRayRegistration.Result"  # reference of the pose transform to the text that holds result.json
_PROVENANCE = "XRayRegistration.Provenance"
_POLARITY = "XRayRegistration.Polarity"
_MASK = "XRayRegistration.Mask"
NOMINAL_SDD_MM = 1000.0  # where only K is known: the plane that the picture is drawn on
_SDD_KNOWN = "XRayRegistration.SourceDetectorDistanceKnown"


def add_xray(values, camera, name, provenance=None, polarity="auto", mask=True):
    """A new X-ray in the scene, facing the world's origin until its pose is known.

    Args:
        values: (height, width), as the file has them.
        camera: of these pixels. One with ``camera_from_rig`` gets the two transforms of a rig.
        name: of the nodes.
        provenance: "found: ..." or "assumed: ..." for each value of the camera.
        polarity: "auto", "bone_bright" or "bone_dark".
        mask: look for collimator and saturation.

    Returns:
        The volume node.
    """
    values = np.asarray(values)
    if values.shape != (camera.height, camera.width):
        raise InputError(
            f"the X-ray '{name}' is {values.shape[1]} x {values.shape[0]} pixels and its camera {camera.width} x "
            f"{camera.height}; give the camera of this image"
        )
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", slicer.mrmlScene.GenerateUniqueName(name))
    node.SetAttribute(ROLE, XRAY)
    slicer.util.updateVolumeFromArray(node, np.ascontiguousarray(values[None]))
    node.CreateDefaultDisplayNodes()
    pose = _add_transform(f"{node.GetName()} pose", POSE)
    set_world_from_node(pose, _facing_the_origin(camera))
    if camera.camera_from_rig is not None:
        view = _add_transform(f"{node.GetName()} in its rig", RIG_VIEW)
        view.SetMatrixTransformToParent(to_vtk(inverse(camera.camera_from_rig)))
        view.SetAndObserveTransformNodeID(pose.GetID())
        pose = view
    node.SetAndObserveTransformNodeID(pose.GetID())
    set_camera(node, camera, provenance or {})
    set_preparation(node, polarity, mask)
    return node


def xray_nodes():
    """The scene's X-rays, in the order they came in."""
    volumes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
    return [node for node in volumes if node.GetAttribute(ROLE) == XRAY]


def set_camera(node, camera, provenance=None):
    """Lay the node's pixels on the camera's detector; its place in a rig is its transform's and stays."""
    sdd = camera.source_detector_distance_mm
    node.SetAttribute(_SDD_KNOWN, None if sdd is None else "1")
    sdd = NOMINAL_SDD_MM if sdd is None else sdd
    (fx, _, cx), (_, fy, cy), _ = camera.K
    camera_from_ijk = np.diag([sdd / fx, sdd / fy, 1.0, 1.0])
    camera_from_ijk[:3, 3] = -cx * sdd / fx, -cy * sdd / fy, sdd
    node.SetIJKToRASMatrix(to_vtk(camera_from_ijk))
    if provenance is not None:
        node.SetAttribute(_PROVENANCE, json.dumps(provenance))


def camera_of(node):
    """The Camera that the node's geometry is; with ``camera_from_rig`` when it stands in a rig.

    Raises:
        InputError: not an X-ray of this module, or its geometry was changed into no detector.
    """
    _check_role(node)
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    camera_from_ijk = to_numpy(matrix)
    sx, sy = camera_from_ijk[0, 0], camera_from_ijk[1, 1]
    sdd = camera_from_ijk[2, 3]
    level = camera_from_ijk[:3, :2] - np.array([[sx, 0], [0, sy], [0, 0]])
    if min(sx, sy, sdd) <= 0 or np.abs(level).max() > 1e-6 * max(sx, sy):
        raise InputError(
            f"the geometry of '{node.GetName()}' is no detector facing its source; do not edit the volume's own spacing, "
            "origin or directions: edit the X-ray's camera in the panel, and its pose by its transform"
        )
    width, height, _ = node.GetImageData().GetDimensions()
    cx, cy = -camera_from_ijk[0, 3] / sx, -camera_from_ijk[1, 3] / sy
    k = np.array([[sdd / sx, 0.0, cx], [0.0, sdd / sy, cy], [0.0, 0.0, 1.0]])
    known = node.GetAttribute(_SDD_KNOWN) is not None
    return Camera(width, height, k, float(sdd) if known else None, _camera_from_rig(node))


def provenance_of(node):
    """Where each value of the camera came from."""
    return json.loads(node.GetAttribute(_PROVENANCE) or "{}")


def set_preparation(node, polarity="auto", mask=True):
    """How the pixels are to be read: "auto", "bone_bright" or "bone_dark", and whether to look for a mask."""
    node.SetAttribute(_POLARITY, polarity)
    node.SetAttribute(_MASK, "auto" if mask else "none")


def prepared_xray(node):
    """The library's XRay of this node.

    Raises:
        InputError: the pixels or the camera cannot be used.
    """
    camera = camera_of(node)
    return prepare_xray(
        slicer.util.arrayFromVolume(node)[0],
        camera,
        polarity=node.GetAttribute(_POLARITY) or "auto",
        mask=None if node.GetAttribute(_MASK) == "none" else "auto",
        provenance=provenance_of(node),
        source=node.GetName(),
    )


def camera_from_world_of(node):
    """(4, 4) rigid: the X-ray's pose as the scene has it, all transforms above included.

    Raises:
        InputError: a transform above bends, scales, shears or mirrors.
    """
    return camera_from_world(node.GetParentTransformNode(), f"the X-ray '{node.GetName()}'")


def pose_node_of(node):
    """The transform that a registration sets: ``ct_from_camera``, or of a view in a rig ``ct_from_rig``."""
    _check_role(node)
    parent = node.GetParentTransformNode()
    if parent is not None and parent.GetAttribute(ROLE) == RIG_VIEW:
        parent = parent.GetParentTransformNode()
    if parent is None:
        parent = _add_transform(f"{node.GetName()} pose", POSE)
        top = node.GetParentTransformNode() or node
        top.SetAndObserveTransformNodeID(parent.GetID())
    return parent


def set_camera_from_world(node, camera_from_world):
    """Move the X-ray (of a rig: the rig) so that the node's pose is ``camera_from_world`` (4, 4)."""
    camera_from_rig = _camera_from_rig(node)
    rig_from_world = camera_from_world if camera_from_rig is None else inverse(camera_from_rig) @ camera_from_world
    set_world_from_node(pose_node_of(node), inverse(rig_from_world))


def share_pose(nodes):
    """Put the views of one rig under the first one's pose.

    Raises:
        InputError: a view has no place in a rig.
    """
    for node in nodes:
        if _camera_from_rig(node) is None:
            raise InputError(
                f"the X-ray '{node.GetName()}' has no place in a rig (camera_from_rig); X-rays that share one pose need it, "
                "others are registered one at a time"
            )
    shared = pose_node_of(nodes[0])
    for node in nodes[1:]:
        view = node.GetParentTransformNode()
        own = view.GetParentTransformNode()
        view.SetAndObserveTransformNodeID(shared.GetID())
        if own is not None and own is not shared and own.GetAttribute(ROLE) == POSE and not users_of(own):
            slicer.mrmlScene.RemoveNode(own)
    return shared


def users_of(transform_node):
    """Nodes that stand directly under a transform."""
    nodes = slicer.util.getNodesByClass("vtkMRMLTransformableNode")
    return [node for node in nodes if node.GetTransformNodeID() == transform_node.GetID()]


def _camera_from_rig(node):
    parent = node.GetParentTransformNode()
    if parent is None or parent.GetAttribute(ROLE) != RIG_VIEW:
        return None
    matrix = vtk.vtkMatrix4x4()
    parent.GetMatrixTransformToParent(matrix)
    return inverse(to_numpy(matrix))


def _add_transform(name, role):
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", slicer.mrmlScene.GenerateUniqueName(name))
    node.SetAttribute(ROLE, role)
    return node


def _facing_the_origin(camera):
    """ct_from_camera of an AP view whose beam meets the world's origin at 0.7 of its length."""
    sdd = camera.source_detector_distance_mm or NOMINAL_SDD_MM
    return inverse(named_view("ap", (0.0, 0.0, 0.0), 0.7 * sdd))


def _check_role(node):
    if node is None or node.GetAttribute(ROLE) != XRAY:
        name = "no node" if node is None else f"'{node.GetName()}'"
        raise InputError(f"{name} is not an X-ray of this module; import it as one first (logic.importXRay)")

