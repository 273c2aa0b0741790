"""The stand-in for ``slicer.app``, with what tests ask of it: messages, answers, modules, pictures, waiting."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import qt
import shiboken6
import slicer
import slicer.util
from PySide6 import QtCore

from . import scripted_module, services
from .layout_manager import LayoutManager
from .pythonqt import SingleShot, watched


class _ModuleSelector:
    """``slicer.util.selectModule`` ends here."""

    def __init__(self, app) -> None:
        self._app = app
        self.selectedModule = ""

    def selectModule(self, name: str) -> None:
        self._app.selected_modules.append(name)
        previous, self.selectedModule = self.selectedModule, name
        for loaded in self._app.modules:
            if loaded.record.name == previous != name:
                loaded.widget.exit()
        for loaded in self._app.modules:
            if loaded.record.name == name != previous:
                loaded.widget.enter()


class _MainWindow(qt.QMainWindow):
    def __init__(self, app) -> None:
        super().__init__()
        self.setObjectName("qSlicerMainWindow")
        self._selector = _ModuleSelector(app)

    def moduleSelector(self):
        return self._selector


class StandIn:
    """``slicer.app``. Names in camel case are Slicer's; the others are for tests.

    ``messages``: (kind, text) of every dialog; kinds are info, warning, error, question, retry, install, delay, dialog.
    ``answers``: what the next dialogs answer (True, False, "Retry", a standard button); when empty, yes.
    ``files``: what the next file dialogs answer; when empty, cancelled.
    ``selected_modules``: names given to ``slicer.util.selectModule``.
    ``packages``: ``slicer.packaging``, see :class:`~services.Packages`.
    ``testing``: what ``testingEnabled()`` says. ``errors``: what failed inside callbacks, while the fixture ``gui`` is on.
    """

    applicationName = mainApplicationName = "Slicer"
    majorVersion, minorVersion = 5, 12
    applicationVersion, revision, slicerRevision, repositoryRevision = "5.12.0", "34000", "34000", "34000"
    slicerHome = os.path.dirname(slicer.__file__)

    def __init__(self, application) -> None:
        self.application, self.logic = application, application.logic
        self._folder = tempfile.TemporaryDirectory(prefix="slicer-standin-")
        self.temporaryPath = self._folder.name
        qt.QSettings.setDefaultFormat(qt.QSettings.IniFormat)
        qt.QSettings.setPath(qt.QSettings.IniFormat, qt.QSettings.UserScope, self._folder.name)
        self.qt = QtCore.QCoreApplication.instance() or qt.QApplication(["Slicer"])
        self.qt.setOrganizationName("NA-MIC")
        self.qt.setApplicationName("Slicer")
        self.qt.setQuitOnLastWindowClosed(False)
        self.qt.setStyle("Fusion")
        self._slots: dict[str, list] = {}
        self._layout_manager = LayoutManager(self)
        self._window = None
        self.modules: list[scripted_module.LoadedModule] = []
        self.reset()

    def reset(self) -> None:
        """Forget what was said, answered and chosen."""
        self.messages: list[tuple[str, str]] = []
        self.answers: list = []
        self.files: list = []
        self.file_dialogs: list[str] = []
        self.selected_modules: list[str] = []
        self.testing = False
        self.errors: list[str] = []
        slicer.modules.sampleDataSources = {}
        if hasattr(self, "packages"):
            self.packages.reset()
            services.remove_pytorch()
            slicer.dicomDatabase.__init__()
        self._layout_manager.close()
        self._layout_manager.start()

    # As in Slicer

    def applicationLogic(self):
        return self.logic

    def mrmlScene(self):
        return slicer.mrmlScene

    def processEvents(self, *_) -> None:
        self.qt.processEvents()
        self.qt.sendPostedEvents(None, int(QtCore.QEvent.DeferredDelete))

    def testingEnabled(self) -> bool:
        return self.testing

    def commandOptions(self):
        return self

    noMainWindow = False

    def userSettings(self):
        return qt.QSettings()

    settings = revisionUserSettings = userSettings

    def layoutManager(self):
        return self._layout_manager

    def topLevelWidgets(self) -> list:
        return [widget for widget in self.qt.topLevelWidgets() if widget is not self._window] + [self.mainWindow()]

    def mainWindow(self):
        if self._window is None:
            self._window = _MainWindow(self)
        return self._window

    def setOverrideCursor(self, cursor) -> None:
        qt.QApplication.setOverrideCursor(cursor)

    def restoreOverrideCursor(self) -> None:
        qt.QApplication.restoreOverrideCursor()

    def pauseRender(self) -> None:
        pass

    def resumeRender(self) -> None:
        pass

    def setRenderPaused(self, paused: bool) -> None:
        pass

    def moduleManager(self):
        return self

    def factoryManager(self):
        return self

    def loadedModuleNames(self) -> list[str]:
        return [loaded.record.name for loaded in self.modules]

    def module(self, name: str):
        return getattr(slicer.modules, name.lower(), None)

    def connect(self, signal: str, function) -> bool:
        self._slots.setdefault(signal, []).append(function)
        return True

    def disconnect(self, signal: str, function) -> bool:
        slots = self._slots.get(signal, [])
        return function in slots and not slots.remove(function)

    # For tests

    def fire(self, signal: str = "startupCompleted()", *arguments) -> None:
        """Call what was connected to a signal of the application."""
        for function in list(self._slots.get(signal, [])):
            function(*arguments)

    def load_module(self, path, enter: bool = True) -> scripted_module.LoadedModule:
        """A scripted module from its file, set up and entered: ``module, widget, logic = app.load_module(path)``."""
        loaded = scripted_module.load(path)
        self.modules.append(loaded)
        try:
            loaded.widget.setup()
            loaded.logic = getattr(loaded.widget, "logic", None)
            if enter:
                slicer.util.selectModule(loaded.record.name)
        except Exception:
            self.modules.remove(loaded)
            loaded.discard()
            raise
        self.processEvents()
        return loaded

    def close_modules(self) -> None:
        while self.modules:
            self.modules.pop().close()
        self.mainWindow().moduleSelector().selectedModule = ""
        self._slots.clear()

    def add_pytorch(self, logic_class: type = services.PyTorchUtilsLogic) -> None:
        """Pretend that the PyTorch extension is there, until the test ends."""
        services.add_pytorch(logic_class)

    def wait(self, condition, timeout_s: float = 10.0) -> None:
        """Let events run until ``condition()`` holds; AssertionError when it does not in time, or a callback failed."""
        end = time.monotonic() + timeout_s
        while not condition():
            if self.errors:
                raise AssertionError(f"an error inside a callback, while waiting:\n{self.errors[0]}")
            if time.monotonic() > end:
                raise AssertionError(f"waited {timeout_s} s in vain; said until now: {self.messages}")
            self.processEvents()
            time.sleep(0.002)

    def running(self) -> list[str]:
        """Timers and processes that still run."""
        self.processEvents()
        found = [f"QTimer.singleShot({timer.function})" for timer in SingleShot.waiting]
        for thing in filter(shiboken6.isValid, list(watched)):
            if isinstance(thing, QtCore.QTimer) and thing.isActive():
                found.append(f"QTimer of {thing.parent()}, every {thing.interval} ms")
            elif isinstance(thing, QtCore.QProcess) and thing.state() != QtCore.QProcess.NotRunning:
                found.append(f"QProcess {thing.program()} {thing.arguments()}")
        return found

    def picture(self, path, width: int = 1400, height: int = 900, panel_width: int = 440) -> Path:
        """Draw the window with the first module's panel at the left and the layout's views at the right into a file."""
        manager, panel = self.layoutManager(), self.modules[0].panel if self.modules else qt.QWidget()
        window, scroll = qt.QWidget(), qt.QScrollArea()
        row = qt.QHBoxLayout(window)
        row.setContentsMargins(0, 0, 0, 0)
        scroll.setWidgetResizable(True)
        scroll.setHorizontalScrollBarPolicy(qt.Qt.ScrollBarAlwaysOff)
        scroll.setFixedWidth(max(panel_width, panel.minimumSizeHint().width() + 20))
        scroll.setWidget(panel)
        row.addWidget(scroll)
        row.addWidget(manager.viewport, 1)
        manager.arrange()
        window.resize(width, height)
        window.show()
        self.processEvents()
        for view in manager.shown_views():
            view.forceRender()
        self.processEvents()
        saved = window.grab().save(str(path))
        scroll.takeWidget().setParent(None)
        manager.viewport.setParent(None)
        window.close()
        window.deleteLater()
        self.processEvents()
        if not saved:
            raise OSError(f"could not write {path}")
        return Path(path)

    def close(self) -> None:
        """Let go of modules, views and their nodes; :meth:`reset` brings the views back."""
        self.close_modules()
        self._layout_manager.close()
