"""The extension as CMake installs it: complete, and it works from there, with the repository out of reach."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from Testing.slicer.packaging.index_lints import repository_files

ROOT = Path(__file__).resolve().parents[2]
CONFIGURATION = Path(__file__).parent / "packaging"
MODULES = "lib/Slicer-5.12/qt-scripted-modules"

CMAKE = shutil.which("cmake", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
pytestmark = pytest.mark.skipif(CMAKE is None, reason="CMake is not installed: pip install cmake")

# What every process that uses the installed files starts with. An editable installation would find the repository, and
# so would a folder of sys.path.
_ONLY_INSTALLED = """
import sys
from pathlib import Path
installed, repository = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
sys.meta_path[:] = [f for f in sys.meta_path if "__editable__" not in getattr(f, "__module__", "")]
sources = {repository, repository / "XRayRegistration"}
sys.path[:] = [str(installed), *(p for p in sys.path if Path(p).resolve() not in sources and "__editable__" not in p)]
"""
_NOTHING_ELSE = """
own = {n: m for n, m in sys.modules.items() if n.startswith("XRayRegistration")}
assert own, "nothing of the extension was imported"
for name, module in own.items():
    assert Path(module.__file__).resolve().is_relative_to(installed), f"{name} came from {module.__file__}"
"""
_SPHERE = """
import numpy as np
import XRayRegistrationLib.cli
import XRayRegistrationLib.registration
from XRayRegistrationLib.drr.render import render
from XRayRegistrationLib.drr.volume import AttenuationVolume
from XRayRegistrationLib.geometry.camera import Camera

n, radius_mm, mu_per_mm = 49, 20.0, 0.02
ct_from_ijk = np.eye(4)
ct_from_ijk[:3, 3] = -(n - 1) / 2
distance_mm = np.linalg.norm(np.indices((n, n, n)) - (n - 1) / 2, axis=0)
inside = np.clip(radius_mm + 0.5 - distance_mm, 0, 1)
camera_from_ct = np.eye(4)
camera_from_ct[2, 3] = 500.0
camera = Camera(width=9, height=9, K=[[1000, 0, 4], [0, 1000, 4], [0, 0, 1]])
image = render(AttenuationVolume(mu_per_mm * inside, ct_from_ijk), camera, camera_from_ct, backend="scipy")
np.testing.assert_allclose(image[4, 4], 2 * radius_mm * mu_per_mm, rtol=5e-3)
"""
_EVERY_MODULE = """
import importlib
import pkgutil
import {package}
for module in pkgutil.walk_packages({package}.__path__, "{package}."):
    if not module.name.endswith(("__main__", "_kernels")):
        importlib.import_module(module.name)
"""
_PANEL = """
sys.path.append(sys.argv[3])
from Testing.slicer.application import Application
from Testing.slicer.standin import install

