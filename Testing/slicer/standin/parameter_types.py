"""How ``parameterNodeWrapper`` keeps a value of each type in a vtkMRMLScriptedModuleNode, and what it allows.

After Slicer's developer guide, "Parameter Nodes". Texts go into parameters, MRML nodes into node references, so both
survive a saved scene; parts of a list, a dictionary or a pack go under dotted names.
"""

from __future__ import annotations

import enum
import json
import pathlib
import typing

import slicer


class Validator:
    """Says by an exception what a parameter may not be."""

    def validate(self, value) -> None:
        raise NotImplementedError


class NotNone(Validator):
    def validate(self, value) -> None:
        if value is None:
            raise ValueError("Value must not be None")


class IsInstance(Validator):
    def __init__(self, classtype) -> None:
        self.classtype = classtype

    def validate(self, value) -> None:
        if value is not None and not isinstance(value, self.classtype):
            raise ValueError(f"Value must be of type {self.classtype}, is {type(value)}")


class Minimum(Validator):
    def __init__(self, minimum) -> None:
        self.minimum = minimum

    def validate(self, value) -> None:
        if value < self.minimum:
            raise ValueError(f"Value must be at least {self.minimum}, is {value}")


class Maximum(Validator):
    def __init__(self, maximum) -> None:
        self.maximum = maximum

    def validate(self, value) -> None:
        if value > self.maximum:
            raise ValueError(f"Value must be at most {self.maximum}, is {value}")


class WithinRange(Validator):
    def __init__(self, minimum, maximum) -> None:
        self.minimum, self.maximum = minimum, maximum

    def validate(self, value) -> None:
        low, high = (value.minimum, value.maximum) if isinstance(value, FloatRange) else (value, value)
        if low < self.minimum or high > self.maximum:
            raise ValueError(f"Value must be within range [{self.minimum}, {self.maximum}], is {value}")


class Choice(Validator):
    def __init__(self, choices) -> None:
        self.choices = list(choices)

    def validate(self, value) -> None:
        if value not in self.choices:
            raise ValueError(f"Value must be one of {self.choices}, is {value!r}")


class Exclude(Validator):
    def __init__(self, choices) -> None:
        self.choices = list(choices)

    def validate(self, value) -> None:
        if value in self.choices:
            raise ValueError(f"Value must not be one of {self.choices}, is {value!r}")


class Default:
    def __init__(self, value=None, *, generator=None) -> None:
        self.value, self.generator = value, generator


class Decimals:
    def __init__(self, value: int) -> None:
        self.value = value


class SingleStep:
    def __init__(self, value: float) -> None:
        self.value = value


class FloatRange:
    """A range of floats, for ctkRangeWidget."""

    def __init__(self, minimum: float, maximum: float) -> None:
        if minimum > maximum:
            raise ValueError(f"minimum {minimum} is above maximum {maximum}")
        self.minimum, self.maximum = float(minimum), float(maximum)

    def __eq__(self, other) -> bool:
        return isinstance(other, FloatRange) and (self.minimum, self.maximum) == (other.minimum, other.maximum)

    def __hash__(self) -> int:
        return hash((self.minimum, self.maximum))

    def __repr__(self) -> str:
        return f"FloatRange({self.minimum}, {self.maximum})"


class Kind:
    """A type with its annotations. Subclasses say how its values become texts."""

    def __init__(self, type_, annotations=()) -> None:
        self.type = type_
        self.annotations = list(annotations)
        self.implicit = self.checks()

    def checks(self) -> list[Validator]:
        return [NotNone(), IsInstance(self.type)]

    def find(self, annotation: type):
        return next((a for a in self.annotations if isinstance(a, annotation)), None)

    def bounds(self) -> tuple:
        """(lowest, highest) allowed; None where there is no bound."""
        ranges = [a for a in self.annotations if isinstance(a, WithinRange)]
        low = [r.minimum for r in ranges] + [a.minimum for a in self.annotations if isinstance(a, Minimum)]
        high = [r.maximum for r in ranges] + [a.maximum for a in self.annotations if isinstance(a, Maximum)]
        return (max(low) if low else None, min(high) if high else None)

    def default(self):
        given = self.find(Default)
        if given is None:
            return self.empty()
        return given.generator() if given.generator is not None else given.value

    def empty(self):
        return self.type()

    def validate(self, value) -> None:
        for validator in self.implicit + [a for a in self.annotations if isinstance(a, Validator)]:
            validator.validate(value)

    def has(self, node, key: str) -> bool:
        return key in node.GetParameterNames()

    def write(self, node, key: str, value) -> None:
        node.SetParameter(key, self.text(value))

    def read(self, node, key: str, changed):
        return self.value(node.GetParameter(key))

    def text(self, value) -> str:
        return str(value)

    def value(self, text: str):
        return self.type(text)


