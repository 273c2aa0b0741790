"""The CT's projection at an X-ray's pose, as a volume that lies exactly on the X-ray."""

from __future__ import annotations

import numpy as np
import slicer
import slicer.util
import vtk

from XRayRegistrationLib.drr.render import default_step_mm, render, resolve_backend

from .xray_nodes import NOMINAL_SDD_MM, camera_from_world_of, camera_of

_PATIENT_AT = 0.7  # of the way to the detector
_VOXELS = {False: 0.5, True: 1.0}  # by pixels at the patient, for a quick DRR; the plain renderer needs larger ones
REFERENCE = "XRayRegistration.Drr"  # of the X-ray node to its DRR


def drr_image(attenuation, xray_node, largest_px=None, backend="auto"):
    """(height, width) float32 line integrals, bone bright, of an AttenuationVolume in world coordinates.

    Args:
        attenuation: drr.volume.AttenuationVolume, world RAS.
        xray_node: whose camera and pose are taken.
        largest_px: longer side; None for every pixel of the X-ray. Fewer are quicker, and then voxels and samples
            are no finer than the pixels need.
        backend: of the renderer.
    """
    camera = camera_of(xray_node)
    if largest_px is not None and max(camera.width, camera.height) > largest_px:
        scale = largest_px / max(camera.width, camera.height)
        camera = camera.resized(max(1, round(scale * camera.width)), max(1, round(scale * camera.height)))
    step = None
    if largest_px is not None:
        at_patient = _PATIENT_AT * NOMINAL_SDD_MM / max(camera.K[0, 0], camera.K[1, 1])
        if camera.source_detector_distance_mm is not None:
            at_patient *= camera.source_detector_distance_mm / NOMINAL_SDD_MM
        attenuation = attenuation.coarser(_VOXELS[resolve_backend(backend) == "scipy"] * at_patient)
        step = 2 * default_step_mm(attenuation)
    return render(attenuation, camera, camera_from_world_of(xray_node), backend=backend, step_mm=step)


def update_drr(xray_node, image):
    """Make or renew the X-ray's DRR node from :func:`drr_image`, coarser ones stretched over the same area."""
    node = xray_node.GetNodeReference(REFERENCE)
    if node is None:
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", f"{xray_node.GetName()} DRR")
        xray_node.SetNodeReferenceID(REFERENCE, node.GetID())
    lay_on_xray(node, xray_node, image)
    if node.GetDisplayNode() is None:
        node.CreateDefaultDisplayNodes()
    return node


def lay_on_xray(node, xray_node, image):
    """Fill a volume node with an image (height, width) of any size and stretch it over the X-ray's area."""
    height, width = image.shape
    columns, rows, _ = xray_node.GetImageData().GetDimensions()
    full_from_image = vtk.vtkMatrix4x4()  # u = (u' + 0.5) s - 0.5
    for axis, scale in enumerate((columns / width, rows / height)):
        full_from_image.SetElement(axis, axis, scale)
        full_from_image.SetElement(axis, 3, 0.5 * scale - 0.5)
    camera_from_ijk = vtk.vtkMatrix4x4()
    xray_node.GetIJKToRASMatrix(camera_from_ijk)
    vtk.vtkMatrix4x4.Multiply4x4(camera_from_ijk, full_from_image, camera_from_ijk)
    node.SetIJKToRASMatrix(camera_from_ijk)
    slicer.util.updateVolumeFromArray(node, np.ascontiguousarray(image[None], dtype=np.float32))
    node.SetAndObserveTransformNodeID(xray_node.GetTransformNodeID())
