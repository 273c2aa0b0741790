"""Small modules of the application: translation, packages, sample data, unit tests, the DICOM database, PyTorch."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
import types
import unittest
from pathlib import Path
from types import SimpleNamespace

import slicer
import slicer.util


def _module(name: str, **members) -> types.ModuleType:
    module = types.ModuleType(name)
    module.__dict__.update(members)
    sys.modules[name] = module
    if name.startswith("slicer."):
        setattr(slicer, name.removeprefix("slicer."), module)
    return module


class Packages:
    """``slicer.packaging`` without pip. ``answer``: "install" (only kept in ``installed``), "decline" or "fail".

    What counts as installed is what Python finds, what was installed here, and never what is in ``missing``. While
    ``app.testing`` holds, ``pip_ensure`` installs nothing, as in Slicer.
    """

    def __init__(self, app) -> None:
        self._app = app
        self.reset()

    def reset(self) -> None:
        self.answer = "install"
        self.installed: list[str] = []
        self.missing: set[str] = set()
        self.requests: list[SimpleNamespace] = []

    def load_requirements(self, path) -> list:
        from packaging.requirements import Requirement

        lines = (line.split("#")[0].strip() for line in Path(path).read_text().splitlines())
        return [Requirement(line) for line in lines if line and not line.startswith("-")]

    def _requirements(self, requirements) -> list:
        from packaging.requirements import Requirement

        if isinstance(requirements, (str, Requirement)):
            requirements = [requirements]
        return [Requirement(one) if isinstance(one, str) else one for one in requirements]

    def _has(self, requirement) -> bool:
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            return True
        if requirement.name in self.installed:
            return True
        if requirement.name in self.missing:
            return False
        try:
            return requirement.specifier.contains(importlib.metadata.version(requirement.name), prereleases=True)
        except importlib.metadata.PackageNotFoundError:
            return False

    def pip_check(self, requirements) -> bool:
        return all(self._has(requirement) for requirement in self._requirements(requirements))

    def pip_ensure(
        self, requirements, constraints=None, skip_packages=None, prompt_install=True, prompt_restart=True, requester=None,
        skip_in_testing=True, show_progress=True, **others,
    ):  # fmt: skip
        wanted = [one for one in self._requirements(requirements) if not self._has(one)]
        self.requests.append(SimpleNamespace(requirements=[str(one) for one in wanted], requester=requester))
        if not wanted or (skip_in_testing and self._app.testing):
            return None
        if prompt_install:
            self._app.messages.append(("install", f"{requester}: {', '.join(map(str, wanted))}"))
            if self.answer == "decline":
                raise RuntimeError("User declined package installation")
        self._install(wanted)
        return [] if skip_packages is not None else None

    def pip_install(self, requirements, *args, requester=None, completedCallback=None, **kwargs) -> None:
        if isinstance(requirements, str):
            requirements = [word for word in requirements.split() if not word.startswith("-")]
        wanted = self._requirements(requirements)
        self.requests.append(SimpleNamespace(requirements=[str(one) for one in wanted], requester=requester))
        self._install(wanted)
        if completedCallback is not None:
            completedCallback(0)

    def _install(self, wanted) -> None:
        import subprocess

        if self.answer == "fail":
            raise subprocess.CalledProcessError(1, ["pip", "install", *map(str, wanted)])
        self.installed += [one.name for one in wanted]
        self.missing -= {one.name for one in wanted}


class SampleDataLogic:
    """``SampleData.SampleDataLogic``: keeps what is registered; downloads nothing."""

    @staticmethod
    def registerCustomSampleDataSource(category="Custom", sampleName=None, uris=None, fileNames=None, nodeNames=None, **others):
        sources = slicer.modules.sampleDataSources.setdefault(category, [])
        values = {"sampleName": sampleName, "uris": uris, "fileNames": fileNames, "nodeNames": nodeNames} | others
        sources.append(SimpleNamespace(**values))

    registerUrlSampleData = registerCustomSampleDataSource


class DicomDatabase:
    """``slicer.dicomDatabase`` over a dictionary: ``files[uid] = path``, ``headers[uid] = {"0018,1110": "1000"}``."""

    def __init__(self) -> None:
        self.files: dict[str, str] = {}
        self.headers: dict[str, dict[str, str]] = {}
        self.isOpen = True

    def fileForInstance(self, uid: str) -> str:
        return str(self.files.get(uid, ""))

    def instanceValue(self, uid: str, tag: str) -> str:
        return self.headers.get(uid, {}).get(tag, "")


def _run_unit_test(test_case, **kwargs) -> bool:
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(test_case)
    return unittest.TextTestRunner(stream=sys.stderr).run(suite).wasSuccessful()


def install_services(app) -> None:
    """Put the modules where scripts import them from."""
    from . import parameter_node, scripted_module

    app.packages = Packages(app)
    names = ("load_requirements", "pip_check", "pip_ensure", "pip_install")
    _module("slicer.packaging", **{name: getattr(app.packages, name) for name in names})
    slicer.util.pip_install = app.packages.pip_install
    _module(
        "slicer.i18n",
        tr=lambda text: text,
        translate=lambda context, text, disambiguation=None, n=-1: text,
        getContext=lambda source: Path(source).stem,
    )
    _module("slicer.testing", runUnitTest=_run_unit_test, exitSuccess=lambda: None)
    for name, source in (("ScriptedLoadableModule", scripted_module), ("parameterNodeWrapper", parameter_node)):
        _module("slicer." + name, __all__=list(source.PUBLIC), **source.PUBLIC)
    if importlib.util.find_spec("SampleData") is None:
        _module("SampleData", SampleDataLogic=SampleDataLogic)
    slicer.dicomDatabase = DicomDatabase()


class PyTorchUtilsLogic:
    """What the PyTorch extension offers; see :meth:`StandIn.add_pytorch`."""

    def __init__(self) -> None:
        self.calls: list = []

    def torchInstalled(self) -> bool:
        return importlib.util.find_spec("torch") is not None

    def installTorch(self, askConfirmation=False, forceComputationBackend=None, torchVersionRequirement=None, **others):
        slicer.app.messages.append(("install", "torch"))
        self.calls.append(torchVersionRequirement)
        return None


def add_pytorch(logic_class: type = PyTorchUtilsLogic) -> None:
    _module("PyTorchUtils", PyTorchUtilsLogic=logic_class)


def remove_pytorch() -> None:
    sys.modules.pop("PyTorchUtils", None)
