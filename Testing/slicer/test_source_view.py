"""Seen from the X-ray's source, the bone lies on its shadow exactly when the pose is right."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
import slicer.util
from scipy import ndimage
from XRayRegistrationScene import bone_nodes, source_view, volume_nodes, xray_nodes

from Testing.slicer.view import View3D, can_render
from Testing.unit.ct_phantom import CAMERA, ct_phantom
from XRayRegistrationLib.bone.model import build_bone_model
from XRayRegistrationLib.drr.render import render
from XRayRegistrationLib.drr.volume import AttenuationVolume
from XRayRegistrationLib.simulation.poses import pose_at, rotation_from_angles

pytestmark = [
    pytest.mark.usefixtures("scene"),
    pytest.mark.skipif(not can_render(), reason="this machine renders nothing offscreen (EGL or OSMesa is missing)"),
]


@pytest.fixture
def view(application, scene):
    view = View3D(application, (5 * CAMERA.width, 5 * CAMERA.height))
    yield view
    view.close()


def _bone_surface(ct_node):
    """The segmentation's surface as a model, which is what the view shows."""
    segmentation = bone_nodes.segment_bone_of(ct_node)
    model = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLModelNode", "bone surface")
    segment = segmentation.GetSegmentation().GetNthSegmentID(0)
    model.SetAndObservePolyData(segmentation.GetClosedSurfaceInternalRepresentation(segment))
    model.CreateDefaultDisplayNodes()
    model.GetDisplayNode().SetColor(1.0, 0.0, 0.0)
    return model


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def test_the_bone_lies_on_its_shadow(view) -> None:
    ct = ct_phantom()
    model = build_bone_model(ct)
    ct_node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "ct")
    volume_nodes.set_volume(ct_node, ct)
    _bone_surface(ct_node)
    camera_from_ct = pose_at(rotation_from_angles(35.0, -20.0, 8.0), CAMERA, model.centroid, (52.0, 36.0), 690.0)
    node = xray_nodes.add_xray(np.zeros((CAMERA.height, CAMERA.width), np.float32), CAMERA, "shot")
    xray_nodes.set_camera_from_world(node, camera_from_ct)
    source_view.look_from_source(node, view.camera_node)
    seen = view.picture().astype(int)
    red = (seen[..., 0] > seen[..., 1] + 30) & (seen[..., 0] > seen[..., 2] + 30)
    mask = AttenuationVolume(model.mask.values.astype(np.float32), ct.ras_from_ijk)
    shadow = render(mask, CAMERA, camera_from_ct, backend="scipy", step_mm=1.0) > 2.0
    # the view's height spans the X-ray's longer side
    height, width = red.shape
    pixel = CAMERA.width / height  # X-ray pixels per picture pixel
    v, u = np.mgrid[: CAMERA.height, : CAMERA.width]
    rows = (v - (CAMERA.height - 1) / 2) / pixel + (height - 1) / 2
    columns = (u - (CAMERA.width - 1) / 2) / pixel + (width - 1) / 2
    silhouette = ndimage.map_coordinates(red.astype(float), [rows, columns], order=1) > 0.5
    assert shadow.sum() > 500
    assert _overlap(silhouette, shadow) > 0.9
    assert _overlap(silhouette, np.roll(shadow, 3, axis=1)) < _overlap(silhouette, shadow) - 0.1
