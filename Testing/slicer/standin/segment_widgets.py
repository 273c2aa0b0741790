"""Choosing segments of a segmentation."""

from __future__ import annotations

import qt
import slicer
import vtk
from PySide6.QtCore import Property, Signal

from .ctk import ctkCheckableComboBox, stored, with_setters
from .mrml_widgets import qMRMLNodeComboBox, qMRMLWidget
from .observers import Observers


@with_setters
class qMRMLSegmentSelectorWidget(qMRMLWidget):
    """A segmentation and one of its segments, or several with ``multiSelection``."""

    currentNodeChanged = Signal(object)
    currentSegmentChanged = Signal(str)
    segmentSelectionChanged = Signal(list)
    SIGNALS = ("currentNodeChanged(vtkMRMLNode*)", "currentNodeChanged(bool)", "segmentSelectionChanged(QStringList)")

    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        self._nodes = qMRMLNodeComboBox()
        self._nodes.nodeTypes = ["vtkMRMLSegmentationNode"]
        self._nodes.addEnabled = self._nodes.removeEnabled = False
        self._nodes.noneEnabled = True
        self._one, self._several = qt.QComboBox(), ctkCheckableComboBox()
        self._several.hide()
        layout = qt.QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for widget in (self._nodes, self._one, self._several):
            layout.addWidget(widget)
        self._segment, self._selected, self._filling = "", [], False
        self._observers = Observers(self)
        self._nodes.currentNodeChanged.connect(self._on_node)
        self._one.activated.connect(lambda row: self.setCurrentSegmentID(self._one.itemData(row)))
        self._several.checkedIndexesChanged.connect(self._on_checks)

    noneEnabled = Property(bool, lambda self: self._none, lambda self, value: self._set_none(value))
    _none = False
    selectNodeUponCreation = stored(bool, "selectNodeUponCreation", True)
    horizontalLayout = stored(bool, "horizontalLayout", False)
    segmentationNodeSelectorVisible = Property(
        bool, lambda self: not self._nodes.isHidden(), lambda self, value: self._nodes.setVisible(value)
    )
    multiSelection = Property(bool, lambda self: not self._several.isHidden(), lambda self, value: self._set_multi(value))

    def _set_none(self, value: bool) -> None:
        self._none = value
        self._fill()

    def _set_multi(self, value: bool) -> None:
        self._several.setVisible(value)
        self._one.setVisible(not value)

    def setMRMLScene(self, scene) -> None:
        self._nodes.setMRMLScene(scene)
        super().setMRMLScene(scene)

    def currentNode(self):
        return self._nodes.currentNode()

    def currentNodeID(self) -> str:
        return self._nodes.currentNodeID

    def setCurrentNode(self, node) -> None:
        self._nodes.setCurrentNode(node)

    def setCurrentNodeID(self, node_id: str) -> None:
        self._nodes.setCurrentNodeID(node_id)

    def _on_node(self, node) -> None:
        self._observers.drop()
        if node is not None:
            for event in (slicer.vtkSegmentation.SegmentAdded, slicer.vtkSegmentation.SegmentRemoved,
                          slicer.vtkSegmentation.SegmentModified, slicer.vtkSegmentation.SegmentsOrderModified):  # fmt: skip
                self._observers.add(node, event, "_fill")
            self._observers.add(node, vtk.vtkCommand.ModifiedEvent, "_fill")
        self._selected = []
        self._fill()
        self.currentNodeChanged.emit(node)

    def segments(self) -> list[tuple[str, str]]:
        """(id, name) of each."""
        node = self.currentNode()
        if node is None or node.GetSegmentation() is None:
            return []
        segmentation = node.GetSegmentation()
        ids = [segmentation.GetNthSegmentID(n) for n in range(segmentation.GetNumberOfSegments())]
        return [(segment, segmentation.GetSegment(segment).GetName()) for segment in ids]

    def _fill(self, *_) -> None:
        segments = self.segments()
        ids = [segment for segment, _ in segments]
        self._filling = True
        self._one.clear()
        self._several.clear()
        if self._none:
            self._one.addItem("None", "")
        for segment, name in segments:
            self._one.addItem(name, segment)
            self._several.addItem(name, segment)
        for row, segment in enumerate(ids):
            if segment in self._selected:
                self._several.setCheckState(self._several.model().index(row, 0), qt.Qt.Checked)
        self._filling = False
        gone = [segment for segment in self._selected if segment not in ids]
        if gone:
            self._selected = [segment for segment in self._selected if segment in ids]
            self.segmentSelectionChanged.emit(list(self._selected))
        first = ids[0] if ids and not self._none else ""
        self.setCurrentSegmentID(self._segment if self._segment in ids else first)

    def currentSegmentID(self) -> str:
        return self._segment

    def setCurrentSegmentID(self, segment: str) -> None:
        segment = segment if segment in [one for one, _ in self.segments()] else ""
        self._one.setCurrentIndex(self._one.findData(segment))
        if segment != self._segment:
            self._segment = segment
            self.currentSegmentChanged.emit(segment)

    def selectedSegmentIDs(self) -> list[str]:
        return list(self._selected)

    def setSelectedSegmentIDs(self, ids) -> None:
        for row, (segment, _) in enumerate(self.segments()):
            state = qt.Qt.Checked if segment in ids else qt.Qt.Unchecked
            self._several.setCheckState(self._several.model().index(row, 0), state)

    def _on_checks(self) -> None:
        if self._filling:
            return
        selected = [index.data(qt.Qt.UserRole) for index in self._several.checkedIndexes()]
        if selected != self._selected:
            self._selected = selected
            self.segmentSelectionChanged.emit(list(selected))
