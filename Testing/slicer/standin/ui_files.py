"""Read .ui files as Slicer does, but strictly: an unknown class, property, signal or slot is an error that names it."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import qt
import slicer
from PySide6 import QtCore, QtUiTools

from .pythonqt import adopt, properties_of

_OF_THE_FILE = ("buddy",)  # that the loader sets by a method


def widget_class(name: str) -> type:
    """The class of a .ui file's name."""
    for module in (slicer, __import__("ctk"), qt):
        cls = getattr(module, name, None)
        if isinstance(cls, type) and issubclass(cls, QtCore.QObject):
            return cls
    raise ValueError(f"the stand-in has no widget {name}; add it to Testing/slicer/standin")


def _check_properties(root) -> None:
    """A property that its class does not have would be kept as a dynamic one, in silence."""
    for element in root.iter("widget"):
        properties = properties_of(widget_class(element.get("class")))
        for item in element.findall("property"):
            name = item.get("name")
            if item.get("stdset") != "0" and name not in properties and name not in _OF_THE_FILE:
                raise ValueError(f"{element.get('class')} {element.get('name')!r} has no property {name!r}")


class UiLoader(QtUiTools.QUiLoader):
    """``qt.QUiLoader`` whose widgets are those of ``qt``, ``ctk`` and ``slicer``."""

    def createWidget(self, class_name: str, parent=None, name: str = ""):
        widget = widget_class(class_name)(parent)
        widget.setObjectName(name)
        return widget

    def load(self, device, parent=None):
        root = ElementTree.fromstring(bytes(device.readAll()))
        _check_properties(root)
        connections = root.find("connections")
        if connections is not None:  # those of vtkMRMLScene* mean nothing to Qt's own loader
            root.remove(connections)
        buffer = QtCore.QBuffer()
        buffer.setData(ElementTree.tostring(root))
        buffer.open(QtCore.QIODevice.ReadOnly)
        widget = super().load(buffer, parent)
        if widget is None:
            raise RuntimeError(f"this is no .ui file: {self.errorString()}")
        for child in widget.findChildren(QtCore.QObject):
            adopt(child)
        for connection in [] if connections is None else connections:
            self._connect(widget, *(connection.findtext(part) for part in ("sender", "signal", "receiver", "slot")))
        return widget

    def _connect(self, widget, sender: str, signal: str, receiver: str, slot: str) -> None:
        ends = []
        for name in (sender, receiver):
            end = widget if name == widget.objectName else widget.findChild(QtCore.QObject, name)
            if end is None:
                raise ValueError(f"the .ui file connects {name!r}, which it does not have")
            ends.append(end)
        if not hasattr(ends[1], slot.split("(")[0]):
            raise ValueError(f"{ends[1].className()} {receiver!r} has no slot {slot}")
        ends[0].connect(signal, ends[1], slot)


def unconnected_scene_widgets(path) -> list[str]:
    """Names of widgets in a .ui file that need the scene and get it through no connection: a bug in any module."""
    root = ElementTree.parse(path).getroot()
    fed = {c.findtext("receiver") for c in root.iter("connection") if c.findtext("slot", "").startswith("setMRMLScene")}
    top = root.find("widget").get("name")
    needs = (e for e in root.iter("widget") if e.get("name") != top and hasattr(widget_class(e.get("class")), "setMRMLScene"))
    return [element.get("name") for element in needs if element.get("name") not in fed]
