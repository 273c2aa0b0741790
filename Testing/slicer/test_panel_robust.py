"""The panel when things go otherwise: cancelled, deleted, closed, crashed, damaged, typed wrongly. Nothing is left behind."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import slicer
import slicer.util
import vtk
from XRayRegistrationScene import drr_nodes, frustum, overlays, registration, volume_nodes, xray_nodes
from XRayRegistrationScene.jobs import CANCELLED, DONE, FAILED, LocalJobRunner, Progress

from Testing.slicer.walkthrough import MODULE
from Testing.unit.ct_phantom import CAMERA, ct_phantom, xray_of
from XRayRegistrationLib.bone.model import build_bone_model
from XRayRegistrationLib.files.json_file import json_text
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.rigid import from_rotation_translation, rotation_exp
from XRayRegistrationLib.images.volume import Volume
from XRayRegistrationLib.methods import METHODS, Needs, PlannedMethod
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


@pytest.fixture(scope="session")
def phantom():
    """The CT, its X-ray as the rig's first and second camera see it, and the pose of each."""
    ct = ct_phantom()
    pose = pose_at(rotation_from_angles(10.0, -6.0, 4.0), CAMERA, build_bone_model(ct).centroid, (50.0, 38.0), 690.0)
    second = SECOND_FROM_RIG @ pose
    return ct, (pose, second), tuple(xray_of(ct, CAMERA, p, seed=n).line_integrals for n, p in enumerate((pose, second)))


@pytest.fixture(scope="session")
def found(phantom, application):
    """A Result of the phantom's first X-ray."""
    slicer.mrmlScene.Clear(0)
    ct, (pose, _), (image, _) = phantom
    node = _ct_node(ct)
    xray = xray_nodes.add_xray(image, CAMERA, "shot", GIVEN)
    xray_nodes.set_camera_from_world(xray, _near(pose))
    result = fulfil(registration.gather(node, [xray], start="current"))
    slicer.mrmlScene.Clear(0)
    assert result.ok
    return result


@pytest.fixture
def panel(gui):
    return Panel(gui)


def _ct_node(ct):
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "phantom")
    volume_nodes.set_volume(node, ct)
    node.CreateDefaultDisplayNodes()
    return node


def _near(pose):
    start = pose.copy()
    start[:3, 3] += (4.0, -3.0, 9.0)
    return start


def _case(panel, phantom, names=("shot",), rig=False):
    """A CT that is chosen, X-rays near their poses and looked at, start: where they stand. Returns CT and X-rays."""
    ct, found_poses, images = phantom
    ct_node = _ct_node(ct)
    panel.ui.ctSelector.setCurrentNode(ct_node)
    panel.events()
    nodes = []
    for n, name in enumerate(names):
        of = n if rig else 0
        camera = Camera(CAMERA.width, CAMERA.height, CAMERA.K, CAMERA.source_detector_distance_mm,
                        (np.eye(4), SECOND_FROM_RIG)[n] if rig else None)  # fmt: skip
        node = xray_nodes.add_xray(images[of], camera, name, GIVEN)
        xray_nodes.set_camera_from_world(node, _near(found_poses[of]))
        nodes.append(node)
    panel.events(0.02)
    panel.ui.layoutButton.click()
    for node in reversed(nodes):
        panel.look_at(node)
    panel.choose(panel.ui.startComboBox, "current")
    panel.events(0.05)
    return ct_node, nodes


def _scaling():
    matrix = vtk.vtkMatrix4x4()
    matrix.SetElement(0, 0, 2.0)
    return matrix


def _off(node, pose) -> float:
    return float(np.abs(xray_nodes.camera_from_world_of(node) - pose).max())


# One run after another, and back


def test_a_second_run_after_a_first_and_undo_after_each(panel, phantom) -> None:
    _, (xray,) = _case(panel, phantom)
    pose = phantom[1][0]
    before = scene_state()
    panel.register()
    panel.until_idle()
    assert panel.said == []
    assert _off(xray, pose) < 2.0
    first = xray_nodes.camera_from_world_of(xray)
    panel.ui.undoButton.click()
    panel.events(0.05)
    assert_same(before)
    assert not panel.ui.undoButton.enabled
    panel.register()
    panel.until_idle()
    np.testing.assert_allclose(xray_nodes.camera_from_world_of(xray), first, atol=1e-6)
    once = scene_nodes()
    panel.register()
    panel.until_idle()
    assert scene_nodes() == once  # the second result takes the place of the first
    assert panel.ui.verdictLabel.text.startswith("✔")
    panel.ui.undoButton.click()
    panel.events(0.05)
    np.testing.assert_allclose(xray_nodes.camera_from_world_of(xray), first, atol=1e-6)
    assert scene_nodes() == before["nodes"]
    assert registration.result_of(xray) is None


def test_two_x_rays_one_after_the_other_and_undo_of_each(panel, phantom, found) -> None:
    _, xrays = _case(panel, phantom, ("first", "second"))
    runner = panel.put(HeldRunner())
    before = scene_state()
    panel.register()
    panel.app.wait(lambda: len(runner.jobs) == 1)
    assert "1 more" in panel.words or panel.words.startswith("Starting")
    runner.jobs[0].end(found)
    panel.app.wait(lambda: len(runner.jobs) == 2)
    runner.jobs[1].end(found)
    panel.until_idle()
    panel.assert_idle()
    assert "accepted" in panel.words
    assert [registration.result_of(node) is not None for node in xrays] == [True, True]
    assert all(_off(node, phantom[1][0]) < 2.0 for node in xrays)
    for node in xrays:
        panel.look_at(node)
        panel.ui.undoButton.click()
        panel.events(0.05)
    assert_same(before)
    assert not any(job.folder.exists() for job in runner.jobs)


