"""One registration, from nodes to nodes: gather what the scene holds, and show what was found.

Both belong to the thread of the scene. What lies between, ``XRayRegistrationLib.request.fulfil``,
touches no node and runs anywhere, in another process too.
"""

from __future__ import annotations

import json

import numpy as np
import slicer
import slicer.util

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.files.json_file import json_text
from XRayRegistrationLib.geometry.rigid import inverse
from XRayRegistrationLib.methods import get_method
from XRayRegistrationLib.request import Request
from XRayRegistrationLib.result import Result

from . import poses
from .bone_nodes import label_map_of
from .frustum import update_frustum
from .landmark_nodes import points_of
from .removal import belongings, remove_with_display
from .volume_nodes import volume_of, world_from_ijk_of
from .xray_nodes import (
    RESULT,
    camera_from_world_of,
    camera_of,
    pose_node_of,
    raw_xray_of,
    set_camera_from_rig,
    set_camera_from_world,
    share_pose,
    xray_nodes,
)

_APART = "XRayRegistration.Apart"  # of a view that a run brought under its rig's pose: where it stood, JSON
_CT = "XRayRegistration.CT"  # reference of a kept result to its CT, and attribute: where that lay, JSON (4, 4)
CURRENT = "current"  # a start: the transform as it stands


def gather(
    ct_node, nodes, *, method="diffdrr", segmentation=None, segments=None, start="none", landmarks=None, options=None,
    backend="auto", seed=0,
):  # fmt: skip
    """Read the nodes into a Request.

    Args:
        ct_node: the CT.
        nodes: one X-ray, or the views of a rig (each with its place in the rig).
        method: a name in ``methods.METHODS``.
        segmentation: bone that was segmented before; None segments it.
        segments: of it; then those bones alone are registered. None is all, and the flesh around may help.
        start: "none", "ap", "pa", "lat-left", "lat-right", "current" (the transform as it stands), or camera_from_world
            (4, 4; of a rig rig_from_world).
        landmarks: a point list to be projected.
        options, backend, seed: as in the library.

    Raises:
        InputError: something is missing or cannot be used.
    """
    nodes = list(nodes)
    if not nodes:
        raise InputError("no X-ray is chosen; import one, or choose one of the scene")
    get_method(method).options(options)  # an unknown option
    if isinstance(start, str) and start == CURRENT:
        camera = camera_of(nodes[0])
        rig_from_camera = np.eye(4) if camera.camera_from_rig is None else inverse(camera.camera_from_rig)
        start = rig_from_camera @ camera_from_world_of(nodes[0])
    names, points = ((), None) if landmarks is None else points_of(landmarks)
    return Request(
        ct=volume_of(ct_node),
        xrays=tuple(raw_xray_of(node) for node in nodes),
        method=method,
        bone="auto" if segmentation is None else label_map_of(segmentation, ct_node, segments),
        bone_alone=segments is not None,
        start=start,
        landmarks=points,
        landmark_names=names,
        options=dict(options or {}),
        backend=backend,
        seed=seed,
    )


def show(result, nodes, ct_node=None, ras_from_ijk=None):
    """Move the X-rays to the pose that was found, draw their beams, and keep the result with the scene.

    Where they stood before is remembered as ``poses.START``, where they stand now as ``poses.RESULT``. A pose
    that the check does not believe is shown too, and marked: the caller says so.

    Args:
        result: the library's.
        nodes: the X-rays, in the order of its views.
        ct_node: that it is of; the result then holds only while the CT stays where it is.
        ras_from_ijk: (4, 4) where the CT was when it was registered; None for where it is now.

    Returns:
        The transform node that was moved.

    Raises:
        InputError: a result of other X-rays, or a transform above that is not rigid. Nothing is changed then.
    """
    nodes = list(nodes)
    if len(nodes) != len(result.camera_from_ct_views):
        raise InputError(f"the result is of {len(result.camera_from_ct_views)} X-rays, not of {len(nodes)}; register again")
    for node in nodes:
        camera_from_world_of(node)  # may raise, before anything is moved
    pose = _bring_together(nodes) if len(nodes) > 1 else pose_node_of(nodes[0])
    if not _stands_at_a_failure(nodes[0]):  # what it was registered from before is the user's own pose still
        poses.remember(nodes[0], poses.START)
    set_camera_from_world(nodes[0], result.camera_from_ct_views[0])
    poses.remember(nodes[0], poses.RESULT)
    for node in nodes:
        update_frustum(node)
    text = pose.GetNodeReference(RESULT)
    if text is None:
        text = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTextNode", f"{pose.GetName()} result")
        pose.SetNodeReferenceID(RESULT, text.GetID())
    text.SetText(json_text(result.to_dict()))
    text.SetNodeReferenceID(_CT, None if ct_node is None else ct_node.GetID())
    if ct_node is not None and ras_from_ijk is None:
        ras_from_ijk = volume_of(ct_node).ras_from_ijk
    text.SetAttribute(_CT, None if ct_node is None else json.dumps(np.asarray(ras_from_ijk).tolist()))
    return pose


