"""What the Slicer application adds to ``slicer-core``: a scene with its module logics, ready for scripts.

``slicer-core`` is Slicer's own C++ without the application. :class:`Application` makes ``slicer.mrmlScene`` and
``slicer.modules`` as the application does at start-up, so that scene code runs on the real thing.
"""

from __future__ import annotations

import tempfile
from types import SimpleNamespace

import slicer
import slicer.util
import vtk

# module: class of its logic
_LOGICS = {
    "Annotations": "vtkSlicerAnnotationModuleLogic",
    "Cameras": "vtkSlicerCamerasModuleLogic",
    "Colors": "vtkSlicerColorLogic",
    "CropVolume": "vtkSlicerCropVolumeLogic",
    "Markups": "vtkSlicerMarkupsLogic",
    "Models": "vtkSlicerModelsLogic",
    "Plots": "vtkSlicerPlotsLogic",
    "Segmentations": "vtkSlicerSegmentationsModuleLogic",
    "Sequences": "vtkSlicerSequencesLogic",
    "SubjectHierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
    "Tables": "vtkSlicerTablesLogic",
    "Transforms": "vtkSlicerTransformLogic",
    "Units": "vtkSlicerUnitsLogic",
    "Volumes": "vtkSlicerVolumesLogic",
}


class Application:
    """The scene and its logics."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="slicer-cache-")
        self.scene = slicer.vtkMRMLScene()
        self.logic = slicer.vtkSlicerApplicationLogic()
        self.logic.SetMRMLScene(self.scene)
        self.logic.SetSliceLogics(vtk.vtkCollection())
        self.logic.SetViewLogics(vtk.vtkCollection())
        slicer.mrmlScene = self.scene
        self._remote = slicer.vtkMRMLRemoteIOLogic()  # reading an .mrb fails without a cache folder
        self._remote.GetCacheManager().SetRemoteCacheDirectory(self._folder.name)
        self._remote.SetMRMLScene(self.scene)
        self._remote.AddDataIOToScene()
        colors = self.logic.GetColorLogic()
        colors.SetMRMLScene(self.scene)
        colors.AddDefaultColorNodes()
        self.logic.SetModuleLogic("Colors", colors)
        slicer.modules = SimpleNamespace()
        self._logics = {}
        for module, name in _LOGICS.items():
            kind = getattr(slicer, name, None)
            if kind is None:
                continue
            logic = colors if module == "Colors" else kind()
            if module != "Colors":
                if hasattr(logic, "SetModuleShareDirectory"):
                    logic.SetModuleShareDirectory(self._folder.name)
                if hasattr(logic, "SetMRMLApplicationLogic"):
                    logic.SetMRMLApplicationLogic(self.logic)
                logic.SetMRMLScene(self.scene)
                self.logic.SetModuleLogic(module, logic)
            self._logics[module] = logic
            setattr(slicer.modules, module.lower(), SimpleNamespace(logic=lambda logic=logic: logic))
        slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(self.scene, True)
        slicer.app = SimpleNamespace(applicationLogic=lambda: self.logic, processEvents=lambda: None)

    def clear(self) -> None:
        """An empty scene, as after File, Close Scene."""
        self.scene.Clear(0)