@pytest.mark.parametrize("shared", [True, False])
def test_a_rig_and_its_undo(panel, phantom, shared) -> None:
    """Whether its views share their pose before, or the run brings them together."""
    _, xrays = _case(panel, phantom, ("frontal", "oblique"), rig=True)
    if shared:
        xray_nodes.share_pose(xrays)
    else:  # each for itself first: their results go with the run
        xray_nodes.set_camera_from_world(xrays[1], _near(_near(phantom[1][1])))
    panel.events(0.05)
    panel.ui.rigCheckBox.click()
    panel.events(0.05)
    before = scene_state()
    panel.register()
    panel.until_idle()
    assert panel.said == []
    for node, pose in zip(xrays, phantom[1], strict=True):
        assert _off(node, pose) < 2.0
    assert xray_nodes.pose_node_of(xrays[0]) is xray_nodes.pose_node_of(xrays[1])
    panel.look_at(xrays[1])
    assert panel.ui.verdictLabel.text.startswith("✔")
    panel.ui.undoButton.click()
    panel.events(0.05)
    assert_same(before)


def test_a_rig_after_runs_of_its_single_views_leaves_no_orphans(panel, phantom, found) -> None:
    _case(panel, phantom, ("frontal", "oblique"), rig=True)
    before = scene_nodes()
    runner = panel.put(HeldRunner())
    panel.register()
    for n in range(2):
        panel.app.wait(lambda n=n: len(runner.jobs) == n + 1)
        runner.jobs[n].end(found)
    panel.until_idle()
    panel.put(LocalJobRunner())
    panel.ui.rigCheckBox.click()
    panel.events(0.05)
    panel.register()
    panel.until_idle()
    assert panel.said == []
    panel.ui.undoButton.click()
    panel.events(0.05)
    assert scene_nodes() == before


def test_the_settings_of_a_run_are_those_of_its_beginning(panel, phantom, found) -> None:
    """Whoever chooses another CT or unticks an X-ray meanwhile does not change what is registered."""
    _, xrays = _case(panel, phantom, ("first", "second"))
    other = _ct_node(phantom[0])
    runner = panel.put(HeldRunner())
    panel.register()
    panel.app.wait(lambda: len(runner.jobs) == 1)
    panel.widget.parameters.ct = other
    panel.widget.parameters.seed = 7
    panel.tick(xrays[1], False)
    runner.jobs[0].end(found)
    panel.app.wait(lambda: len(runner.jobs) == 2)
    asked = json.loads((runner.jobs[1].folder / "request.json").read_text())
    assert asked["seed"] == 0
    assert asked["ct"]["source"] == "phantom"
    runner.jobs[1].end(found)
    panel.until_idle()
    assert "accepted" in panel.words


def test_one_x_ray_that_cannot_be_registered_does_not_stop_the_others(panel, phantom, found) -> None:
    """Scaled under a transform while the first ran: said once, by name, at the end."""
    _, xrays = _case(panel, phantom, ("first", "second", "third"))
    runner = panel.put(HeldRunner())
    panel.register()
    panel.app.wait(lambda: len(runner.jobs) == 1)
    xray_nodes.pose_node_of(xrays[1]).SetMatrixTransformToParent(_scaling())
    runner.jobs[0].end(found)
    panel.app.wait(lambda: len(runner.jobs) == 2)
    runner.jobs[1].end(found)
    panel.until_idle()
    assert registration.result_of(xrays[2]) is not None
    assert len(panel.said) == 1
    assert "'second'" in panel.said[0]
    assert "\n" not in panel.said[0]


def test_an_x_ray_that_is_bent_at_the_end_of_its_run_is_a_failure_with_a_sentence(panel, phantom, found) -> None:
    _, (xray,) = _case(panel, phantom)
    runner = panel.put(HeldRunner())
    panel.register()
    panel.app.wait(lambda: len(runner.jobs) == 1)
    above = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "above")
    above.SetMatrixTransformToParent(_scaling())
    xray_nodes.pose_node_of(xray).SetAndObserveTransformNodeID(above.GetID())
    runner.jobs[0].end(found)
    panel.until_idle()
    panel.assert_idle_but_disabled()
    assert len(panel.said) == 1
    assert "'shot'" in panel.said[0]


# Cancel


def _writing(panel, runner) -> bool:
    return panel.widget.run.job is not None and runner.job is None


_PHASES = {
    "handing over": _writing,
    "just started": lambda panel, runner: runner.job is not None,
    "search": lambda panel, runner: panel.words.startswith("Searching"),
    "refinement": lambda panel, runner: panel.words.startswith("Refining"),
    "last poll": lambda panel, runner: runner.folder is not None and (runner.folder / "result.json").exists(),
}


@pytest.mark.parametrize("phase", list(_PHASES))
def test_cancel_at_any_time_leaves_the_scene_as_it_was(panel, phantom, phase) -> None:
    _case(panel, phantom)
    if phase == "search":
        panel.choose(panel.ui.startComboBox, "none")
    runner = panel.put(WatchedRunner())
    before = scene_state()
    panel.register()
    panel.app.wait(lambda: _PHASES[phase](panel, runner), PATIENCE_S)
    folder = panel.widget.run.job._folder
    begin = time.monotonic()
    panel.cancel()
    took = time.monotonic() - begin
    panel.events(0.1)
    panel.assert_idle()
    assert took < 1.5
    assert panel.words == "Cancelled. The scene is as it was."
    assert not folder.exists()
    assert runner.job is None or runner.job.exit_status is not None
    assert_same(before)
    assert panel.said == []
    panel.put(LocalJobRunner())
    panel.choose(panel.ui.startComboBox, "current")
    panel.register()
    panel.until_idle()
    assert "accepted" in panel.words


