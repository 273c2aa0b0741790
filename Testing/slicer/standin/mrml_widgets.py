"""Slicer's widgets of the scene, on the real scene: what qMRMLNodeComboBox and its like show follows the nodes."""

from __future__ import annotations

import qt
import slicer
import vtk
from PySide6.QtCore import Property, Signal

from . import ctk
from .ctk import in_row, stored, with_setters
from .observers import Observers


class qMRMLWidget(qt.QWidget):
    """A widget that knows the scene and hands it on."""

    mrmlSceneChanged = Signal(object)
    SIGNALS = ("mrmlSceneChanged(vtkMRMLScene*)",)

    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        self._scene = None

    def mrmlScene(self):
        return self._scene

    def setMRMLScene(self, scene) -> None:
        if scene is not self._scene:
            self._scene = scene
            self.mrmlSceneChanged.emit(scene)


class qSlicerWidget(qMRMLWidget):
    pass


def _item(text: str, data=None):
    item = qt.QStandardItem(text)
    item.setData(data, qt.Qt.UserRole)
    return item


def _shows(kind, name: str, default) -> Property:
    """A property that changes what is listed."""

    def put(self, value) -> None:
        self.__dict__["_" + name] = list(value) if isinstance(value, (list, tuple)) else value
        self._update()

    return Property(kind, lambda self: self.__dict__.get("_" + name, default), put)


