"""PySide6 bent to what scripts meet in Slicer: PythonQt's properties as attributes, its ``connect``, enums that are ints.

Classes of the module ``qt`` are subclasses of PySide's, for PySide finds ``connect`` in a class's own dictionary only.
"""

from __future__ import annotations

import ctypes
import inspect
import os
import re
import sys
import types
import weakref
from functools import cache

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
os.environ.setdefault("PYSIDE6_OPTION_PYTHON_ENUM", "0x02")  # enums are ints, as in PythonQt; read at PySide's first import

import shiboken6
from PySide6 import QtCore, QtGui, QtNetwork, QtTest, QtUiTools, QtWidgets

_LIBRARIES = (QtCore, QtGui, QtWidgets, QtUiTools, QtNetwork, QtTest)
# C++ calls these itself and would find the attribute instead of the function.
_VIRTUAL = {"sizeHint", "minimumSizeHint", "duration", ("QProgressBar", "text")}
# What these return was made in C++; it gets ``connect`` on its way out.
_GIVES_OBJECTS = {
    "addAction", "addMenu", "addButton", "button", "buttons", "checkedButton", "actions", "menuAction", "horizontalHeader",
    "verticalHeader", "header", "selectionModel", "model", "tabBar", "lineEdit", "view", "document", "statusBar", "menuBar",
    "addToolBar", "verticalScrollBar", "horizontalScrollBar",
}  # fmt: skip


class _Property:
    """A C++ property as an attribute; on the class it is what PySide has there (QTimer.singleShot is both)."""

    def __init__(self, cls, name: str, writable: bool) -> None:
        capital = name[0].upper() + name[1:]
        self.name, self.writable = name, writable
        self.original = getattr(cls, name, None)
        getters = (name, "is" + capital, "has" + capital)
        self.getter = next((getattr(cls, getter) for getter in getters if inspect.isroutine(getattr(cls, getter, None))), None)
        if name == "singleShot":
            self.getter = cls.isSingleShot
        self.setter = getattr(cls, "set" + capital, None)

    def __get__(self, instance, owner=None):
        if instance is None:
            return self if self.original is None else self.original
        return instance.property(self.name) if self.getter is None else self.getter(instance)

    def __set__(self, instance, value) -> None:
        if not self.writable:
            raise AttributeError(f"{type(instance).__name__}.{self.name} is read-only")
        if self.setter is not None:
            try:
                self.setter(instance, value)
                return
            except TypeError:  # PythonQt converts, as QVariant does: a number as a text, a number as an enum
                pass
        if not instance.setProperty(self.name, value):
            raise TypeError(f"{type(instance).__name__}.{self.name} cannot be {value!r}")


class _Name:
    """PythonQt's short name of ``objectName``."""

    def __get__(self, instance, owner=None):
        return self if instance is None else instance.objectName

    def __set__(self, instance, value) -> None:
        instance.setObjectName(value)


def _give_properties() -> None:
    for library in _LIBRARIES:
        for cls in (getattr(library, name) for name in dir(library)):
            if not (isinstance(cls, type) and issubclass(cls, QtCore.QObject)):
                continue
            meta = cls.staticMetaObject
            for i in range(meta.propertyOffset(), meta.propertyCount()):
                name = meta.property(i).name()
                if name in _VIRTUAL or (cls.__name__, name) in _VIRTUAL or isinstance(vars(cls).get(name), _Property):
                    continue
                setattr(cls, name, _Property(cls, name, meta.property(i).isWritable()))


def _signature(text: str) -> tuple[str, list[str]]:
    match = re.fullmatch(r"\s*(\w+)\s*\((.*)\)\s*", text)
    if match is None:
        raise ValueError(f"{text!r} is no signal; write it as 'clicked(bool)'")
    return match[1], [kind.strip() for kind in match[2].split(",") if kind.strip()]


