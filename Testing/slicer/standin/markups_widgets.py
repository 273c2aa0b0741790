"""Placing and listing control points, and the subject hierarchy as a plain list."""

from __future__ import annotations

import qt
import slicer
import slicer.util
import vtk
from PySide6.QtCore import Property, Signal

from .ctk import in_row, stored, with_setters
from .mrml_widgets import qMRMLNodeComboBox, qMRMLWidget
from .observers import Observers


@with_setters
class qSlicerMarkupsPlaceWidget(qMRMLWidget):
    """A button that turns Slicer's place mode on for one markups node; the mode is the scene's own."""

    activeMarkupsPlaceModeChanged = Signal(bool)
    activeMarkupsFiducialPlaceModeChanged = Signal(bool)
    HidePlaceMultipleMarkupsOption, PlaceSingleMarkup, PlaceMultipleMarkups = 0, 1, 2
    ForcePlaceSingleMarkup, ForcePlaceMultipleMarkups = 3, 4

    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        self._button, self._delete = qt.QToolButton(), qt.QToolButton()
        self._button.setText("Place")
        self._button.setCheckable(True)
        self._delete.setText("Delete")
        in_row(self, self._button, self._delete)
        self._node = None
        self._observers = Observers(self)
        self._button.toggled.connect(self.setPlaceModeEnabled)
        self._delete.clicked.connect(self.deleteAllPoints)

    placeMultipleMarkups = stored(int, "placeMultipleMarkups", 2)
    defaultNodeColor = stored(qt.QColor, "defaultNodeColor", None)
    deleteAllControlPointsOptionVisible = stored(bool, "deleteAllControlPointsOptionVisible", True)
    buttonsVisible = Property(bool, lambda self: not self._button.isHidden(), lambda self, value: self._button.setVisible(value))
    deleteButtonVisible = Property(
        bool, lambda self: not self._delete.isHidden(), lambda self, value: self._delete.setVisible(value)
    )
    placeModeEnabled = Property(bool, lambda self: self._is_placing(), lambda self, value: self.setPlaceModeEnabled(value))

    def _nodes(self):
        """(interaction, selection) of the scene."""
        application = slicer.app.applicationLogic()
        return application.GetInteractionNode(), application.GetSelectionNode()

    def _is_placing(self) -> bool:
        interaction, selection = self._nodes()
        active = self._node is not None and selection.GetActivePlaceNodeID() == self._node.GetID()
        return active and interaction.GetCurrentInteractionMode() == interaction.Place

    def setPlaceModeEnabled(self, enabled: bool) -> None:
        interaction, selection = self._nodes()
        if enabled and self._node is not None:
            selection.SetReferenceActivePlaceNodeClassName(self._node.GetClassName())
            selection.SetActivePlaceNodeID(self._node.GetID())
            interaction.SetPlaceModePersistence(int(self.placeMultipleMarkups in (2, 4)))
            interaction.SetCurrentInteractionMode(interaction.Place)
        elif self._is_placing():
            interaction.SetCurrentInteractionMode(interaction.ViewTransform)
        self._on_mode()

    def _on_mode(self, *_) -> None:
        placing = self._is_placing()
        if self.__dict__.get("_was") != placing:
            self._was = placing
            self._button.blockSignals(True)
            self._button.setChecked(placing)
            self._button.blockSignals(False)
            self.activeMarkupsPlaceModeChanged.emit(placing)
            self.activeMarkupsFiducialPlaceModeChanged.emit(placing)

    def currentNode(self):
        return self._node

    def setCurrentNode(self, node) -> None:
        if self._node is not None and node is not self._node and self._is_placing():
            self.setPlaceModeEnabled(False)
        self._node = node
        self._button.setEnabled(node is not None)
        self._observers.add(self._nodes()[0], slicer.vtkMRMLInteractionNode.InteractionModeChangedEvent, "_on_mode")

    def placeButton(self):
        return self._button

    def deleteAllPoints(self, *_) -> None:
        if self._node is not None:
            self._node.RemoveAllControlPoints()


