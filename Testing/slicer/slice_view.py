"""Slicer's slice view without a window: the image that it shows, straight from its logic (no OpenGL is needed)."""

from __future__ import annotations

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy


class SliceView:
    """A slice view of the scene, with its slice node and its composite node, known to the application's logic."""

    def __init__(self, application, size: tuple[int, int] = (600, 500), name: str = "Red") -> None:
        self._application = application
        self.logic = slicer.vtkMRMLSliceLogic()
        self.logic.SetMRMLApplicationLogic(application.logic)
        self.logic.SetMRMLScene(application.scene)
        self.node = self.logic.AddSliceNode(name)
        self.node.SetDimensions(*size, 1)
        application.logic.GetSliceLogics().AddItem(self.logic)

    @property
    def composite(self):
        return self.logic.GetSliceCompositeNode()

    def picture(self) -> np.ndarray:
        """(height, width, 3) uint8, the top row first; black where nothing is shown."""
        self.logic.UpdatePipeline()
        connection = self.logic.GetImageDataConnection()
        columns, rows, _ = self.node.GetDimensions()
        if connection is None:
            return np.zeros((rows, columns, 3), np.uint8)
        connection.GetProducer().Update()
        image = connection.GetProducer().GetOutputDataObject(connection.GetIndex())
        rgba = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(rows, columns, -1)[::-1].astype(float)
        return np.round(rgba[..., :3] * rgba[..., 3:] / 255.0).astype(np.uint8)

    def pixels_of(self, world: np.ndarray) -> np.ndarray:
        """(..., 2) column and row in the picture of world points (..., 3)."""
        matrix = vtk.vtkMatrix4x4()
        vtk.vtkMatrix4x4.Invert(self.node.GetXYToRAS(), matrix)
        m = np.array([[matrix.GetElement(i, j) for j in range(4)] for i in range(4)])
        xy = world @ m[:3, :3].T + m[:3, 3]
        return np.stack([xy[..., 0], self.node.GetDimensions()[1] - 1 - xy[..., 1]], axis=-1)

    def close(self) -> None:
        """Let go of the scene; its nodes are singletons that clearing a scene keeps."""
        own = [self.composite, self.logic.GetSliceDisplayNode(), self.node]
        self._application.logic.GetSliceLogics().RemoveItem(self.logic)
        self.logic.SetMRMLScene(None)
        for node in own:
            self._application.scene.RemoveNode(node)