def test_children_of_a_cancelled_process_end_with_it(panel, phantom, tmp_path) -> None:
    """Also one that does not listen to the polite signal, such as a loader of training data."""
    _case(panel, phantom)
    child = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
    code = (
        "import subprocess, sys, time\n"
        f"c = subprocess.Popen([sys.executable, '-c', {child!r}], stdout=subprocess.PIPE)\n"
        "c.stdout.readline()\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(c.pid))\n"
        "time.sleep(60)"
    )
    panel.put(OtherProcess(code))
    panel.register()
    file = tmp_path / "pid"
    panel.app.wait(lambda: file.exists() and file.read_text(), PATIENCE_S)
    panel.cancel()
    pid = int(file.read_text())
    panel.app.wait(lambda: _gone(pid), 2.0)


def _gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


# What happens meanwhile


def _delete_xray(panel, ct, xray):
    slicer.mrmlScene.RemoveNode(xray)


def _delete_ct(panel, ct, xray):
    slicer.mrmlScene.RemoveNode(ct)


def _clear(panel, ct, xray):
    slicer.mrmlScene.Clear(0)


@pytest.mark.parametrize("real", [False, True])
@pytest.mark.parametrize("event", [_delete_xray, _delete_ct, _clear])
def test_a_run_whose_input_goes_stops_and_says_so(panel, phantom, event, real) -> None:
    ct, (xray,) = _case(panel, phantom)
    runner = panel.put(WatchedRunner() if real else HeldRunner())
    panel.register()
    panel.app.wait(lambda: runner.job if real else runner.jobs)
    folder = panel.widget.run.job._folder
    event(panel, ct, xray)
    panel.until_idle()
    panel.events(0.1)
    panel.assert_idle()
    assert not panel.ui.registerButton.enabled
    assert not folder.exists()
    assert (runner.job.exit_status is not None) if real else runner.jobs[0].cancelled
    assert panel.words.startswith(("Stopped: the", "Cancelled, for the scene was closed."))
    assert panel.said == []
    if event is not _clear:  # nothing hangs on what is gone
        assert not [name for name in scene_nodes() if "Text" in name]
    if event is _delete_xray:
        assert not [name for name in scene_nodes() if "shot" in name]


def test_a_scene_that_is_closed_in_vain_says_nothing(panel, phantom) -> None:
    slicer.mrmlScene.Clear(0)
    panel.events(0.05)
    assert panel.words == "Choose the CT."


def test_one_of_three_x_rays_is_deleted_while_it_waits(panel, phantom, found) -> None:
    _, xrays = _case(panel, phantom, ("first", "second", "third"))
    runner = panel.put(HeldRunner())
    panel.register()
    panel.app.wait(lambda: len(runner.jobs) == 1)
    slicer.mrmlScene.RemoveNode(xrays[1])
    runner.jobs[0].end(found)
    panel.app.wait(lambda: len(runner.jobs) == 2)
    runner.jobs[1].end(found)
    panel.until_idle()
    assert registration.result_of(xrays[2]) is not None
    assert "no longer in the scene" in " ".join(panel.said)


def test_a_view_of_a_rig_is_deleted_while_the_rig_is_registered(panel, phantom) -> None:
    _, xrays = _case(panel, phantom, ("frontal", "oblique"), rig=True)
    panel.ui.rigCheckBox.click()
    panel.events()
    runner = panel.put(HeldRunner())
    panel.register()
    panel.app.wait(lambda: len(runner.jobs) == 1)
    slicer.mrmlScene.RemoveNode(xrays[1])
    panel.until_idle()
    assert panel.words.startswith("Stopped: the")
    assert runner.jobs[0].cancelled


@pytest.mark.parametrize("what", ["segmentation", "landmarks"])
@pytest.mark.parametrize("count", [1, 2])
def test_segmentation_or_landmarks_are_deleted_during_a_run(panel, phantom, found, what, count) -> None:
    """What is being registered has been handed over; what waits cannot begin without them."""
    _, xrays = _case(panel, phantom, ("first", "second")[:count])
    panel.ui.segmentButton.click()
    panel.events()
    panel.ui.sampleLandmarksButton.click()
    panel.events(0.05)
    runner = panel.put(HeldRunner())
    panel.register()
    panel.app.wait(lambda: len(runner.jobs) == 1)
    slicer.mrmlScene.RemoveNode(getattr(panel.widget.parameters, what))
    panel.events(0.1)
    runner.jobs[0].end(found)
    panel.until_idle()
    panel.assert_idle()
    assert registration.result_of(xrays[0]) is not None
    if count == 1:
        assert "accepted" in panel.words
    else:
        assert len(runner.jobs) == 1
        assert "no longer in the scene" in panel.words


def test_what_hangs_on_an_x_ray_is_deleted_and_the_pose_is_moved_during_a_run(panel, phantom, found) -> None:
    _, (xray,) = _case(panel, phantom)
    runner = panel.put(HeldRunner())
    panel.register()
    panel.app.wait(lambda: len(runner.jobs) == 1)
    for reference in (overlays.REFERENCE, drr_nodes.REFERENCE, frustum.REFERENCE):
        assert xray.GetNodeReference(reference) is not None, reference
        slicer.mrmlScene.RemoveNode(xray.GetNodeReference(reference))
        panel.events(0.02)
    moved = _near(_near(xray_nodes.camera_from_world_of(xray)))
    xray_nodes.set_camera_from_world(xray, moved)
    panel.events(0.05)
    runner.jobs[0].end(found)
    panel.until_idle()
    assert "accepted" in panel.words
    assert _off(xray, phantom[1][0]) < 2.0
    panel.ui.undoButton.click()
    panel.events(0.05)
    np.testing.assert_allclose(xray_nodes.camera_from_world_of(xray), moved, atol=1e-9)  # where the hand had put it


