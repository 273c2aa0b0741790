"""One registration, from nodes to nodes: gather what the scene holds, run the library, show what it found.

Gathering and showing belong to the thread of the scene; :func:`run` touches no node, so that it may
run anywhere.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import slicer
import slicer.util

from XRayRegistrationLib.bone.model import build_bone_model
from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.files.json_file import json_text
from XRayRegistrationLib.geometry.rigid import inverse
from XRayRegistrationLib.images.volume import Volume
from XRayRegistrationLib.images.xray import XRay
from XRayRegistrationLib.registration import register
from XRayRegistrationLib.result import Result

from .bone_nodes import label_map_of
from .frustum import update_frustum
from .landmark_nodes import points_of
from .volume_nodes import volume_of
from .xray_nodes import (
    RESULT,
    camera_from_world_of,
    pose_node_of,
    prepared_xray,
    set_camera_from_world,
    share_pose,
)

CURRENT = "current"  # a start: the transform as it stands


@dataclass(frozen=True)
class Request:
    """Everything that a registration needs, out of the scene; see ``XRayRegistrationLib.registration.register``.

    ``bone_alone``: the bone was chosen among others, so nothing else is rendered; else the flesh around it helps.
    """

    ct: Volume
    xrays: list[XRay]
    method: str
    bone: Any
    bone_alone: bool
    start: Any
    landmarks: Any
    landmark_names: tuple[str, ...]
    options: dict[str, Any]
    backend: str
    seed: int


def gather(
    ct_node, xray_nodes, *, method="diffdrr", segmentation=None, segments=None, start="none", landmarks=None, options=None,
    backend="auto", seed=0,
):  # fmt: skip
    """Read the nodes into a Request.

    Args:
        ct_node: the CT.
        xray_nodes: one X-ray, or the views of a rig (each with its place in the rig).
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
    nodes = list(xray_nodes)
    if not nodes:
        raise InputError("no X-ray is chosen; import one, or choose one of the scene")
    if isinstance(start, str) and start == CURRENT:
        rig_from_camera = np.eye(4)
        xray = prepared_xray(nodes[0])
        if xray.camera.camera_from_rig is not None:
            rig_from_camera = inverse(xray.camera.camera_from_rig)
        start = rig_from_camera @ camera_from_world_of(nodes[0])
    names, points = ((), None) if landmarks is None else points_of(landmarks)
    return Request(
        volume_of(ct_node),
        [prepared_xray(node) for node in nodes],
        method,
        "auto" if segmentation is None else label_map_of(segmentation, ct_node, segments),
        segments is not None,
        start,
        points,
        names,
        dict(options or {}),
        backend,
        seed,
    )  # fmt: skip


def run(request, progress=None):
    """The library's Result; ``progress`` is called with (fraction, text), raising from it cancels."""
    bone = request.bone
    if isinstance(bone, Volume):
        bone = build_bone_model(request.ct, bone=bone)
        if not request.bone_alone:
            bone = replace(bone, rendered=("full",) if bone.bone_only_ct else ("full", "bone"))
    return register(
        request.ct,
        request.xrays,
        method=request.method,
        bone=bone,
        start=request.start,
        landmarks=request.landmarks,
        options=request.options,
        backend=request.backend,
        seed=request.seed,
        progress=progress,
    )


def show(result, xray_nodes):
    """Move the X-rays to the pose that was found, draw their beams, and keep the result with the scene.

    A pose that the check does not believe is shown too, and marked: the caller says so.

    Returns:
        The transform node that was moved.
    """
    nodes = list(xray_nodes)
    pose = share_pose(nodes) if len(nodes) > 1 else pose_node_of(nodes[0])
    set_camera_from_world(nodes[0], result.camera_from_ct_views[0])
    for node in nodes:
        update_frustum(node)
    text = pose.GetNodeReference(RESULT)
    if text is None:
        text = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTextNode", f"{pose.GetName()} result")
        pose.SetNodeReferenceID(RESULT, text.GetID())
    text.SetText(json_text(result.to_dict()))
    return pose


def result_of(xray_node):
    """The Result that the X-ray's pose came from; None when there is none, or when the pose was moved since."""
    pose = pose_node_of(xray_node)
    text = pose.GetNodeReference(RESULT)
    if text is None or not text.GetText():
        return None
    result = Result.from_dict(json.loads(text.GetText()))
    camera_from_world = camera_from_world_of(xray_node)
    moved = [np.abs(found - camera_from_world).max() for found in result.camera_from_ct_views]
    return result if min(moved) < 1e-3 else None