@with_setters
class qSlicerSimpleMarkupsWidget(qMRMLWidget):
    """A markups node, its points in a table, and the place button."""

    markupsNodeChanged = Signal()
    markupsFiducialNodeChanged = Signal()
    currentMarkupsControlPointSelectionChanged = Signal(int)
    updateFinished = Signal()

    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        self._nodes, self._place, self._table = qMRMLNodeComboBox(), qSlicerMarkupsPlaceWidget(), qt.QTableWidget(0, 4)
        self._nodes.nodeTypes = ["vtkMRMLMarkupsFiducialNode"]
        self._nodes.noneEnabled = True
        self._table.setHorizontalHeaderLabels(["Label", "R", "A", "S"])
        layout = qt.QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for widget in (self._nodes, self._place, self._table):
            layout.addWidget(widget)
        self._observers = Observers(self)
        self._nodes.currentNodeChanged.connect(self._on_node)
        self._table.currentCellChanged.connect(lambda row, *_: self.currentMarkupsControlPointSelectionChanged.emit(row))

    defaultNodeColor = stored(qt.QColor, "defaultNodeColor", None)
    enterPlaceModeOnNodeChange = stored(bool, "enterPlaceModeOnNodeChange", True)
    jumpToSliceEnabled = stored(bool, "jumpToSliceEnabled", False)
    nodeSelectorVisible = Property(
        bool, lambda self: not self._nodes.isHidden(), lambda self, value: self._nodes.setVisible(value)
    )

    def setMRMLScene(self, scene) -> None:
        self._nodes.setMRMLScene(scene)
        super().setMRMLScene(scene)

    def currentNode(self):
        return self._nodes.currentNode()

    def setCurrentNode(self, node) -> None:
        self._nodes.setCurrentNode(node)

    def markupsSelectorComboBox(self):
        return self._nodes

    def markupsPlaceWidget(self):
        return self._place

    def tableWidget(self):
        return self._table

    def _on_node(self, node) -> None:
        self._observers.drop()
        self._place.setCurrentNode(node)
        if node is not None:
            for event in ("PointPositionDefinedEvent", "PointModifiedEvent", "PointRemovedEvent"):
                self._observers.add(node, getattr(slicer.vtkMRMLMarkupsNode, event), "_fill")
        self._fill()
        self.markupsNodeChanged.emit()
        self.markupsFiducialNodeChanged.emit()

    def _fill(self, *_) -> None:
        node = self.currentNode()
        count = 0 if node is None else node.GetNumberOfControlPoints()
        self._table.setRowCount(count)
        for row in range(count):
            texts = [node.GetNthControlPointLabel(row), *(f"{x:.3f}" for x in node.GetNthControlPointPosition(row))]
            for column, text in enumerate(texts):
                self._table.setItem(row, column, qt.QTableWidgetItem(text))
        self.updateFinished.emit()


@with_setters
class qMRMLSubjectHierarchyTreeView(qMRMLWidget):
    """The scene's nodes as a list to choose from, without folders."""

    currentItemChanged = Signal(int)
    currentNodeChanged = Signal(object)
    SIGNALS = ("currentNodeChanged(vtkMRMLNode*)", "currentItemChanged(vtkIdType)")

    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        self._list, self._ids = qt.QListWidget(), []
        in_row(self, self._list)
        self._observers = Observers(self)
        self._list.currentRowChanged.connect(lambda _: self.currentNodeChanged.emit(self.currentNode()))

    nodeTypes = stored("QStringList", "nodeTypes", [])
    multiSelection = stored(bool, "multiSelection", False)
    contextMenuEnabled = stored(bool, "contextMenuEnabled", True)
    editMenuActionVisible = stored(bool, "editMenuActionVisible", True)

    def setMRMLScene(self, scene) -> None:
        self._observers.drop()
        super().setMRMLScene(scene)
        if scene is not None:
            for event in ("NodeAddedEvent", "NodeRemovedEvent", "EndCloseEvent"):
                self._observers.add(scene, getattr(slicer.vtkMRMLScene, event), "_fill")
        self._fill()

    def _fill(self, *_) -> None:
        chosen = self.currentNode()
        every = [] if self._scene is None else slicer.util.getNodesByClass("vtkMRMLDisplayableNode", self._scene)
        nodes = [n for n in every if not n.GetHideFromEditors() and (not self.nodeTypes or any(map(n.IsA, self.nodeTypes)))]
        for node in nodes:
            self._observers.add(node, vtk.vtkCommand.ModifiedEvent, "_rename")
        self._list.blockSignals(True)
        self._list.clear()
        self._list.addItems([node.GetName() for node in nodes])
        self._ids = [node.GetID() for node in nodes]
        self._list.setCurrentRow(-1 if chosen is None or chosen.GetID() not in self._ids else self._ids.index(chosen.GetID()))
        self._list.blockSignals(False)

    def _rename(self, *_) -> None:
        for row, node_id in enumerate(self._ids):
            node = self._scene.GetNodeByID(node_id)
            if node is not None:
                self._list.item(row).setText(node.GetName())

    def currentNode(self):
        row = self._list.currentRow
        return self._scene.GetNodeByID(self._ids[row]) if self._scene is not None and 0 <= row < len(self._ids) else None

    def setCurrentNode(self, node) -> None:
        self._list.setCurrentRow(self._ids.index(node.GetID()) if node is not None and node.GetID() in self._ids else -1)

    def currentItem(self) -> int:
        node = self.currentNode()
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
        return hierarchy.GetItemByDataNode(node) if node is not None and hierarchy is not None else 0