def test_the_pose_transform_is_deleted_during_a_run(panel, phantom, found) -> None:
    _, (xray,) = _case(panel, phantom)
    runner = panel.put(HeldRunner())
    panel.register()
    panel.app.wait(lambda: len(runner.jobs) == 1)
    slicer.mrmlScene.RemoveNode(xray_nodes.pose_node_of(xray))
    panel.events(0.05)
    runner.jobs[0].end(found)
    panel.until_idle()
    assert _off(xray, phantom[1][0]) < 2.0


def test_another_scene_is_loaded_during_a_run(panel, phantom, found, tmp_path) -> None:
    """Added to the one that is there: the run goes on with its own nodes, whatever the panel shows by then."""
    _, (xray,) = _case(panel, phantom)
    other = str(tmp_path / "other.mrb")
    assert slicer.util.saveScene(other)
    runner = panel.put(HeldRunner())
    panel.register()
    panel.app.wait(lambda: len(runner.jobs) == 1)
    slicer.util.loadScene(other)
    panel.events(0.1)
    runner.jobs[0].end(found)
    panel.until_idle()
    assert "accepted" in panel.words
    assert registration.result_of(xray) is not None
    assert len(xray_nodes.xray_nodes()) == 2


def test_another_scene_takes_the_place_of_this_one_during_a_run(panel, phantom, tmp_path) -> None:
    _case(panel, phantom)
    other = str(tmp_path / "other.mrb")
    assert slicer.util.saveScene(other)
    runner = panel.put(HeldRunner())
    panel.register()
    panel.app.wait(lambda: len(runner.jobs) == 1)
    slicer.util.loadScene(other, {"clear": True})
    panel.events(0.1)
    panel.assert_idle()
    assert runner.jobs[0].cancelled
    assert panel.words.startswith("Cancelled, for the scene was closed.")
    assert [node.GetName() for node in xray_nodes.xray_nodes()] == ["shot"]
    assert panel.ui.registerButton.enabled


def test_the_module_is_left_and_entered_again_during_a_run(panel, phantom, found) -> None:
    _, (xray,) = _case(panel, phantom)
    runner = panel.put(HeldRunner())
    panel.register()
    panel.app.wait(lambda: len(runner.jobs) == 1)
    slicer.util.selectModule("Data")
    panel.events(0.1)
    slicer.util.selectModule("XRayRegistration")
    panel.events(0.1)
    assert panel.ui.registerButton.text == "Cancel"
    runner.jobs[0].end(found)
    panel.until_idle()
    assert registration.result_of(xray) is not None


def test_the_module_is_cleaned_up_during_a_run(panel, phantom) -> None:
    """As when it is reloaded, or Slicer quits; ``gui`` sees what is left running."""
    _case(panel, phantom)
    runner = panel.put(WatchedRunner())
    panel.register()
    panel.app.wait(lambda: runner.job)
    panel.widget.cleanup()
    assert runner.job.exit_status is not None
    assert not runner.folder.exists()
    slicer.mrmlScene.RemoveNode(xray_nodes.xray_nodes()[0])
    slicer.mrmlScene.Clear(0)
    panel.events(0.1)


# Processes that go wrong


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "signal 11"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "memory"),
        ("raise ValueError('a bug of ours')", "a bug of ours"),
        (
            "import sys; sys.stdout.buffer.write(bytes(range(256)) * 99); sys.stderr.write('{\\n[1]\\n')",
            "without a usable result",
        ),
        (
            'import sys, time; print(\'{"progress": NaN, "text": 1}\', file=sys.stderr, flush=True); time.sleep(0.4)',
            "without a usable result",
        ),
        ("open({folder} + '/result.json', 'w').write('{}')", "without a usable result"),
        ("open({folder} + '/result.json', 'wb').write(bytes(range(256)))", "without a usable result"),
        ("open({folder} + '/result.json', 'w').write('[[[')", "without a usable result"),
        ("import os; os.mkdir({folder} + '/result.json')", "without a usable result"),
    ],
)
def test_a_process_that_goes_wrong_is_one_clear_line(panel, phantom, code, says) -> None:
    _case(panel, phantom)
    runner = panel.put(OtherProcess(code))
    before = scene_state()
    panel.register()
    panel.until_idle()
    panel.assert_idle()
    (said,) = panel.said
    assert says in said
    assert "\n" not in said
    assert "Traceback" not in said
    assert str(runner.folder) not in said
    assert panel.words == said
    assert not runner.folder.exists()
    assert_same(before)


def test_a_result_with_too_few_views_is_one_clear_line(panel, phantom, found) -> None:
    _case(panel, phantom, ("frontal", "oblique"), rig=True)
    panel.ui.rigCheckBox.click()
    panel.events()
    before = scene_state()
    runner = panel.put(HeldRunner())
    panel.register()
    panel.app.wait(lambda: len(runner.jobs) == 1)
    runner.jobs[0].end(found)
    panel.until_idle()
    assert len(panel.said) == 1
    assert_same(before)


def test_a_process_that_never_ends_is_cancelled(panel, phantom) -> None:
    """One that does not listen."""
    _case(panel, phantom)
    runner = panel.put(
        OtherProcess("import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: time.sleep(1)")
    )
    before = scene_state()
    panel.register()
    panel.app.wait(lambda: runner.job)
    panel.events(0.3)
    begin = time.monotonic()
    panel.cancel()
    assert time.monotonic() - begin < 1.5
    panel.assert_idle()
    assert runner.job.exit_status is not None
    assert_same(before)


def test_a_process_that_cannot_be_started_is_one_clear_line(panel, phantom) -> None:
    class Nowhere(LocalJobRunner):
        def start_process(self, argv, env=None):
            self.folder = Path(argv[-1])
            return super().start_process(["/no/such/python"], env)

    _case(panel, phantom)
    runner = panel.put(Nowhere())
    panel.register()
    panel.until_idle()
    panel.assert_idle()
    assert "could not be started" in panel.said[0]
    assert not runner.folder.exists()