class Bool(Kind):
    def value(self, text: str) -> bool:
        return text.lower() == "true"


class Float(Kind):
    def checks(self) -> list[Validator]:
        return [NotNone(), IsInstance((float, int))]

    def text(self, value) -> str:
        return repr(float(value))


class EnumKind(Kind):
    def empty(self):
        return next(iter(self.type))

    def text(self, value) -> str:
        return value.name

    def value(self, text: str):
        return self.type[text]


class Range(Kind):
    def empty(self):
        raise ValueError("a FloatRange needs a default")

    def text(self, value) -> str:
        return json.dumps([value.minimum, value.maximum])

    def value(self, text: str) -> FloatRange:
        return FloatRange(*json.loads(text))


class Node(Kind):
    """A node of one of some classes, or None."""

    def checks(self) -> list[Validator]:
        return [IsInstance(self.type)]

    def empty(self) -> None:
        return None

    def has(self, node, key: str) -> bool:
        return node.GetNodeReferenceID(key) is not None

    def write(self, node, key: str, value) -> None:
        node.SetNodeReferenceID(key, None if value is None else value.GetID())

    def read(self, node, key: str, changed):
        return node.GetNodeReference(key)


class ObservedList(list):
    """A list that tells when it is changed."""


class ObservedDict(dict):
    """A dictionary that tells when it is changed."""


def _telling(original):
    def method(self, *args, **kwargs):
        result = original(self, *args, **kwargs)
        self.changed(self)
        return result

    return method


def _observe(cls: type, methods: str) -> None:
    for name in methods.split():
        setattr(cls, name, _telling(getattr(cls.__mro__[1], name)))


_observe(ObservedList, "append extend insert remove pop clear sort reverse __setitem__ __delitem__ __iadd__ __imul__")
_observe(ObservedDict, "pop popitem clear update setdefault __setitem__ __delitem__ __ior__")


class List(Kind):
    def __init__(self, type_, annotations, element: Kind) -> None:
        self.element = element
        super().__init__(type_, annotations)

    def validate(self, value) -> None:
        super().validate(value)
        for one in value:
            self.element.validate(one)

    def write(self, node, key: str, value) -> None:
        for i in range(len(value), int(node.GetParameter(key) or 0)):
            node.UnsetParameter(f"{key}.{i}")
            node.SetNodeReferenceID(f"{key}.{i}", None)
        node.SetParameter(key, str(len(value)))
        for i, one in enumerate(value):
            self.element.write(node, f"{key}.{i}", one)

    def read(self, node, key: str, changed):
        result = ObservedList(self.element.read(node, f"{key}.{i}", changed) for i in range(int(node.GetParameter(key))))
        result.changed = changed
        return result


class Tuple(Kind):
    def __init__(self, type_, annotations, elements: list[Kind]) -> None:
        self.elements = elements
        super().__init__(type_, annotations)

    def empty(self) -> tuple:
        return tuple(element.default() for element in self.elements)

    def validate(self, value) -> None:
        super().validate(value)
        for element, one in zip(self.elements, value, strict=True):
            element.validate(one)

    def write(self, node, key: str, value) -> None:
        node.SetParameter(key, str(len(value)))
        for i, (element, one) in enumerate(zip(self.elements, value, strict=True)):
            element.write(node, f"{key}.{i}", one)

    def read(self, node, key: str, changed) -> tuple:
        return tuple(element.read(node, f"{key}.{i}", changed) for i, element in enumerate(self.elements))


