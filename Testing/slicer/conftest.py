"""One Slicer scene for all tests, empty at the start of each. Without slicer-core only what needs no scene is tested."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest

# Read when PySide6 is first imported, by whichever test: no window, and enums that are ints as in Slicer.
os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
os.environ.setdefault("PYSIDE6_OPTION_PYTHON_ENUM", "0x02")
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "XRayRegistration"))

_SLICER = importlib.util.find_spec("slicer") is not None
_HERE = Path(__file__).parent
_OF_THE_SCENE = ("\nimport slicer", "panel_driver")  # in a test's text
collect_ignore = (
    [] if _SLICER else [file.name for file in _HERE.glob("test_*.py") if any(word in file.read_text() for word in _OF_THE_SCENE)]
)


def pytest_report_header() -> str:
    return "" if _SLICER else "slicer-core is not installed (wheels are for Linux): the tests of the scene are left out"


@pytest.fixture(scope="session")
def application():
    from Testing.slicer.application import Application

    return Application()


@pytest.fixture(scope="session")
def phantom_case():
    """A small CT, the pose that its X-ray was taken from, and the X-ray's line integrals."""
    from Testing.unit.ct_phantom import CAMERA, ct_phantom, xray_of
    from XRayRegistrationLib.bone.model import build_bone_model
    from XRayRegistrationLib.simulation.poses import pose_at, rotation_from_angles

    ct = ct_phantom()
    centre = build_bone_model(ct).centroid
    pose = pose_at(rotation_from_angles(10.0, -6.0, 4.0), CAMERA, centre, (50.0, 38.0), 690.0)
    return ct, pose, xray_of(ct, CAMERA, pose).line_integrals


@pytest.fixture
def scene(application):
    application.clear()
    yield application.scene
    application.clear()


@pytest.fixture(scope="session")
def _stand_in(application):
    from Testing.slicer.standin import install

    return install(application)


@pytest.fixture
def gui(request, monkeypatch):
    """The stand-in for ``slicer.app`` with an empty scene. Errors in Qt's and VTK's callbacks fail the test, and so do
    timers and processes that it leaves running."""
    for package in ("slicer", "PySide6"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    application, app = request.getfixturevalue("application"), request.getfixturevalue("_stand_in")
    from Testing.slicer.standin.failures import Failures

    application.clear()
    app.reset()
    failures = Failures(app)
    monkeypatch.setattr(sys, "excepthook", failures.on_exception)
    monkeypatch.setattr(sys, "unraisablehook", failures.on_unraisable)
    yield app
    app.close()
    left = failures.leaks()
    app.processEvents()
    application.clear()
    app.processEvents()
    assert not failures.errors, "errors inside callbacks:\n" + "\n".join(failures.errors)
    assert not left, "left running: " + "; ".join(left)


@pytest.fixture(scope="session")
def phantom():
    """For the panel's tests: a small CT, its X-ray as the first and second camera of a rig see it, and their poses."""
    from Testing.slicer.panel_driver import make_phantom

    return make_phantom()


@pytest.fixture(scope="session")
def found(phantom, application):
    """A Result of the phantom's first X-ray."""
    from Testing.slicer.panel_driver import find_result

    return find_result(phantom)


@pytest.fixture
def panel(gui):
    """The module's panel, to be driven as a person would."""
    from Testing.slicer.panel_driver import Panel

    return Panel(gui)
