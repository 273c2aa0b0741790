"""What Slicer itself calls: the module's record, its sample data, its installs."""

from __future__ import annotations

import pytest
import slicer
from XRayRegistrationScene import demo_case, packages, xray_nodes

from Testing.slicer.walkthrough import MODULE
from XRayRegistrationLib.errors import InputError


def test_the_record_says_what_it_is(gui) -> None:
    module, _, logic = gui.load_module(MODULE)
    assert module.parent.title == "X-ray Registration"
    assert "Registration" in module.parent.categories
    assert "Not for clinical use" in module.parent.helpText
    assert len(logic.cArms()) >= 2
    for call in ("segmentBone", "importXRay", "register", "renderDRR", "projectLandmarks", "exportResult", "startRegistration"):
        assert getattr(logic, call).__doc__, call


def test_sample_data_is_offered_and_made_without_a_download(gui) -> None:
    gui.load_module(MODULE)
    gui.fire("startupCompleted()")
    sources = {source.sampleName: source for source in slicer.modules.sampleDataSources["X-ray Registration"]}
    assert set(sources) == {"XRayRegistrationTorso", "XRayRegistrationChest"}
    for source in sources.values():
        with open(source.thumbnailFileName, "rb") as stream:
            assert stream.read(8) == b"\x89PNG\r\n\x1a\n"
    ct, xray = sources["XRayRegistrationTorso"].customDownloader(sources["XRayRegistrationTorso"])
    assert ct.GetImageData().GetScalarRange()[0] <= -1000
    assert xray in xray_nodes.xray_nodes()
    assert demo_case.error_mm(xray) > 10.0  # nobody has been told where it was taken from


def test_an_install_is_asked_for_and_may_be_declined(gui, monkeypatch) -> None:
    monkeypatch.setattr(packages, "is_there", lambda name: name in there)
    there: set = set()
    gui.packages.missing.add("numba")
    gui.packages.answer = "decline"
    with pytest.raises(InputError, match="declined"):
        packages.ensure(("numba",), "is quick")
    gui.packages.answer = "fail"
    with pytest.raises(InputError, match="was not installed"):
        packages.ensure(("numba",), "is quick")
    with pytest.raises(InputError, match="install the extension PyTorch from Slicer's Extensions Manager"):
        packages.ensure(("torch",), "is needed")
    gui.packages.answer = "install"
    with pytest.raises(InputError, match="was not installed"):
        packages.ensure(("numba",), "is quick")  # pip said yes, and yet it cannot be imported
    assert gui.packages.requests[-2].requirements == ["numba>=0.58"]
    there.add("numba")
    assert packages.ensure(("numba",), "is quick")