class Dict(Kind):
    def __init__(self, type_, annotations, key: Kind, value: Kind) -> None:
        self.keys, self.values = List(list, [], key), List(list, [], value)
        super().__init__(type_, annotations)

    def validate(self, value) -> None:
        super().validate(value)
        self.keys.validate(list(value))
        self.values.validate(list(value.values()))

    def write(self, node, key: str, value) -> None:
        node.SetParameter(key, str(len(value)))
        self.keys.write(node, key + ".keys", list(value))
        self.values.write(node, key + ".values", list(value.values()))

    def read(self, node, key: str, changed):
        parts = (part.read(node, f"{key}.{name}", changed) for part, name in ((self.keys, "keys"), (self.values, "values")))
        result = ObservedDict(zip(*parts, strict=True))
        result.changed = changed
        return result


class Optional(Kind):
    """A value or None."""

    def __init__(self, annotations, inner: Kind) -> None:
        self.inner = inner
        super().__init__(inner.type, annotations)

    def checks(self) -> list[Validator]:
        return []

    def empty(self) -> None:
        return None

    def validate(self, value) -> None:
        if value is not None:
            super().validate(value)
            self.inner.validate(value)

    def has(self, node, key: str) -> bool:
        return super().has(node, key + ".given")

    def write(self, node, key: str, value) -> None:
        node.SetParameter(key + ".given", str(value is not None))
        if value is not None:
            self.inner.write(node, key, value)

    def read(self, node, key: str, changed):
        return self.inner.read(node, key, changed) if node.GetParameter(key + ".given") == "True" else None


class Pack(Kind):
    """A ``parameterPack``."""

    def empty(self):
        return self.type()

    def validate(self, value) -> None:
        super().validate(value)
        for name, kind in self.type.allParameters.items():
            kind.validate(getattr(value, name))

    def has(self, node, key: str) -> bool:
        return all(kind.has(node, f"{key}.{name}") or isinstance(kind, Node) for name, kind in self.type.allParameters.items())

    def write(self, node, key: str, value) -> None:
        for name, kind in self.type.allParameters.items():
            kind.write(node, f"{key}.{name}", getattr(value, name))

    def read(self, node, key: str, changed):
        values = {name: kind.read(node, f"{key}.{name}", changed) for name, kind in self.type.allParameters.items()}
        return self.type._attached(values, changed)


_SIMPLE = {bool: Bool, int: Kind, float: Float, str: Kind, FloatRange: Range}


def kind_of(type_, annotations=()) -> Kind:
    """The kind of a type hint."""
    origin, arguments = typing.get_origin(type_), typing.get_args(type_)
    if origin is typing.Annotated:
        return kind_of(arguments[0], [*annotations, *arguments[1:]])
    if origin is typing.Union:  # as Slicer: of X | None, whose origin is another one, it can keep nothing
        inner = [argument for argument in arguments if argument is not type(None)]
        if all(isinstance(one, type) and issubclass(one, slicer.vtkMRMLNode) for one in inner):
            return Node(tuple(inner), annotations)
        if len(inner) == 1:
            return Optional(annotations, kind_of(inner[0], [a for a in annotations if isinstance(a, Validator)]))
    if origin is list:
        return List(list, annotations, kind_of(arguments[0]))
    if origin is tuple:
        return Tuple(tuple, annotations, [kind_of(argument) for argument in arguments])
    if origin is dict:
        return Dict(dict, annotations, kind_of(arguments[0]), kind_of(arguments[1]))
    if type_ in _SIMPLE:
        return _SIMPLE[type_](type_, annotations)
    if isinstance(type_, type):
        if issubclass(type_, enum.Enum):
            return EnumKind(type_, annotations)
        if issubclass(type_, pathlib.PurePath):
            return Kind(type_, annotations)
        if issubclass(type_, slicer.vtkMRMLNode):
            return Node(type_, annotations)
        if hasattr(type_, "allParameters"):
            return Pack(type_, annotations)
    raise TypeError(f"a parameter node cannot keep {type_}")


def kinds_of(cls: type) -> dict[str, Kind]:
    """The kinds of a class's annotated members; a value given in the class is the default."""
    kinds = {}
    for name, hint in typing.get_type_hints(cls, include_extras=True).items():
        kind = kind_of(hint)
        if name in vars(cls):
            kind.annotations.append(Default(vars(cls)[name]))
        kind.validate(kind.default())
        kinds[name] = kind
    return kinds
