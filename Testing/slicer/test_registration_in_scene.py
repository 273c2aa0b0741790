"""From nodes to nodes: bone, registration and what is shown of it, on a small phantom."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
import slicer.util
from XRayRegistrationScene import bone_nodes, matrices, registration, volume_nodes, xray_nodes

from Testing.unit.ct_phantom import CAMERA, ct_phantom, xray_of
from XRayRegistrationLib.bone.model import build_bone_model
from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.geometry.rigid import from_rotation_translation, inverse, rotation_exp, transform_points
from XRayRegistrationLib.request import fulfil
from XRayRegistrationLib.simulation.poses import pose_at, rotation_from_angles

pytestmark = pytest.mark.usefixtures("scene")

ABOVE = from_rotation_translation(rotation_exp((0.1, 0.3, -0.2)), (40.0, 10.0, -25.0))


@pytest.fixture(scope="module")
def ct():
    return ct_phantom()


@pytest.fixture(scope="module")
def model(ct):
    return build_bone_model(ct)


@pytest.fixture
def ct_node(ct, scene):
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "phantom")
    volume_nodes.set_volume(node, ct)
    return node


def _true_pose(model):
    return pose_at(rotation_from_angles(10.0, -6.0, 4.0), CAMERA, model.centroid, (50.0, 38.0), 690.0)


def _add_xray(ct, model):
    image = xray_of(ct, CAMERA, _true_pose(model)).line_integrals
    return xray_nodes.add_xray(image, CAMERA, "shot")


def _error_mm(model, found, true):
    points = model.surface_points
    return float(np.linalg.norm(transform_points(found, points) - transform_points(true, points), axis=1).mean())


def test_bone_is_a_segmentation_with_a_surface(ct_node, model) -> None:
    node = bone_nodes.segment_bone_of(ct_node)
    labels = bone_nodes.label_map_of(node, ct_node)
    np.testing.assert_array_equal(labels.values, model.mask.values)
    surface = node.GetClosedSurfaceInternalRepresentation(node.GetSegmentation().GetNthSegmentID(0))
    assert surface.GetNumberOfPoints() > 100
    assert bone_nodes.segment_bone_of(ct_node, segmentation_node=node) is node
    assert node.GetSegmentation().GetNumberOfSegments() == 1
    with pytest.raises(InputError, match="no segment 'femur'; allowed are Bone"):
        bone_nodes.label_map_of(node, ct_node, ["femur"])


def test_no_bone_adds_nothing(ct_node) -> None:
    slicer.util.arrayFromVolume(ct_node)[:] = -1000
    before = slicer.mrmlScene.GetNumberOfNodes()
    with pytest.raises(InputError):
        bone_nodes.segment_bone_of(ct_node)
    assert slicer.mrmlScene.GetNumberOfNodes() == before


@pytest.mark.parametrize("above", [None, ABOVE])
def test_a_registration_moves_the_x_ray_to_where_it_was_taken(ct, model, ct_node, above) -> None:
    world_from_ct = np.eye(4)
    if above is not None:
        world_from_ct = above
        transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "table")
        ct_node.SetAndObserveTransformNodeID(transform.GetID())
        matrices.set_world_from_node(transform, above)
    node = _add_xray(ct, model)
    start = _true_pose(model) @ inverse(world_from_ct)
    start[:3, 3] += (6.0, -4.0, 15.0)
    xray_nodes.set_camera_from_world(node, start)
    result = fulfil(registration.gather(ct_node, [node], start="current"))
    pose = registration.show(result, [node])
    assert result.ok, result.message
    found = xray_nodes.camera_from_world_of(node) @ world_from_ct
    assert _error_mm(model, found, _true_pose(model)) < 1.0
    kept = registration.result_of(node)
    assert kept is not None
    assert kept.probability == pytest.approx(result.probability)
    assert pose is xray_nodes.pose_node_of(node)
    moved = xray_nodes.camera_from_world_of(node)
    moved[0, 3] += 5.0
    xray_nodes.set_camera_from_world(node, moved)
    assert registration.result_of(node) is None  # it is of another pose now


def test_a_chosen_bone_is_registered_alone_and_all_bone_with_its_flesh(ct, model, ct_node) -> None:
    node = _add_xray(ct, model)
    xray_nodes.set_camera_from_world(node, _true_pose(model))
    segmentation = bone_nodes.segment_bone_of(ct_node)
    rendered = []
    for segments, within_mm in ((None, 1.0), (["Bone"], 5.0)):  # the flesh's outline tells the depth
        request = registration.gather(ct_node, [node], segmentation=segmentation, segments=segments, start="current")
        result = fulfil(request)
        assert _error_mm(model, result.camera_from_ct, _true_pose(model)) < within_mm
        rendered.append(result.inputs["rendered"])
    assert rendered == ["full", "bone"]


def test_the_result_survives_the_scene_file(ct, model, ct_node, tmp_path) -> None:
    node = _add_xray(ct, model)
    xray_nodes.set_camera_from_world(node, _true_pose(model))
    result = fulfil(registration.gather(ct_node, [node], start="current"))
    registration.show(result, [node])
    file = str(tmp_path / "scene.mrb")
    assert slicer.mrmlScene.WriteToMRB(file)
    slicer.mrmlScene.Clear(0)
    assert slicer.mrmlScene.ReadFromMRB(file)
    (node,) = xray_nodes.xray_nodes()
    kept = registration.result_of(node)
    assert kept is not None
    assert (kept.status, kept.message) == (result.status, result.message)


def test_what_is_missing_is_named(ct_node) -> None:
    with pytest.raises(InputError, match="no X-ray is chosen"):
        registration.gather(ct_node, [])
    with pytest.raises(InputError, match="choose a volume"):
        registration.gather(None, [xray_nodes.add_xray(np.random.default_rng(0).random((80, 96)), CAMERA, "x")])