@cache
def _of_cpp(cls: type) -> tuple[frozenset, frozenset]:
    """(signals, properties) of the C++ class under a class. A Python class's own QMetaObject is rebuilt now and then, and a
    wrapper of the old one is a crash in waiting."""
    meta = next(base for base in cls.__mro__ if base.__module__.startswith("PySide6")).staticMetaObject
    methods = (meta.method(i) for i in range(meta.methodCount()))
    signals = (bytes(m.methodSignature()).decode() for m in methods if m.methodType() == QtCore.QMetaMethod.Signal)
    return frozenset(signals), frozenset(meta.property(i).name() for i in range(meta.propertyCount()))


@cache
def signals_of(cls: type) -> frozenset:
    """Signatures that PythonQt would accept; Python classes list those of MRML types in ``SIGNALS``."""
    found = set(_of_cpp(cls)[0])
    for base in cls.__mro__:
        found.update(getattr(base, "SIGNALS", ()))
        signals = (member for member in vars(base).values() if type(member).__name__ == "Signal")
        found.update(text for signal in signals for text in str(signal).split("; "))
    return frozenset(found)


@cache
def properties_of(cls: type) -> frozenset:
    """Names of the properties that a .ui file may set."""
    own = {name for base in cls.__mro__ for name, member in vars(base).items() if isinstance(member, QtCore.Property)}
    return _of_cpp(cls)[1] | own


def _capacity(function) -> int | None:
    """How many positional arguments a callable takes; None for any number."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return None
    return sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)


# PySide chooses among clicked() and clicked(bool) by the number of arguments that the function declares.
_OF_ARGUMENTS = (
    lambda f: lambda: f(),
    lambda f: lambda a: f(a),
    lambda f: lambda a, b: f(a, b),
    lambda f: lambda a, b, c: f(a, b, c),
    lambda f: lambda a, b, c, d: f(a, b, c, d),
)


def connect(self, signal: str, receiver, slot: str | None = None) -> bool:
    """PythonQt's ``connect``: the receiver gets the arguments of the signature that it can take."""
    name, kinds = _signature(signal)
    normal = f"{name}({','.join(kind.replace('const ', '').replace('&', '').replace(' ', '') for kind in kinds)})"
    if normal not in signals_of(type(self)):
        same = sorted(known for known in signals_of(type(self)) if known.startswith(name[:4]))
        raise ValueError(f"{self.className()} has no signal {signal!r}; similar are: {', '.join(same) or 'none'}")
    if slot is not None:
        receiver = getattr(receiver, _signature(slot)[0])
    if not callable(receiver):
        raise TypeError(f"{receiver!r} cannot be called")
    capacity = _capacity(receiver)
    count = len(kinds) if capacity is None else min(capacity, len(kinds))

    def forward(*arguments):  # currentNodeChanged(bool) of a node
        receiver(*(bool(value) if kind == "bool" else value for kind, value in zip(kinds, arguments, strict=False)))

    call = _OF_ARGUMENTS[count](forward)
    getattr(self, name).connect(call)
    self.__dict__.setdefault("_connections", []).append((normal, receiver, name, call))
    return True


def disconnect(self, signal: str | None = None, receiver=None) -> bool:
    """Undo :func:`connect`: of one receiver, of a signal, or of all; False where nothing was connected."""
    wanted = None if signal is None else re.sub(r"const |&|\s", "", signal)
    connections = self.__dict__.get("_connections", [])
    chosen = [c for c in connections if wanted in (None, c[0]) and (receiver is None or c[1] == receiver)]
    for connection in chosen:
        getattr(self, connection[2]).disconnect(connection[3])
        connections.remove(connection)
    return bool(chosen)


class _Leaf(type(QtCore.QObject)):
    """The type of ``qt``'s classes: what C++ made is an instance too."""

    def __instancecheck__(cls, instance) -> bool:
        base = cls.__dict__.get("_pyside")
        return type.__instancecheck__(cls, instance) if base is None else isinstance(instance, base)

    def __subclasscheck__(cls, other) -> bool:
        base = cls.__dict__.get("_pyside")
        return type.__subclasscheck__(cls, other) if base is None else issubclass(other, base)


_leaves: dict[type, type] = {}
watched = weakref.WeakSet()  # timers and processes


def _watching(cls: type):
    def __init__(self, *args, **kwargs) -> None:
        cls.__init__(self, *args, **kwargs)
        watched.add(self)

    return __init__


