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
from dataclasses import replace

import numpy as np
import slicer
import slicer.util
import vtk

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.carm import named_view
from XRayRegistrationLib.geometry.rigid import inverse
from XRayRegistrationLib.images.prepare import HeaderHints
from XRayRegistrationLib.images.raw_xray import RawXRay

from .checks import check_node
from .matrices import camera_from_world, set_world_from_node, to_numpy, to_vtk

ROLE = "XRayRegistration.Role"  # attribute that says what a node is to this module
XRAY, POSE, RIG_VIEW = "xray", "ct_from_camera", "rig_from_camera"
RESULT = "XRayRegistration.Result"  # reference of the pose transform to the text that holds result.json
_PROVENANCE = "XRayRegistration.Provenance"
_POLARITY = "XRayRegistration.Polarity"
_MASK = "XRayRegistration.Mask"
_HINTS = "XRayRegistration.HeaderHints"
_METADATA = "XRayRegistration.Metadata"
OPEN_FIELD = "XRayRegistration.OpenField"  # reference to a label map: 1 where the header says that there is an image
_ANYWHERE = "XRayRegistration.Anywhere"
_SHOWN_PERCENT = (1.0, 90.0)  # of the pixels, from black to white
MISSING = "missing"  # how the provenance of a value begins that nobody has stated yet
NOMINAL_SDD_MM = 1000.0  # where only K is known: the plane that the picture is drawn on
_SDD_KNOWN = "XRayRegistration.SourceDetectorDistanceKnown"


def add_xray(values, camera, name, provenance=None, polarity="auto", mask=True, header=None, metadata=None):
    """A new X-ray in the scene, facing the world's origin until its pose is known.

    Args:
        values: (height, width), as the file has them.
        camera: of these pixels. One with ``camera_from_rig`` gets the two transforms of a rig.
        name: of the nodes.
        provenance: "found: ...", "assumed: ..." or "missing: ..." for each value of the camera.
        polarity: "auto", "bone_bright" or "bone_dark".
        mask: look for collimator and saturation.
        header: images.prepare.HeaderHints of the file.
        metadata: what else the file says, as plain values.

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
    _set_window(node, values)
    pose = _add_transform(f"{node.GetName()} pose", POSE)
    set_world_from_node(pose, _facing_the_origin(camera))
    if camera.camera_from_rig is not None:
        view = _add_transform(f"{node.GetName()} in its rig", RIG_VIEW)
        view.SetMatrixTransformToParent(to_vtk(inverse(camera.camera_from_rig)))
        view.SetAndObserveTransformNodeID(pose.GetID())
        pose = view
    node.SetAndObserveTransformNodeID(pose.GetID())
    set_camera(node, camera, provenance or {})
    node.SetAttribute(_ANYWHERE, json.dumps(camera_from_world_of(node).tolist()))
    set_preparation(node, polarity, mask)
    _set_header(node, header or HeaderHints())
    node.SetAttribute(_METADATA, json.dumps(metadata or {}))
    return node


def stands_anywhere(node):
    """Whether nobody has said yet where the X-ray is: neither a hand, a start nor a registration."""
    guessed = node.GetAttribute(_ANYWHERE)
    return guessed is not None and np.allclose(camera_from_world_of(node), json.loads(guessed), atol=1e-6)


def guess(node, centre_world):
    """Let an X-ray that stands anywhere see a point from the front; it still counts as standing anywhere."""
    before = camera_from_world_of(node)
    sdd = camera_of(node).source_detector_distance_mm or NOMINAL_SDD_MM
    if np.allclose(before, named_view("ap", centre_world, 0.7 * sdd), atol=1e-6):
        return  # it does already: nobody is to be told of a change
    face(node, centre_world)
    node.SetAttribute(_ANYWHERE, json.dumps(camera_from_world_of(node).tolist()))


def face(node, centre_world, view="ap"):
    """Let the X-ray see a point from a named view, as a C-arm would stand: at 0.7 of its source-detector distance.

    Args:
        centre_world: (3,) mm, such as the CT's centre.
        view: "ap", "pa", "lat-left" or "lat-right".

    Raises:
        InputError: no X-ray, no point, or another view.
    """
    check_xray(node)
    if centre_world is None:
        raise InputError("there is nothing to look at; choose a CT that holds voxels")
    sdd = camera_of(node).source_detector_distance_mm or NOMINAL_SDD_MM
    set_camera_from_world(node, named_view(view, centre_world, 0.7 * sdd))
    node.SetAttribute(_ANYWHERE, None)


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
    check_xray(node)
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
    width, height = size_of(node)
    cx, cy = -camera_from_ijk[0, 3] / sx, -camera_from_ijk[1, 3] / sy
    k = np.array([[sdd / sx, 0.0, cx], [0.0, sdd / sy, cy], [0.0, 0.0, 1.0]])
    known = node.GetAttribute(_SDD_KNOWN) is not None
    return Camera(width, height, k, float(sdd) if known else None, _camera_from_rig(node))


def size_of(node):
    """(width, height) in pixels.

    Raises:
        InputError: not an X-ray of this module, or one whose pixels were not loaded.
    """
    check_xray(node)
    if node.GetImageData() is None:
        raise InputError(f"the X-ray '{node.GetName()}' has no pixels; was its file moved? Import it again")
    return node.GetImageData().GetDimensions()[:2]


def provenance_of(node):
    """Where each value of the camera came from."""
    return json.loads(node.GetAttribute(_PROVENANCE) or "{}")


def set_preparation(node, polarity="auto", mask=True):
    """How the pixels are to be read: "auto", "bone_bright" or "bone_dark", and whether to look for a mask."""
    node.SetAttribute(_POLARITY, polarity)
    node.SetAttribute(_MASK, "auto" if mask else "none")


def mirror(node):
    """Mirror an X-ray left to right, in place: for one that is stored as seen from the other side. Again takes it back."""
    camera, provenance = camera_of(node), provenance_of(node)
    slicer.util.arrayFromVolume(node)[:] = slicer.util.arrayFromVolume(node)[..., ::-1].copy()
    slicer.util.arrayFromVolumeModified(node)
    field = node.GetNodeReference(OPEN_FIELD)
    if field is not None:
        slicer.util.arrayFromVolume(field)[:] = slicer.util.arrayFromVolume(field)[..., ::-1].copy()
        slicer.util.arrayFromVolumeModified(field)
    k = camera.K.copy()
    k[0, 2] = camera.width - 1 - k[0, 2]
    if provenance.pop("mirror", "").startswith("given"):
        pass  # taken back
    else:
        provenance["mirror"] = "given: mirrored left to right"
    set_camera(node, replace(camera, K=k), provenance)


def preparation_of(node):
    """(polarity, mask) as :func:`set_preparation` set them."""
    return node.GetAttribute(_POLARITY) or "auto", node.GetAttribute(_MASK) != "none"


def metadata_of(node):
    """What the X-ray's file said beside its pixels and camera."""
    return json.loads(node.GetAttribute(_METADATA) or "{}")