def _stands_at_a_failure(node):
    """Whether an X-ray is where an earlier registration that failed has put it."""
    kept = poses.remembered(node)
    if not {poses.START, poses.RESULT} <= set(kept) or np.abs(kept[poses.RESULT] - camera_from_world_of(node)).max() > 1e-3:
        return False
    text = pose_node_of(node).GetNodeReference(RESULT)
    return text is not None and bool(text.GetText()) and not Result.from_dict(json.loads(text.GetText())).ok


def _bring_together(nodes):
    """Put a rig's views under the first one's pose, and remember for each that stood elsewhere where it stood."""
    pose, stood, hung = pose_node_of(nodes[0]), {}, {}
    for node in nodes[1:]:
        own = pose_node_of(node)
        if own is not pose:
            stood[node] = {"pose": own.GetName(), "camera_from_world": camera_from_world_of(node).tolist()}
            hung[own.GetID()] = [own.GetNodeReference(RESULT), *belongings(own)]
    share_pose(nodes)
    for node in nodes:
        node.SetAttribute(_APART, json.dumps(stood[node]) if node in stood else None)
    for identity, things in hung.items():
        if slicer.mrmlScene.GetNodeByID(identity) is None:  # no view stands there any more
            for thing in things:
                remove_with_display(thing)
    return pose


def result_of(xray_node):
    """The Result that the X-ray's pose came from; None when there is none, or pose, camera or CT were moved since."""
    pose = pose_node_of(xray_node)
    text = pose.GetNodeReference(RESULT)
    if text is None or not text.GetText():
        return None
    result = Result.from_dict(json.loads(text.GetText()))
    camera_from_world = camera_from_world_of(xray_node)
    ct_node = text.GetNodeReference(_CT)
    if ct_node is not None and ct_node.GetImageData() is not None:
        try:
            place = world_from_ijk_of(ct_node)
        except InputError:
            return None  # it was bent since
        if not np.allclose(place, json.loads(text.GetAttribute(_CT)), atol=1e-3):
            return None
    camera = camera_of(xray_node)
    for view, found in zip(result.views, result.camera_from_ct_views, strict=True):
        same = (view.camera.width, view.camera.height) == (camera.width, camera.height)
        if same and np.allclose(view.camera.K, camera.K, rtol=1e-6) and np.abs(found - camera_from_world).max() < 1e-3:
            return result
    return None


def is_of_another_ct(xray_node, ct_node):
    """Whether the result that is kept for an X-ray is of a CT that is not this node, or is no longer in the scene."""
    text = pose_node_of(xray_node).GetNodeReference(RESULT)
    return text is not None and text.GetAttribute(_CT) is not None and text.GetNodeReference(_CT) is not ct_node


def take_back(xray_node):
    """Undo :func:`show`: the X-ray (of a rig: all its views) returns to where it was, and the result is dropped.

    Raises:
        InputError: there is nothing to go back to.
    """
    pose = pose_node_of(xray_node)
    poses.go_to(xray_node, poses.START)
    forget_result(xray_node)
    for node in xray_nodes():
        if node.GetAttribute(_APART) and pose_node_of(node) is pose:
            stood = json.loads(node.GetAttribute(_APART))
            set_camera_from_rig(node, camera_of(node).camera_from_rig)  # it leaves the others
            set_camera_from_world(node, np.array(stood["camera_from_world"]))
            pose_node_of(node).SetName(stood["pose"])
            node.SetAttribute(_APART, None)


def forget_result(xray_node):
    """Drop the result that is kept for an X-ray, and its remembered pose."""
    pose = pose_node_of(xray_node)
    text = pose.GetNodeReference(RESULT)
    if text is not None:
        remove_with_display(text)
    poses.forget(xray_node)


def views_of_result(result, xray_node):
    """The X-rays of a result in the order of its views: this one, or all of its rig.

    Raises:
        InputError: a view was removed or renamed since.
    """
    if len(result.views) == 1:
        return [xray_node]
    shared = pose_node_of(xray_node)
    named = {node.GetName(): node for node in xray_nodes() if pose_node_of(node) is shared}
    absent = [view.source for view in result.views if view.source not in named]
    if absent:
        raise InputError(f"the X-ray '{absent[0]}' of this result is no longer in the scene; register again")
    return [named[view.source] for view in result.views]
