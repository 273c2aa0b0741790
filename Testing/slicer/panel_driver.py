"""The panel as tests drive it: cases in the scene, runners that hold a job, and what the scene holds before and after."""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import slicer
import slicer.util
import vtk
from XRayRegistrationScene import registration, volume_nodes, xray_nodes
from XRayRegistrationScene.jobs import CANCELLED, DONE, FAILED, LocalJobRunner, Progress

from Testing.slicer.walkthrough import MODULE
from Testing.unit.ct_phantom import CAMERA, ct_phantom, xray_of
from XRayRegistrationLib.bone.model import build_bone_model
from XRayRegistrationLib.files.json_file import json_text
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.rigid import from_rotation_translation, rotation_exp
from XRayRegistrationLib.request import fulfil
from XRayRegistrationLib.simulation.poses import pose_at, rotation_from_angles

PATIENCE_S = 60.0
GIVEN = dict.fromkeys(("source_detector_distance_mm", "pixel_spacing_mm", "principal_point_px"), "given")
SECOND_FROM_RIG = from_rotation_translation(rotation_exp((0.0, 1.2, 0.0)), (-640.0, 0.0, 430.0))
_KINDS = ("Volume", "Transform", "Model", "Markups", "Text", "Display", "Storage", "Segmentation")
_PERMANENT = ("vtkMRMLColorNode", "vtkMRMLSliceDisplayNode", "vtkMRMLCrosshairNode")


def scene_nodes() -> list[str]:
    """What the scene holds and a person would call its content, with names; views and colours left out."""
    every = (slicer.mrmlScene.GetNthNode(n) for n in range(slicer.mrmlScene.GetNumberOfNodes()))
    return sorted(
        f"{node.GetClassName()} {node.GetName()}"
        for node in every
        if any(node.IsA(f"vtkMRML{kind}Node") for kind in _KINDS)
        and not any(node.IsA(kind) for kind in _PERMANENT)
        and "Slice Transform" not in node.GetName()
        and not node.GetName().endswith("Volume Slice")
    )


def scene_state() -> dict:
    """Where every X-ray stands, what is said about it, and what the scene holds."""
    said = {}
    for node in xray_nodes.xray_nodes():
        pose = xray_nodes.pose_node_of(node)
        for thing in (node, pose):
            said[thing.GetName()] = {name: thing.GetAttribute(name) for name in sorted(thing.GetAttributeNames())}
        said[node.GetName(), "pose"] = np.round(xray_nodes.camera_from_world_of(node), 9).tolist()
        said[node.GetName(), "result"] = registration.result_of(node) is not None
    return {"nodes": scene_nodes(), "said": said}


def assert_same(before: dict) -> None:
    """The scene is as it was."""
    after = scene_state()
    gone, new = (Counter(a["nodes"]) - Counter(b["nodes"]) for a, b in ((before, after), (after, before)))
    assert not gone, f"gone: {dict(gone)}"
    assert not new, f"new: {dict(new)}"
    assert after["said"] == before["said"]


class HeldJob:
    """A process that runs until the test lets it end."""

    def __init__(self, argv) -> None:
        self.argv, self.cancelled = list(argv), False
        self.folder = Path(argv[-1])
        self.progress = Progress(fraction=0.4, text="searching", seconds=4.0)

    def poll(self) -> Progress:
        return self.progress

    def cancel(self) -> Progress:
        self.cancelled, self.progress = True, Progress(CANCELLED)
        return self.progress

    def end(self, result=None, message="") -> None:
        """Done with a Result, or failed with a message."""
        if result is not None:
            (self.folder / "result.json").write_text(json_text(result.to_dict()), encoding="utf-8")
        self.progress = Progress(FAILED, message=message) if message else Progress(DONE, 1.0, result="")


class HeldRunner(LocalJobRunner):
    """Keeps the jobs that it starts in ``jobs``; the process of each is a HeldJob."""

    def __init__(self) -> None:
        self.jobs: list[HeldJob] = []

    def start_process(self, argv, env=None) -> HeldJob:
        self.jobs.append(HeldJob(argv))
        return self.jobs[-1]


class OtherProcess(LocalJobRunner):
    """Runs other Python code in place of the library; {folder} in it is the folder that was handed over."""

    def __init__(self, code: str) -> None:
        self.code, self.job, self.folder = code, None, None

    def start_process(self, argv, env=None):
        self.folder = Path(argv[-1])
        self.job = super().start_process([sys.executable, "-c", self.code.replace("{folder}", repr(str(self.folder)))], env)
        return self.job


class WatchedRunner(LocalJobRunner):
    """The real one, which remembers the process and the folder."""

    job = folder = None

    def start_process(self, argv, env=None):
        self.folder, self.job = Path(argv[-1]), super().start_process(argv, env)
        return self.job


