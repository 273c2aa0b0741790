"""One Slicer scene for all tests, empty at the start of each."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed")

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "XRayRegistration"))

from Testing.slicer.application import Application


@pytest.fixture(scope="session")
def application() -> Application:
    return Application()


@pytest.fixture(autouse=True)
def scene(application: Application):
    application.clear()
    yield application.scene
    application.clear()
