"""Step 1: the CT, what is rigid in it, and landmarks on it."""

from __future__ import annotations

import slicer.util

from .handlers import fill_combo, reported, silent


class CTSection:
    """Args: panel, the module's widget."""

    def __init__(self, panel) -> None:
        self.panel, self.ui = panel, panel.ui
        self.ui.segmentButton.connect("clicked(bool)", self.find_bone)
        self.ui.sampleLandmarksButton.connect("clicked(bool)", self.sample_landmarks)
        self.ui.segmentComboBox.connect("currentIndexChanged(int)", self.choose_segment)

    @property
    def missing(self) -> str:
        """What is still to be done, or ""."""
        return "" if self.panel.parameters.ct is not None else "Choose the CT."

    def refresh(self) -> None:
        """Show what the scene holds."""
        parameters, ui = self.panel.parameters, self.ui
        segmentation = parameters.segmentation
        segments = [("All segments", "")]
        if segmentation is not None:
            ids = segmentation.GetSegmentation().GetSegmentIDs()
            segments += [(segmentation.GetSegmentation().GetSegment(n).GetName(), n) for n in ids]
        fill_combo(ui.segmentComboBox, segments, parameters.segment)
        ui.segmentComboBox.enabled = segmentation is not None
        ui.thresholdSpinBox.enabled = parameters.chooseThreshold
        ui.segmentButton.enabled = ui.sampleLandmarksButton.enabled = parameters.ct is not None and not self.panel.busy
        ui.ctStatusLabel.text = self.missing or self._words(parameters)

    def choose_segment(self, index) -> None:
        """Register one bone of several, or all."""
        self.panel.parameters.segment = self.ui.segmentComboBox.itemData(index) or ""

    @reported
    def find_bone(self) -> None:
        """Segment now, into the chosen segmentation or a new one."""
        parameters = self.panel.parameters
        with slicer.util.WaitCursor():
            node = self.panel.logic.segmentBone(
                parameters.ct, parameters.threshold if parameters.chooseThreshold else None, parameters.segmentation
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
        image = parameters.ct.GetImageData()
        if image is None:
            return f"The volume '{parameters.ct.GetName()}' holds no voxels; choose another."
        size = " x ".join(map(str, image.GetDimensions()))
        spacing = " x ".join(f"{s:.3g}" for s in parameters.ct.GetSpacing())
        if parameters.segmentation is None:
            bone = "its bone will be found"
        elif parameters.segment:
            bone = f"registering the segment '{self.ui.segmentComboBox.currentText}' alone"
        else:
            bone = f"bone from '{parameters.segmentation.GetName()}'"
        return f"✓ {size} voxels of {spacing} mm; {bone}."

    def set_idle(self, idle: bool) -> None:
        """Nothing can be changed while a registration reads it."""
        with silent():
            for name in ("ctSelector", "segmentationSelector"):
                getattr(self.ui, name).enabled = idle
