"""Taking nodes out of the scene together with what belongs to them."""

from __future__ import annotations

import slicer


def remove_with_display(node) -> None:
    """Remove a node, if it is there, and its display and storage nodes, which a scene keeps otherwise."""
    if node is None:
        return
    own = belongings(node)
    slicer.mrmlScene.RemoveNode(node)
    for belonging in own:
        slicer.mrmlScene.RemoveNode(belonging)


def belongings(node) -> list:
    """A node's display and storage nodes."""
    out = []
    if node.IsA("vtkMRMLDisplayableNode"):
        out += [node.GetNthDisplayNode(n) for n in range(node.GetNumberOfDisplayNodes())]
    if node.IsA("vtkMRMLStorableNode"):
        out += [node.GetNthStorageNode(n) for n in range(node.GetNumberOfStorageNodes())]
    return [n for n in out if n is not None]
