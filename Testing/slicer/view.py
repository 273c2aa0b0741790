"""Slicer's 3D view without a window: its own displayable managers on an offscreen render window."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache

os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy

_MANAGERS = (
    "vtkMRMLCameraDisplayableManager",
    "vtkMRMLViewDisplayableManager",
    "vtkMRMLModelDisplayableManager",
    "vtkMRMLThreeDReformatDisplayableManager",
    "vtkMRMLMarkupsDisplayableManager",
)
_PROBE = "import vtk; w = vtk.vtkRenderWindow(); w.SetOffScreenRendering(1); w.Render(); assert w.SupportsOpenGL()"


@cache
def can_render() -> bool:
    """Whether this machine renders offscreen; tried in a process of its own, for a driver may abort it."""
    return subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, timeout=60).returncode == 0


class View3D:
    """A 3D view of the scene, with its view node and camera."""

    def __init__(self, application, size: tuple[int, int] = (600, 500)) -> None:
        self.window = vtk.vtkRenderWindow()
        self.window.SetOffScreenRendering(1)
        self.window.SetMultiSamples(0)
        self.window.SetSize(*size)
        renderer = vtk.vtkRenderer()
        self.window.AddRenderer(renderer)
        self._interactor = vtk.vtkGenericRenderWindowInteractor()
        self._interactor.SetRenderWindow(self.window)
        factory = slicer.vtkMRMLThreeDViewDisplayableManagerFactory.GetInstance()
        factory.SetMRMLApplicationLogic(application.logic)
        for name in _MANAGERS:
            if not factory.IsDisplayableManagerRegistered(name):
                factory.RegisterDisplayableManager(name)
        self._logic = slicer.vtkMRMLViewLogic()
        self._logic.SetMRMLApplicationLogic(application.logic)
        self._logic.SetMRMLScene(application.scene)
        self.node = self._logic.AddViewNode("1")
        self._managers = factory.InstantiateDisplayableManagers(renderer)
        self._managers.SetMRMLDisplayableNode(self.node)

    @property
    def camera_node(self):
        return slicer.modules.cameras.logic().GetViewActiveCameraNode(self.node)

    def picture(self) -> np.ndarray:
        """(height, width, 3) uint8, the top row first."""
        self.window.Render()
        grab = vtk.vtkWindowToImageFilter()
        grab.SetInput(self.window)
        grab.ReadFrontBufferOff()
        grab.Update()
        image = grab.GetOutput()
        width, height, _ = image.GetDimensions()
        return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(height, width, -1)[::-1].copy()

    def close(self) -> None:
        """Let go of scene and window."""
        self._managers.SetMRMLDisplayableNode(None)
        self._logic.SetMRMLScene(None)
        self.window.Finalize()
