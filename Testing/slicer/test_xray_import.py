"""X-rays come in from files and from the scene's volumes, and say what they do not know."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
import slicer
import slicer.util
from XRayRegistrationScene import xray_nodes
from XRayRegistrationScene.xray_import import import_xray, xray_from_volume

from Testing.unit.dicom_phantom import write_xray
from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.images.camera_file import write_camera

pytestmark = pytest.mark.usefixtures("scene")

VALUES = np.random.default_rng(0).integers(100, 4000, (30, 40)).astype(np.uint16)


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "knee.png"
    sitk.WriteImage(sitk.GetImageFromArray(VALUES), str(path))
    return path


def _volume(values=VALUES[None], spacing=(0.5, 0.7, 1.0)):
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "loaded")
    slicer.util.updateVolumeFromArray(node, values)
    node.SetSpacing(spacing)
    return node


def test_a_picture_says_what_it_lacks_until_it_is_typed_in(picture) -> None:
    node = import_xray(picture)
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(node)[0], VALUES)
    assert sorted(xray_nodes.missing_of(node)) == ["pixel_spacing_mm", "source_detector_distance_mm"]
    with pytest.raises(InputError, match=r"SDD.*pixel size.*'knee' is not known; type it in"):
        xray_nodes.raw_xray_of(node)
    xray_nodes.set_camera_values(node, source_detector_distance_mm=1100.0)
    assert xray_nodes.missing_of(node) == ["pixel_spacing_mm"]
    xray_nodes.set_camera_values(node, pixel_spacing_mm=(0.4, 0.3))
    request = xray_nodes.raw_xray_of(node)
    np.testing.assert_allclose(request.camera.K, [[2750, 0, 19.5], [0, 1100 / 0.3, 14.5], [0, 0, 1]])
    assert xray_nodes.provenance_of(node)["pixel_spacing_mm"] == "given"
    xray_nodes.set_camera_values(node, principal_point_px=(3.0, 4.0))
    np.testing.assert_allclose(xray_nodes.camera_of(node).K[:2, 2], (3.0, 4.0))


def test_a_camera_file_makes_it_whole(picture, tmp_path) -> None:
    camera = Camera.from_spacing(40, 30, 0.4, 900.0, (18.0, 13.0))
    node = import_xray(picture, write_camera(tmp_path / "camera.json", camera))
    np.testing.assert_allclose(xray_nodes.camera_of(node).K, camera.K)
    assert not xray_nodes.missing_of(node)
    before = slicer.mrmlScene.GetNumberOfNodes()
    with pytest.raises(InputError, match="40 x 31"):
        import_xray(picture, Camera.from_spacing(40, 31, 0.4, 900.0))
    assert slicer.mrmlScene.GetNumberOfNodes() == before


def test_dicom_brings_its_geometry_and_its_hints(tmp_path) -> None:
    path = write_xray(tmp_path / "x.dcm", VALUES)
    node = import_xray(path)
    assert not xray_nodes.missing_of(node)
    assert xray_nodes.provenance_of(node)["source_detector_distance_mm"].startswith("found: DICOM")
    # a volume that Slicer loaded from the same file is read from it again
    volume = _volume(VALUES[None].astype(np.int16))
    volume.SetAttribute("DICOM.instanceUIDs", "1.2.3")
    slicer.dicomDatabase = SimpleNamespace(fileForInstance={"1.2.3": str(path)}.get)
    try:
        again = xray_from_volume(volume)
    finally:
        del slicer.dicomDatabase
    assert again.GetName() == "loaded X-ray"
    np.testing.assert_allclose(xray_nodes.camera_of(again).K, xray_nodes.camera_of(node).K)


def test_a_volume_of_the_scene_becomes_an_x_ray_and_stays(picture) -> None:
    volume = _volume()
    node = xray_from_volume(volume)
    assert node is not volume
    assert xray_nodes.missing_of(node) == ["source_detector_distance_mm"]
    np.testing.assert_allclose(xray_nodes.camera_of(node).pixel_spacing_mm or (0.5, 0.7), (0.5, 0.7))
    unknown = xray_from_volume(_volume(spacing=(1.0, 1.0, 1.0)))
    assert len(xray_nodes.missing_of(unknown)) == 2
    with pytest.raises(InputError, match=r"3 slices.*name its frame, 0 to 2"):
        xray_from_volume(_volume(np.stack([VALUES] * 3)))
    third = xray_from_volume(_volume(np.stack([VALUES, VALUES, VALUES + 1])), frame=2)
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(third)[0], VALUES + 1)
    with pytest.raises(InputError, match="no image is chosen"):
        xray_from_volume(None)


def test_what_the_header_hints_is_saved_with_the_scene(tmp_path) -> None:
    from XRayRegistrationLib.images.prepare import HeaderHints

    field = np.ones(VALUES.shape, bool)
    field[:5] = False
    node = xray_nodes.add_xray(
        VALUES, Camera.from_spacing(40, 30, 0.4, 900.0), "x", header=HeaderHints("bone_dark", True, field), metadata={"frame": 3}
    )
    file = str(tmp_path / "scene.mrb")
    assert slicer.mrmlScene.WriteToMRB(file)
    slicer.mrmlScene.Clear(0)
    assert slicer.mrmlScene.ReadFromMRB(file)
    (node,) = xray_nodes.xray_nodes()
    request = xray_nodes.raw_xray_of(node)
    np.testing.assert_array_equal(request.header.open_field, field)
    assert (request.header.polarity, request.header.logarithmic, request.metadata) == ("bone_dark", True, {"frame": 3})
