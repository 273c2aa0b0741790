"""Which widget binds to which type of parameter: those that Slicer's developer guide lists, and no others."""

from __future__ import annotations

import pathlib

import ctk
import qt
import slicer

from . import parameter_types as types


class Binding:
    """A widget's value as a parameter's value."""

    signal = "valueChanged(double)"

    def __init__(self, widget, kind) -> None:
        self.widget, self.kind = widget, kind
        self._call = None
        self.configure()

    def configure(self) -> None:
        pass

    def read(self):
        return self.widget.value

    def write(self, value) -> None:
        self.widget.setValue(value)

    def listen(self, call) -> None:
        self._call = lambda *_: call()
        for signal in self.signals():
            self.widget.connect(signal, self._call)

    def signals(self) -> tuple[str, ...]:
        return (self.signal,)

    def silence(self) -> None:
        for signal in self.signals():
            self.widget.disconnect(signal, self._call)


class Number(Binding):
    bounded = False

    def configure(self) -> None:
        low, high = self.kind.bounds()
        if self.bounded and None in (low, high):
            raise ValueError(f"{self.widget.name}: a {self.widget.className()} needs a parameter WithinRange")
        decimals, step = self.kind.find(types.Decimals), self.kind.find(types.SingleStep)
        if decimals is not None and hasattr(self.widget, "setDecimals"):
            self.widget.setDecimals(decimals.value)
        if low is not None:
            self.widget.setMinimum(low)
        if high is not None:
            self.widget.setMaximum(high)
        if step is not None:
            self.widget.setSingleStep(step.value)


class Whole(Number):
    signal = "valueChanged(int)"


class BoundedWhole(Whole):
    bounded = True


class BoundedNumber(Number):
    bounded = True


class Range(Binding):
    signal = "valuesChanged(double,double)"

    def configure(self) -> None:
        low, high = self.kind.bounds()
        if low is not None:
            self.widget.setRange(low, high)

    def read(self):
        return types.FloatRange(self.widget.minimumValue, self.widget.maximumValue)

    def write(self, value) -> None:
        self.widget.setValues(value.minimum, value.maximum)


class Check(Binding):
    signal = "toggled(bool)"

    def configure(self) -> None:
        if not self.widget.isCheckable():
            raise ValueError(f"{self.widget.name} must be checkable to show a bool")

    def read(self) -> bool:
        return self.widget.isChecked()

    def write(self, value) -> None:
        self.widget.setChecked(value)


class Line(Binding):
    signal = "textChanged(QString)"

    def read(self) -> str:
        return self.widget.text

    def write(self, value) -> None:
        self.widget.setText(value)


class Label(Line):
    def signals(self) -> tuple[str, ...]:
        return ()


class Text(Binding):
    signal = "textChanged()"

    def read(self) -> str:
        return self.widget.plainText

    def write(self, value) -> None:
        self.widget.setPlainText(value)


class Path(Binding):
    signal, attribute = "currentPathChanged(QString)", "currentPath"

    def read(self):
        return self.kind.type(getattr(self.widget, self.attribute))

    def write(self, value) -> None:
        setattr(self.widget, self.attribute, str(value))


class Folder(Path):
    signal, attribute = "directoryChanged(QString)", "directory"


class Combo(Binding):
    signal = "currentIndexChanged(int)"

    def configure(self) -> None:
        if isinstance(self.kind, types.EnumKind):
            self.choices = list(self.kind.type)
            texts = [choice.label() if hasattr(choice, "label") else choice.name for choice in self.choices]
        else:
            if self.kind.find(types.Choice) is None:
                raise ValueError(f"{self.widget.name}: a combo box needs an Enum or a parameter with Choice")
            self.choices = self.kind.find(types.Choice).choices
            texts = [str(choice) for choice in self.choices]
        self.widget.clear()
        self.widget.addItems(texts)

    def read(self):
        return self.choices[self.widget.currentIndex] if 0 <= self.widget.currentIndex < len(self.choices) else None

    def write(self, value) -> None:
        self.widget.setCurrentIndex(self.choices.index(value))


class NodeChoice(Binding):
    signal = "currentNodeChanged(vtkMRMLNode*)"

    def read(self):
        return self.widget.currentNode()

    def write(self, value) -> None:
        self.widget.setCurrentNode(value)


def _table() -> list[tuple]:
    combo, path = (qt.QComboBox, ctk.ctkComboBox), pathlib.PurePath
    return [
        ((qt.QCheckBox, ctk.ctkCheckBox, qt.QPushButton), bool, Check),
        ((qt.QSlider,), int, BoundedWhole),
        ((qt.QSpinBox,), int, Whole),
        ((ctk.ctkSliderWidget, slicer.qMRMLSliderWidget, ctk.ctkDoubleSlider), float, BoundedNumber),
        ((qt.QDoubleSpinBox, ctk.ctkDoubleSpinBox), float, Number),
        ((ctk.ctkRangeWidget, slicer.qMRMLRangeWidget), types.FloatRange, Range),
        (combo, "choice", Combo),
        ((qt.QLineEdit,), str, Line),
        ((qt.QTextEdit,), str, Text),
        ((qt.QLabel,), str, Label),
        ((ctk.ctkPathLineEdit,), path, Path),
        ((ctk.ctkDirectoryButton,), path, Folder),
        ((slicer.qMRMLNodeComboBox, slicer.qMRMLSubjectHierarchyTreeView), "node", NodeChoice),
    ]


def connector(widget, kind) -> Binding:
    """The binding of a widget to a kind of parameter; ValueError where Slicer has none."""
    if isinstance(kind, types.Node):
        wanted = ("node",)
    elif isinstance(kind, types.EnumKind):
        wanted = ("choice",)
    elif isinstance(kind.type, type) and issubclass(kind.type, pathlib.PurePath):
        wanted = (pathlib.PurePath,)
    else:
        wanted = (kind.type, "choice") if kind.type in (int, float, str, bool) else (kind.type,)
    for widgets, type_, binding in _table():
        if type(widget) in widgets and type_ in wanted:
            return binding(widget, kind)
    raise ValueError(f"{widget.name}: Slicer does not bind {widget.className()} to a parameter of type {kind.type}")
