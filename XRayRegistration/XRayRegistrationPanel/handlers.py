"""How the sections answer clicks: an error of the user's input is shown as its one line, and nothing is lost."""

from __future__ import annotations

import functools
from contextlib import contextmanager

import PythonQt
import qt
import slicer.util

from XRayRegistrationLib.errors import XRayRegistrationError


def reported(handler):
    """A handler whose XRayRegistrationError is shown in a message box; any other error is a bug and goes on."""

    @functools.wraps(handler)
    def call(self, *arguments):
        try:
            return handler(self)
        except XRayRegistrationError as error:
            slicer.util.errorDisplay(sentence(str(error)), windowTitle="X-ray registration")
            return None

    return call


def asked_number(parent, question: str, value: int, most: int):
    """A number from 1 that the user chooses; None where the user cancels."""
    chosen = PythonQt.BoolResult()  # how PythonQt says what Qt tells through a pointer
    number = qt.QInputDialog.getInt(parent, "X-ray registration", question, value, 1, most, 1, chosen)
    return number if chosen else None


def sentence(text: str) -> str:
    """With a capital and a full stop."""
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


@contextmanager
def silent(*widgets):
    """No signals of these widgets while they are filled in from the scene."""
    before = [widget.blockSignals(True) for widget in widgets]
    try:
        yield
    finally:
        for widget, was in zip(widgets, before, strict=True):
            widget.blockSignals(was)


def fill_combo(combo, entries, current) -> None:
    """Entries (text, data), the one whose data is ``current`` chosen; the first where ``current`` says nothing.

    A value that a scene of another version has brought is an entry too, so that it is seen and can be left.
    """
    if current and current not in [entry for _, entry in entries]:
        entries = [*entries, (f"{current} (not in this version)", current)]
    with silent(combo):
        data = [entry for _, entry in entries]
        shown = [(combo.itemText(n), combo.itemData(n)) for n in range(combo.count)]
        if shown != list(entries):
            combo.clear()
            for text, value in entries:
                combo.addItem(text, value)
        combo.setCurrentIndex(data.index(current) if current in data else 0)
