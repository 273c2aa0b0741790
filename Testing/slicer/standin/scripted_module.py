"""``slicer.ScriptedLoadableModule``: the base classes of a scripted module, after its documented behaviour."""

from __future__ import annotations

import importlib.util
import os
import sys
import unittest
from dataclasses import dataclass
from pathlib import Path

import qt
import slicer
import slicer.util

from . import mrml_widgets


class ModuleRecord:
    """What Slicer's C++ keeps of a module: ``slicer.modules.name``, and the ``parent`` of its Python class."""

    def __init__(self, name: str, path: str) -> None:
        self.name, self.path = name, path
        self.title, self.categories, self.dependencies, self.contributors = name, [], [], []
        self.helpText = self.acknowledgementText = ""
        self.icon, self.hidden, self.associatedNodeTypes, self.index = qt.QIcon(), False, [], -1
        self._panel = None

    def widgetRepresentation(self):
        return self._panel

    def createNewWidgetRepresentation(self):
        raise NotImplementedError("the stand-in makes one panel for a module")

    def logic(self):
        return getattr(self._panel.self(), "logic", None) if self._panel is not None else None


class qSlicerScriptedLoadableModule(ModuleRecord):
    """The name by which ``slicer.util.getModuleLogic`` knows a scripted module."""


class qSlicerScriptedLoadableModuleWidget(mrml_widgets.qMRMLWidget):
    """The panel of a scripted module; ``self()`` is its Python class."""

    _python = None

    def self(self):
        return self._python


class ScriptedLoadableModule:
    def __init__(self, parent) -> None:
        self.parent = parent
        self.moduleName = type(self).__name__
        parent.title = ""
        parent.categories = []
        parent.dependencies = []
        parent.contributors = []
        parent.helpText = parent.acknowledgementText = ""
        parent.hidden = False

    def resourcePath(self, filename: str) -> str:
        return os.path.join(os.path.dirname(slicer.util.modulePath(self.moduleName)), "Resources", filename)

    def getDefaultModuleDocumentationLink(self, docPage=None) -> str:
        return f'<p>For more information see the <a href="https://example.org/{self.moduleName}">online documentation</a>.</p>'

    def runTest(self, msec: int = 100, **kwargs) -> None:
        test = getattr(sys.modules[type(self).__module__], self.moduleName + "Test")()
        test.messageDelay = msec
        test.runTest(**kwargs)


class ScriptedLoadableModuleWidget:
    def __init__(self, parent=None) -> None:
        self.moduleName = type(self).__name__.removesuffix("Widget")
        self.developerMode = slicer.util.settingsValue("Developer/DeveloperMode", False, converter=slicer.util.toBool)
        if parent is None:
            self.parent = mrml_widgets.qMRMLWidget()
            self.parent.setLayout(qt.QVBoxLayout())
            self.parent.setMRMLScene(slicer.mrmlScene)
        else:
            self.parent = parent
        self.layout = self.parent.layout()
        setattr(slicer.modules, type(self).__name__, self)
        if parent is None:
            self.setup()
            self.parent.show()

    def resourcePath(self, filename: str) -> str:
        return os.path.join(os.path.dirname(slicer.util.modulePath(self.moduleName)), "Resources", filename)

    def setup(self) -> None:
        """The section "Reload and Test", for developers only, is left out."""

    def cleanup(self) -> None:
        pass

    def enter(self) -> None:
        pass

    def exit(self) -> None:
        pass


class ScriptedLoadableModuleLogic:
    def __init__(self, parent=None) -> None:
        self.moduleName = type(self).__name__.removesuffix("Logic")
        self.isSingletonParameterNode = True

    def createParameterNode(self):
        node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLScriptedModuleNode")
        node.UnRegister(None)
        if self.isSingletonParameterNode:
            node.SetSingletonTag(self.moduleName)
        node.SetModuleName(self.moduleName)
        node.SetName(slicer.mrmlScene.GenerateUniqueName(self.moduleName))
        return node

    def getAllParameterNodes(self) -> list:
        nodes = slicer.util.getNodesByClass("vtkMRMLScriptedModuleNode")
        return [node for node in nodes if node.GetModuleName() == self.moduleName]

    def getParameterNode(self):
        """The module's node in the scene, made at the first call."""
        if self.isSingletonParameterNode:
            node = slicer.mrmlScene.GetSingletonNode(self.moduleName, "vtkMRMLScriptedModuleNode")
            if node is not None:
                return node
        elif self.getAllParameterNodes():
            return self.getAllParameterNodes()[0]
        return slicer.mrmlScene.AddNode(self.createParameterNode())


class ScriptedLoadableModuleTest(unittest.TestCase):
    messageDelay = 0
    enableScreenshots = 0

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)

    def setUp(self) -> None:
        slicer.mrmlScene.Clear(0)

    def delayDisplay(self, message, requestedDelay=None, msec=None) -> None:
        slicer.util.delayDisplay(message, 0)

    def takeScreenshot(self, name, description="", type=-1) -> None:
        slicer.app.messages.append(("screenshot", name))

    def runTest(self) -> None:
        raise NotImplementedError


# What ``slicer.ScriptedLoadableModule`` offers.
_BASES = (ScriptedLoadableModule, ScriptedLoadableModuleWidget, ScriptedLoadableModuleLogic, ScriptedLoadableModuleTest)
PUBLIC = {base.__name__: base for base in _BASES}


@dataclass
class LoadedModule:
    """A module as :meth:`StandIn.load_module` gives it: ``module, widget, logic = app.load_module(path)``."""

    module: object
    widget: object
    logic: object
    panel: object
    record: ModuleRecord

    def __iter__(self):
        return iter((self.module, self.widget, self.logic))

    def close(self) -> None:
        """As when Slicer quits."""
        try:
            self.widget.exit()
            self.widget.cleanup()
        finally:
            self.discard()

    def discard(self) -> None:
        """Remove panel and names; of a module whose ``setup`` or ``enter`` failed too."""
        if hasattr(self.widget, "removeObservers"):
            self.widget.removeObservers()
        self.panel.setParent(None)
        self.panel.delete()
        for name in (self.record.name.lower(), self.record.name + "Widget"):
            if hasattr(slicer.modules, name):
                delattr(slicer.modules, name)


def load(path) -> LoadedModule:
    """Import a module's file as Slicer does, and make its class and its panel, without ``setup``."""
    path = Path(path).resolve()
    name = path.stem
    if str(path.parent) not in sys.path:  # so that the module finds what lies beside it
        sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(name, path)
    code = importlib.util.module_from_spec(spec)
    sys.modules[name] = code
    spec.loader.exec_module(code)
    record = qSlicerScriptedLoadableModule(name, str(path))
    setattr(slicer.modules, name.lower(), record)
    module = getattr(code, name)(record)
    panel = qSlicerScriptedLoadableModuleWidget()
    panel.setObjectName(name + "Module")
    panel.setLayout(qt.QVBoxLayout())
    panel.setMRMLScene(slicer.mrmlScene)
    widget = getattr(code, name + "Widget")(panel)
    panel._python, record._panel = widget, panel
    return LoadedModule(module, widget, None, panel, record)
