"""What lies over an X-ray in a slice view, so that eyes can judge the pose: blend, checkerboard, edges or the DRR.

An X-ray has at most one overlay, a scalar volume over the same area and in the same grey values. So
window, level and colours of the X-ray hold for both, and bone looks alike whether it is dark or bright.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import slicer
import slicer.util
from scipy import ndimage

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.images.resize import resize_masked
from XRayRegistrationLib.pictures.raster import matched, outlines
from XRayRegistrationLib.pictures.view import picture_size

from . import drr_nodes
from .removal import remove_with_display
from .slice_views import composite_of, show_xray
from .xray_nodes import camera_of, prepared_xray

MODES = ("xray", "drr", "blend", "checkerboard", "edges")
REFERENCE = "XRayRegistration.Overlay"  # of the X-ray node to its overlay
_MODE = "XRayRegistration.OverlayMode"
SQUARES = 8  # of a checkerboard, along the longer side
_EDGE_PX = 640  # longer side of the outlines' picture: a line is then about as thin as a screen's pixel
_EDGE_COLOURS = "vtkMRMLColorTableNodeCyan"
_EDGE_SHOWN = 0.3  # of a line's strength; less is transparent


def show_overlay(xray_node, mode, slice_nodes=(), opacity=0.5, bone_image=None):
    """Lay the X-ray's DRR over it, and show both in slice views.

    Args:
        xray_node: with a DRR (drr_nodes.update_drr, or SceneSync).
        mode: "blend", "checkerboard", "edges", "drr", or "xray" for no overlay.
        slice_nodes: one view's node or several; the X-ray becomes their background, the overlay their foreground.
        opacity: of a blend, 0 (X-ray) to 1 (DRR). The others cover what they cover.
        bone_image: (height, width) line integrals of bone alone at this pose, of any size, to take the edges from;
            None takes the DRR's, where skin and lungs have edges too. SceneSync renders it where it knows the bone.

    Returns:
        The overlay's volume node; None for "xray".

    Raises:
        InputError: an unknown mode, no DRR, or an X-ray that shows nothing.
    """
    if mode not in MODES:
        raise InputError(f"the overlay is {mode!r}; allowed are {', '.join(MODES)}")
    if not 0.0 <= opacity <= 1.0:
        raise InputError(f"the overlay's opacity is {opacity!r}; allowed is 0 (X-ray) to 1 (DRR)")
    overlay, before = None, mode_of(xray_node)
    if mode == "xray":
        remove_overlay(xray_node)
    else:
        overlay = _make(xray_node, mode, bone_image)
    for slice_node in _several(slice_nodes):
        composite = show_xray(xray_node, slice_node)
        composite.SetForegroundVolumeID(None if overlay is None else overlay.GetID())
        composite.SetForegroundOpacity(opacity if mode == "blend" else 1.0)
    if mode != before:
        xray_node.Modified()  # for whoever renews the overlay
    return overlay


def set_opacity(slice_nodes, opacity):
    """Change a blend's opacity in slice views and nothing else, so that a slider is quick."""
    for slice_node in _several(slice_nodes):
        composite_of(slice_node).SetForegroundOpacity(opacity)


def mode_of(xray_node):
    """The mode of the X-ray's overlay; "xray" where it has none."""
    overlay = xray_node.GetNodeReference(REFERENCE)
    return "xray" if overlay is None else overlay.GetAttribute(_MODE)


def remove_overlay(xray_node):
    """Take the overlay out of the scene, where there is one."""
    _readings.pop(xray_node.GetID(), None)
    remove_with_display(xray_node.GetNodeReference(REFERENCE))


def update_overlay(xray_node, bone_image=None):
    """Renew an overlay that is there from the DRR as it is now; returns it, or None where there is none.

    Args:
        bone_image: as in :func:`show_overlay`.

    Raises:
        InputError: the X-ray has no DRR, or shows nothing.
    """
    overlay = xray_node.GetNodeReference(REFERENCE)
    if overlay is not None:
        drr_nodes.lay_on_xray(overlay, xray_node, _picture(xray_node, mode_of(xray_node), bone_image))
    return overlay


def update_display(xray_node):
    """Give the overlay the X-ray's window, level and colours; outlines have their own."""
    display, own = _displays(xray_node)
    if own is None or display is None:
        return
    edges = mode_of(xray_node) == "edges"
    with slicer.util.NodeModify(own):
        own.AutoWindowLevelOff()
        if edges:
            own.SetWindowLevelMinMax(_EDGE_SHOWN, 1.0)
            own.SetThreshold(_EDGE_SHOWN, 1e9)
            own.SetAndObserveColorNodeID(_EDGE_COLOURS)
        else:
            own.SetWindowLevel(display.GetWindow(), display.GetLevel())
            own.SetAndObserveColorNodeID(display.GetColorNodeID())
        own.SetApplyThreshold(edges)
        own.SetInterpolate(True if edges else display.GetInterpolate())


