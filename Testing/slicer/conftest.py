"""One Slicer scene for all tests, empty at the start of each. Without slicer-core only what needs no scene is tested."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "XRayRegistration"))

_SLICER = importlib.util.find_spec("slicer") is not None
collect_ignore = [] if _SLICER else ["test_registration_in_scene.py", "test_scene.py", "test_source_view.py", "test_sync.py"]


def pytest_report_header() -> str:
    return "" if _SLICER else "slicer-core is not installed (wheels are for Linux): the tests of the scene are left out"


@pytest.fixture(scope="session")
def application():
    from Testing.slicer.application import Application

    return Application()


@pytest.fixture
def scene(application):
    application.clear()
    yield application.scene
    application.clear()
