"""Whether what somebody gave is a node that can be used."""

from __future__ import annotations

import slicer

from XRayRegistrationLib.errors import InputError


def check_node(node, kind, wanted):
    """Look whether something is a node of a MRML class, in the application's scene.

    Args:
        node: anything.
        kind: such as "vtkMRMLMarkupsNode".
        wanted: what is allowed, such as "a point list", for the message.

    Raises:
        InputError: it is not.
    """
    if not hasattr(node, "IsA") or not node.IsA("vtkMRMLNode"):
        raise InputError(f"{'nothing' if node is None else repr(node)} was given; allowed is {wanted}")
    if not node.IsA(kind):
        raise InputError(f"'{node.GetName()}' is a {node.GetNodeTagName()}; allowed is {wanted}")
    if node.GetScene() is not slicer.mrmlScene:
        raise InputError(f"'{node.GetName()}' is not in the scene, or no longer; allowed is {wanted} of this scene")