def adopt_display(xray_node):
    """Give the X-ray the window that someone gave the overlay: a mouse in a slice view adjusts what lies on top."""
    display, own = _displays(xray_node)
    if own is not None and display is not None and mode_of(xray_node) != "edges":
        display.AutoWindowLevelOff()
        display.SetWindowLevel(own.GetWindow(), own.GetLevel())


def _several(nodes):
    return [nodes] if hasattr(nodes, "GetID") else list(nodes)


def _displays(xray_node):
    """The display nodes of the X-ray and of its overlay; None for what is not there."""
    overlay = xray_node.GetNodeReference(REFERENCE)
    return xray_node.GetDisplayNode(), None if overlay is None else overlay.GetDisplayNode()


def _make(xray_node, mode, bone_image):
    picture = _picture(xray_node, mode, bone_image)  # may raise: then nothing is changed
    overlay = xray_node.GetNodeReference(REFERENCE)
    if overlay is None:
        overlay = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", f"{xray_node.GetName()} overlay")
        overlay.CreateDefaultDisplayNodes()
        xray_node.SetNodeReferenceID(REFERENCE, overlay.GetID())
    overlay.SetAttribute(_MODE, mode)
    update_display(xray_node)  # first: a window that is left of another mode must not be taken for the user's
    drr_nodes.lay_on_xray(overlay, xray_node, picture)
    return overlay


def _picture(xray_node, mode, bone_image):
    """The overlay's values (height, width) float32, in the X-ray's own units; of outlines 0..1."""
    drr_node = xray_node.GetNodeReference(drr_nodes.REFERENCE)
    if drr_node is None:
        raise InputError(
            f"the X-ray '{xray_node.GetName()}' has no DRR to be laid over it; choose its CT, so that one is rendered"
        )
    drr = slicer.util.arrayFromVolume(drr_node)[0]
    if mode == "edges":
        return _lines(drr if bone_image is None else bone_image, camera_of(xray_node))
    reading = _read(xray_node, drr.shape)
    grey = matched(reading.sign * drr, reading.values, reading.mask)
    if mode != "checkerboard":
        return grey
    values = slicer.util.arrayFromVolume(xray_node)[0]
    height, width = values.shape
    return np.where(squares(camera_of(xray_node)), _resized(grey, width, height), values).astype(np.float32)


def squares(camera):
    """(height, width) bool: where a checkerboard shows the DRR; its squares are square in mm, the top left is X-ray."""
    wide, high = 1.0 / camera.K[0, 0], 1.0 / camera.K[1, 1]  # pixel, in units of the focal length
    side = max(camera.width * wide, camera.height * high) / SQUARES
    column = (np.arange(camera.width) + 0.5) * wide // side
    row = (np.arange(camera.height) + 0.5) * high // side
    return (column[None, :] + row[:, None]) % 2 == 1


def _lines(image, camera):
    """Outlines of a DRR, drawn finer than a coarse DRR's pixels, as strengths 0..1 with soft flanks."""
    width, height = picture_size(camera, _EDGE_PX)
    sigma = max(2.0, 0.5 * max(width / image.shape[1], height / image.shape[0]))
    edges = outlines(_resized(image, width, height), sigma_px=sigma)
    inside = np.zeros(edges.shape, bool)
    rim = round(2 * sigma)  # along the picture's own border there is no edge of anything
    inside[rim:-rim, rim:-rim] = True
    return np.clip(ndimage.gaussian_filter((edges & inside).astype(np.float32), 0.8) / 0.35, 0.0, 1.0)


def _resized(image, width, height):
    return resize_masked(image, np.ones(image.shape, bool), width, height)[0]


@dataclass(frozen=True)
class _Reading:
    """The X-ray at the DRR's size: values in its own units, mask of those to believe, sign +1 where bone is bright."""

    values: np.ndarray
    mask: np.ndarray
    sign: float


_readings: dict = {}  # by id of the X-ray: what it was read from, and the reading


def _read(xray_node, shape):
    """What grey values and which polarity the X-ray has; looked for again only when it has changed."""
    source = (xray_node.GetImageData().GetMTime(), shape, *(xray_node.GetAttribute(name) for name in _READ_FROM))
    found = _readings.get(xray_node.GetID())
    if found is None or found[0] != source:
        xray = prepared_xray(xray_node)
        values = slicer.util.arrayFromVolume(xray_node)[0].astype(np.float32)
        bone_up = np.cov(values[xray.mask], xray.line_integrals[xray.mask])[0, 1] > 0
        small, mask = resize_masked(values, xray.mask, shape[1], shape[0])
        found = source, _Reading(small, mask if mask.any() else np.ones(shape, bool), 1.0 if bone_up else -1.0)
        _readings[xray_node.GetID()] = found
    return found[1]


_READ_FROM = ("XRayRegistration.Polarity", "XRayRegistration.Mask")
