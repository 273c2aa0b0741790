"""A small CT, an X-ray of it and their files, as a user of the command line would have them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from XRayRegistrationLib.drr.render import render
from XRayRegistrationLib.files.volume_file import write_counts, write_volume
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.carm import camera_from_ct_from_angles
from XRayRegistrationLib.images.volume import Volume
from XRayRegistrationLib.simulation.degradation import DegradationOptions, degrade
from XRayRegistrationLib.simulation.materials import material_volume

SPACING_MM = 2.5
SHAPE = (60, 64, 64)
CAMERA = Camera.from_spacing(96, 80, (2.5, 2.5), 1000.0)
POSE = camera_from_ct_from_angles(172.0, 6.0, 4.0, centre_ct=[3.0, 2.0, -1.0], source_object_distance_mm=700.0)


def ct_and_labels() -> tuple[Volume, Volume]:
    """A trunk of soft tissue, 130 mm wide, with four bones that have no symmetry (labels 1, 2, 3 and 5)."""
    k, j, i = np.indices(SHAPE, dtype=float)
    centre = (np.array(SHAPE) - 1) / 2
    z, y, x = (a - c for a, c in zip((k, j, i), centre, strict=True))
    z, y, x = z * SPACING_MM, y * SPACING_MM, x * SPACING_MM
    hu = np.full(SHAPE, -1000.0)
    hu[(x / 66) ** 2 + (y / 55) ** 2 < 1] = 40.0
    labels = np.zeros(SHAPE, np.uint8)
    for label, (cx, cy, cz), (rx, ry, rz) in (
        (1, (-20, 5, 15), (12, 14, 45)),
        (2, (28, -8, -20), (18, 10, 22)),
        (3, (12, 22, 38), (32, 8, 9)),
        (5, (-18, -25, -38), (14, 10, 12)),
    ):
        inside = ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 + ((z - cz) / rz) ** 2 < 1
        hu[inside], labels[inside] = 800.0 + 50 * label, label
    hu += np.random.default_rng(0).normal(0, 10, SHAPE)
    affine = np.diag([-SPACING_MM, -SPACING_MM, SPACING_MM, 1.0])  # as ITK's identity reads in RAS
    affine[:3, 3] = [centre[2] * SPACING_MM, centre[1] * SPACING_MM, -centre[0] * SPACING_MM]
    return Volume(np.round(hu).astype(np.int16), affine, "phantom"), Volume(labels, affine, "labels")


def counts_of(ct: Volume, camera: Camera = CAMERA, pose: np.ndarray = POSE) -> np.ndarray:
    """Raw detector counts, open beam bright."""
    soft, bone = render(material_volume(ct), camera, pose, step_mm=0.9)
    counts, _ = degrade(soft, bone, 1, DegradationOptions(photons_per_pixel=40_000, collimator="rectangle"))
    return np.clip(np.rint(counts), 0, 65535).astype(np.uint16)


def write_files(folder: Path) -> None:
    """ct.nii.gz, labels.nii.gz, xray.png, camera.json, pose.json, landmarks.mrk.json."""
    ct, labels = ct_and_labels()
    write_volume(folder / "ct.nii.gz", ct)
    write_volume(folder / "labels.nii.gz", labels)
    write_counts(folder / "xray.png", counts_of(ct))
    camera = {
        "width": CAMERA.width, "height": CAMERA.height, "pixel_spacing_mm": [2.5, 2.5],
        "source_detector_distance_mm": 1000.0,
    }  # fmt: skip
    (folder / "camera.json").write_text(json.dumps(camera))
    (folder / "pose.json").write_text(json.dumps({"camera_from_ct": POSE.tolist()}))
    points = [{"label": name, "position": p} for name, p in (("a", [3.0, 2.0, -1.0]), ("b", [-20.0, 5.0, 50.0]))]
    markup = {"coordinateSystem": "RAS", "controlPoints": points}
    (folder / "landmarks.mrk.json").write_text(json.dumps({"markups": [markup]}))


def write_array(path: Path, values: np.ndarray, vector: bool = False, spacing: float = 1.0) -> None:
    """An image of any kind, for bad input; ITK's identity orientation."""
    image = sitk.GetImageFromArray(values, isVector=vector)
    image.SetSpacing([spacing] * image.GetDimension())
    sitk.WriteImage(image, str(path))
