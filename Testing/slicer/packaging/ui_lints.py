"""Rules for the panel's .ui file, as lints. Each takes the file's text and returns its complaints.

Qt and Slicer are silent about these: a node selector without a scene is only empty, a wrong parameter name only unbound.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

# Shown, or holding others, but not worked with. What is not named here is taken to be interactive.
_PASSIVE = {
    "Line",
    "QFrame",
    "QLabel",
    "QProgressBar",
    "QScrollArea",
    "QSplitter",
    "QStackedWidget",
    "QTabWidget",
    "QTextBrowser",
    "QToolBox",
    "QWidget",
    "ctkCollapsibleButton",
    "ctkCollapsibleGroupBox",
    "ctkExpandableWidget",
    "ctkFittedTextBrowser",
    "qMRMLWidget",
}
_SCENE_WIDGET = re.compile(r"qMRML|qSlicer\w*Markups")  # classes with a slot setMRMLScene
_AREA = re.compile(r"(Table|List|Tree)(Widget|View)$|Q(Plain)?TextEdit$")
_SCENE_CHANGED = "mrmlSceneChanged(vtkMRMLScene*)"
_SET_SCENE = "setMRMLScene(vtkMRMLScene*)"
_PARAMETER = "SlicerParameterName"


def lint_top(text: str) -> list[str]:
    """The top widget is a qMRMLWidget, which is what hands the scene to all others, and has the form's name."""
    top = _top(text)
    complaints = [] if top.get("class") == "qMRMLWidget" else [f"the top widget is a {top.get('class')}, not a qMRMLWidget"]
    form = ElementTree.fromstring(text).findtext("class")
    if form != top.get("name"):
        complaints.append(f"the form's class is {form}, the top widget's name {top.get('name')}")
    return complaints


def lint_scene(text: str) -> list[str]:
    """Every MRML widget gets the scene from the top widget, and no connection names a widget that is not there."""
    top = _top(text)
    connected, complaints = set(), []
    present = {e.get("name") for e in top.iter() if e.tag in ("widget", "action")}
    for connection in ElementTree.fromstring(text).iter("connection"):
        sender, signal, receiver, slot = (connection.findtext(k, "").strip() for k in ("sender", "signal", "receiver", "slot"))
        complaints += [f"a connection names {n}, which is not there" for n in (sender, receiver) if n not in present]
        if (sender, signal, slot) == (top.get("name"), _SCENE_CHANGED, _SET_SCENE):
            connected.add(receiver)
    for widget in _widgets(top):
        if widget is not top and _SCENE_WIDGET.match(widget.get("class", "")) and widget.get("name") not in connected:
            complaints.append(f"{_called(widget)} is not connected to {top.get('name')}'s mrmlSceneChanged")
    return complaints


def lint_names(text: str) -> list[str]:
    """Every widget has a name of its own: the module reaches it by that name."""
    counts = Counter(w.get("name", "") for w in _widgets(_top(text)))
    complaints = [f"{n} widgets are called {name!r}" for name, n in counts.items() if n > 1]
    return complaints + (["a widget has no name"] if "" in counts else [])


def lint_tool_tips(text: str) -> list[str]:
    """Every widget that is worked with says what it does."""
    return [f"{_called(w)} has no toolTip" for w in _widgets(_top(text)) if _interactive(w) and not _string(w, "toolTip")]


def lint_visible_names(text: str) -> list[str]:
    """Every widget that is worked with has a name to see.

    That is its own text, a label whose buddy it is, or a label left of it; for a table, list or text that fills a section
    the section's title will do.
    """
    top = _top(text)
    named = {_string(w, "buddy") for w in _widgets(top) if _is_label(w)}
    for layout in top.iter("layout"):
        named.update(w.get("name", "") for w in _beside_a_label(layout))
    for section in _widgets(top):
        if _own_text(section):
            named.update(w.get("name", "") for w in _widgets(section) if _AREA.search(w.get("class", "")))
    return [
        f"{_called(w)} has no visible name: neither text nor a label"
        for w in _widgets(top)
        if _interactive(w) and w.get("name") not in named and not _own_text(w)
    ]


def lint_parameters(text: str, known: set[str] | None = None) -> list[str]:
    """SlicerParameterName stands on widgets that can show a value, as a dynamic property, and names a known parameter.

    Args:
        text: the .ui file.
        known: names of the parameter node's fields; None when they are not known.
    """
    top = _top(text)
    complaints = []
    on_widgets = {id(p): w for w in _widgets(top) for p in w.findall("property") if p.get("name") == _PARAMETER}
    for element in ElementTree.ElementTree(top).iter("property"):
        if element.get("name") != _PARAMETER:
            continue
        widget, value = on_widgets.get(id(element)), (element.findtext("string") or "").strip()
        if widget is None or not (_interactive(widget) or widget.get("class") == "QLabel"):
            complaints.append(f"SlicerParameterName {value} is not on a widget that can show a value")
        if element.get("stdset") != "0":
            complaints.append(f'SlicerParameterName {value} lacks stdset="0": Qt would call a setter that is not there')
        if not value:
            complaints.append("a SlicerParameterName is empty")
        elif known is not None and not set(value.split(".")) <= known:
            complaints.append(f"SlicerParameterName {value} is no field of the parameter node")
    return complaints


def _top(text: str) -> Element:
    top = ElementTree.fromstring(text).find("widget")
    assert top is not None, "the .ui file has no widget"
    return top


def _widgets(top: Element) -> Iterator[Element]:
    return top.iter("widget")


def _called(widget: Element) -> str:
    return f"{widget.get('class')} {widget.get('name')}"


def _string(widget: Element, name: str) -> str:
    """The text of a widget's own property, or ''."""
    found = widget.find(f"property[@name='{name}']")
    return "" if found is None else "".join(found.itertext()).strip()


def _interactive(widget: Element) -> bool:
    if widget.get("class") == "QGroupBox":
        return _string(widget, "checkable") == "true"
    return widget.get("class") not in _PASSIVE


def _own_text(widget: Element) -> str:
    """What a button, a box, or a selector with nothing selected shows by itself. (The text of a line edit is its content.)"""
    kind = widget.get("class", "")
    if kind.endswith(("Button", "CheckBox", "GroupBox")):
        return _string(widget, "text") or _string(widget, "title")
    return _string(widget, "noneDisplay") if kind == "qMRMLNodeComboBox" else ""


def _is_label(element: Element | None) -> bool:
    return element is not None and element.get("class") == "QLabel" and bool(_string(element, "text"))


def _beside_a_label(layout: Element) -> Iterator[Element]:
    """Widgets of a layout, and of what is nested in it, that have a label left of them in the same row."""
    items = layout.findall("item")
    if layout.get("class") in ("QFormLayout", "QGridLayout"):
        labels = [(i.get("row"), int(i.get("column", "0"))) for i in items if _is_label(i.find("widget"))]
        beside = [i for i in items if any(r == i.get("row") and c < int(i.get("column", "0")) for r, c in labels)]
    elif layout.get("class") == "QHBoxLayout":
        beside = [i for before, i in pairwise(items) if _is_label(before.find("widget"))]
    else:
        beside = []
    for item in beside:
        yield from item.iter("widget")