def test_no_handler_blocks_for_long(panel, phantom, monkeypatch) -> None:
    _case(panel, phantom)
    panel.choose(panel.ui.startComboBox, "none")
    longest = {}

    def timed(thing, name):
        inner = getattr(thing, name)

        def call(*arguments):
            begin = time.monotonic()
            out = inner(*arguments)
            longest[name] = max(longest.get(name, 0.0), time.monotonic() - begin)
            return out

        monkeypatch.setattr(thing, name, call)

    timed(panel.widget, "refresh")
    timed(panel.widget.run, "_show")
    timed(panel.widget.run, "_next")
    timed(panel.widget.run, "_take_in")
    begin, slowest = time.monotonic(), 0.0
    panel.register()
    while panel.widget.busy:
        turn = time.monotonic()
        panel.app.processEvents()
        slowest = max(slowest, time.monotonic() - turn)
        time.sleep(0.002)
    longest["events"] = slowest
    print(
        "longest, ms:", {name: round(1000 * seconds) for name, seconds in longest.items()}, f"of {time.monotonic() - begin:.1f} s"
    )
    assert max(longest.values()) < 2.0  # loose: speed is for benchmarks


# Input


def _message(panel) -> str:
    (said,) = panel.said
    assert "\n" not in said
    assert "Traceback" not in said
    panel.app.messages.clear()
    return said


def test_files_that_are_no_x_rays_are_named_and_the_others_are_there(panel, tmp_path) -> None:
    from PIL import Image

    wrong = tmp_path / "letter.png"
    wrong.write_text("dear radiologist")
    right = tmp_path / "right.png"
    Image.fromarray((np.random.default_rng(0).random((40, 50)) * 255).astype(np.uint8)).save(right)
    panel.app.files.append([str(wrong), str(right), str(tmp_path / "nowhere.dcm")])
    panel.ui.importButton.click()
    panel.events(0.05)
    assert [node.GetName() for node in xray_nodes.xray_nodes()] == ["right"]
    (said,) = panel.said
    assert [name in line for name, line in zip(("letter.png", "nowhere.dcm"), said.splitlines(), strict=True)] == [True, True]
    before = scene_nodes()
    panel.app.messages.clear()
    panel.app.files.append([str(wrong)])
    panel.ui.importButton.click()
    panel.events(0.05)
    assert "letter.png" in _message(panel)
    assert scene_nodes() == before


def test_what_is_missing_is_typed_in_by_keyboard(panel, phantom, tmp_path) -> None:
    """A PNG states neither distance nor pixel size. Looking into a field without typing gives nothing."""
    from PIL import Image

    file = tmp_path / "plain.png"
    image = phantom[2][0]
    Image.fromarray((255 * (image - image.min()) / np.ptp(image)).astype(np.uint8)).save(file)
    panel.ui.ctSelector.setCurrentNode(_ct_node(phantom[0]))
    panel.ui.layoutButton.click()
    panel.app.files.append([str(file)])
    panel.ui.importButton.click()
    panel.events(0.2)
    (node,) = xray_nodes.xray_nodes()
    ui = panel.ui
    assert not ui.registerButton.enabled
    assert ui.registerButton.toolTip == "Type in source to detector and pixel size of 'plain', or choose its C-arm."
    for box in (ui.sddSpinBox, ui.columnSpacingSpinBox, ui.rowSpacingSpinBox, ui.columnPointSpinBox, ui.rowPointSpinBox):
        panel.type_into(box, "")
        panel.type_into(box, "", "Return")
    assert len(xray_nodes.missing_of(node)) == 2
    assert (ui.sddSpinBox.text.strip(), ui.sddOriginLabel.text) == ("", "not known")
    assert xray_nodes.provenance_of(node)["principal_point_px"].startswith("assumed")
    panel.type_into(ui.sddSpinBox, "1020")
    assert xray_nodes.missing_of(node) == ["pixel_spacing_mm"]
    assert ui.sddOriginLabel.text == "given"
    assert ui.registerButton.toolTip == "Type in pixel size of 'plain', or choose its C-arm."
    panel.type_into(ui.columnSpacingSpinBox, "2.5", "Return")
    camera = xray_nodes.camera_of(node)
    assert camera.source_detector_distance_mm == pytest.approx(1020.0)
    np.testing.assert_allclose(camera.pixel_spacing_mm, (2.5, 2.5))
    assert ui.rowSpacingSpinBox.value == pytest.approx(2.5)
    assert ui.registerButton.enabled, ui.registerButton.toolTip
    panel.type_into(ui.rowPointSpinBox, "41.5")
    assert xray_nodes.camera_of(node).K[1, 2] == pytest.approx(41.5)
    assert panel.said == []


