"""Jobs: what they tell, how they fail, and that they stop when told to."""

from __future__ import annotations

import os
import sys
import time

import pytest
from XRayRegistrationScene.jobs import CANCELLED, DONE, FAILED, RUNNING, LocalJobRunner


def _wait(job, seconds: float = 20.0):
    end = time.monotonic() + seconds
    while job.poll().state == RUNNING and time.monotonic() < end:
        time.sleep(0.01)
    return job.poll()


def _process(code: str):
    return LocalJobRunner().start_process([sys.executable, "-c", code])


def test_steps_tell_how_far_they_are_and_return_a_result() -> None:
    def steps():
        for n in range(4):
            time.sleep(0.04)
            yield n / 4, f"step {n}"
        return "here it is"

    job = LocalJobRunner().start_steps(steps())
    first = job.poll()
    assert (first.state, first.text) == (RUNNING, "step 0")
    last = _wait(job)
    assert (last.state, last.fraction, last.result) == (DONE, 1.0, "here it is")


def test_steps_that_fail_say_why() -> None:
    def steps():
        yield 0.5, "on the way"
        raise ValueError("the CT is gone")

    progress = _wait(LocalJobRunner().start_steps(steps()))
    assert (progress.state, progress.message) == (FAILED, "the CT is gone")


def test_cancelled_steps_clean_up() -> None:
    cleaned = []

    def steps():
        try:
            while True:
                time.sleep(0.05)
                yield 0.1, "working"
        finally:
            cleaned.append(True)

    job = LocalJobRunner().start_steps(steps())
    job.poll()
    assert job.cancel().state == CANCELLED
    assert cleaned == [True]
    assert job.poll().state == CANCELLED


def test_a_process_tells_its_progress_and_its_result() -> None:
    code = (
        "import json, sys, time\n"
        "for n in range(5):\n"
        "    print(json.dumps({'progress': n / 4, 'text': f'part {n}'}), file=sys.stderr, flush=True)\n"
        "    time.sleep(0.05)\n"
        "print('ready')"
    )
    job = _process(code)
    seen = set()
    while job.poll().state == RUNNING:
        seen.add(job.poll().text)
        time.sleep(0.01)
    progress = job.poll()
    assert (progress.state, progress.result, progress.text, progress.log) == (DONE, "ready", "part 4", [])
    assert len(seen) > 2


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("raise SystemExit('xrayreg: no such CT; give another')", "no such CT; give another"),
        ("import os; os.kill(os.getpid(), 9)", "memory was used up"),
        ("raise SystemExit('error: [python-real] exit abnormally - Report the problem.')", "memory was used up"),
        ("raise SystemExit(7)", "status 7"),
        ("import os; os.abort()", "signal 6"),
    ],
)
def test_a_process_that_dies_says_why(code: str, says: str) -> None:
    progress = _wait(_process(code))
    assert progress.state == FAILED
    assert says in progress.message


def test_rubbish_goes_into_the_log_and_harms_nothing() -> None:
    code = (
        "import sys\n"
        "sys.stderr.buffer.write(b'\\xff\\xfe not text\\n{\"progress\": \"x\"}\\n[1, 2]\\n')\n"
        "sys.stderr.buffer.write(b'{\"progress\": 0.5, \"text\": \"half\"}\\n')\n"
        "sys.stderr.buffer.write(b'{\"progress\": 7, \"text\": \"much\"}\\n' + b'y' * 100000 + b'\\n')\n"
    )
    progress = _wait(_process(code))
    assert progress.state == DONE
    assert progress.text == "much"
    assert progress.fraction == 1.0
    assert len(progress.log) == 4


@pytest.mark.skipif(os.name == "nt", reason="process groups are POSIX's")
def test_a_stubborn_process_and_its_child_are_killed_within_a_second() -> None:
    child = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(60)"
    code = (
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}])\n"
        "print(child.pid, file=sys.stderr, flush=True)\n"
        "time.sleep(60)\n"
    )
    job = _process(code)
    while not job.poll().log:
        time.sleep(0.01)
    pid = int(job.poll().log[0])
    begin = time.monotonic()
    assert job.cancel().state == CANCELLED
    assert time.monotonic() - begin < 1.0
    assert job.exit_status is not None
    for _ in range(100):  # until the system has buried the orphan
        if not _alive(pid):
            break
        time.sleep(0.02)
    assert not _alive(pid)
    assert job.poll().state == CANCELLED


@pytest.mark.skipif(os.name == "nt", reason="process groups are POSIX's")
def test_what_a_launcher_has_started_is_given_time_to_save(tmp_path) -> None:
    """Slicer's Python is such a child; the launcher itself dies at the first signal."""
    saved = tmp_path / "saved"
    child = (
        "import sys, time\n"
        "try:\n"
        "    print('ready', file=sys.stderr, flush=True)\n"
        "    time.sleep(60)\n"
        "except KeyboardInterrupt:\n"
        f"    time.sleep(0.1); open({str(saved)!r}, 'w').close()\n"
    )
    code = (
        "import signal, subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}])\n"
        "signal.signal(signal.SIGINT, signal.SIG_DFL)\n"
        "child.wait()\n"
    )
    job = _process(code)
    while "ready" not in job.poll().log:
        time.sleep(0.01)
    job.cancel()
    assert saved.exists()


def _alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_time_left_is_told_from_what_is_done() -> None:
    def steps():
        for n in range(20):
            time.sleep(0.04)
            yield n / 20, "x"

    job = LocalJobRunner().start_steps(steps())
    assert job.poll().seconds_left is None
    while job.poll().fraction < 0.5:
        pass
    assert 0.0 < job.poll().seconds_left < 2.0
