"""Step 1: the CT, what is rigid in it, and landmarks on it."""

from __future__ import annotations

import slicer.util
from XRayRegistrationScene import bone_nodes
from XRayRegistrationScene.volume_nodes import volume_of

from XRayRegistrationLib.errors import InputError

from .handlers import fill_combo, reported, sentence


class CTSection:
    """Args: panel, the module's widget."""

    def __init__(self, panel) -> None:
        self.panel, self.ui = panel, panel.ui
        self._ct = None  # id of the CT that was shown last
        self.ui.segmentButton.connect("clicked(bool)", self.find_bone)
        self.ui.sampleLandmarksButton.connect("clicked(bool)", self.sample_landmarks)
        self.ui.segmentComboBox.connect("currentIndexChanged(int)", self.choose_segment)

    @property
    def missing(self) -> str:
        """What is still to be done, or ""."""
        ct = self.panel.parameters.ct
        if ct is None:
            return "Choose the CT."
        try:
            volume_of(ct)
        except InputError as error:
            return sentence(str(error))
        return ""

    def refresh(self) -> None:
        """Show what the scene holds."""
        parameters, ui = self.panel.parameters, self.ui
        ct = None if parameters.ct is None else parameters.ct.GetID()
        if self._ct is not None and ct != self._ct and _drawn_on_another(parameters.segmentation, parameters.ct):
            parameters.segmentation = None  # it belongs to the CT before
        self._ct = ct
        segmentation = parameters.segmentation
        segments = [("All segments", "")]
        if segmentation is not None:
            ids = segmentation.GetSegmentation().GetSegmentIDs()
            segments += [(segmentation.GetSegmentation().GetSegment(n).GetName(), n) for n in ids]
        if parameters.segment not in [identity for _, identity in segments]:
            parameters.segment = ""  # of another segmentation, or deleted
        fill_combo(ui.segmentComboBox, segments, parameters.segment)
        idle = not self.panel.busy
        ui.segmentComboBox.enabled = idle and segmentation is not None
        ui.ctSelector.enabled = ui.segmentationSelector.enabled = idle  # nothing is exchanged while it is registered
        ui.thresholdSpinBox.enabled = parameters.chooseThreshold
        ui.segmentButton.enabled = ui.sampleLandmarksButton.enabled = parameters.ct is not None and idle
        ui.ctStatusLabel.text = self.missing or self._words(parameters)

    def choose_segment(self, index) -> None:
        """Register one bone of several, or all."""
        self.panel.parameters.segment = self.ui.segmentComboBox.itemData(index) or ""

    @reported
    def find_bone(self) -> None:
        """Segment now: anew where the chosen segmentation was found so, else into a new one; what someone drew stays."""
        parameters = self.panel.parameters
        found = parameters.segmentation if bone_nodes.is_found(parameters.segmentation) else None
        with slicer.util.WaitCursor():
            node = self.panel.logic.segmentBone(
                parameters.ct, parameters.threshold if parameters.chooseThreshold else None, found
            )
        parameters.segmentation = node

    @reported
    def sample_landmarks(self) -> None:
        """Points on the bone's surface as a list that can be edited."""
        parameters = self.panel.parameters
        if parameters.segmentation is None:
            self.find_bone()
        if parameters.segmentation is not None:
            parameters.landmarks = self.panel.logic.sampleLandmarks(parameters.ct, parameters.segmentation)

    def _words(self, parameters) -> str:
        size = " x ".join(map(str, parameters.ct.GetImageData().GetDimensions()))
        spacing = " x ".join(f"{s:.3g}" for s in parameters.ct.GetSpacing())
        if parameters.segmentation is None:
            bone = "its bone will be found"
        elif parameters.segment:
            bone = f"registering the segment '{self.ui.segmentComboBox.currentText}' alone"
        else:
            bone = f"bone from '{parameters.segmentation.GetName()}'"
        return f"✓ {size} voxels of {spacing} mm; {bone}."


def _drawn_on_another(segmentation, ct) -> bool:
    if segmentation is None:
        return False
    drawn_on = segmentation.GetNodeReference(segmentation.GetReferenceImageGeometryReferenceRole())
    return drawn_on is not None and drawn_on is not ct