def missing_of(node):
    """Names of the camera's values that are not known: without them there is no pose to be found."""
    return [name for name, origin in provenance_of(node).items() if origin.startswith(MISSING)]


def set_camera_values(node, source_detector_distance_mm=None, pixel_spacing_mm=None, principal_point_px=None):
    """Replace single values of a camera, by hand; the others stay, and each changed one is marked as given.

    The rays of a calibrated camera whose file has K and no distance stay as well: a distance then tells the size of
    its pixels, and the size of its pixels the distance. Both together are a new camera.

    Args:
        node: an X-ray.
        source_detector_distance_mm: positive.
        pixel_spacing_mm: (column, row) on the detector, or one number for both.
        principal_point_px: (u, v).

    Raises:
        InputError: a value that cannot be. Nothing is changed then.
    """
    camera, provenance = camera_of(node), provenance_of(node)
    distance = _numbers(source_detector_distance_mm, 1, "the source-detector distance", "a positive length in mm")
    spacing = _numbers(pixel_spacing_mm, 2, "the pixel size", "one or two positive lengths in mm")
    point = _numbers(principal_point_px, 2, "the principal point", "two numbers of pixels, (u, v)", least=-np.inf)
    given = {"source_detector_distance_mm": distance, "pixel_spacing_mm": spacing, "principal_point_px": point}
    given = {name: "given" for name, value in given.items() if value is not None}
    (fx, _, cx), (_, fy, cy), _ = camera.K
    cx, cy = (cx, cy) if point is None else point
    sdd = camera.source_detector_distance_mm
    # a distance that was added to a calibrated K may be corrected without touching K again
    calibrated = sdd is None or ("camera" in provenance and provenance.get("source_detector_distance_mm") == "given")
    if spacing is None and calibrated:
        sdd = sdd if distance is None else distance[0]
    else:
        if distance is not None:
            new = distance[0]
        else:
            new = fx * spacing[0] if sdd is None else sdd
        sx, sy = (sdd / fx, sdd / fy) if spacing is None else spacing
        fx, fy, sdd = new / sx, new / sy, new
        provenance.pop("camera", None)
    k = np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])
    set_camera(node, Camera(camera.width, camera.height, k, sdd, camera.camera_from_rig), {**provenance, **given})


