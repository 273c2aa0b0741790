"""Real files: the wrist's X-rays, a scanner's slices and scout, and every CT there is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from bone_phantoms import shared_data

from XRayRegistrationLib.images.camera_file import read_camera
from XRayRegistrationLib.images.ct import read_ct, read_labels
from XRayRegistrationLib.images.xray_file import read_xray

pytestmark = pytest.mark.skipif(shared_data() is None, reason="../shared/data (or XRAYREG_DATA) is absent")


def data(name: str) -> Path:
    return Path(shared_data() or "") / name


@pytest.mark.parametrize("view", ["cam1_frame0002", "cam2_frame0002", "cam1_frame0099", "cam2_frame0099"])
def test_wrist(view):
    path = data(f"wrist/{view}.tif")
    raw = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    xray = read_xray(path, read_camera(data(f"wrist/{view[:4]}_mayacam.txt")))
    assert xray.camera.camera_from_rig is not None
    assert not (xray.mask & (raw < 5)).any()  # nothing of the black outside
    assert (xray.mask & (raw > 60)).sum() > 0.97 * (raw > 60).sum()  # nearly all of the round image
    assert xray.provenance["polarity"].startswith("found: bone dark")
    inside = xray.mask
    # the open beam is at 0, the forearm's bones are bright
    assert np.abs(np.median(xray.line_integrals[inside & (raw > 230)])) < 0.15
    assert xray.line_integrals[inside & (raw < 80)].min() > 0.9
    assert np.corrcoef(xray.line_integrals[inside], raw[inside])[0, 1] < -0.9
    inverted = read_xray(path, read_camera(data(f"wrist/{view[:4]}_mayacam.txt")), polarity="bone_bright")
    assert inverted.provenance["polarity"] == "given: bone bright"


def test_wrist_inverted_is_bone_bright(tmp_path):
    raw = sitk.ReadImage(str(data("wrist/cam1_frame0099.tif")))
    sitk.WriteImage(sitk.InvertIntensity(raw, 255), str(tmp_path / "x.png"))
    xray = read_xray(tmp_path / "x.png", read_camera(data("wrist/cam1_mayacam.txt")))
    assert "bone bright" in xray.provenance["polarity"]
    assert xray.mask.mean() == pytest.approx(0.76, abs=0.02)


def test_dicom_ct():
    ct = read_ct(data("dicom_ct"))
    assert ct.values.shape == (20, 512, 512)
    np.testing.assert_allclose(ct.spacing_mm, (0.9765625, 0.9765625, 2.0))
    # the first voxel of the lowest slice, whose header says (-249.5, -437.5, -804.5) in LPS
    np.testing.assert_allclose(ct.ras_from_ijk[:3, 3], (249.51171875, 437.51171875, -804.5))
    assert (ct.values.min(), ct.values.max()) == (-1024, 1839)
    assert "'CT Body 3.0'" in ct.source


def test_scout():
    xray = read_xray(data("dicom_scout/lateral_scout.dcm"))
    assert (xray.camera.width, xray.camera.height) == (512, 256)
    assert xray.camera.source_detector_distance_mm == 1040
    assert xray.camera.pixel_spacing_mm == pytest.approx((0.9765625 * 1040 / 570,) * 2)
    assert xray.provenance["pixel_spacing_mm"].startswith("assumed")
    assert "slot scan" in xray.metadata["warnings"][0]
    assert "bone bright" in xray.provenance["polarity"]


@pytest.mark.parametrize(
    ("name", "shape", "spacing"),
    [
        ("abdomen_pelvis.nii.gz", (112, 101, 122), (3, 3, 3)),
        ("head_neck.nii.gz", (163, 237, 259), (1.5, 1.5, 1.5)),
        ("knees_legs.nii.gz", (233, 147, 183), (1.5, 1.5, 1.5)),
        ("lumbar_vertebra.nii.gz", (73, 47, 73), (1.5, 1.5, 1.5)),
        ("pelvis_hips_a.mha", (245, 181, 333), (1, 1, 1)),
        ("pelvis_hips_b.mha", (250, 182, 337), (1, 1, 1)),
        ("wrist/radius.nrrd", (128, 86, 68), (0.39625, 0.39625, 0.625)),
        ("wrist/ulna.nrrd", (112, 45, 65), (0.39625, 0.39625, 0.625)),
    ],
)
def test_every_ct(name, shape, spacing):
    ct = read_ct(data(name))
    assert ct.values.shape == shape
    assert ct.values.dtype == np.int16
    np.testing.assert_allclose(ct.spacing_mm, spacing, rtol=1e-5)


def test_vertebra_labels():
    ct = read_ct(data("lumbar_vertebra.nii.gz"))
    labels = read_labels(data("lumbar_vertebra_labels.nii.gz"), ct)
    assert labels.values.shape == ct.values.shape
    assert ct.values[labels.values > 0].mean() > ct.values.mean() + 100
