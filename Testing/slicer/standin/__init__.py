"""A stand-in for Slicer's application around the real MRML of slicer-core: PySide6 behaves as PythonQt does in Slicer.

    from Testing.slicer.application import Application
    from Testing.slicer.standin import install

    app = install(Application())
    module, widget, logic = app.load_module("XRayRegistration/XRayRegistration.py")
    widget.ui.applyButton.click()

A picture of it is a picture of a test bed, not of Slicer.
"""

from __future__ import annotations

import sys

_app = None


def install(application):
    """Put ``qt``, ``ctk``, ``slicer.app`` and what belongs to them in place, once in a process; returns ``slicer.app``."""
    global _app
    if _app is not None:
        return _app
    from . import pythonqt

    pythonqt.make_qt_module()
    import qt
    import slicer

    from . import ctk, ui_files

    sys.modules["ctk"] = ctk
    qt.QUiLoader = ui_files.UiLoader
    from . import markups_widgets, mrml_widgets, scripted_module, segment_widgets

    for source in (mrml_widgets, markups_widgets, segment_widgets, scripted_module):
        for name, value in vars(source).items():
            if name.startswith(("qMRML", "qSlicer")):
                setattr(slicer, name, value)
    from .app import StandIn
    from .dialogs import install_dialogs
    from .scene_files import install_scene_files
    from .services import install_services

    slicer.app = _app = StandIn(application)
    install_services(_app)
    install_dialogs(_app)
    install_scene_files()
    return _app
