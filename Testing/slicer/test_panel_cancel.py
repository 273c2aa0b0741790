"""Cancel at any time, processes that go wrong, and how long a handler takes."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from XRayRegistrationScene.jobs import LocalJobRunner

from Testing.slicer.panel_driver import (
    PATIENCE_S,
    HeldRunner,
    OtherProcess,
    WatchedRunner,
    add_case,
    assert_same,
    scene_state,
)

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
    add_case(panel, phantom)
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
    add_case(panel, phantom)
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
    add_case(panel, phantom)
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
    add_case(panel, phantom, ("frontal", "oblique"), rig=True)
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
    add_case(panel, phantom)
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

    add_case(panel, phantom)
    runner = panel.put(Nowhere())
    panel.register()
    panel.until_idle()
    panel.assert_idle()
    assert "could not be started" in panel.said[0]
    assert not runner.folder.exists()


def test_no_handler_blocks_for_long(panel, phantom, monkeypatch) -> None:
    add_case(panel, phantom)
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
