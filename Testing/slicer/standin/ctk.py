"""CTK's widgets, each of the base class that it has in CTK, with the part of their interface that modules use."""

from __future__ import annotations

import os

import qt
import shiboken6
from PySide6.QtCore import Property, Signal


def with_setters(cls):
    """Give a class ``setValue`` for its property ``value``, and so on."""
    for name, member in list(vars(cls).items()):
        setter = f"set{name[0].upper()}{name[1:]}"
        if isinstance(member, Property) and member.fset is not None and not hasattr(cls, setter):
            setattr(cls, setter, lambda self, value, fset=member.fset: fset(self, value))
    return cls


def stored(kind, name: str, default=None) -> Property:
    """A property that is only kept."""

    def get(self):
        return self.__dict__.get("_" + name, default)

    def put(self, value) -> None:
        self.__dict__["_" + name] = value

    return Property(kind, get, put)


def passed(kind, child: str, name: str) -> Property:
    """A property of a child."""

    def get(self):
        return getattr(self.__dict__[child], name)

    def put(self, value) -> None:
        setattr(self.__dict__[child], name, value)

    return Property(kind, get, put)


def in_row(widget, *children) -> None:
    layout = qt.QHBoxLayout(widget)
    layout.setContentsMargins(0, 0, 0, 0)
    for child in children:
        layout.addWidget(child)


def _show_children(widget, shown: bool) -> None:
    """Hide what is shown, and show again what this hid."""
    for child in widget.children():
        if isinstance(child, qt.QWidget) and not child.isWindow():
            if shown and child.property("hiddenByCollapse"):
                child.setProperty("hiddenByCollapse", False)
                child.setVisible(True)
            elif not shown and not child.isHidden():
                child.setProperty("hiddenByCollapse", True)
                child.setVisible(False)


