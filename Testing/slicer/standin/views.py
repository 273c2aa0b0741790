"""Slice and 3D views: Slicer's own displayable managers on offscreen render windows, painted into Qt widgets.

A view renders when it is asked to, never by itself: a software renderer takes its time.
"""

from __future__ import annotations

import numpy as np
import qt
import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy

from Testing.slicer.view import can_render

_MANAGERS_3D = (
    "vtkMRMLCameraDisplayableManager", "vtkMRMLViewDisplayableManager", "vtkMRMLModelDisplayableManager",
    "vtkMRMLThreeDReformatDisplayableManager", "vtkMRMLMarkupsDisplayableManager", "vtkMRMLSegmentationsDisplayableManager3D",
)  # fmt: skip
_MANAGERS_2D = (
    "vtkMRMLModelSliceDisplayableManager", "vtkMRMLMarkupsDisplayableManager", "vtkMRMLSegmentationsDisplayableManager2D",
    "vtkMRMLCrosshairDisplayableManager",
)  # fmt: skip
BAR = 18  # px, the coloured bar with the view's name


class ViewWidget(qt.QWidget):
    """A view's widget and, as ``sliceView()`` or ``threeDView()``, the view itself."""

    def __init__(self, app, node) -> None:
        super().__init__()
        self.setObjectName(node.GetLayoutName())
        self.setMinimumSize(60, 60)
        self._app, self._node, self._group, self._picture = app, node, None, None
        self._colour, self._label = qt.QColor(110, 110, 130), node.GetLayoutLabel() or node.GetLayoutName()

    def _open(self) -> None:
        """Make window and managers, at first use."""
        if self._group is not None:
            return
        self._window = vtk.vtkRenderWindow()
        self._window.SetOffScreenRendering(1)
        self._window.SetMultiSamples(0)
        self._window.SetSize(400, 300)
        self._renderer = vtk.vtkRenderer()
        self._window.AddRenderer(self._renderer)
        self._interactor = vtk.vtkGenericRenderWindowInteractor()
        self._interactor.SetRenderWindow(self._window)
        factory = self._factory.GetInstance()
        factory.SetMRMLApplicationLogic(self._app.logic)
        for name in self._managers:
            if not factory.IsDisplayableManagerRegistered(name):
                factory.RegisterDisplayableManager(name)
        self._group = factory.InstantiateDisplayableManagers(self._renderer)
        self._group.SetMRMLDisplayableNode(self._node)

    def picture(self, width: int = 400, height: int = 300) -> np.ndarray:
        """The view rendered now: (height, width, 3) uint8, the top row first."""
        if not can_render():
            return np.zeros((height, width, 3), np.uint8)
        self._open()
        self._window.SetSize(width, height)
        self._before_render(width, height)
        self._window.Render()
        grab = vtk.vtkWindowToImageFilter()
        grab.SetInput(self._window)
        grab.ReadFrontBufferOff()
        grab.Update()
        image = grab.GetOutput()
        columns, rows, _ = image.GetDimensions()
        return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(rows, columns, -1)[::-1, :, :3].copy()

    def _before_render(self, width: int, height: int) -> None:
        pass

    def forceRender(self) -> None:
        """Render at the widget's size, and show it."""
        pixels = np.ascontiguousarray(self.picture(max(self.width, 32), max(self.height - BAR, 32)))
        height, width, _ = pixels.shape
        picture = qt.QImage(pixels.data, width, height, 3 * width, qt.QImage.Format_RGB888)
        self._picture = qt.QPixmap.fromImage(picture)
        self.update()

    def scheduleRender(self) -> None:
        pass

    def paintEvent(self, event) -> None:
        painter = qt.QPainter(self)
        painter.fillRect(self.rect, qt.QColor(0, 0, 0))
        if self._picture is not None:
            painter.drawPixmap(0, BAR, self._picture)
        painter.fillRect(0, 0, self.width, BAR, self._colour)
        painter.drawText(qt.QRect(6, 0, self.width, BAR), qt.Qt.AlignVCenter, self._title())
        painter.end()

    def _title(self) -> str:
        return self._label

    def renderWindow(self):
        self._open()
        return self._window

    def interactor(self):
        self._open()
        return self._interactor

    def displayableManagerByClassName(self, name: str):
        self._open()
        every = (self._group.GetNthDisplayableManager(n) for n in range(self._group.GetDisplayableManagerCount()))
        return next((manager for manager in every if manager.IsA(name)), None)

    def close_view(self) -> None:
        """Let go of the scene and of the window."""
        if self._group is not None:
            self._group.SetMRMLDisplayableNode(None)
            self._window.Finalize()
            self._group = None


