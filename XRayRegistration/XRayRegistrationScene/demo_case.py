"""A demo case in the scene: a CT, an X-ray of it from a place that nobody tells the registration."""

from __future__ import annotations

import json

import numpy as np
import slicer

from XRayRegistrationLib.geometry.rigid import inverse, transform_points
from XRayRegistrationLib.simulation.demo_case import make_demo_case

from .volume_nodes import set_volume, volume_of
from .xray_nodes import add_xray, camera_from_world_of

_TRUTH = "XRayRegistration.TrueCameraFromWorld"  # JSON (4, 4), for the tests; nothing else reads it


def add_torso(seed=1):
    """The CT of a torso made of simple shapes, and an X-ray of it. Nothing is downloaded. Returns both nodes."""
    case = make_demo_case(seed=seed)
    ct_node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", slicer.mrmlScene.GenerateUniqueName("Demo CT"))
    set_volume(ct_node, case.ct)
    ct_node.CreateDefaultDisplayNodes()
    return ct_node, _add_xray(case)


def add_xray_of(ct_node, seed=1):
    """A simulated X-ray of a CT in the scene. Returns its node."""
    return _add_xray(make_demo_case(volume_of(ct_node), seed=seed))


def download_torso(source):
    """For Slicer's Sample Data: nothing to download. Returns the nodes."""
    return list(add_torso())


def download_chest(source):
    """For Slicer's Sample Data: Slicer's own chest CT, which it downloads, and a simulated X-ray of it."""
    import SampleData

    ct_node = SampleData.SampleDataLogic().downloadCTChest()
    return [ct_node, add_xray_of(ct_node)]


def error_mm(xray_node, size_mm=100.0):
    """How far a demo X-ray's pose is from the true one: mean over the corners of a box around the world's origin."""
    true = np.array(json.loads(xray_node.GetAttribute(_TRUTH)))
    # in front of the source, where the patient is
    centre = transform_points(inverse(true), np.array([[0.0, 0.0, 700.0]]))
    corners = centre + size_mm * np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
    found = camera_from_world_of(xray_node)
    return float(np.linalg.norm(transform_points(found, corners) - transform_points(true, corners), axis=1).mean())


def _add_xray(case):
    given = dict.fromkeys(("source_detector_distance_mm", "pixel_spacing_mm", "principal_point_px"), "given")
    node = add_xray(case.values, case.camera, "Demo X-ray", given)
    node.SetAttribute(_TRUTH, json.dumps(case.camera_from_ct.tolist()))
    return node
