"""The X-ray's beam as lines in 3D: from the source to the detector's corners, around it, and along the axis."""

from __future__ import annotations

import numpy as np
import slicer
import vtk

from .xray_nodes import NOMINAL_SDD_MM, camera_of

REFERENCE = "XRayRegistration.Frustum"  # of the X-ray node to its model
_COLOUR = (1.0, 0.8, 0.2)


def corners(camera):
    """(4, 3) mm in camera coordinates: the image's corners (not its corner pixels' centres) on the detector."""
    sdd = camera.source_detector_distance_mm or NOMINAL_SDD_MM
    right, low = camera.width - 0.5, camera.height - 0.5
    pixels = np.array([[-0.5, -0.5, 1.0], [right, -0.5, 1.0], [right, low, 1.0], [-0.5, low, 1.0]])
    return sdd * pixels @ np.linalg.inv(camera.K).T


def update_frustum(xray_node):
    """Make or renew the model of an X-ray's beam, under the X-ray's own transform, and return it."""
    model = xray_node.GetNodeReference(REFERENCE)
    if model is None:
        model = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLModelNode", f"{xray_node.GetName()} beam")
        model.CreateDefaultDisplayNodes()
        display = model.GetDisplayNode()
        display.SetColor(*_COLOUR)
        display.SetLineWidth(2)
        display.SetLighting(False)
        xray_node.SetNodeReferenceID(REFERENCE, model.GetID())
    model.SetAndObservePolyData(_lines(camera_of(xray_node)))
    model.SetAndObserveTransformNodeID(xray_node.GetTransformNodeID())
    return model


def _lines(camera):
    ends = corners(camera)
    points = vtk.vtkPoints()
    for point in (np.zeros(3), *ends):
        points.InsertNextPoint(*point)
    cells = vtk.vtkCellArray()
    for pair in [(0, n) for n in range(1, 5)] + [(1, 2), (2, 3), (3, 4), (4, 1)]:
        cells.InsertNextCell(2)
        for n in pair:
            cells.InsertCellPoint(n)
    out = vtk.vtkPolyData()
    out.SetPoints(points)
    out.SetLines(cells)
    return out
