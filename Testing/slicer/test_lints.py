"""The Extensions Index's rules and Slicer's conventions hold; and each lint complains when they do not."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path

import pytest

from Testing.slicer.packaging import import_lints, index_lints, ui_lints

ROOT = Path(__file__).resolve().parents[2]
NAME = "XRayRegistration"
MODULE = ROOT / NAME / f"{NAME}.py"
UI = ROOT / NAME / f"Resources/UI/{NAME}.ui"
CMAKE = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
ENTRY = (ROOT / f"{NAME}.json").read_text(encoding="utf-8")
MODALITIES = ("XA", "RF", "DX", "CR")

OWN = frozenset({f"{NAME}Lib", *(p.parent.name for p in (ROOT / NAME).glob("*/__init__.py"))})


def _files(folder: str, *suffixes: str) -> list[str]:
    return [f for f in index_lints.repository_files(ROOT, folder) if f.endswith(suffixes)]


def _text(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


# ---- the Extensions Index


def test_catalogue_entry() -> None:
    assert index_lints.lint_entry(NAME, ENTRY) == []


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"scm_url": None}, "scm_url is missing"),
        ({"scmurl": "https://example.org"}, "no scmurl"),
        ({"tier": "1"}, "allowed is a int"),
        ({"tier": 6}, "tier is 6"),
        ({"enabled": 1}, "allowed is a bool"),
        ({"category": "Segmentation"}, "category is Segmentation"),
        ({"scm_url": "git@github.com:someone/Slicer.git"}, "scm_url is git@"),
        ({"$schema": "https://example.org/v9.json"}, "$schema is"),
    ],
)
def test_catalogue_entry_complains(change: dict, complaint: str) -> None:
    entry = {k: v for k, v in {**json.loads(ENTRY), **change}.items() if v is not None}
    assert complaint in " ".join(index_lints.lint_entry(NAME, json.dumps(entry)))


def test_catalogue_entry_complains_of_broken_json() -> None:
    assert "is not JSON" in index_lints.lint_entry(NAME, ENTRY.replace("}", ""))[0]


def test_catalogue_entry_and_cmake_agree() -> None:
    assert index_lints.lint_entry_against_cmake(NAME, json.loads(ENTRY), CMAKE) == []


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("project(XRayRegistration)", "project(XRay)", "project name is XRay;"),
        ('CATEGORY "Registration"', 'CATEGORY "Examples"', "EXTENSION_CATEGORY is Examples"),
        ('DEPENDS "PyTorch"', 'DEPENDS "NA"', "EXTENSION_DEPENDS is NA"),
        ("set(EXTENSION_HOMEPAGE", "# set(EXTENSION_PAGE", "EXTENSION_HOMEPAGE is None"),
    ],
)
def test_catalogue_entry_and_cmake_disagree(old: str, new: str, complaint: str) -> None:
    assert CMAKE.count(old) == 1
    assert complaint in " ".join(index_lints.lint_entry_against_cmake(NAME, json.loads(ENTRY), CMAKE.replace(old, new)))


def test_repository_name() -> None:
    assert index_lints.lint_repository_name(json.loads(ENTRY)) == []


@pytest.mark.parametrize(("repository", "right"), [("SlicerXRay", True), ("XRay-slicer.git", True), ("XRayRegistration", False)])
def test_repository_name_lint(repository: str, right: bool) -> None:
    assert (index_lints.lint_repository_name({"scm_url": f"https://github.com/someone/{repository}"}) == []) is right


def test_dicom_rule() -> None:
    assert index_lints.lint_dicom_rule(json.loads(ENTRY)["dicom_support_rule"], MODALITIES) == []


@pytest.mark.parametrize(
    ("rule", "complaint"),
    [
        ("Modality == 'XA' or Modality == 'RF' or Modality == 'DX'", "False for Modality 'CR'"),
        ("Modality != 'MR'", "True for Modality 'CT'"),
        ("Modality == 'XA' or SOPClassUID == '1.2'", "asks for ['Modality', 'SOPClassUID']"),
        ("Modality = 'XA'", "invalid syntax"),
    ],
)
def test_dicom_rule_complains(rule: str, complaint: str) -> None:
    assert complaint in " ".join(index_lints.lint_dicom_rule(rule, MODALITIES))


def _lint_urls(cmake: str) -> str:
    entry = json.loads(ENTRY)
    return " ".join(index_lints.lint_urls(cmake, entry["scm_url"], entry["scm_revision"], ROOT))


def test_urls() -> None:
    assert _lint_urls(CMAKE) == ""


@pytest.mark.parametrize(
    ("pattern", "new", "complaint"),
    [
        (r"/main/(\w+\.png)", r"/main/docs/\1", "is not in the repository"),
        (r"/main/(\w+\.png)", r"/develop/\1", "is of branch develop"),
        (r"https://(raw\S+panel)", r"\1", "does not start with http"),
        (r"raw.githubusercontent.com(\S+)/main/Res", r"github.com\1/blob/main/Res", "is a page"),
        (r"set\(EXTENSION_SCREENSHOTURLS", "# (", "no line set(EXTENSION_SCREENSHOTURLS"),
    ],
)
def test_urls_complain(pattern: str, new: str, complaint: str) -> None:
    changed = re.sub(pattern, new, CMAKE)
    assert changed != CMAKE
    assert complaint in _lint_urls(changed)


ICONS = [ROOT / f"{NAME}.png", ROOT / NAME / f"Resources/Icons/{NAME}.png"]


@pytest.mark.parametrize("icon", ICONS, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_icon(icon: Path) -> None:
    assert index_lints.lint_icon(icon.read_bytes(), icon.name) == []
    assert icon.read_bytes() == ICONS[0].read_bytes()


def test_icon_complains() -> None:
    good = ICONS[0].read_bytes()
    assert "is 64 x 128" in index_lints.lint_icon(good[:16] + struct.pack(">I", 64) + good[20:], "icon")[0]
    assert "is opaque" in index_lints.lint_icon(good[:25] + b"\2" + good[26:], "icon")[0]
    assert "is not a PNG" in index_lints.lint_icon(b"\xff\xd8\xff\xe0" + good[4:], "icon")[0]


def test_licence(tmp_path: Path) -> None:
    assert index_lints.lint_licence(ROOT) == []
    assert index_lints.lint_licence(tmp_path) != []
    (tmp_path / "LICENSE").touch()
    assert index_lints.lint_licence(tmp_path) != []


def test_repository_is_small(tmp_path: Path) -> None:
    assert index_lints.lint_size(index_lints.repository_size_mb(ROOT)) == []
    (tmp_path / "large").write_bytes(bytes(3_000_000))
    assert index_lints.repository_size_mb(tmp_path) == pytest.approx(3.0)
    assert index_lints.lint_size(61.0) != []


# ---- Python files


@pytest.mark.parametrize("path", _files(NAME, ".py"))
def test_imports_of_the_module(path: str) -> None:
    source = _text(path)
    assert import_lints.lint_module_imports(source, path, OWN) == []
    assert import_lints.lint_no_install_on_import(source, path) == []


def test_imports_of_the_library() -> None:
    paths = _files("XRayRegistrationLib", ".py")
    assert len(paths) > 50
    assert import_lints.lint_library_imports({p: _text(p) for p in paths}) == []


@pytest.mark.parametrize(
    ("source", "right"),
    [
        ("import json, vtk, slicer\nfrom numpy import linalg\nfrom vtkmodules.util import numpy_support", True),
        ("from slicer.ScriptedLoadableModule import *\nfrom XRayRegistrationScene import jobs", True),
        ("import numba", False),
        ("import numpy, matplotlib.pyplot", False),
        ("from pydicom import dcmread", False),
        ("try:\n    import torch\nexcept ImportError:\n    torch = None", False),
        ("if True:\n    import torch", False),
        ("class A:\n    import torch", False),
        ("def f():\n    import torch", True),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch", True),
        ("from . import sync", True),
    ],
)
def test_import_lint_of_the_module(source: str, right: bool) -> None:
    assert (import_lints.lint_module_imports(source, "XRayRegistration/some.py", OWN) == []) is right


@pytest.mark.parametrize(
    ("file", "source", "right"),
    [
        ("images/ct.py", "import pydicom, SimpleITK\nfrom scipy import ndimage", True),
        ("images/ct.py", "import slicer", False),
        ("images/ct.py", "import vtk", False),
        ("drr/render.py", "from numba import njit", False),
        ("drr/render.py", "def f():\n    from numba import njit", True),
        ("drr/render.py", "from XRayRegistrationLib.drr._some_kernels import f", False),
        ("drr/render.py", "from XRayRegistrationLib.drr import _some_kernels", False),
        ("drr/render.py", "from XRayRegistrationLib.drr import backend_some", False),
        ("drr/render.py", "import XRayRegistrationLib.drr.backend_some", False),
        ("drr/render.py", "from . import backend_some", False),
        ("drr/render.py", "from .backend_some import f", False),
        ("drr/__init__.py", "from ._some_kernels import f", False),
        ("drr/render.py", "def f():\n    from . import backend_some", True),
        ("drr/backend_other.py", "from . import backend_some", True),
    ],
)
def test_import_lint_of_the_library(file: str, source: str, right: bool) -> None:
    sources = {
        "drr/_some_kernels.py": "from numba import njit",
        "drr/backend_some.py": "from XRayRegistrationLib.drr._some_kernels import f",
        "drr/uses.py": "from XRayRegistrationLib.drr import render",
        file: source,
    }
    complaints = import_lints.lint_library_imports({f"XRayRegistrationLib/{f}": s for f, s in sources.items()})
    assert (complaints == []) is right


def test_nothing_that_python_no_longer_has() -> None:
    paths = _files(NAME, ".py") + _files("XRayRegistrationLib", ".py")
    assert [c for p in paths for c in import_lints.lint_gone(_text(p), p)] == []
    assert import_lints.lint_gone("def reload():\n    import imp", "some.py") != []
    assert import_lints.lint_gone("from distutils.util import strtobool", "some.py") != []
    assert import_lints.lint_gone("import importlib", "some.py") == []


def test_install_lint() -> None:
    lint = import_lints.lint_no_install_on_import
    assert lint("import slicer\nslicer.util.pip_install('numba')", "some.py") != []
    assert lint("try:\n    import numba\nexcept ImportError:\n    pip_install('numba')", "some.py") != []
    assert lint("class A:\n    logic = PyTorchUtilsLogic().installTorch()", "some.py") != []
    assert lint("def f():\n    slicer.util.pip_install('numba')", "some.py") == []


def test_no_absolute_paths() -> None:
    paths = _files(NAME, ".py", ".ui", ".json", ".txt") + _files("XRayRegistrationLib", ".py", ".txt") + ["CMakeLists.txt"]
    assert [c for p in paths for c in import_lints.lint_no_absolute_paths(_text(p), p)] == []


@pytest.mark.parametrize(
    ("path", "text", "right"),
    [
        ("a.ui", "<iconset>/opt/icons/a.png</iconset>", False),
        ("a.ui", "C:\\Users\\someone", False),
        ("a.ui", "file:///data", False),
        ("a.ui", "https://github.com/some/where", True),
        ("a.ui", "AP/PA/lateral, mm/px, and/or, 1 / 2 / 3", True),
        ("a.ui", "${Slicer_DIR}/lib/some, Resources/UI/a.ui, ./a/b", True),
        ("a.ui", "</item></layout>", True),
        ("a.py", "open('/home/someone/ct.nrrd')", False),
        ("a.py", "folder = f'/home/someone/{name}'", False),
        ("a.py", "folder = 'C:\\\\Users'", False),
        ("a.py", "def f():\n    'Example: f(\"/data/ct.nrrd\")'", True),
    ],
)
def test_absolute_path_lint(path: str, text: str, right: bool) -> None:
    assert (import_lints.lint_no_absolute_paths(text, path) == []) is right


def test_requirements() -> None:
    path = f"{NAME}/Resources/requirements.txt"
    assert import_lints.lint_requirements(_text(path), path) == []
    for line in (x for x in _text(path).splitlines() if x and not x.startswith("#")):
        assert f'"{line}"' in _text("pyproject.toml")  # one lower bound, whichever way it is installed


@pytest.mark.parametrize("line", ["torch>=2.2", "light-the-torch", "-r other.txt", "https://example.org/a.whl", "numba 0.58"])
def test_requirements_complain(line: str) -> None:
    assert import_lints.lint_requirements(f"numba>=0.58\n{line}\n", "requirements.txt") != []


# ---- the module

_TEMPLATE = """
@parameterNodeWrapper
class DemoParameterNode:
    inputVolume: vtkMRMLScalarVolumeNode
    threshold: float = 1.0
