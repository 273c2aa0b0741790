"""``slicer.parameterNodeWrapper``: typed parameters over a real vtkMRMLScriptedModuleNode, and their binding to widgets.

Unlike Slicer's, it keeps no cache: each reading reads the node.
"""

from __future__ import annotations

import itertools

import qt
import slicer
import slicer.util
import vtk

from . import parameter_types
from .parameter_gui import connector
from .parameter_types import Kind, kinds_of

_OF_NODE = (
    "AddObserver", "RemoveObserver", "RemoveObservers", "RemoveAllObservers", "HasObserver", "InvokeEvent",
    "Modified", "StartModify", "EndModify", "GetDisableModifiedEvent", "SetDisableModifiedEvent",
)  # fmt: skip


def parameterPack(cls: type) -> type:
    """Class decorator: parameters that belong together, like a dataclass."""
    kinds = kinds_of(cls)

    def __init__(self, *args, **kwargs) -> None:
        values = dict(zip(kinds, args, strict=False)) | kwargs
        for name in kinds.keys() - values.keys():
            values[name] = kinds[name].default()
        for name in kinds:
            setattr(self, name, values.pop(name))
        if values or len(args) > len(kinds):
            raise TypeError(f"{cls.__name__} has no parameters {sorted(values) or args[len(kinds) :]}")

    def __eq__(self, other) -> bool:
        return type(other) is cls and all(getattr(self, name) == getattr(other, name) for name in kinds)

    def __repr__(self) -> str:
        return f"{cls.__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in kinds)})"

    def attached(values: dict, changed):
        """A pack read from a node; ``changed(pack)`` writes it back."""
        pack = cls.__new__(cls)
        pack.__dict__.update({"_value_" + name: value for name, value in values.items()})
        pack.__dict__["_changed"] = changed
        return pack

    for function in (__init__, __eq__, __repr__):
        if function.__name__ not in vars(cls):
            setattr(cls, function.__name__, function)
    if "__str__" not in vars(cls):
        cls.__str__ = cls.__repr__
    cls.__hash__ = None
    for name, kind in kinds.items():
        setattr(cls, name, _pack_member(name, kind))
    cls.allParameters = kinds
    cls._attached = staticmethod(attached)
    return cls


def _pack_member(name: str, kind: Kind) -> property:
    def get(self):
        if "_value_" + name not in self.__dict__:
            self.__dict__["_value_" + name] = kind.default()
        return self.__dict__["_value_" + name]

    def put(self, value) -> None:
        kind.validate(value)
        self.__dict__["_value_" + name] = value
        if "_changed" in self.__dict__:
            self.__dict__["_changed"](self)

    return property(get, put)


def parameterNodeWrapper(cls: type) -> type:
    """Class decorator: each annotated member becomes a typed parameter of the node that the class is given."""
    kinds = kinds_of(cls)
    members = {"allParameters": kinds, "_initialise": vars(cls).get("__init__")}
    members |= {name: _parameter(name, kind) for name, kind in kinds.items()}
    for name, value in members.items():
        setattr(cls, name, value)
    for name, value in vars(_Wrapper).items():
        if not name.startswith("__") or name in ("__init__", "__setattr__", "__eq__"):
            setattr(cls, name, value)
    cls.__hash__ = object.__hash__
    return cls


def _parameter(name: str, kind: Kind) -> property:
    return property(lambda self: self.getValue(name), lambda self, value: self.setValue(name, value))


