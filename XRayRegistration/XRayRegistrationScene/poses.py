"""Poses that an X-ray is to come back to, such as where a registration started and what it found.

They are kept as JSON on the transform that a registration moves, so they are saved with the scene, and the
views of a rig share them.
"""

from __future__ import annotations

import json

import numpy as np

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.geometry.rigid import inverse

from .matrices import rigid_world_from_parent, set_world_from_node
from .xray_nodes import camera_from_world_of, pose_node_of, stands_anywhere

START, RESULT = "start", "result"
_ATTRIBUTE = "XRayRegistration.Poses"  # name: world_from_node, (4, 4)


def remember(xray_node, name):
    """Keep the pose that the X-ray (of a rig: the rig) has now, in place of an earlier one of this name.

    Raises:
        InputError: no name, or a transform above that is not rigid.
    """
    if not name:
        raise InputError("a pose to remember needs a name, such as 'start' or 'result'")
    pose = pose_node_of(xray_node)
    kept = _kept(pose)
    kept[name] = rigid_world_from_parent(pose, f"the X-ray '{xray_node.GetName()}'").tolist()
    pose.SetAttribute(_ATTRIBUTE, json.dumps(kept))


def remembered(xray_node):
    """The poses kept for this X-ray: name to camera_from_world (4, 4), in the order that they were kept in."""
    pose = pose_node_of(xray_node)
    world_from_pose = rigid_world_from_parent(pose, f"the X-ray '{xray_node.GetName()}'")
    camera_from_pose = camera_from_world_of(xray_node) @ world_from_pose
    return {name: camera_from_pose @ inverse(np.array(kept)) for name, kept in _kept(pose).items()}


def go_to(xray_node, name):
    """Move the X-ray (of a rig: the rig) to a pose that was kept.

    Raises:
        InputError: none of that name.
    """
    pose = pose_node_of(xray_node)
    kept = _kept(pose)
    if name not in kept:
        allowed = ", ".join(kept) or "(none is kept yet)"
        raise InputError(f"the X-ray '{xray_node.GetName()}' has no pose {name!r} kept; allowed are {allowed}")
    set_world_from_node(pose, np.array(kept[name]))


def is_placed(xray_node):
    """Whether there is anything to compare: someone has placed the X-ray, or a registration has."""
    return not stands_anywhere(xray_node) or RESULT in remembered(xray_node)


def forget(xray_node, name=None):
    """Drop a kept pose, or all of them; nothing happens where there is none."""
    pose = pose_node_of(xray_node)
    kept = {} if name is None else {n: value for n, value in _kept(pose).items() if n != name}
    pose.SetAttribute(_ATTRIBUTE, json.dumps(kept) if kept else None)


def _kept(pose_node):
    return json.loads(pose_node.GetAttribute(_ATTRIBUTE) or "{}")