@with_setters
class qMRMLNodeComboBox(qMRMLWidget):
    """Choose a node of some types; create, rename or remove one. Its properties' defaults are Slicer's."""

    currentNodeChanged = Signal(object)
    currentNodeIDChanged = Signal(str)
    currentNodeRenamed = Signal(str)
    nodeAdded = Signal(object)
    nodeAddedByUser = Signal(object)
    nodeAboutToBeRemoved = Signal(object)
    nodeAboutToBeEdited = Signal(object)
    nodeActivated = Signal(object)
    SIGNALS = (
        "currentNodeChanged(vtkMRMLNode*)", "currentNodeChanged(bool)", "nodeAdded(vtkMRMLNode*)", "nodeActivated(vtkMRMLNode*)",
        "nodeAddedByUser(vtkMRMLNode*)", "nodeAboutToBeRemoved(vtkMRMLNode*)", "nodeAboutToBeEdited(vtkMRMLNode*)",
    )  # fmt: skip

    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        self._box = qt.QComboBox()
        in_row(self, self._box)
        self.setFocusProxy(self._box)
        self._box.setSizePolicy(qt.QSizePolicy.Expanding, qt.QSizePolicy.Fixed)
        self.setSizePolicy(qt.QSizePolicy.Expanding, qt.QSizePolicy.Fixed)
        self._attributes: list[tuple] = []
        self._node_id: str | None = None
        self._shown: list | None = None
        self._observers = Observers(self)
        self._box.activated.connect(self._on_activated)

    nodeTypes = _shows("QStringList", "nodeTypes", [])
    hideChildNodeTypes = _shows("QStringList", "hideChildNodeTypes", [])
    showChildNodeTypes = _shows(bool, "showChildNodeTypes", True)
    showHidden = _shows(bool, "showHidden", False)
    noneEnabled = _shows(bool, "noneEnabled", False)
    noneDisplay = _shows(str, "noneDisplay", "None")
    addEnabled = _shows(bool, "addEnabled", True)
    removeEnabled = _shows(bool, "removeEnabled", True)
    editEnabled = _shows(bool, "editEnabled", False)
    renameEnabled = _shows(bool, "renameEnabled", False)
    selectNodeUponCreation = stored(bool, "selectNodeUponCreation", True)
    baseName = stored(str, "baseName", "")
    interactionNodeSingletonTag = stored(str, "interactionNodeSingletonTag", "")
    currentNodeID = Property(str, lambda self: self._node_id or "", lambda self, value: self.setCurrentNodeID(value))

    def nodeType(self, index: int = 0) -> str:
        return self.nodeTypes[index] if index < len(self.nodeTypes) else ""

    def addAttribute(self, node_type: str, name: str, value=None) -> None:
        """Show nodes of a type only where they have this attribute, with this value."""
        self._attributes.append((node_type, name, value))
        self._update()

    def removeAttribute(self, node_type: str, name: str) -> None:
        self._attributes = [a for a in self._attributes if a[:2] != (node_type, name)]
        self._update()

    def setMRMLScene(self, scene) -> None:
        if scene is self._scene:
            return
        self._observers.drop()
        self._scene = scene
        if scene is not None:
            self._observers.add(scene, slicer.vtkMRMLScene.NodeAddedEvent, "_on_added", carries_node=True)
            self._observers.add(scene, slicer.vtkMRMLScene.NodeAboutToBeRemovedEvent, "_on_leaving", carries_node=True)
            for event in ("NodeRemovedEvent", "EndCloseEvent", "EndImportEvent", "EndBatchProcessEvent"):
                self._observers.add(scene, getattr(slicer.vtkMRMLScene, event), "_update")
        self._update()
        self.mrmlSceneChanged.emit(scene)

    def _is_listed(self, node) -> bool:
        if node.GetHideFromEditors() and not self.showHidden:
            return False
        for node_type in self.nodeTypes:
            exact = node.GetClassName() == node_type
            if exact or (self.showChildNodeTypes and node.IsA(node_type)):
                if not exact and any(node.IsA(hidden) for hidden in self.hideChildNodeTypes):
                    continue
                return all(
                    node.GetAttribute(name) is not None and value in (None, "", node.GetAttribute(name))
                    for kind, name, value in self._attributes
                    if node.IsA(kind)
                )
        return False

    def nodes(self) -> list:
        """The nodes listed, in the scene's order."""
        if self._scene is None:
            return []
        every = (self._scene.GetNthNode(n) for n in range(self._scene.GetNumberOfNodes()))
        return [node for node in every if self._is_listed(node)]

    def nodeCount(self) -> int:
        return len(self.nodes())

    def _on_added(self, node) -> None:
        self._update()
        if node is not None and self._is_listed(node):
            self.nodeAdded.emit(node)

    def _on_leaving(self, node) -> None:
        if node is not None:
            if self._is_listed(node):
                self.nodeAboutToBeRemoved.emit(node)
            self._observers.drop(node)

    def _label(self) -> str:
        """What "Create new ..." calls a node."""
        node = self._scene.CreateNodeByClass(self.nodeType()) if self._scene is not None and self.nodeTypes else None
        if node is None:
            return "Node"
        node.UnRegister(None)
        return node.GetTypeDisplayName() if hasattr(node, "GetTypeDisplayName") else node.GetNodeTagName()

    def _update(self, *_) -> None:
        """List the nodes anew, if they are others than before; who is chosen stays chosen while it is there."""
        scene = self._scene
        if scene is not None and (scene.IsClosing() or scene.IsBatchProcessing()):
            return
        if scene is not None:
            for n in range(scene.GetNumberOfNodes()):
                node = scene.GetNthNode(n)
                if any(node.IsA(node_type) for node_type in self.nodeTypes):
                    self._observers.add(node, vtk.vtkCommand.ModifiedEvent, "_on_node")
        nodes = self.nodes()
        if self._node_id is not None and self._node_id not in [node.GetID() for node in nodes]:
            self._node_id = None
            self._list(nodes)
            self._tell()
        else:
            self._list(nodes)

    def _on_node(self, *_) -> None:
        before = self._box.currentText
        self._update()
        if self._node_id is not None and self._box.currentText != before:
            self.currentNodeRenamed.emit(self._box.currentText)

    def _list(self, nodes) -> None:
        rows = [(node.GetName() or node.GetID(), node.GetID()) for node in nodes]
        if self.noneEnabled:
            rows.insert(0, (self.noneDisplay, ""))
        actions = []
        if self._scene is not None and self.nodeTypes:
            wanted = (self.addEnabled, "Create new", "add"), (self.renameEnabled, "Rename current", "rename"), \
                (self.editEnabled, "Edit current", "edit"), (self.removeEnabled, "Delete current", "remove")  # fmt: skip
            actions = [(f"{text} {self._label()}", (action,)) for shown, text, action in wanted if shown]
        if rows + actions != self._shown:
            self._shown = rows + actions
            self._box.clear()
            self._box.setPlaceholderText(f"Select a {self._label()}")
            for text, data in rows:
                self._box.model().appendRow(self._row(text, data))
            if actions:
                self._box.insertSeparator(self._box.count)
            for text, data in actions:
                self._box.model().appendRow(_item(text, data))
        self._box.setCurrentIndex(next((i for i, (_, node_id) in enumerate(rows) if node_id == (self._node_id or "")), -1))

    def _row(self, text: str, data):
        return _item(text, data)

    def _tell(self) -> None:
        self.currentNodeChanged.emit(self.currentNode())
        self.currentNodeIDChanged.emit(self._node_id or "")

    def _on_activated(self, row: int) -> None:
        data = self._box.itemData(row)
        self._list(self.nodes())  # an action is no choice
        if isinstance(data, (tuple, list)):
            {"add": self.addNode, "rename": self.renameCurrentNode, "edit": self.editCurrentNode,
             "remove": self.removeCurrentNode}[data[0]]()  # fmt: skip
        else:
            self.setCurrentNodeID(data)
            if data:
                self.nodeActivated.emit(self.currentNode())

    def choose(self, text: str) -> None:
        """For tests: what a user does who picks the entry with this text."""
        row = self._box.findText(text)
        if row < 0:
            raise ValueError(f"{self.name} has no entry {text!r}; it has {', '.join(self.entries())}")
        self._box.setCurrentIndex(row)
        self._box.activated.emit(row)

    def entries(self) -> list[str]:
        """For tests: the texts of the list, actions included."""
        return [self._box.itemText(row) for row in range(self._box.count) if self._box.itemText(row)]

    @property
    def currentText(self) -> str:
        return self._box.currentText

    def currentNode(self):
        return None if self._node_id is None or self._scene is None else self._scene.GetNodeByID(self._node_id)

    def setCurrentNode(self, node) -> None:
        self.setCurrentNodeID(None if node is None else node if isinstance(node, str) else node.GetID())

    def setCurrentNodeID(self, node_id: str | None) -> None:
        """Choose a node; one that is not listed counts as none."""
        node_id = node_id if node_id in [node.GetID() for node in self.nodes()] else None
        if node_id != self._node_id:
            self._node_id = node_id
            self._list(self.nodes())
            self._tell()

    def addNode(self, node_type: str | None = None):
        node_type = node_type or self.nodeType()
        node = self._scene.CreateNodeByClass(node_type)
        node.UnRegister(None)
        node.SetName(self._scene.GenerateUniqueName(self.baseName or self._label()))
        for kind, name, value in self._attributes:
            if kind == node_type:
                node.SetAttribute(name, value or "")
        self._scene.AddNode(node)
        if hasattr(node, "CreateDefaultDisplayNodes"):
            node.CreateDefaultDisplayNodes()
        if self.selectNodeUponCreation:
            self.setCurrentNode(node)
        self.nodeAddedByUser.emit(node)
        return node

    def removeCurrentNode(self) -> None:
        if self.currentNode() is not None:
            self._scene.RemoveNode(self.currentNode())

    def editCurrentNode(self) -> None:
        self.nodeAboutToBeEdited.emit(self.currentNode())

    def renameCurrentNode(self) -> None:
        node = self.currentNode()
        name = qt.QInputDialog.getText(self, "Rename", "New name:", qt.QLineEdit.Normal, node.GetName()) if node else ""
        if name:
            node.SetName(name)

    def comboBox(self):
        return self._box

    def nodeFromIndex(self, index: int):
        return self.nodes()[index]