@with_setters
class ctkCollapsibleButton(qt.QAbstractButton):
    """A header that shows and hides what lies below it; checked is open."""

    contentsCollapsed = Signal(bool)
    contentsFrameShape = stored(int, "contentsFrameShape", 0)
    collapsedHeight = stored(int, "collapsedHeight", 10)
    flat = stored(bool, "flat", False)

    def __init__(self, *args) -> None:
        texts = [arg for arg in args if isinstance(arg, str)]
        super().__init__(*[arg for arg in args if not isinstance(arg, str)])
        self.setText(texts[0] if texts else "")
        self.setCheckable(True)
        self.setChecked(True)
        self.setContentsMargins(0, self._header(), 0, 0)
        self.toggled.connect(self._on_toggled)

    def _header(self) -> int:
        return self.fontMetrics().height() + 8

    def _on_toggled(self, opened: bool) -> None:
        _show_children(self, opened)
        self.updateGeometry()
        self.contentsCollapsed.emit(not opened)

    collapsed = Property(bool, lambda self: not self.isChecked(), lambda self, value: self.setChecked(not value))

    def childEvent(self, event) -> None:
        child = event.child()
        if event.added() and not self.isChecked() and isinstance(child, qt.QWidget):
            qt.QTimer.singleShot(0, lambda: self._hide_children())
        super().childEvent(event)

    def _hide_children(self) -> None:
        if shiboken6.isValid(self) and not self.isChecked():  # it may be gone by now
            _show_children(self, False)

    def hitButton(self, point) -> bool:
        return point.y() < self._header()

    def minimumSizeHint(self):
        width = self.fontMetrics().horizontalAdvance(self.text) + 40
        if self.layout() is None or not self.isChecked():
            return qt.QSize(width, self._header() + (0 if self.isChecked() else 2))
        inner = self.layout().totalMinimumSize()
        return qt.QSize(max(width, inner.width()), inner.height())

    def sizeHint(self):
        if self.layout() is None or not self.isChecked():
            return self.minimumSizeHint()
        inner = self.layout().totalSizeHint()
        return inner.expandedTo(self.minimumSizeHint())

    def paintEvent(self, event) -> None:
        painter = qt.QPainter(self)
        header = qt.QRect(0, 0, self.width, self._header())
        painter.fillRect(header, self.palette.color(qt.QPalette.Button).darker(108))
        painter.setPen(self.palette.color(qt.QPalette.Mid))
        painter.drawRect((header if not self.isChecked() else self.rect).adjusted(0, 0, -1, -1))
        arrow = qt.QStyleOption()
        arrow.initFrom(self)
        arrow.rect = qt.QRect(6, (header.height() - 10) // 2, 10, 10)
        kind = qt.QStyle.PE_IndicatorArrowDown if self.isChecked() else qt.QStyle.PE_IndicatorArrowRight
        self.style().drawPrimitive(kind, arrow, painter, self)
        painter.setPen(self.palette.color(qt.QPalette.ButtonText))
        painter.drawText(header.adjusted(22, 0, -4, 0), qt.Qt.AlignVCenter | qt.Qt.AlignLeft, self.text)
        painter.end()


@with_setters
class ctkCollapsibleGroupBox(qt.QGroupBox):
    """A group box that its check mark opens and closes."""

    def __init__(self, *args) -> None:
        super().__init__(*args)
        self.setCheckable(True)
        self.toggled.connect(lambda opened: _show_children(self, opened))

    collapsed = Property(bool, lambda self: not self.isChecked(), lambda self, value: self.setChecked(not value))


@with_setters
class ctkDoubleSpinBox(qt.QWidget):
    """A spin box in a widget; its ``valueChanged`` tells only of real changes."""

    valueChanged = Signal(float)
    editingFinished = Signal()

    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        self._box = qt.QDoubleSpinBox()
        in_row(self, self._box)
        self.setFocusProxy(self._box)
        self._box.valueChanged.connect(lambda value: self.valueChanged.emit(value))
        self._box.editingFinished.connect(lambda: self.editingFinished.emit())

    value = passed(float, "_box", "value")
    minimum = passed(float, "_box", "minimum")
    maximum = passed(float, "_box", "maximum")
    singleStep = passed(float, "_box", "singleStep")
    decimals = passed(int, "_box", "decimals")
    prefix = passed(str, "_box", "prefix")
    suffix = passed(str, "_box", "suffix")
    readOnly = passed(bool, "_box", "readOnly")
    buttonSymbols = passed(int, "_box", "buttonSymbols")
    alignment = stored(int, "alignment", 0)
    decimalsOption = stored(int, "decimalsOption", 0)
    cleanText = Property(str, lambda self: self._box.cleanText)
    text = Property(str, lambda self: self._box.text)

    def setRange(self, low: float, high: float) -> None:
        self._box.setRange(low, high)

    def spinBox(self):
        return self._box

    def lineEdit(self):
        return self._box.lineEdit()

    def stepBy(self, steps: int) -> None:
        self._box.stepBy(steps)


@with_setters
class ctkSliderWidget(qt.QWidget):
    """A slider beside a spin box, of floats."""

    valueChanged = Signal(float)
    valueIsChanging = Signal(float)
    valuesAreChanging = Signal(float)
    _STEPS = 1000

    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        self._slider, self._box = qt.QSlider(qt.Qt.Horizontal), qt.QDoubleSpinBox()
        self._slider.setRange(0, self._STEPS)
        in_row(self, self._slider, self._box)
        self._box.valueChanged.connect(self._on_value)
        self._slider.valueChanged.connect(self._on_slider)

    def _on_value(self, value: float) -> None:
        span = self._box.maximum - self._box.minimum
        self._slider.blockSignals(True)
        self._slider.setValue(round((value - self._box.minimum) / span * self._STEPS) if span else 0)
        self._slider.blockSignals(False)
        self.valueChanged.emit(value)

    def _on_slider(self, position: int) -> None:
        self._box.setValue(self._box.minimum + (self._box.maximum - self._box.minimum) * position / self._STEPS)
        self.valueIsChanging.emit(self._box.value)

    value = passed(float, "_box", "value")
    minimum = passed(float, "_box", "minimum")
    maximum = passed(float, "_box", "maximum")
    singleStep = passed(float, "_box", "singleStep")
    decimals = passed(int, "_box", "decimals")
    prefix = passed(str, "_box", "prefix")
    suffix = passed(str, "_box", "suffix")
    spinBoxVisible = Property(bool, lambda self: not self._box.isHidden(), lambda self, value: self._box.setVisible(value))
    pageStep = stored(float, "pageStep", 10.0)
    tracking = stored(bool, "tracking", True)
    tickInterval = stored(float, "tickInterval", 0.1)

    def setRange(self, low: float, high: float) -> None:
        self._box.setRange(low, high)

    def setValues(self, value: float) -> None:
        self._box.setValue(value)

    def slider(self):
        return self._slider

    def spinBox(self):
        return self._box


class ctkDoubleSlider(ctkSliderWidget):
    """A slider of floats without a spin box."""

    def __init__(self, *args) -> None:
        super().__init__(next((arg for arg in args if isinstance(arg, qt.QWidget)), None))
        self._box.hide()

    orientation = stored(int, "orientation", 1)


@with_setters
class ctkRangeWidget(qt.QWidget):
    """Two values of a range."""

    valuesChanged = Signal(float, float)
    minimumValueChanged = Signal(float)
    maximumValueChanged = Signal(float)
    rangeChanged = Signal(float, float)

    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        self._low, self._high = qt.QDoubleSpinBox(), qt.QDoubleSpinBox()
        in_row(self, self._low, self._high)
        self._high.setValue(self._high.maximum)
        self._low.valueChanged.connect(lambda value: self._on_change(self.minimumValueChanged, value))
        self._high.valueChanged.connect(lambda value: self._on_change(self.maximumValueChanged, value))

    def _on_change(self, signal, value: float) -> None:
        self._low.setMaximum(self._high.value)
        self._high.setMinimum(self._low.value)
        signal.emit(value)
        self.valuesChanged.emit(self._low.value, self._high.value)

    minimumValue = passed(float, "_low", "value")
    maximumValue = passed(float, "_high", "value")
    minimum = Property(float, lambda self: self._low.minimum, lambda self, value: self.setRange(value, self._high.maximum))
    maximum = Property(float, lambda self: self._high.maximum, lambda self, value: self.setRange(self._low.minimum, value))
    decimals = Property(int, lambda self: self._low.decimals, lambda self, value: self._each("setDecimals", value))
    singleStep = Property(float, lambda self: self._low.singleStep, lambda self, value: self._each("setSingleStep", value))
    suffix = Property(str, lambda self: self._low.suffix, lambda self, value: self._each("setSuffix", value))

    def _each(self, setter: str, value) -> None:
        for box in (self._low, self._high):
            getattr(box, setter)(value)

    def setRange(self, low: float, high: float) -> None:
        self._low.setRange(low, min(high, max(self._high.value, low)))
        self._high.setRange(self._low.value, high)
        self.rangeChanged.emit(low, high)

    def setValues(self, low: float, high: float) -> None:
        self._low.setMaximum(high)
        self._high.setMinimum(low)
        self._low.setValue(low)
        self._high.setValue(high)


@with_setters
class ctkComboBox(qt.QComboBox):
    """A combo box that says something where nothing is chosen."""

    defaultText = Property(str, lambda self: self.placeholderText, lambda self, value: self.setPlaceholderText(value))
    forceDefault = stored(bool, "forceDefault", False)
    elideMode = stored(int, "elideMode", 3)
    scrollWheelEffect = stored(int, "scrollWheelEffect", 0)


@with_setters
class ctkCheckableComboBox(qt.QComboBox):
    """A combo box whose items have check marks."""

    checkedIndexesChanged = Signal()

    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        self.model().dataChanged.connect(lambda *_: self.checkedIndexesChanged.emit())
        self.model().rowsInserted.connect(self._on_rows)

    def _on_rows(self, parent, first: int, last: int) -> None:
        for row in range(first, last + 1):
            item = self.model().item(row)
            item.setFlags(item.flags() | qt.Qt.ItemIsUserCheckable)
            item.setCheckState(qt.Qt.Unchecked)

    def checkedIndexes(self) -> list:
        indexes = (self.model().index(row, 0) for row in range(self.count))
        return [index for index in indexes if self.checkState(index) == qt.Qt.Checked]

    def checkState(self, index) -> int:
        return self.model().itemFromIndex(index).checkState()

    def setCheckState(self, index, state) -> None:
        self.model().itemFromIndex(index).setCheckState(qt.Qt.CheckState(state))

    def allChecked(self) -> bool:
        return len(self.checkedIndexes()) == self.count

    def noneChecked(self) -> bool:
        return not self.checkedIndexes()

    def checkableModel(self):
        return self.model()


@with_setters
class ctkPathLineEdit(qt.QWidget):
    """A path that is typed or chosen."""

    currentPathChanged = Signal(str)
    validInputChanged = Signal(bool)

    def __init__(self, *args) -> None:
        super().__init__(next((arg for arg in args if isinstance(arg, qt.QWidget)), None))
        self._edit, self._browse = qt.QLineEdit(), qt.QToolButton()
        self._browse.setText("...")
        in_row(self, self._edit, self._browse)
        self.setFocusProxy(self._edit)
        self._valid = False
        self._edit.textChanged.connect(self._on_text)
        self._browse.clicked.connect(lambda: self.browse())

    def _on_text(self, text: str) -> None:
        valid = bool(text) and os.path.exists(text)
        self._valid, was = valid, self._valid
        self.currentPathChanged.emit(text)
        if valid != was:
            self.validInputChanged.emit(valid)

    currentPath = passed(str, "_edit", "text")
    nameFilters = stored("QStringList", "nameFilters", [])
    filters = stored(int, "filters", 0)
    settingKey = stored(str, "settingKey", "")
    label = stored(str, "label", "")
    options = stored(int, "options", 0)
    showHistoryButton = stored(bool, "showHistoryButton", True)
    showBrowseButton = Property(
        bool, lambda self: not self._browse.isHidden(), lambda self, value: self._browse.setVisible(value)
    )

    def browse(self) -> None:
        folders = int(self.filters) & int(qt.QDir.Dirs) and not int(self.filters) & int(qt.QDir.Files)
        ask = qt.QFileDialog.getExistingDirectory if folders else qt.QFileDialog.getOpenFileName
        path = ask(self, self.label, self.currentPath)
        if path:
            self.currentPath = path

    def addCurrentPathToHistory(self) -> None:
        pass

    def lineEdit(self):
        return self._edit


# CTK names the filters on the class too.
for _name in ("Dirs", "Files", "Readable", "Writable", "Executable", "Drives", "NoDotAndDotDot"):
    setattr(ctkPathLineEdit, _name, getattr(qt.QDir, _name))


@with_setters
class ctkDirectoryButton(qt.QWidget):
    """A button that asks for a folder and shows it."""

    directoryChanged = Signal(str)
    directorySelected = Signal(str)

    def __init__(self, *args) -> None:
        super().__init__(next((arg for arg in args if isinstance(arg, qt.QWidget)), None))
        self._button = qt.QPushButton(os.getcwd())
        self._path = os.getcwd()
        in_row(self, self._button)
        self._button.clicked.connect(lambda: self.browse())

    def _set(self, path: str) -> None:
        if path != self._path:
            self._path = str(path)
            self._button.setText(self.text or self._path)
            self.directoryChanged.emit(self._path)

    directory = Property(str, lambda self: self._path, _set)
    caption = stored(str, "caption", "")
    text = stored(str, "text", "")

    def browse(self) -> None:
        path = qt.QFileDialog.getExistingDirectory(self, self.caption, self._path)
        if path:
            self._set(path)
            self.directorySelected.emit(path)


def _of_each_box(setter: str, kind) -> Property:
    def put(self, value) -> None:
        self._limits[setter] = value
        for box in self._boxes:
            getattr(box, setter)(value)

    return Property(kind, lambda self: self._limits[setter], put)


@with_setters
class ctkCoordinatesWidget(qt.QWidget):
    """Some numbers side by side; ``coordinates`` is their text, "1,2,3"."""

    coordinatesChanged = Signal(object)
    SIGNALS = ("coordinatesChanged(double*)",)

    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        self._boxes: list = []
        in_row(self)
        self._limits = {"setDecimals": 3, "setMinimum": -100000.0, "setMaximum": 100000.0, "setSingleStep": 1.0}
        self._resize(3)

    def _resize(self, dimension: int) -> None:
        while len(self._boxes) > dimension:
            self._boxes.pop().delete()
        while len(self._boxes) < dimension:
            box = qt.QDoubleSpinBox(self)
            for setter, value in self._limits.items():
                getattr(box, setter)(value)
            box.valueChanged.connect(lambda _: self.coordinatesChanged.emit(self._values()))
            self.layout().addWidget(box)
            self._boxes.append(box)

    def _values(self) -> list[float]:
        return [box.value for box in self._boxes]

    def setCoordinates(self, *values) -> None:
        """A text, as many numbers as there are dimensions, or a sequence of them."""
        if len(values) == 1:
            values = values[0].split(",") if isinstance(values[0], str) else values[0]
        before = self._values()
        for box, value in zip(self._boxes, values, strict=True):
            box.blockSignals(True)
            box.setValue(float(value))
            box.blockSignals(False)
        if self._values() != before:
            self.coordinatesChanged.emit(self._values())

    dimension = Property(int, lambda self: len(self._boxes), _resize)
    decimals = _of_each_box("setDecimals", int)
    minimum = _of_each_box("setMinimum", float)
    maximum = _of_each_box("setMaximum", float)
    singleStep = _of_each_box("setSingleStep", float)
    coordinates = Property(str, lambda self: ",".join(f"{value:g}" for value in self._values()), setCoordinates)


@with_setters
class ctkColorPickerButton(qt.QPushButton):
    """A button that shows a colour."""

    colorChanged = Signal(qt.QColor)

    def __init__(self, *args) -> None:
        super().__init__(*args)
        self._colour = qt.QColor(0, 0, 0)

    def _set(self, colour) -> None:
        if qt.QColor(colour) != self._colour:
            self._colour = qt.QColor(colour)
            self.setIcon(self._swatch())
            self.colorChanged.emit(self._colour)

    def _swatch(self):
        picture = qt.QPixmap(16, 16)
        picture.fill(self._colour)
        return qt.QIcon(picture)

    color = Property(qt.QColor, lambda self: self._colour, _set)
    displayColorName = stored(bool, "displayColorName", True)
    dialogOptions = stored(int, "dialogOptions", 0)


@with_setters
class ctkFittedTextBrowser(qt.QTextBrowser):
    """A text browser as high as its text."""

    collapsed = stored(bool, "collapsed", False)
    collapsibleText = Property(str, lambda self: self.plainText, lambda self, value: self.setHtml(value))

    def sizeHint(self):
        self.document().setTextWidth(max(self.width - 10, 100))
        return qt.QSize(200, int(self.document().size().height()) + 6)


@with_setters
class ctkMessageBox(qt.QMessageBox):
    """A message box with "Don't show this message again."; never opened, see :mod:`dialogs`."""

    dontShowAgainVisible = stored(bool, "dontShowAgainVisible", False)
    dontShowAgain = stored(bool, "dontShowAgain", False)
    dontShowAgainSettingsKey = stored(str, "dontShowAgainSettingsKey", "")


class ctkCheckBox(qt.QCheckBox):
    pass


class ctkPushButton(qt.QPushButton):
    pass


class ctkMenuButton(qt.QPushButton):
    pass


class ctkSearchBox(qt.QLineEdit):
    pass