def raw_xray_of(node):
    """The X-ray as the library's RawXRay: pixels, camera and how to read them.

    Raises:
        InputError: a value of the camera is missing, or its geometry was changed into no detector.
    """
    camera = camera_of(node)
    missing = missing_of(node)
    if missing:
        names = " and ".join({"source_detector_distance_mm": "the source-detector distance (SDD)",
                              "pixel_spacing_mm": "the pixel size on the detector"}.get(n, n) for n in missing)  # fmt: skip
        raise InputError(
            f"{names} of the X-ray '{node.GetName()}' is not known; type it in, choose a C-arm, or load a camera file"
        )
    polarity, mask = preparation_of(node)
    return RawXRay(
        slicer.util.arrayFromVolume(node)[0],
        camera,
        polarity,
        "auto" if mask else None,
        _header(node),
        provenance_of(node),
        node.GetName(),
        metadata_of(node),
    )


def prepared_xray(node):
    """The library's XRay of this node.

    Raises:
        InputError: the pixels or the camera cannot be used.
    """
    return raw_xray_of(node).prepared()


def camera_from_world_of(node):
    """(4, 4) rigid: the X-ray's pose as the scene has it, all transforms above included.

    Raises:
        InputError: a transform above bends, scales, shears or mirrors.
    """
    return camera_from_world(node.GetParentTransformNode(), f"the X-ray '{node.GetName()}'")


def pose_node_of(node):
    """The transform that a registration sets: ``ct_from_camera``, or of a view in a rig ``ct_from_rig``."""
    check_xray(node)
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


def set_camera_from_rig(node, camera_from_rig):
    """Make the X-ray a view of a rig, or of none (None); where the X-ray stands stays.

    Args:
        camera_from_rig: (4, 4) rigid, or None.
    """
    camera_from_world = camera_from_world_of(node)
    pose = pose_node_of(node)
    view = node.GetParentTransformNode()
    if view is pose:
        view = None
    elif users_of(pose) != [view]:  # of a rig whose views share it: this one leaves them
        pose = _add_transform(f"{node.GetName()} pose", POSE)
    if camera_from_rig is None:
        node.SetAndObserveTransformNodeID(pose.GetID())
        if view is not None:
            slicer.mrmlScene.RemoveNode(view)
    else:
        if view is None:
            view = _add_transform(f"{node.GetName()} in its rig", RIG_VIEW)
            node.SetAndObserveTransformNodeID(view.GetID())
        view.SetMatrixTransformToParent(to_vtk(inverse(camera_from_rig)))
        view.SetAndObserveTransformNodeID(pose.GetID())
    set_camera_from_world(node, camera_from_world)


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


def check_xray(node):
    """Raise InputError unless this is an X-ray of the module, in the scene."""
    wanted = "an X-ray of this module: import it as one first (logic.importXRay)"
    check_node(node, "vtkMRMLScalarVolumeNode", wanted)
    if node.GetAttribute(ROLE) != XRAY:
        raise InputError(f"'{node.GetName()}' is not an X-ray of this module; import it as one first (logic.importXRay)")


def users_of(transform_node):
    """Nodes that stand directly under a transform."""
    nodes = slicer.util.getNodesByClass("vtkMRMLTransformableNode")
    return [node for node in nodes if node.GetTransformNodeID() == transform_node.GetID()]


def _set_window(node, values):
    """Show the patient: the open beam and collimator would take most of an automatic window's greys."""
    low, high = np.percentile(values, _SHOWN_PERCENT)
    display = node.GetDisplayNode()
    if high > low:
        display.AutoWindowLevelOff()
        display.SetWindowLevelMinMax(float(low), float(high))


def _set_header(node, header):
    node.SetAttribute(_HINTS, json.dumps({"polarity": header.polarity, "logarithmic": header.logarithmic}))
    if header.open_field is None:
        return
    field = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", f"{node.GetName()} open field")
    field.SetHideFromEditors(1)
    slicer.util.updateVolumeFromArray(field, np.ascontiguousarray(header.open_field[None].astype(np.uint8)))
    node.SetNodeReferenceID(OPEN_FIELD, field.GetID())


def _header(node):
    hints = json.loads(node.GetAttribute(_HINTS) or "{}")
    field = node.GetNodeReference(OPEN_FIELD)
    open_field = None if field is None else slicer.util.arrayFromVolume(field)[0] > 0
    return HeaderHints(hints.get("polarity"), bool(hints.get("logarithmic")), open_field)


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


def _numbers(values, count, what, allowed, least=0.0):
    """(count,) floats above ``least``, one standing for all where they are lengths; None of None."""
    if values is None:
        return None
    try:
        found = np.asarray(values, dtype=np.float64).ravel()
    except (TypeError, ValueError):
        found = np.empty(0)
    if len(found) == 1 and least == 0.0:
        found = np.repeat(found, count)
    if len(found) != count or not np.isfinite(found).all() or (found <= least).any():
        raise InputError(f"{what} is {values!r}; allowed is {allowed}")
    return tuple(map(float, found))