def test_a_field_that_is_not_known_takes_digits_wherever_it_is_clicked(panel, phantom) -> None:
    """Nothing need be marked or deleted first."""
    from PySide6.QtCore import QPoint, Qt
    from PySide6.QtTest import QTest
    from PySide6.QtWidgets import QLineEdit

    xray = xray_nodes.add_xray(phantom[2][0], CAMERA, "shot", {"source_detector_distance_mm": "missing: nobody said"})
    panel.events(0.05)
    box = panel.ui.sddSpinBox
    panel.window().show()
    panel.events(0.05)
    line = box.findChild(QLineEdit)
    QTest.mouseClick(line, Qt.MouseButton.LeftButton, pos=QPoint(20, line.height // 2))
    panel.events(0.05)
    QTest.keyClicks(line, "980")
    QTest.keyClick(line, Qt.Key.Key_Return)
    panel.events(0.05)
    assert xray_nodes.camera_of(xray).source_detector_distance_mm == pytest.approx(980.0)


def test_what_is_being_typed_stays_when_the_panel_is_refreshed(panel, phantom) -> None:
    from PySide6.QtTest import QTest
    from PySide6.QtWidgets import QLineEdit

    _case(panel, phantom)
    box = panel.ui.sddSpinBox
    panel.window()
    box.setFocus()
    box.selectAll()
    panel.events()
    QTest.keyClicks(box.findChild(QLineEdit), "12")
    panel.widget.refresh()
    assert box.text.startswith("12")
    QTest.keyClicks(box.findChild(QLineEdit), "00")
    box.clearFocus()
    panel.events(0.05)
    assert xray_nodes.camera_of(panel.widget.xrays.chosen).source_detector_distance_mm == pytest.approx(1200.0)


def test_a_camera_that_does_not_fit_is_refused_and_nothing_changes(panel, phantom, tmp_path) -> None:
    from XRayRegistrationLib.images.camera_file import write_camera

    _case(panel, phantom)
    before = scene_state()
    panel.app.files.append(str(write_camera(tmp_path / "other.json", Camera.from_spacing(40, 31, 0.4, 900.0))))
    panel.ui.cameraFileButton.click()
    panel.events(0.05)
    assert "40 x 31" in _message(panel)
    rubbish = tmp_path / "camera.json"
    rubbish.write_text("[1, 2")
    panel.app.files.append(str(rubbish))
    panel.ui.cameraFileButton.click()
    panel.events(0.05)
    assert "camera.json" in _message(panel)
    assert_same(before)


def test_a_c_arm_of_another_aspect_is_refused_and_nothing_changes(panel, phantom) -> None:
    _case(panel, phantom)
    narrow = xray_nodes.add_xray(np.eye(30, 90), Camera.from_spacing(90, 30, 1.0, 900.0), "narrow", GIVEN)
    panel.events(0.1)
    panel.look_at(narrow)
    before = scene_state()
    name = next(name for name in panel.widget.logic.cArms() if "30 x 40" in name or "43 x 43" in name)
    panel.choose(panel.ui.carmComboBox, name)
    assert "90 x 30" in _message(panel)
    assert panel.ui.carmComboBox.currentIndex == 0
    assert_same(before)


def test_a_ct_without_bone_is_said_and_nothing_is_added(panel) -> None:
    hu = np.full((30, 30, 30), -1000.0, np.float32)
    hu[5:25, 5:25, 5:25] = np.random.default_rng(0).normal(30.0, 10.0, (20, 20, 20))
    ct = _ct_node(Volume(hu, np.diag([3.0, 3.0, 3.0, 1.0]), "flesh"))
    panel.ui.ctSelector.setCurrentNode(ct)
    panel.events()
    before = scene_nodes()
    for button in (panel.ui.segmentButton, panel.ui.sampleLandmarksButton):
        button.click()
        panel.events(0.05)
        assert "bone" in _message(panel)
        assert scene_nodes() == before


def test_a_ct_or_an_x_ray_that_cannot_be_used_says_why_and_breaks_nothing(panel, phantom) -> None:
    ct, (xray,) = _case(panel, phantom)
    pose = xray_nodes.pose_node_of(xray)
    right = vtk.vtkMatrix4x4()
    pose.GetMatrixTransformToParent(right)
    pose.SetMatrixTransformToParent(_scaling())
    panel.events(0.1)
    panel.ui.layoutButton.click()
    panel.events(0.1)
    assert not panel.ui.registerButton.enabled
    assert "'shot'" in panel.ui.registerButton.toolTip
    assert panel.ui.xrayTable.item(0, 3).text() == "cannot be used"
    pose.SetMatrixTransformToParent(right)
    panel.events(0.1)
    bend = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLBSplineTransformNode", "warp")
    bend.SetAndObserveTransformToParent(vtk.vtkThinPlateSplineTransform())
    ct.SetAndObserveTransformNodeID(bend.GetID())
    panel.widget.refresh()
    panel.events(0.1)
    assert "'warp'" in panel.ui.registerButton.toolTip
    ct.SetAndObserveTransformNodeID(None)
    panel.widget.refresh()
    assert panel.ui.registerButton.enabled


def test_a_blank_x_ray_can_be_looked_at(panel, phantom) -> None:
    ct_node = _ct_node(phantom[0])
    panel.ui.ctSelector.setCurrentNode(ct_node)
    xray_nodes.add_xray(np.zeros((80, 96)), CAMERA, "blank", GIVEN)
    panel.events(0.1)
    panel.ui.layoutButton.click()
    panel.events(0.1)
    panel.choose(panel.ui.overlayComboBox, "checkerboard")
    panel.events(0.1)
    panel.register()
    panel.until_idle()
    assert "blank" in _message(panel)


def test_an_x_ray_is_removed_with_all_that_came_with_it(panel, phantom) -> None:
    from XRayRegistrationLib.images.prepare import HeaderHints

    before = scene_nodes()
    header = HeaderHints(None, False, np.ones((80, 96), bool))
    panel.ui.ctSelector.setCurrentNode(_ct_node(phantom[0]))
    with_ct = scene_nodes()
    xray_nodes.add_xray(phantom[2][0], CAMERA, "shot", GIVEN, header=header)
    panel.events(0.1)
    panel.ui.layoutButton.click()
    panel.events(0.2)
    panel.app.answers.append(False)
    panel.ui.removeXRayButton.click()
    assert len(xray_nodes.xray_nodes()) == 1
    panel.ui.removeXRayButton.click()
    panel.events(0.1)
    assert scene_nodes() == with_ct
    assert before != with_ct


def test_numba_is_declined(panel, monkeypatch) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "numba" else find(name, *rest))
    panel.app.packages.missing.add("numba")
    panel.app.packages.answer = "decline"
    panel.widget.refresh()
    assert not panel.ui.installButton.isHidden()
    panel.ui.installButton.click()
    panel.events(0.05)
    assert "numba was not installed" in _message(panel).lower()
    assert not panel.ui.installButton.isHidden()


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.status != "available"])
def test_a_planned_method_cannot_be_started_and_says_so(panel, phantom, name) -> None:
    _case(panel, phantom)
    panel.choose(panel.ui.methodComboBox, name)
    assert not panel.ui.registerButton.enabled
    assert panel.ui.registerButton.toolTip.endswith("is planned for a later version; choose DiffDRR (no training).")
    assert panel.words == panel.ui.registerButton.toolTip
    panel.choose(panel.ui.methodComboBox, "diffdrr")
    assert panel.ui.registerButton.enabled