@with_setters
class qMRMLCheckableNodeComboBox(qMRMLNodeComboBox):
    """Nodes with check marks."""

    checkedNodesChanged = Signal()

    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        self._checked: set[str] = set()
        self._box.model().itemChanged.connect(self._on_item)

    def _row(self, text: str, data):
        item = _item(text, data)
        item.setCheckable(True)
        item.setCheckState(qt.Qt.Checked if data in self._checked else qt.Qt.Unchecked)
        return item

    def _on_item(self, item) -> None:
        if item.isCheckable():
            before = set(self._checked)
            (self._checked.add if item.checkState() == qt.Qt.Checked else self._checked.discard)(item.data(qt.Qt.UserRole))
            if self._checked != before:
                self.checkedNodesChanged.emit()

    def _update(self, *_) -> None:
        super()._update()
        gone = self.__dict__.get("_checked", set()) - {node.GetID() for node in self.nodes()}
        if gone and self._scene is not None and not self._scene.IsClosing():
            self._checked -= gone
            self.checkedNodesChanged.emit()

    def checkedNodes(self) -> list:
        return [node for node in self.nodes() if node.GetID() in self._checked]

    def uncheckedNodes(self) -> list:
        return [node for node in self.nodes() if node.GetID() not in self._checked]

    def checkState(self, node) -> int:
        return qt.Qt.Checked if node.GetID() in self._checked else qt.Qt.Unchecked

    def setCheckState(self, node, state) -> None:
        row = self._box.findData(node.GetID())
        if row >= 0:
            self._box.model().item(row).setCheckState(qt.Qt.CheckState(state))

    def allChecked(self) -> bool:
        return not self.uncheckedNodes()

    def noneChecked(self) -> bool:
        return not self.checkedNodes()


class _OfScene:
    """A value widget that takes the scene, for units that the stand-in leaves alone."""

    quantity = stored(str, "quantity", "")
    unitAwareProperties = stored(int, "unitAwareProperties", 0)

    def setMRMLScene(self, scene) -> None:
        self._scene = scene

    def mrmlScene(self):
        return self.__dict__.get("_scene")


def _of_scene(name: str, base: type) -> type:
    members = {key: value for key, value in vars(_OfScene).items() if not key.startswith("__")}
    members["mrmlSceneChanged"] = Signal(object)
    members["SIGNALS"] = ("mrmlSceneChanged(vtkMRMLScene*)",)
    return with_setters(type(base)(name, (base,), members))


qMRMLSliderWidget = _of_scene("qMRMLSliderWidget", ctk.ctkSliderWidget)
qMRMLSpinBox = _of_scene("qMRMLSpinBox", ctk.ctkDoubleSpinBox)
qMRMLRangeWidget = _of_scene("qMRMLRangeWidget", ctk.ctkRangeWidget)
qMRMLCoordinatesWidget = _of_scene("qMRMLCoordinatesWidget", ctk.ctkCoordinatesWidget)
qMRMLCollapsibleButton = _of_scene("qMRMLCollapsibleButton", ctk.ctkCollapsibleButton)
