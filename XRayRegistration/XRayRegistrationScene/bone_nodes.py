"""Bone: a segmentation on the CT, made by the library's segmentation or by whoever drew it."""

from __future__ import annotations

import numpy as np
import slicer
import slicer.util

from XRayRegistrationLib.bone.segmentation import segment_bone
from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.images.volume import Volume

from .checks import check_node
from .volume_nodes import volume_of
from .xray_nodes import ROLE

SEGMENT = "Bone"
BONE = "bone"  # the role of a segmentation that this module has made
_COLOUR = (0.95, 0.84, 0.57)


def segment_bone_of(ct_node, threshold_hu=None, segmentation_node=None):
    """Segment a CT's bone without a network, into a segmentation with a closed surface that moves with the CT.

    Args:
        ct_node: the CT.
        threshold_hu: of dense bone; None chooses one.
        segmentation_node: whose segment "Bone" is replaced; None makes a new one.

    Returns:
        The segmentation node.

    Raises:
        InputError: no CT, or no bone in it. Nothing is added to the scene then.
    """
    mask = segment_bone(volume_of(ct_node), threshold_hu)
    node = segmentation_node
    if node is None:
        name = slicer.mrmlScene.GenerateUniqueName(f"{ct_node.GetName()} bone")
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
        node.CreateDefaultDisplayNodes()
        node.SetAttribute(ROLE, BONE)
    node.SetReferenceImageGeometryParameterFromVolumeNode(ct_node)
    node.SetAndObserveTransformNodeID(ct_node.GetTransformNodeID())
    segment = node.GetSegmentation().GetSegmentIdBySegmentName(SEGMENT)
    if not segment:
        segment = node.GetSegmentation().AddEmptySegment(SEGMENT, SEGMENT, _COLOUR)
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask.values.astype(np.uint8), node, segment, ct_node)
    node.CreateClosedSurfaceRepresentation()
    return node


def is_found(segmentation_node):
    """Whether this module made a segmentation, so that it may make it anew; one that someone drew is left as it is."""
    return segmentation_node is not None and segmentation_node.GetAttribute(ROLE) == BONE


def label_map_of(segmentation_node, ct_node, segments=None):
    """Segments as a label map on the CT's grid, 1 inside: what the library takes as chosen bone.

    Args:
        segmentation_node: drawn on any grid.
        ct_node: whose grid is wanted.
        segments: names or ids of segments; None for all.

    Raises:
        InputError: no segment of that name, or nothing in those that lies in the CT.
    """
    check_node(segmentation_node, "vtkMRMLSegmentationNode", "a segmentation")
    segmentation = segmentation_node.GetSegmentation()
    ids = list(segmentation.GetSegmentIDs())
    names = [segmentation.GetSegment(n).GetName() for n in ids]
    chosen = []
    for wanted in ids if segments is None else segments:
        if wanted not in ids and wanted not in names:
            raise InputError(
                f"the segmentation '{segmentation_node.GetName()}' has no segment {wanted!r}; "
                f"allowed are {', '.join(names) or '(it has none)'}"
            )
        chosen.append(wanted if wanted in ids else ids[names.index(wanted)])
    ct = volume_of(ct_node)
    inside = np.zeros(ct.values.shape, bool)
    for segment in chosen:
        inside |= slicer.util.arrayFromSegmentBinaryLabelmap(segmentation_node, segment, ct_node) > 0
    if not inside.any():
        raise InputError(
            f"the chosen segments of '{segmentation_node.GetName()}' are empty within the CT '{ct_node.GetName()}'; "
            "choose segments that were drawn on this CT"
        )
    return Volume(inside.astype(np.uint8), ct.ras_from_ijk, segmentation_node.GetName())