def test_choices_of_a_scene_from_another_version_are_said_to_be_unknown(panel, phantom) -> None:
    _case(panel, phantom)
    node = panel.widget.parameters.parameterNode
    panel.widget.parameters.method = "magic"
    panel.widget.parameters.backend = "abacus"
    panel.widget.parameters.overlay = "hologram"
    assert node is not None
    panel.events(0.1)
    assert not panel.ui.registerButton.enabled
    assert "magic" in panel.ui.registerButton.toolTip
    panel.widget.parameters.method = "diffdrr"
    panel.events(0.1)
    assert "abacus" in panel.ui.registerButton.toolTip


def test_a_folder_that_cannot_be_written_is_one_clear_line(panel, phantom, found, tmp_path) -> None:
    _case(panel, phantom)
    runner = panel.put(HeldRunner())
    panel.register()
    panel.app.wait(lambda: runner.jobs)
    runner.jobs[0].end(found)
    panel.until_idle()
    (tmp_path / "file").write_text("no folder")
    panel.app.files.append(str(tmp_path / "file" / "below"))
    panel.ui.exportButton.click()
    panel.events()
    assert "file" in _message(panel)


# Training


@pytest.fixture
def learner(monkeypatch, tmp_path):
    """A method that learns, and where its weights lie."""
    method = PlannedMethod("learner", "learns", "nobody, 2026", Needs(weights=True))
    method.status = "available"
    monkeypatch.setitem(METHODS, "learner", method)
    monkeypatch.setenv("XRAYREGISTRATION_HOME", str(tmp_path / "home"))
    weights = tmp_path / "home" / "weights" / "learner-phantom.safetensors"
    weights.parent.mkdir(parents=True)
    return weights


def test_training_shows_its_progress_is_cancelled_resumed_and_done(learner, panel, phantom) -> None:
    ui, runner = panel.ui, panel.put(HeldRunner())
    panel.events()
    assert not ui.trainButton.enabled
    assert "Choose the CT" in ui.trainingStatusLabel.text
    ui.ctSelector.setCurrentNode(_ct_node(phantom[0]))
    panel.events(0.05)
    assert ui.trainingComboBox.currentText == "learner"
    assert (ui.trainButton.enabled, ui.trainButton.text) == (True, "Train")
    ui.minutesSpinBox.value = 7
    panel.events()
    before = scene_nodes()
    ui.trainButton.click()
    panel.app.wait(lambda: runner.jobs)
    panel.app.wait(lambda: ui.trainButton.text == "Cancel")
    job = runner.jobs[0]
    ct_file = Path(job.argv[job.argv.index("--ct") + 1])
    assert ct_file.exists()
    assert job.argv[job.argv.index("--minutes") + 1] == "7"
    assert job.argv[job.argv.index("--out") + 1] == str(learner)
    assert "--resume" not in job.argv
    panel.app.wait(lambda: "Searching; about 5 s left" in ui.trainingStatusLabel.text)
    assert not ui.trainingProgressBar.isHidden()
    assert ui.trainingProgressBar.value == 43
    ui.trainButton.click()
    panel.events(0.05)
    assert job.cancelled
    assert not ct_file.exists()
    assert ui.trainingStatusLabel.text == "Cancelled. Nothing was learned yet."
    assert (ui.trainButton.text, ui.trainingProgressBar.isHidden()) == ("Train", True)
    learner.write_bytes(b"weights")
    panel.widget.refresh()
    assert ui.trainButton.text == "Resume training"
    ui.trainButton.click()
    panel.app.wait(lambda: len(runner.jobs) == 2)
    assert "--resume" in runner.jobs[1].argv
    panel.app.wait(lambda: ui.trainButton.text == "Cancel")
    ui.trainButton.click()
    panel.events(0.05)
    assert ui.trainingStatusLabel.text.startswith("Cancelled. What was learned so far is kept")
    ui.trainButton.click()
    panel.app.wait(lambda: len(runner.jobs) == 3)
    runner.jobs[2].progress = Progress(DONE, 1.0, result="")
    panel.app.wait(lambda: not panel.widget.training.busy)
    panel.events(0.05)
    assert ui.trainingStatusLabel.text == f"Trained. The weights are in {learner}."
    assert ui.trainButton.text == "Resume training"
    assert scene_nodes() == before
    assert panel.said == []


def test_training_that_fails_says_why(learner, panel, phantom) -> None:
    ui, runner = panel.ui, panel.put(HeldRunner())
    ui.ctSelector.setCurrentNode(_ct_node(phantom[0]))
    panel.events(0.05)
    ui.trainButton.click()
    panel.app.wait(lambda: runner.jobs)
    runner.jobs[0].progress = Progress(FAILED, message="the GPU's memory is too small")
    panel.app.wait(lambda: not panel.widget.training.busy)
    panel.events(0.05)
    assert ui.trainingStatusLabel.text == "The GPU's memory is too small."
    ui.trainButton.click()  # ends well, and wrote nothing
    panel.app.wait(lambda: len(runner.jobs) == 2)
    runner.jobs[1].progress = Progress(DONE, 1.0, result="")
    panel.app.wait(lambda: not panel.widget.training.busy)
    panel.events(0.05)
    assert "no weights were written" in ui.trainingStatusLabel.text
    assert ui.trainButton.text == "Train"


