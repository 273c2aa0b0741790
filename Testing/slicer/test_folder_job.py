"""A registration in its own process: done, cancelled at any time, crashed, out of memory, talking rubbish."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import pytest
import slicer
from XRayRegistrationScene import registration, volume_nodes, xray_nodes
from XRayRegistrationScene.folder_job import registration_job
from XRayRegistrationScene.jobs import CANCELLED, DONE, FAILED, RUNNING, LocalJobRunner

from Testing.unit.ct_phantom import CAMERA
from XRayRegistrationLib.request import fulfil

pytestmark = pytest.mark.usefixtures("scene")


class Instead(LocalJobRunner):
    """Runs some other Python code in place of the library; {folder} in it is the request's folder."""

    def __init__(self, code: str) -> None:
        self.code, self.folder, self.job = code, None, None

    def start_process(self, argv, env=None):
        self.folder = Path(argv[-1])
        self.job = super().start_process([sys.executable, "-c", self.code.format(folder=repr(str(self.folder)))], env)
        return self.job


@pytest.fixture
def request_(phantom_case, scene):
    ct, pose, image = phantom_case
    ct_node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "phantom")
    volume_nodes.set_volume(ct_node, ct)
    node = xray_nodes.add_xray(image, CAMERA, "shot")
    start = pose.copy()
    start[:3, 3] += (4.0, -3.0, 9.0)
    xray_nodes.set_camera_from_world(node, start)
    return registration.gather(ct_node, [node], start="current")


def _wait(job, seconds=60.0):
    end = time.monotonic() + seconds
    while job.poll().state == RUNNING and time.monotonic() < end:
        time.sleep(0.01)
    return job.poll()


def test_it_finds_what_the_library_finds_and_leaves_nothing(request_) -> None:
    runner = LocalJobRunner()
    job = registration_job(request_, runner)
    folder = job._folder
    seen, longest = [], 0.0
    while True:
        begin = time.monotonic()
        progress = job.poll()
        longest = max(longest, time.monotonic() - begin)
        seen.append(progress.fraction)
        if progress.state != RUNNING:
            break
        time.sleep(0.02)
    assert progress.state == DONE, progress.message
    assert seen == sorted(seen)
    # rounding decides where the solver stops, and the libraries of the scene round otherwise than a plain process
    np.testing.assert_allclose(progress.result.camera_from_ct, fulfil(request_).camera_from_ct, atol=0.01)
    assert not folder.exists()
    assert longest < 0.5  # loose: how long a step takes is measured by a benchmark


@pytest.mark.parametrize("after_s", [0.0, 0.3, 1.5])
def test_cancel_stops_it_within_a_second(request_, after_s) -> None:
    runner = LocalJobRunner()
    job = registration_job(request_, runner)
    end = time.monotonic() + after_s
    while time.monotonic() < end:
        job.poll()
        time.sleep(0.01)
    working, folder = job._working, job._folder
    begin = time.monotonic()
    assert job.cancel().state == CANCELLED
    assert time.monotonic() - begin < 1.5
    assert not folder.exists()
    if working is not None:
        assert working.exit_status is not None
    assert job.poll().state == CANCELLED


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("raise SystemExit(2)", "ended with status 2 and said nothing"),
        ("import sys; sys.exit('xrayreg: the X-ray is empty')", "the X-ray is empty"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "signal 11"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "memory was used up"),
        ("print('hello')", "without a usable result"),
        ("import sys; sys.stdout.buffer.write(bytes(range(256)) * 99); sys.stderr.write('{{\\n[1]\\n')", "without a usable"),
        ("open({folder} + '/result.json', 'w').write('{{}}')", "without a usable result"),
    ],
)
def test_a_process_that_goes_wrong_is_a_failure_with_a_reason(request_, code, says) -> None:
    runner = Instead(code)
    progress = _wait(registration_job(request_, runner))
    assert progress.state == FAILED
    assert says in progress.message
    assert progress.result is None
    assert not runner.folder.exists()


def test_bad_input_comes_back_as_its_one_line(phantom_case, scene) -> None:
    ct, _, image = phantom_case
    ct_node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "phantom")
    volume_nodes.set_volume(ct_node, ct)
    node = xray_nodes.add_xray(np.zeros_like(image), CAMERA, "blank")
    progress = _wait(registration_job(registration.gather(ct_node, [node]), LocalJobRunner()))
    assert progress.state == FAILED
    assert progress.message.startswith("the X-ray blank has the same value 0 everywhere")
