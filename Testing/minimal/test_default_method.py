"""The default method with NumPy, SciPy, SimpleITK and pydicom alone: the same result, only slower."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from Testing.unit.ct_phantom import CAMERA, ct_phantom, xray_of
from XRayRegistrationLib.bone.model import build_bone_model
from XRayRegistrationLib.drr.render import resolve_backend
from XRayRegistrationLib.geometry.rigid import increment_left, transform_points
from XRayRegistrationLib.registration import register
from XRayRegistrationLib.simulation.poses import pose_at, rotation_from_angles


def test_registers_without_a_start_and_from_one() -> None:
    assert resolve_backend("auto") == "scipy"
    ct = ct_phantom(spacing_mm=2.5)
    model = build_bone_model(ct)
    pose = pose_at(rotation_from_angles(-140.0, 10.0, 12.0), CAMERA, model.centroid, (50.0, 38.0), 680.0)
    xray = xray_of(ct, CAMERA, pose)
    near = increment_left(pose, (0.1, -0.1, 0.1, 10, 10, -15), transform_points(pose, model.centroid))
    for start in ("none", near):
        result = register(ct, xray, bone=model, start=start)
        points = model.surface_points
        error = transform_points(result.camera_from_ct, points) - transform_points(pose, points)
        assert result.status == "success"
        assert np.linalg.norm(error, axis=1).mean() < 0.6