app = install(Application())
module, widget, logic = app.load_module(str(installed / "XRayRegistration.py"))
assert len(vars(widget.ui)) > 10
assert type(logic).__name__ == "XRayRegistrationLogic"
assert not [m for m in app.messages if m[0] == "error"], app.messages
"""


def configure(source: Path, build: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Configure on the stand-in for Slicer's configuration. Output holds what CMake warned of."""
    no_compiler = [f"-DCMAKE_{x}_COMPILER{y}" for x in ("C", "CXX") for y in (f"={CMAKE}", "_FORCED=ON", "_ID_RUN=ON")]
    return subprocess.run(
        # nothing is compiled, so none is looked for: any program will do
        [CMAKE, "-G", "Unix Makefiles", "-S", source, "-B", build, f"-DSlicer_DIR={CONFIGURATION}", *no_compiler, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The configured extension. A warning is an error."""
    folder = tmp_path_factory.mktemp("build")
    done = configure(ROOT, folder)
    assert done.returncode == 0, done.stdout
    assert "CMake Warning" not in done.stdout, done.stdout
    return folder


@pytest.fixture(scope="session")
def installed(build: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that Slicer would add to its module paths."""
    prefix = tmp_path_factory.mktemp("installed")
    subprocess.run([CMAKE, "--install", build, "--prefix", prefix], check=True, capture_output=True)
    return prefix / MODULES


def _run(code: str, installed: Path, *arguments: object) -> None:
    command = [sys.executable, "-I", "-B", "-c", _ONLY_INSTALLED + code + _NOTHING_ELSE, installed, ROOT, *arguments]
    offscreen = {**os.environ, "QT_QPA_PLATFORM": "offscreen"}
    done = subprocess.run(
        [str(c) for c in command], cwd=installed.parent, env=offscreen, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_all_files_of_the_repository_are_installed_and_no_others(installed: Path) -> None:
    expected = {f.removeprefix("XRayRegistration/") for f in repository_files(ROOT, "XRayRegistration")}
    expected |= set(repository_files(ROOT, "XRayRegistrationLib"))
    expected -= {"CMakeLists.txt", "XRayRegistrationLib/CMakeLists.txt"}
    assert {p.relative_to(installed).as_posix() for p in installed.rglob("*") if p.is_file()} == expected
    assert "XRayRegistrationLib/geometry/camera.py" in expected  # that the lists are not both empty


def test_library_works(installed: Path) -> None:
    _run(_SPHERE, installed)


def test_every_file_of_the_library_loads(installed: Path) -> None:
    _run(_EVERY_MODULE.format(package="XRayRegistrationLib"), installed)


@pytest.mark.skipif(importlib.util.find_spec("slicer") is None, reason="slicer-core is not installed")
def test_every_file_of_the_scene_loads(installed: Path) -> None:
    _run("import slicer\n" + _EVERY_MODULE.format(package="XRayRegistrationScene"), installed)


@pytest.mark.skipif(importlib.util.find_spec("slicer") is None, reason="slicer-core is not installed")
@pytest.mark.skipif(importlib.util.find_spec("PySide6") is None, reason="PySide6 is not installed")
def test_panel_opens(installed: Path, tmp_path: Path) -> None:
    # a copy of the test bed: with it from its own place, the repository would be in reach
    here = Path(__file__).parent
    shutil.copytree(here, tmp_path / "Testing/slicer", ignore=shutil.ignore_patterns("test_*", "conftest.py", "__pycache__"))
    (tmp_path / "Testing/__init__.py").touch()
    _run(_PANEL, installed, tmp_path)


def test_slicer_finds_one_module_with_its_icon_and_panel(installed: Path) -> None:
    # Slicer takes every Python file of this folder for a module, and looks for its resources by its name
    assert [p.name for p in installed.glob("*.py")] == ["XRayRegistration.py"]
    assert (installed / "Resources/Icons/XRayRegistration.png").is_file()
    assert (installed / "Resources/UI/XRayRegistration.ui").is_file()


def test_slicers_own_tests_are_declared(build: Path) -> None:
    declared = (build / "XRayRegistration/CTestTestfile.cmake").read_text()
    assert "py_XRayRegistration" in declared
    assert "py_nomainwindow_qSlicerXRayRegistrationModuleGenericTest" in declared


# ---- the stand-in for Slicer's configuration complains where it should


_PROJECT = """
cmake_minimum_required(VERSION 3.16.3...3.19.7)
project(Demo)
foreach(key HOMEPAGE CATEGORY CONTRIBUTORS DESCRIPTION ICONURL SCREENSHOTURLS DEPENDS)
  set(EXTENSION_${{key}} "some")
endforeach()
find_package(Slicer REQUIRED)
include(${{Slicer_USE_FILE}})
{body}
include(${{Slicer_EXTENSION_GENERATE_CONFIG}})
include(${{Slicer_EXTENSION_CPACK}})
"""
_ALL = "slicerMacroBuildScriptedModule(NAME Demo SCRIPTS Demo.py Pack/part RESOURCES Resources/Demo.ui)"


def _demo(folder: Path, body: str) -> subprocess.CompletedProcess[str]:
    source = folder / "Demo"
    for name in ("Demo.py", "Pack/part.py", "Resources/Demo.ui", "Pack/__pycache__/part.cpython-312.pyc"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).touch()
    (source / "CMakeLists.txt").write_text(_PROJECT.format(body=body))
    return configure(source, folder / "build")


def test_configuration_accepts_what_is_right(tmp_path: Path) -> None:
    done = _demo(tmp_path, _ALL + "\nslicer_add_python_unittest(SCRIPT Demo.py)")
    assert done.returncode == 0, done.stdout
    assert "CMake Warning" not in done.stdout, done.stdout


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("slicerMacroBuildScriptedModule(NAME Demo SCRIPTS Demo.py Missing.py)", "nonexistent file 'Missing.py'"),
        ("slicerMacroBuildScriptedModule(NAME Demo SCRIPTS Demo.py RESOURCES Demo.ui)", "nonexistent file 'Demo.ui'"),
        ("slicerMacroBuildScriptedModule(NAME Demo SCRIPTS ${CMAKE_CURRENT_SOURCE_DIR}/Demo.py)", "not a path inside"),
        ("slicerMacroBuildScriptedModule(NAME Demo SCRIPTS ../Demo/Demo.py)", "not a path inside"),
        ("slicerMacroBuildScriptedModule(NAME Demo FILES Demo.py)", "Unknown keywords"),
        ("slicerMacroBuildScriptedModule(NAME Demo)", "needs NAME and SCRIPTS"),
        (_ALL + "\nslicer_add_python_unittest(SCRIPT DemoTest.py)", "nonexistent file 'DemoTest.py'"),
        (_ALL + "\nset(EXTENSION_ICONURL)", "EXTENSION_ICONURL is not set"),
    ],
)
def test_configuration_fails_on_what_is_wrong(tmp_path: Path, body: str, complaint: str) -> None:
    done = _demo(tmp_path, body)
    assert done.returncode != 0
    assert complaint in " ".join(done.stdout.split()), done.stdout


def test_configuration_warns_of_what_stays_behind(tmp_path: Path) -> None:
    done = _demo(tmp_path, "slicerMacroBuildScriptedModule(NAME Demo SCRIPTS Demo.py)")
    assert done.returncode == 0, done.stdout
    text = " ".join(done.stdout.split())
    assert text.count("CMake Warning") == 2, done.stdout
    assert "'Pack/part.py' is in the module's folder and is not packaged" in text
    assert "'Resources/Demo.ui' is in the module's folder and is not packaged" in text