class Panel:
    """The panel with hands. ``truth`` holds the pose of the X-ray of each name."""

    def __init__(self, app) -> None:
        self.app, self.truth = app, {}
        self.widget = app.load_module(MODULE).widget
        self.ui = self.widget.ui

    def put(self, runner):
        self.widget.logic.jobRunner = runner
        return runner

    def events(self, seconds: float = 0.0) -> None:
        end = time.monotonic() + seconds
        while True:
            self.app.processEvents()
            if time.monotonic() >= end:
                return

    def choose(self, combo, data) -> None:
        """Pick the entry of a combo box that stands for this."""
        row = combo.findData(data)
        assert row >= 0, data
        combo.setCurrentIndex(row)
        combo.activated.emit(row)
        self.events()

    def type_into(self, box, text: str, key: str = "Tab") -> None:
        """Click into a spin box, type over what is marked, and leave it."""
        from PySide6.QtCore import Qt
        from PySide6.QtTest import QTest
        from PySide6.QtWidgets import QLineEdit

        self.window().show()
        line = box.findChild(QLineEdit)
        QTest.mouseClick(line, Qt.MouseButton.LeftButton)
        box.setFocus()
        box.selectAll()
        self.events()
        QTest.keyClicks(line, text)
        QTest.keyClick(line, getattr(Qt.Key, f"Key_{key}"))
        if key == "Tab":
            box.clearFocus()
        self.events(0.05)

    def window(self):
        """The panel as a window that has the keyboard."""
        import qt

        for button in self.widget.parent.findChildren(qt.QAbstractButton):
            if button.className() == "ctkCollapsibleButton":
                button.checked = True
        self.widget.parent.show()
        self.widget.parent.activateWindow()
        return self.widget.parent

    def look_at(self, node) -> None:
        """Click an X-ray's row."""
        table = self.ui.xrayTable
        rows = [row for row in range(table.rowCount) if table.item(row, 1).text() == node.GetName()]
        table.selectRow(rows[0])
        self.events(0.2)  # until its DRR is rendered and laid over it

    def tick(self, node, ticked: bool) -> None:
        import qt

        table = self.ui.xrayTable
        for row in range(table.rowCount):
            if table.item(row, 1).text() == node.GetName():
                table.item(row, 0).setCheckState(qt.Qt.Checked if ticked else qt.Qt.Unchecked)
        self.events()

    def register(self) -> None:
        assert self.ui.registerButton.enabled, self.ui.registerButton.toolTip
        assert self.ui.registerButton.text == "Register"
        self.ui.registerButton.click()

    def cancel(self) -> None:
        assert self.ui.registerButton.text == "Cancel"
        self.ui.registerButton.click()

    def until_idle(self) -> None:
        self.app.wait(lambda: not self.widget.busy, PATIENCE_S)
        self.events(0.02)

    def assert_idle_but_disabled(self) -> None:
        self.assert_idle()
        assert not self.ui.registerButton.enabled

    def assert_idle(self) -> None:
        assert not self.widget.busy
        assert self.ui.registerButton.text == "Register"
        assert not self.ui.progressBar.visible
        assert not [timer for timer in self.app.running() if "every 50 ms" in timer]

    @property
    def words(self) -> str:
        return self.ui.progressLabel.text

    @property
    def said(self) -> list[str]:
        return [text for kind, text in self.app.messages if kind == "error"]


def add_ct(ct):
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "phantom")
    volume_nodes.set_volume(node, ct)
    node.CreateDefaultDisplayNodes()
    return node


def near_pose(pose):
    start = pose.copy()
    start[:3, 3] += (4.0, -3.0, 9.0)
    return start


def add_case(panel, phantom, names=("shot",), rig=False):
    """A CT that is chosen, X-rays near their poses and looked at, start: where they stand. Returns CT and X-rays."""
    ct, found_poses, images = phantom
    ct_node = add_ct(ct)
    panel.ui.ctSelector.setCurrentNode(ct_node)
    panel.events()
    nodes = []
    for n, name in enumerate(names):
        of = n if rig else 0
        camera = Camera(CAMERA.width, CAMERA.height, CAMERA.K, CAMERA.source_detector_distance_mm,
                        (np.eye(4), SECOND_FROM_RIG)[n] if rig else None)  # fmt: skip
        node = xray_nodes.add_xray(images[of], camera, name, GIVEN)
        xray_nodes.set_camera_from_world(node, near_pose(found_poses[of]))
        nodes.append(node)
    panel.events(0.02)
    panel.ui.layoutButton.click()
    for node in reversed(nodes):
        panel.look_at(node)
    panel.choose(panel.ui.startComboBox, "current")
    panel.events(0.05)
    return ct_node, nodes


def scaling_transform():
    matrix = vtk.vtkMatrix4x4()
    matrix.SetElement(0, 0, 2.0)
    return matrix


def off_mm(node, pose) -> float:
    return float(np.abs(xray_nodes.camera_from_world_of(node) - pose).max())


def make_phantom():
    """The CT, its X-ray as the rig's first and second camera see it, and the pose of each."""
    ct = ct_phantom()
    pose = pose_at(rotation_from_angles(10.0, -6.0, 4.0), CAMERA, build_bone_model(ct).centroid, (50.0, 38.0), 690.0)
    second = SECOND_FROM_RIG @ pose
    return ct, (pose, second), tuple(xray_of(ct, CAMERA, p, seed=n).line_integrals for n, p in enumerate((pose, second)))


def find_result(phantom):
    """A Result of the phantom's first X-ray."""
    slicer.mrmlScene.Clear(0)
    ct, (pose, _), (image, _) = phantom
    node = add_ct(ct)
    xray = xray_nodes.add_xray(image, CAMERA, "shot", GIVEN)
    xray_nodes.set_camera_from_world(xray, near_pose(pose))
    result = fulfil(registration.gather(node, [xray], start="current"))
    slicer.mrmlScene.Clear(0)
    assert result.ok
    return result