class OtherWidget(qt.QLabel):
    """A place for a table, a plot or another view that the stand-in does not draw."""

    def __init__(self, app, node) -> None:
        super().__init__(f"{node.GetClassName()} {node.GetLayoutName()}")

    def close_view(self) -> None:
        pass


class SliceWidget(ViewWidget):
    """A slice view with its real logic."""

    _factory, _managers = slicer.vtkMRMLSliceViewDisplayableManagerFactory, _MANAGERS_2D

    def __init__(self, app, node) -> None:
        super().__init__(app, node)
        self._colour = qt.QColor.fromRgbF(*node.GetLayoutColor())
        self._logic = slicer.vtkMRMLSliceLogic()
        self._logic.SetMRMLApplicationLogic(app.logic)
        self._logic.SetMRMLScene(slicer.mrmlScene)
        self._logic.SetSliceNode(node)
        self._logic.GetSliceCompositeNode()
        app.logic.GetSliceLogics().AddItem(self._logic)
        self._mapper = vtk.vtkImageMapper()
        self._mapper.SetColorWindow(255)
        self._mapper.SetColorLevel(127.5)

    def _open(self) -> None:
        if self._group is None:
            super()._open()
            self._image = vtk.vtkActor2D()
            self._image.SetMapper(self._mapper)
            self._renderer.AddViewProp(self._image)
            self._renderer.GetActiveCamera().ParallelProjectionOn()

    def _before_render(self, width: int, height: int) -> None:
        if tuple(self._node.GetDimensions()[:2]) != (width, height):
            self._logic.ResizeSliceNode(width, height)
        self._logic.UpdatePipeline()
        connection = self._logic.GetImageDataConnection()
        self._mapper.SetInputConnection(connection)
        self._image.SetVisibility(connection is not None)

    def _title(self) -> str:
        return f"{self._label}: {self._logic.GetSliceOffset():.1f} mm"

    def sliceLogic(self):
        return self._logic

    def mrmlSliceNode(self):
        return self._node

    def mrmlSliceCompositeNode(self):
        return self._logic.GetSliceCompositeNode()

    def sliceView(self):
        return self

    def sliceController(self):
        return self

    def fitSliceToBackground(self) -> None:
        self._logic.FitSliceToBackground()

    def setSliceOffsetValue(self, offset: float) -> None:
        self._logic.SetSliceOffset(offset)

    def close_view(self) -> None:
        super().close_view()
        self._mapper.SetInputConnection(None)
        self._app.logic.GetSliceLogics().RemoveItem(self._logic)
        self._logic.SetMRMLScene(None)


class ThreeDWidget(ViewWidget):
    """A 3D view with its camera."""

    _factory, _managers = slicer.vtkMRMLThreeDViewDisplayableManagerFactory, _MANAGERS_3D

    def __init__(self, app, node) -> None:
        super().__init__(app, node)
        self._logic = slicer.vtkMRMLViewLogic()
        self._logic.SetMRMLApplicationLogic(app.logic)
        self._logic.SetMRMLScene(slicer.mrmlScene)
        self._logic.AddViewNode(node.GetLayoutName())
        app.logic.GetViewLogics().AddItem(self._logic)

    def mrmlViewNode(self):
        return self._node

    def viewLogic(self):
        return self._logic

    def threeDView(self):
        return self

    def threeDController(self):
        return self

    def cameraNode(self):
        self._open()
        return slicer.modules.cameras.logic().GetViewActiveCameraNode(self._node)

    def resetFocalPoint(self) -> None:
        """Turn to the middle of what is visible."""
        self._open()
        bounds = self._renderer.ComputeVisiblePropBounds()
        if bounds[0] <= bounds[1]:
            self.cameraNode().SetFocalPoint(*((bounds[i] + bounds[i + 1]) / 2 for i in (0, 2, 4)))
        self._renderer.ResetCameraClippingRange()

    def resetCamera(self, *_) -> None:
        self._open()
        self._renderer.ResetCamera()

    def close_view(self) -> None:
        super().close_view()
        self._app.logic.GetViewLogics().RemoveItem(self._logic)
        self._logic.SetMRMLScene(None)
