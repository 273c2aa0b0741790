"""Whoever moves an X-ray, edits its camera or deletes a node: beam, DRR, overlay, landmarks and slice views follow.

What someone deletes stays deleted until it is asked for again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import slicer
import vtk
from slicer.util import VTKObservationMixin

from . import drr_nodes, frustum, landmark_nodes, overlays, slice_views
from .removal import belongings, remove_with_display
from .xray_nodes import OPEN_FIELD, POSE, RESULT, RIG_VIEW, ROLE, XRAY, users_of

_DEPENDENTS = (overlays.REFERENCE, drr_nodes.REFERENCE, frustum.REFERENCE, landmark_nodes.REFERENCE, OPEN_FIELD)


@dataclass
class _Followed:
    attenuation: Any = None
    bone: Any = None
    markups: Any = None
    beam: bool = True
    world_from_picture: Any = None  # (4, 4), when it was last renewed


class SceneSync(VTKObservationMixin):
    """Observes X-rays, and renews what hangs on them.

    Args:
        schedule: calls a function soon, once the events that are under way are through; the application gives a
            timer of 0 ms, so that a hundred events of one drag make one DRR.
        drr_px: longer side of the live DRR.
        backend: of the renderer.
    """

    def __init__(self, schedule: Callable[[Callable[[], None]], None], drr_px: int | None = 256, backend: str = "auto") -> None:
        super().__init__()
        self._schedule = schedule
        self._drr_px = drr_px
        self._backend = backend
        self._followed: dict[str, _Followed] = {}  # by id of the X-ray
        self._waiting: set[str] = set()
        self.addObserver(slicer.mrmlScene, slicer.vtkMRMLScene.NodeAboutToBeRemovedEvent, self._node_leaves)
        self.addObserver(slicer.mrmlScene, slicer.vtkMRMLScene.StartCloseEvent, lambda caller, event: self.forget_all())

    def follow(self, xray_node, attenuation=None, markups=None, bone=None) -> None:
        """Keep an X-ray's beam in step; and, where given, its DRR and its landmarks. Again: with other ones.

        Args:
            xray_node: the X-ray.
            attenuation: AttenuationVolume in world coordinates that the DRR is rendered of.
            markups: points to be shown on the image.
            bone: AttenuationVolume of bone alone, for the overlay's edges; None takes the DRR's edges.
        """
        earlier = self._followed.get(xray_node.GetID(), _Followed())
        self.forget(xray_node)
        place = earlier.world_from_picture  # views that show it may still stand there
        self._followed[xray_node.GetID()] = _Followed(attenuation, bone, markups, world_from_picture=place)
        self.addObserver(xray_node, slicer.vtkMRMLDisplayableNode.DisplayModifiedEvent, self._display_changed)
        for event in (slicer.vtkMRMLTransformableNode.TransformModifiedEvent, vtk.vtkCommand.ModifiedEvent):
            self.addObserver(xray_node, event, self._changed)
        if markups is not None:
            self.addObserver(markups, slicer.vtkMRMLMarkupsNode.PointModifiedEvent, self._changed)
            self.addObserver(markups, slicer.vtkMRMLMarkupsNode.PointRemovedEvent, self._changed)
        self._renew_later(xray_node.GetID())

    def forget(self, xray_node) -> None:
        """Leave an X-ray as it is."""
        if xray_node.GetID() not in self._followed:
            return
        markups = self._followed.pop(xray_node.GetID()).markups
        self._waiting.discard(xray_node.GetID())
        self.removeObserver(xray_node, slicer.vtkMRMLDisplayableNode.DisplayModifiedEvent, self._display_changed)
        self.removeObserver(xray_node, slicer.vtkMRMLTransformableNode.TransformModifiedEvent, self._changed)
        self.removeObserver(xray_node, vtk.vtkCommand.ModifiedEvent, self._changed)
        if markups is not None and all(other.markups is not markups for other in self._followed.values()):
            self.removeObserver(markups, slicer.vtkMRMLMarkupsNode.PointModifiedEvent, self._changed)
            self.removeObserver(markups, slicer.vtkMRMLMarkupsNode.PointRemovedEvent, self._changed)

    def forget_all(self) -> None:
        """Follow nothing; so when the scene closes."""
        for identity in list(self._followed):
            node = slicer.mrmlScene.GetNodeByID(identity)
            if node is not None:
                self.forget(node)
        self._followed.clear()
        self._waiting.clear()

    def close(self) -> None:
        """Observe nothing any more."""
        self.forget_all()
        self.removeObservers()

    def _changed(self, caller, event) -> None:
        for identity, followed in self._followed.items():
            if caller is followed.markups or caller.GetID() == identity:
                self._renew_later(identity)

    def _display_changed(self, caller, event) -> None:
        overlays.update_display(caller)

    def _overlay_display_changed(self, caller, event) -> None:
        for identity in self._followed:
            node = slicer.mrmlScene.GetNodeByID(identity)
            if node is not None and node.GetNodeReference(overlays.REFERENCE) is caller:
                overlays.adopt_display(node)

    def _renew_later(self, identity: str) -> None:
        if identity not in self._waiting:
            self._waiting.add(identity)
            self._schedule(lambda: self._renew(identity))

    def _renew(self, identity: str) -> None:
        if identity not in self._waiting:
            return  # forgotten meanwhile
        node = slicer.mrmlScene.GetNodeByID(identity)
        try:
            if node is not None:
                self._renew_all(node, self._followed[identity])
        finally:  # last: setting references modifies the X-ray too. And an error must not stop the renewals to come
            self._waiting.discard(identity)

    def _renew_all(self, node, followed: _Followed) -> None:
        if followed.world_from_picture is not None:
            slice_views.carry(node, followed.world_from_picture)
        followed.world_from_picture = slice_views.world_from_picture(node)
        if followed.beam:
            frustum.update_frustum(node)
        if followed.attenuation is not None:
            drr_nodes.update_drr(node, self._render(followed.attenuation, node))
            self._renew_overlay(node, followed)
        if followed.markups is not None:
            landmark_nodes.show_projected(landmark_nodes.project_landmarks(followed.markups, node), node)

    def _renew_overlay(self, node, followed: _Followed) -> None:
        with_bone = followed.bone is not None and overlays.mode_of(node) == "edges"
        overlay = overlays.update_overlay(node, self._render(followed.bone, node) if with_bone else None)
        event = slicer.vtkMRMLDisplayableNode.DisplayModifiedEvent
        if overlay is not None and not self.hasObserver(overlay, event, self._overlay_display_changed):
            self.addObserver(overlay, event, self._overlay_display_changed)

    def _render(self, attenuation, node):
        return drr_nodes.drr_image(attenuation, node, self._drr_px, self._backend)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _node_leaves(self, caller, event, node) -> None:
        if slicer.mrmlScene.IsClosing():
            return  # all of them go
        if node.GetAttribute(ROLE) == XRAY:
            self.forget(node)
            remove_dependents(node)
            return
        if node.GetAttribute(ROLE) == POSE:
            remove_with_display(node.GetNodeReference(RESULT))
            return
        for identity, followed in list(self._followed.items()):
            xray = slicer.mrmlScene.GetNodeByID(identity)
            if node is followed.markups:
                self.follow(xray, followed.attenuation, bone=followed.bone)
                remove_with_display(xray.GetNodeReference(landmark_nodes.REFERENCE))
            elif node is xray.GetNodeReference(drr_nodes.REFERENCE):
                followed.attenuation = None
                overlays.remove_overlay(xray)  # it would not follow any more
            elif node is xray.GetNodeReference(frustum.REFERENCE):
                followed.beam = False


def remove_dependents(xray_node) -> None:
    """Take out of the scene what an X-ray that leaves it has brought: beam, DRR, landmarks, transforms that no one else uses."""
    for reference in _DEPENDENTS:
        remove_with_display(xray_node.GetNodeReference(reference))
    for slice_node in slice_views.views_of(xray_node):  # a view makes new display nodes for a volume that has lost its own
        slice_views.composite_of(slice_node).SetBackgroundVolumeID(None)
    transform = xray_node.GetParentTransformNode()
    xray_node.SetAndObserveTransformNodeID(None)
    while transform is not None and transform.GetAttribute(ROLE) in (POSE, RIG_VIEW) and not users_of(transform):
        above = transform.GetParentTransformNode()
        remove_with_display(transform.GetNodeReference(RESULT))
        remove_with_display(transform)
        transform = above
    for belonging in belongings(xray_node):
        slicer.mrmlScene.RemoveNode(belonging)