class _Wrapper:
    """What a wrapped class gets."""

    def __init__(self, parameterNode, prefix: str | None = None) -> None:
        if not isinstance(parameterNode, slicer.vtkMRMLScriptedModuleNode):
            raise TypeError(f"a parameter node is a vtkMRMLScriptedModuleNode, not {parameterNode!r}")
        self.__dict__["parameterNode"] = parameterNode
        self.__dict__["_prefix"] = f"{prefix}." if prefix else ""
        self.__dict__["_bindings"] = {}
        self.__dict__["_tags"] = itertools.count(1)
        for name in _OF_NODE:
            if hasattr(parameterNode, name):
                self.__dict__[name] = getattr(parameterNode, name)
        with slicer.util.NodeModify(parameterNode):
            for name, kind in self.allParameters.items():
                if not kind.has(parameterNode, self._prefix + name) and not isinstance(kind, parameter_types.Node):
                    kind.write(parameterNode, self._prefix + name, kind.default())

    def __setattr__(self, name: str, value) -> None:
        if not name.startswith("_") and not hasattr(type(self), name):
            raise AttributeError(f"{type(self).__name__} has no parameter {name!r}; it has {', '.join(self.allParameters)}")
        object.__setattr__(self, name, value)

    def __eq__(self, other) -> bool:
        return type(other) is type(self) and other.parameterNode is self.parameterNode

    def _kind(self, name: str) -> Kind:
        first, *rest = name.split(".")
        kind = self.allParameters[first]
        for part in rest:
            kind = kind.type.allParameters[part]
        return kind

    def getValue(self, name: str):
        first, *rest = name.split(".")
        whole = []  # a part that is changed in place writes all of it

        def changed(_) -> None:
            self.setValue(first, whole[0])

        value = self.allParameters[first].read(self.parameterNode, self._prefix + first, changed)
        whole.append(value)
        for part in rest:
            value = getattr(value, part)
        return value

    def setValue(self, name: str, value) -> None:
        first, *rest = name.split(".")
        if rest:
            pack = self.getValue(first)
            for part in rest[:-1]:
                pack = getattr(pack, part)
            setattr(pack, rest[-1], value)
            return
        kind = self.allParameters[first]
        kind.validate(value)
        with slicer.util.NodeModify(self.parameterNode):
            kind.write(self.parameterNode, self._prefix + first, value)

    def dataType(self, name: str):
        return self._kind(name).type

    def default(self, name: str):
        return parameter_types.Default(self._kind(name).default())

    def isCached(self, name: str) -> bool:
        return False

    def reset(self, name: str | None = None) -> None:
        """One parameter, or all, as they were before anyone set them."""
        with slicer.util.NodeModify(self.parameterNode):
            for one in self.allParameters if name is None else [name]:
                self.setValue(one, self._kind(one).default())

    def connectGui(self, gui) -> int:
        """Bind each widget of ``gui`` that has the property SlicerParameterName; returns what ``disconnectGui`` takes."""
        widgets = gui.findChildren(qt.QWidget) if isinstance(gui, qt.QWidget) else vars(gui).values()
        named = ((widget.property("SlicerParameterName"), widget) for widget in widgets if hasattr(widget, "property"))
        return self.connectParametersToGui([(name, widget) for name, widget in named if name])

    def connectParametersToGui(self, mapping) -> int:
        bindings = []
        for name, widget in mapping.items() if isinstance(mapping, dict) else mapping:
            try:
                kind = self._kind(name)
            except (KeyError, AttributeError):
                raise ValueError(f"{widget.name} wants parameter {name!r}; there are {', '.join(self.allParameters)}") from None
            bindings.append((name, connector(widget, kind)))

        def to_widgets(*_) -> None:
            for name, binding in bindings:
                value = self.getValue(name)
                if binding.read() != value:
                    binding.write(value)

        to_widgets()
        for name, binding in bindings:
            binding.listen(lambda name=name, binding=binding: self._from_widget(name, binding))
        tag = next(self._tags)
        self._bindings[tag] = (bindings, self.parameterNode.AddObserver(vtk.vtkCommand.ModifiedEvent, to_widgets))
        return tag

    def _from_widget(self, name: str, binding) -> None:
        if binding.read() != self.getValue(name):
            self.setValue(name, binding.read())

    def disconnectGui(self, tag: int) -> None:
        bindings, observer = self._bindings.pop(tag)
        self.parameterNode.RemoveObserver(observer)
        for _, binding in bindings:
            binding.silence()


# What ``slicer.parameterNodeWrapper`` offers.
_TYPES = (
    "Choice", "Decimals", "Default", "Exclude", "FloatRange", "IsInstance", "Maximum", "Minimum", "NotNone", "ObservedDict",
    "ObservedList", "SingleStep", "Validator", "WithinRange",
)  # fmt: skip
PUBLIC = {name: getattr(parameter_types, name) for name in _TYPES}
PUBLIC |= {"parameterNodeWrapper": parameterNodeWrapper, "parameterPack": parameterPack}
