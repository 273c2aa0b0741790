"""Options by name: from a dictionary to a frozen dataclass, an unknown name or a wrong type failing loudly."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from XRayRegistrationLib.errors import InputError

T = TypeVar("T")


def nearest_names(name: object, allowed: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` with the nearest of the allowed names, or nothing."""
    close = difflib.get_close_matches(str(name).lower(), list(allowed), n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(repr(c) for c in close)}?" if close else ""


def options_from(options_type: type[T], values: Mapping[str, Any] | None, owner: str) -> T:
    """An ``options_type`` with ``values`` in place of its defaults.

    A field that is itself an options dataclass takes a dictionary of its own. Lists become tuples,
    whole numbers become floats where a float is wanted; nothing else is converted.

    Args:
        options_type: a frozen dataclass whose fields all have defaults.
        values: by field name; None for the defaults.
        owner: whose options they are, for messages, e.g. ``"method 'diffdrr'"``.

    Raises:
        InputError: a name that is no field, with the nearest ones, or a value of the wrong type.
    """
    if values is None:
        return options_type()
    if not isinstance(values, Mapping):
        raise InputError(f"options of {owner} are {values!r}; allowed is a dictionary from names to values")
    hints = get_type_hints(options_type)
    allowed = [f.name for f in fields(options_type)]  # type: ignore[arg-type]
    chosen = {}
    for name, value in values.items():
        if name not in allowed:
            raise InputError(
                f"option {name!r} of {owner} is unknown; allowed are {', '.join(allowed)}{nearest_names(name, allowed)}"
            )
        chosen[name] = _converted(value, hints[name], name, owner)
    return options_type(**chosen)


def _converted(value: Any, wanted: Any, name: str, owner: str) -> Any:
    if is_dataclass(wanted) and isinstance(wanted, type):
        return value if isinstance(value, wanted) else options_from(wanted, value, f"{name} of {owner}")
    if not _fits(value, wanted):
        raise InputError(f"option {name!r} of {owner} is {value!r}; allowed is {_in_words(wanted)}")
    if get_origin(wanted) is tuple:
        return tuple(_number(v, w) for v, w in zip(value, get_args(wanted), strict=True))
    return _number(value, wanted)


def _number(value: Any, wanted: Any) -> Any:
    takes_float = wanted is float or (_is_union(wanted) and float in get_args(wanted) and int not in get_args(wanted))
    return float(value) if takes_float and isinstance(value, int) and not isinstance(value, bool) else value


def _fits(value: Any, wanted: Any) -> bool:
    if wanted is Any:
        return True
    if _is_union(wanted):
        return any(_fits(value, w) for w in get_args(wanted))
    if get_origin(wanted) is Literal:
        return value in get_args(wanted)
    if get_origin(wanted) is tuple:
        parts = get_args(wanted)
        return (
            isinstance(value, (tuple, list))
            and len(value) == len(parts)
            and all(_fits(v, w) for v, w in zip(value, parts, strict=True))
        )
    if wanted is type(None):
        return value is None
    if wanted in (int, float):
        return isinstance(value, (int, float) if wanted is float else int) and not isinstance(value, bool)
    return isinstance(value, wanted)


def _in_words(wanted: Any) -> str:
    if _is_union(wanted):
        return " or ".join(_in_words(w) for w in get_args(wanted))
    if get_origin(wanted) is Literal:
        return "one of " + ", ".join(repr(a) for a in get_args(wanted))
    if get_origin(wanted) is tuple:
        return f"{len(get_args(wanted))} values, each {_in_words(get_args(wanted)[0])}"
    words = {bool: "True or False", int: "a whole number", float: "a number", str: "a text", type(None): "None"}
    return words.get(wanted, getattr(wanted, "__name__", str(wanted)))


def _is_union(wanted: Any) -> bool:
    return get_origin(wanted) in (Union, types.UnionType)