@pytest.mark.parametrize("how", ["scene", "cleanup", "ct"])
def test_training_when_the_scene_or_the_panel_goes(learner, panel, phantom, how) -> None:
    """The CT was handed over, so that its node may go; a closed scene ends it."""
    ui, runner = panel.ui, panel.put(HeldRunner())
    ct = _ct_node(phantom[0])
    ui.ctSelector.setCurrentNode(ct)
    panel.events(0.05)
    ui.trainButton.click()
    panel.app.wait(lambda: runner.jobs)
    if how == "scene":
        slicer.mrmlScene.Clear(0)
    elif how == "cleanup":
        panel.widget.cleanup()
    else:
        slicer.mrmlScene.RemoveNode(ct)
    panel.events(0.2)
    assert runner.jobs[0].cancelled == (how != "ct")
    if how == "scene":
        assert ui.trainingStatusLabel.text.startswith("Cancelled, for the scene was closed.")
        assert ui.trainingProgressBar.isHidden()
    if how == "ct":
        assert ui.trainButton.text == "Cancel"
        ui.trainButton.click()
        panel.events()
        assert not ui.trainButton.enabled


def test_without_the_variable_weights_lie_in_the_home_folder(panel, phantom, monkeypatch, tmp_path) -> None:
    monkeypatch.delenv("XRAYREGISTRATION_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    path = panel.widget.logic.weightsPath(_ct_node(phantom[0]), "rayemb")
    assert path == tmp_path / ".xrayregistration" / "weights" / "rayemb-phantom.safetensors"


# Saved and opened again


def test_everything_survives_the_scene_file(panel, phantom, tmp_path) -> None:
    _, (first, second) = _case(panel, phantom, ("frontal", "oblique"), rig=True)
    ui, parameters = panel.ui, panel.widget.parameters
    ui.segmentButton.click()
    panel.events()
    ui.sampleLandmarksButton.click()
    panel.events(0.05)
    ui.rigCheckBox.click()
    panel.register()
    panel.until_idle()
    panel.tick(second, False)
    panel.choose(ui.overlayComboBox, "checkerboard")
    ui.opacitySlider.value = 0.25
    panel.choose(ui.methodComboBox, "rayemb")
    panel.choose(ui.startComboBox, "lat-left")
    ui.seedSpinBox.value = 11
    panel.events(0.1)
    kept = {name: getattr(parameters, name) for name in ("rig", "overlay", "opacity", "method", "start", "seed")}
    kept_poses = [xray_nodes.camera_from_world_of(node) for node in (first, second)]
    verdict = ui.verdictLabel.text
    assert verdict.startswith("✔")
    assert slicer.util.saveScene(str(tmp_path / "case.mrb"))
    slicer.mrmlScene.Clear(0)
    panel.events(0.1)
    assert panel.widget.parameters.method == "diffdrr"
    slicer.util.loadScene(str(tmp_path / "case.mrb"))
    panel.events(0.2)
    parameters = panel.widget.parameters
    assert kept == {"rig": True, "overlay": "checkerboard", "opacity": 0.25, "method": "rayemb", "start": "lat-left", "seed": 11}
    assert {name: getattr(parameters, name) for name in kept} == kept
    assert ui.overlayComboBox.itemData(ui.overlayComboBox.currentIndex) == "checkerboard"
    assert ui.opacitySlider.value == pytest.approx(0.25)
    assert (parameters.ct.GetName(), parameters.landmarks.GetNumberOfControlPoints()) == ("phantom", 12)
    assert parameters.segmentation is not None
    nodes = xray_nodes.xray_nodes()
    assert [node.GetName() for node in nodes] == ["frontal", "oblique"]
    assert [node.GetName() for node in panel.widget.xrays.used] == ["frontal"]
    for node, pose in zip(nodes, kept_poses, strict=True):
        np.testing.assert_allclose(xray_nodes.camera_from_world_of(node), pose, atol=1e-4)
        assert xray_nodes.camera_of(node).camera_from_rig is not None
        assert registration.result_of(node) is not None
    assert ui.verdictLabel.text == verdict
    assert xray_nodes.pose_node_of(nodes[0]) is xray_nodes.pose_node_of(nodes[1])
    panel.look_at(nodes[1])
    ui.undoButton.click()
    panel.events(0.1)
    np.testing.assert_allclose(xray_nodes.camera_from_world_of(nodes[1]), _near(phantom[1][1]), atol=1e-4)


def _bone_pixels() -> int:
    """How much of the 3D view has the bone's colour."""
    view = slicer.app.layoutManager().threeDWidget(0).threeDView()
    picture = view.picture(300, 300).astype(int)
    return int(((picture[..., 0] - picture[..., 2]) > 25).sum())


def test_the_bone_is_shown_again_after_loading(panel, phantom, tmp_path) -> None:
    ct = _ct_node(phantom[0])
    panel.ui.ctSelector.setCurrentNode(ct)
    panel.ui.layoutButton.click()
    panel.events()
    xray_nodes.add_xray(phantom[2][0], CAMERA, "shot", GIVEN)
    panel.events(0.1)
    before = _bone_pixels()
    panel.ui.segmentButton.click()
    panel.events(0.1)
    panel.ui.sourceViewButton.click()
    panel.events(0.1)
    shown = _bone_pixels()
    assert shown > before + 500
    assert slicer.util.saveScene(str(tmp_path / "case.mrb"))
    slicer.mrmlScene.Clear(0)
    panel.events(0.1)
    slicer.util.loadScene(str(tmp_path / "case.mrb"))
    panel.events(0.1)
    panel.ui.layoutButton.click()
    panel.events(0.1)
    assert _bone_pixels() > before + 500