def leaf(cls: type) -> type:
    """The class of the module ``qt`` for one of PySide's."""
    if cls not in _leaves:
        members = {"_pyside": cls, "__module__": "qt"}
        for name in _GIVES_OBJECTS & set(dir(cls)):
            if callable(getattr(cls, name)) and not isinstance(inspect.getattr_static(cls, name), _Property):
                members[name] = _adopting(getattr(cls, name))
        for name in ("exec", "print"):
            if hasattr(cls, name) and not hasattr(cls, name + "_"):
                members[name + "_"] = lambda self, *args, name=name: getattr(self, name)(*args)
        if cls in (QtCore.QTimer, QtCore.QProcess):
            members["__init__"] = _watching(cls)
        _leaves[cls] = _Leaf(cls.__name__, (cls,), members)
    return _leaves[cls]


def _adopting(function):
    def call(self, *args, **kwargs):
        return adopt(function(self, *args, **kwargs))

    return call


def adopt(thing):
    """Give ``connect`` to an object that C++ made. In its own dictionary: a changed ``__class__`` would crash later."""
    if isinstance(thing, (list, tuple)):
        return type(thing)(adopt(one) for one in thing)
    if isinstance(thing, QtCore.QObject) and type(thing).__module__.startswith("PySide6"):
        weak = weakref.ref(thing)
        thing.connect = lambda *args: connect(weak(), *args)
        thing.disconnect = lambda *args: disconnect(weak(), *args)
    return thing


class SingleShot(QtCore.QTimer):
    """The timer behind ``QTimer.singleShot``, kept so that tests see what still waits."""

    waiting: set = set()  # noqa: RUF012

    def __init__(self, ms: int, function) -> None:
        super().__init__()
        self.setSingleShot(True)
        self.function = function
        self.timeout.connect(self._run)
        SingleShot.waiting.add(self)
        self.start(ms)

    def _run(self) -> None:
        SingleShot.waiting.discard(self)
        self.function()

    @classmethod
    def cancel_all(cls) -> None:
        for timer in cls.waiting:
            timer.stop()
        cls.waiting.clear()


class BoolResult:
    """What stands for a pointer to a bool; false until it is set."""

    value = False

    def __bool__(self) -> bool:
        return self.value


class QtModule(types.ModuleType):
    """``qt``: all names of QtCore, QtGui and QtWidgets in one module, made on demand."""

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        for library in _LIBRARIES:
            if hasattr(library, name):
                value = getattr(library, name)
                break
        else:
            raise AttributeError(f"module 'qt' has no attribute {name!r}")
        if isinstance(value, type) and issubclass(value, QtCore.QObject):
            value = leaf(value)
        if name == "QTimer":
            single_shot = _Property(QtCore.QTimer, "singleShot", True)
            single_shot.original = lambda ms, function: SingleShot(ms, function) and None
            value.singleShot = single_shot
        setattr(self, name, value)
        return value


def make_qt_module() -> QtModule:
    """Bend PySide, once in a process, and make the module ``qt``."""
    if sys.version_info < (3, 12):  # PySide 6.12 takes these for immortal, which they became in 3.12, and uses them up
        for constant in (None, True, False, NotImplemented):
            ctypes.c_ssize_t.from_address(id(constant)).value += 1 << 40
    if not isinstance(QtCore.Qt.Checked, int):
        raise RuntimeError("PySide6 was imported before the stand-in, with enums that are no ints; import the stand-in first")

    def give_connect(cls, **kwargs) -> None:
        for function in (connect, disconnect):
            if function.__name__ not in vars(cls):
                setattr(cls, function.__name__, function)

    QtCore.QObject.__init_subclass__ = classmethod(give_connect)
    _give_properties()
    QtCore.QObject.name = _Name()
    QtCore.QObject.className = lambda self: type(self).__name__
    QtCore.QObject.delete = lambda self: shiboken6.delete(self)
    whole = sys.modules["PythonQt"] = types.ModuleType("PythonQt")
    whole.BoolResult = BoolResult
    module = sys.modules["qt"] = QtModule("qt")
    return module
