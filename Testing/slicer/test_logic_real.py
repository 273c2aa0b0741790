"""Two real X-rays of a wrist through the logic: the pose that the command line finds, here and in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import slicer
import slicer.util
from XRayRegistrationScene import xray_nodes

from Testing.benchmarks.wrist import random_start, rough_fit
from Testing.slicer.walkthrough import MODULE
from Testing.unit.bone_phantoms import shared_data
from XRayRegistrationLib.geometry.rigid import inverse, rotation_angle

pytestmark = pytest.mark.skipif(
    shared_data() is None or not (shared_data() / "wrist").is_dir(), reason="../shared/data/wrist (or XRAYREG_DATA) is absent"
)

FRAME = "0002"
SAME_MM, SAME_DEG = 1e-3, 1e-3
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def files():
    folder = shared_data() / "wrist"
    xrays = [folder / f"cam{n}_frame{FRAME}.tif" for n in (1, 2)]
    cameras = [folder / f"cam{n}_mayacam.txt" for n in (1, 2)]
    return folder / "radius.nrrd", xrays, cameras


@pytest.fixture(scope="module")
def rig_from_start(files):
    """Some degrees and mm off the rough fit, as in the benchmark; turned about the middle of the CT."""
    import SimpleITK as sitk

    image = sitk.ReadImage(str(files[0]))
    size, spacing = np.array(image.GetSize()), np.array(image.GetSpacing())
    middle = (size - 1) / 2 * spacing * [-1, -1, 1]  # the file's axes are LPS, and its origin is 0
    return random_start(rough_fit(FRAME, size, spacing), middle, 3)


@pytest.fixture(scope="module")
def told(files, rig_from_start, tmp_path_factory):
    """result.json of ``python -m XRayRegistrationLib register``."""
    ct, xrays, cameras = files
    folder = tmp_path_factory.mktemp("wrist")
    start = folder / "start.json"
    start.write_text(json.dumps({"rig_from_ct": rig_from_start.tolist()}))
    words = ["register", "--ct", ct, "--xray", *xrays, "--camera", *cameras, "--start", start]
    words += ["--out", folder / "out", "--pictures", "none", "--progress", "none"]
    done = subprocess.run(
        [sys.executable, "-m", "XRayRegistrationLib", *map(str, words)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, 3), done.stderr
    return json.loads((folder / "out" / "result.json").read_text())


@pytest.fixture
def logic(gui):
    gui.load_module(MODULE)
    return slicer.util.getModuleLogic("XRayRegistration")


def _ct_node(path):
    """The CT as Slicer itself reads it."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "radius")
    storage = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLVolumeArchetypeStorageNode")
    storage.SetFileName(str(path))
    assert storage.ReadData(node)
    return node


def _rig_from_world(node):
    """By the scene's transforms alone: from the world to the parent of what the rig's views stand under."""
    matrix = slicer.util.arrayFromTransformMatrix(node.GetParentTransformNode().GetParentTransformNode(), toWorld=True)
    return np.linalg.inv(matrix)


def _check_same(result, told, nodes):
    assert result.status == told["status"] == "success", result.message
    # the solver stops within its tolerance: where it does, the last digits of a camera decide
    assert result.probability == pytest.approx(told["probability"], abs=1e-3)
    assert [view.source for view in result.views] == [node.GetName() for node in nodes]
    for node, view in zip(nodes, told["views"], strict=True):
        shown = np.linalg.inv(slicer.util.arrayFromTransformMatrix(node.GetParentTransformNode(), toWorld=True))
        expected = np.array(view["camera_from_ct"])
        assert np.linalg.norm(shown[:3, 3] - expected[:3, 3]) < SAME_MM
        assert np.degrees(rotation_angle(shown[:3, :3], expected[:3, :3])) < SAME_DEG
    found, expected = _rig_from_world(nodes[0]), np.array(told["rig_from_ct"])
    assert np.linalg.norm(found[:3, 3] - expected[:3, 3]) < SAME_MM
    assert np.degrees(rotation_angle(found[:3, :3], expected[:3, :3])) < SAME_DEG


def test_the_logic_finds_the_command_lines_pose(logic, files, rig_from_start, told) -> None:
    """Images and cameras apart, and the start as the transform stands."""
    ct, xrays, cameras = files
    nodes = [logic.importXRay(path) for path in xrays]
    assert all(xray_nodes.missing_of(node) for node in nodes)  # a TIFF says nothing of its geometry
    for node, camera in zip(nodes, cameras, strict=True):
        logic.setCamera(node, cameraFile=camera)
        assert not xray_nodes.missing_of(node)
    pose = nodes[0].GetParentTransformNode().GetParentTransformNode()
    slicer.util.updateTransformMatrixFromArray(pose, inverse(rig_from_start))
    result = logic.register(_ct_node(ct), nodes, start="current")
    _check_same(result, told, nodes)
    assert all(logic.resultOf(node) is not None for node in nodes)


def test_a_process_of_its_own_finds_it_too(logic, files, rig_from_start, told) -> None:
    """Cameras with the images, and the start as a matrix."""
    ct, xrays, cameras = files
    nodes = [logic.importXRay(path, cameraFile=camera) for path, camera in zip(xrays, cameras, strict=True)]
    before = [slicer.util.arrayFromTransformMatrix(node.GetParentTransformNode(), toWorld=True) for node in nodes]
    job = logic.startRegistration(_ct_node(ct), nodes, start=rig_from_start)
    end = time.monotonic() + 240.0
    while job.poll().state == "running" and time.monotonic() < end:
        time.sleep(0.05)
    progress = job.poll()
    assert progress.state == "done", progress.message or progress.log
    for node, matrix in zip(nodes, before, strict=True):  # nothing moves before it is shown
        np.testing.assert_array_equal(slicer.util.arrayFromTransformMatrix(node.GetParentTransformNode(), toWorld=True), matrix)
    logic.showResult(progress.result, nodes)
    _check_same(progress.result, told, nodes)