class Demo(ScriptedLoadableModule): ...
class DemoWidget(ScriptedLoadableModuleWidget, VTKObservationMixin): ...
class DemoLogic(ScriptedLoadableModuleLogic): ...
class DemoTest(ScriptedLoadableModuleTest): ...
"""


def test_scripted_module() -> None:
    assert import_lints.lint_scripted_module(MODULE.read_text(encoding="utf-8"), NAME) == []


@pytest.mark.parametrize("gone", [" DemoTest(", " DemoLogic(", " DemoWidget(", " Demo(", "ModuleWidget", "ModuleLogic"])
def test_scripted_module_lint(gone: str) -> None:
    assert import_lints.lint_scripted_module(_TEMPLATE, "Demo") == []
    assert len(import_lints.lint_scripted_module(_TEMPLATE.replace(gone, gone.replace("o", "0")), "Demo")) == 1


def test_parameter_names() -> None:
    assert import_lints.parameter_names(_TEMPLATE) == {"inputVolume", "threshold"}


# ---- the panel


@pytest.mark.parametrize(
    "lint",
    [
        ui_lints.lint_top,
        ui_lints.lint_scene,
        ui_lints.lint_names,
        ui_lints.lint_tool_tips,
        ui_lints.lint_visible_names,
    ],
)
def test_panel(lint) -> None:
    assert lint(UI.read_text(encoding="utf-8")) == []


def test_panel_names_parameters_of_the_module() -> None:
    known = {name for path in _files(NAME, ".py") for name in import_lints.parameter_names(_text(path))}
    assert known, "no class with @parameterNodeWrapper was found"
    assert ui_lints.lint_parameters(UI.read_text(encoding="utf-8"), known) == []


_PANEL = """<ui version="4.0"><class>Demo</class><widget class="qMRMLWidget" name="Demo"><layout class="QFormLayout" name="form">
<item row="0" column="0"><widget class="QLabel" name="label1"><property name="text"><string>CT:</string>
</property></widget></item>
<item row="0" column="1"><widget class="qMRMLNodeComboBox" name="ct"><property name="toolTip"><string>The CT.</string></property>
<property name="SlicerParameterName" stdset="0"><string>inputVolume</string></property></widget></item>
<item row="1" column="0"><widget class="QLabel" name="label2"><property name="text"><string>Limit:</string>
</property></widget></item>
<item row="1" column="1"><layout class="QHBoxLayout" name="row">
<item><widget class="QDoubleSpinBox" name="limit"><property name="toolTip"><string>How far.</string></property></widget></item>
<item><widget class="QToolButton" name="reset"><property name="toolTip"><string>Start again.</string></property></widget></item>
</layout></item>
<item row="2" column="0" colspan="2"><layout class="QVBoxLayout" name="column">
<item><widget class="QLabel" name="note"><property name="text"><string>Note</string></property>
<property name="buddy"><cstring>noteEdit</cstring></property></widget></item>
<item><widget class="QLineEdit" name="noteEdit"><property name="toolTip"><string>Any.</string></property>
<property name="text"><string>none</string></property></widget></item>
<item><widget class="QPushButton" name="apply"><property name="toolTip"><string>Go.</string></property>
<property name="text"><string>Apply</string></property></widget></item>
</layout></item>
</layout></widget><connections><connection><sender>Demo</sender><signal>mrmlSceneChanged(vtkMRMLScene*)</signal>
<receiver>ct</receiver><slot>setMRMLScene(vtkMRMLScene*)</slot></connection></connections></ui>"""


def _lint_parameters(text: str) -> list[str]:
    return ui_lints.lint_parameters(text, {"inputVolume"})


@pytest.mark.parametrize(
    ("lint", "old", "new", "complaint"),
    [
        (ui_lints.lint_top, 'class="qMRMLWidget"', 'class="QWidget"', "top widget is a QWidget"),
        (ui_lints.lint_top, "<class>Demo<", "<class>Other<", "the form's class is Other"),
        (ui_lints.lint_scene, "<receiver>ct<", "<receiver>note<", "qMRMLNodeComboBox ct is not connected"),
        (ui_lints.lint_scene, "<signal>mrmlSceneChanged", "<signal>sceneChanged", "qMRMLNodeComboBox ct is not connected"),
        (ui_lints.lint_scene, "<sender>Demo<", "<sender>note<", "qMRMLNodeComboBox ct is not connected"),
        (ui_lints.lint_scene, "<slot>set", "<slot>unset", "qMRMLNodeComboBox ct is not connected"),
        (ui_lints.lint_scene, "<receiver>ct<", "<receiver>gone<", "names gone, which is not there"),
        (ui_lints.lint_scene, 'class="QLineEdit"', 'class="qSlicerSimpleMarkupsWidget"', "noteEdit is not connected"),
        (ui_lints.lint_names, 'name="reset"', 'name="limit"', "2 widgets are called 'limit'"),
        (ui_lints.lint_names, ' name="reset"', "", "a widget has no name"),
        (ui_lints.lint_tool_tips, "<string>The CT.</string>", "<string/>", "qMRMLNodeComboBox ct has no toolTip"),
        (ui_lints.lint_tool_tips, '"toolTip"><string>Go.', '"whatsThis"><string>Go.', "QPushButton apply has no toolTip"),
        (ui_lints.lint_tool_tips, '"QLabel" name="note"', '"ctkSomething" name="note"', "ctkSomething note has no toolTip"),
        (ui_lints.lint_visible_names, "<string>CT:</string>", "<string/>", "qMRMLNodeComboBox ct has no visible name"),
        (ui_lints.lint_visible_names, "<string>Limit:</string>", "<string> </string>", "QDoubleSpinBox limit has no visible"),
        (ui_lints.lint_visible_names, 'row="1" column="0"', 'row="3" column="0"', "QToolButton reset has no visible name"),
        (ui_lints.lint_visible_names, "<cstring>noteEdit<", "<cstring>apply<", "QLineEdit noteEdit has no visible name"),
        (ui_lints.lint_visible_names, "<string>Apply</string>", "<string></string>", "QPushButton apply has no visible name"),
        (ui_lints.lint_visible_names, 'class="QLineEdit" name="note', 'class="QTreeView" name="gone', "goneEdit has no visible"),
        (_lint_parameters, "<string>inputVolume<", "<string>volume<", "volume is no field"),
        (_lint_parameters, "<string>inputVolume<", "<string>inputVolume.name<", "inputVolume.name is no field"),
        (_lint_parameters, "<string>inputVolume<", "<string><", "is empty"),
        (_lint_parameters, ' stdset="0"', "", 'lacks stdset="0"'),
        (_lint_parameters, '"QVBoxLayout" name="column">', '"QVBoxLayout" name="column">{p}', "not on a widget"),
        (_lint_parameters, 'class="qMRMLWidget" name="Demo">', 'class="qMRMLWidget" name="Demo">{p}', "not on a widget"),
    ],
)
def test_panel_lints(lint, old: str, new: str, complaint: str) -> None:
    assert lint(_PANEL) == []
    assert _PANEL.count(old) == 1
    parameter = '<property name="SlicerParameterName" stdset="0"><string>inputVolume</string></property>'
    assert complaint in " ".join(lint(_PANEL.replace(old, new.replace("{p}", parameter))))


def test_what_else_is_a_visible_name() -> None:
    unnamed = _PANEL.replace("<cstring>noteEdit<", "<cstring>gone<").replace('"QLineEdit"', '"QTableWidget"')
    assert len(ui_lints.lint_visible_names(unnamed)) == 1
    section = '<widget class="ctkCollapsibleButton" name="section"><property name="text"><string>Notes</string></property>'
    inside = unnamed.replace('<item><widget class="QTableWidget"', f'<item>{section}<widget class="QTableWidget"')
    inside = inside.replace("<string>none</string></property></widget>", "<string>none</string></property></widget></widget>")
    assert ui_lints.lint_visible_names(inside) == []
    assert len(ui_lints.lint_visible_names(inside.replace('"QTableWidget"', '"QLineEdit"'))) == 1

    unnamed = _PANEL.replace("<string>CT:</string>", "<string/>")
    shown = '<property name="noneDisplay"><string>Choose a CT</string></property>'
    assert ui_lints.lint_visible_names(unnamed.replace('name="ct">', f'name="ct">{shown}')) == []
