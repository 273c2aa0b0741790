"""Observers of MRML objects that let their widget go: held weakly, and removed once the C++ widget is gone."""

from __future__ import annotations

import weakref

import shiboken6
import vtk


class Observers:
    """What a widget observes."""

    def __init__(self, widget) -> None:
        self._widget = weakref.ref(widget)
        self._observed: dict = {}  # (object's address, event): (weak object, tag)

    def add(self, thing, event: int, method: str, carries_node: bool = False) -> None:
        """Have ``widget.method(node)`` called; ``node`` is None where the event carries none. Asked twice, it observes once."""
        key = (thing.GetAddressAsString(""), event)
        if key in self._observed:
            return
        widget_of, held = self._widget, {}

        def call(caller, event, node=None) -> None:
            widget = widget_of()
            if widget is None or not shiboken6.isValid(widget):
                caller.RemoveObserver(held["tag"])
            else:
                getattr(widget, method)(node)

        if carries_node:
            call.CallDataType = vtk.VTK_OBJECT
        held["tag"] = thing.AddObserver(event, call)
        self._observed[key] = (weakref.ref(thing), held["tag"])

    def drop(self, thing=None) -> None:
        """Stop observing one object, or all."""
        address = None if thing is None else thing.GetAddressAsString("")
        for key in [key for key in self._observed if address in (None, key[0])]:
            weak, tag = self._observed.pop(key)
            if weak() is not None:
                weak().RemoveObserver(tag)
