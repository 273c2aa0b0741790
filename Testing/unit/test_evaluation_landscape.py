"""Similarities around the truth: a perfect one is lowest there and goes with the distance, and the page shows it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

pytest.importorskip("torch")

from Testing.unit.test_evaluation_run import _args
from XRayRegistrationLib.commands import evaluate
from XRayRegistrationLib.drr.volume import AttenuationVolume
from XRayRegistrationLib.evaluation import landscape as landscape_module
from XRayRegistrationLib.evaluation import predict as predict_module
from XRayRegistrationLib.evaluation.cases import CtFile, SimulatedCases
from XRayRegistrationLib.evaluation.landscape import AXES, BASELINE, Landscape, landscapes
from XRayRegistrationLib.evaluation.plots import profiles_svg, scatter_svg
from XRayRegistrationLib.evaluation.predict import MethodRun
from XRayRegistrationLib.evaluation.protocols import PROTOCOLS
from XRayRegistrationLib.files.volume_file import write_volume
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.rigid import relative_motion
from XRayRegistrationLib.images.volume import Volume
from XRayRegistrationLib.images.xray import XRay
from XRayRegistrationLib.methods import METHODS
from XRayRegistrationLib.methods.base import Prepared
from XRayRegistrationLib.methods.learned_similarity import SlopeOfView
from XRayRegistrationLib.methods.prost import Prost
from XRayRegistrationLib.networks.network_input import network_view

SMALL = replace(
    PROTOCOLS["prost"], camera=Camera.from_spacing(48, 48, 6.0, 1020.0), instruments_share=0.0,
    least_bone=0.0,
)  # fmt: skip


class Knows(Prost):
    """A similarity that is the distance to the truth."""

    def __init__(self, source: SimulatedCases) -> None:
        self.source = source

    def prepare(self, ct, bone, options, *, progress=None):  # type: ignore[no-untyped-def]
        volume = bone.bone.coarser(4.0)
        return Prepared("prost", ct, bone, options, {"volume": AttenuationVolume(volume.mu, volume.ct_from_ijk)})

    def slope_of(self, xray: XRay, prepared: Prepared) -> SlopeOfView:
        true = self.source.case("phantom", int(xray.source.split()[-1])).camera_from_ct
        centre = prepared.bone.centroid

        def slope(poses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            motions = relative_motion(poses, true, centre)
            return np.linalg.norm(motions * [100.0, 100, 100, 1, 1, 1], axis=1), np.zeros((len(poses), 6))

        return SlopeOfView(network_view(xray, xray.camera, 1), slope)


@pytest.fixture
def source(ct: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimulatedCases:
    path = tmp_path / "phantom.nii.gz"
    write_volume(path, replace(ct, values=np.round(ct.values).astype(np.int16)))
    source = SimulatedCases(SMALL, (CtFile("phantom", path),), seed=1)
    monkeypatch.setitem(METHODS, "prost", Knows(source))
    return source


def test_a_distance_is_lowest_at_the_truth_and_goes_with_the_distance(source: SimulatedCases) -> None:
    found = landscapes(source, [MethodRun("diffdrr", "diffdrr"), MethodRun("knows", "prost")], 2)
    assert [(x.method, x.number) for x in found] == [("knows", 0), (BASELINE, 0), ("knows", 1), (BASELINE, 1)]
    for perfect, baseline in zip(found[::2], found[1::2], strict=True):
        assert perfect.along.shape == (len(AXES), 21)
        assert (perfect.along.argmin(axis=1) == 10).all()
        np.testing.assert_allclose(perfect.along[5, ::10], [200.0, 0.0, 200.0], atol=1e-6)
        assert perfect.correlation == pytest.approx(1.0)
        assert baseline.along.mean(axis=0).argmin() == 10  # gradient NCC sees the truth too, on a plain X-ray
        assert baseline.correlation < 0.95
    assert landscapes(source, [MethodRun("diffdrr", "diffdrr")], 2) == []
    assert landscapes(source, [MethodRun("knows", "prost")], 0) == []
    broken = MethodRun("broken", "sopi", {"weights": "nowhere.safetensors"})  # its cases say why; the others are shown
    assert [x.method for x in landscapes(source, [broken, MethodRun("knows", "prost")], 1)] == ["knows", BASELINE]
    blind = landscape_module._landscape("blind", source.case("phantom", 0), np.tile(np.eye(4), (6 * 21 + 48, 1, 1)),
                                        lambda poses: np.full(len(poses), np.inf), np.zeros(3))  # fmt: skip
    assert blind.correlation == 0.0
    assert np.isfinite(blind.along).all()
    flat = Landscape("flat", "ct", 0, np.zeros((6, 21)), np.arange(3.0), np.ones(3))
    assert flat.correlation == 0.0


def test_the_page_and_a_file_show_them(source: SimulatedCases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from Testing.unit.test_evaluation_run import Stub

    monkeypatch.setitem(PROTOCOLS, "prost", SMALL)
    monkeypatch.setattr(predict_module, "register", Stub(source, [1.0, 1.0]))
    args = _args(tmp_path / "phantom.nii.gz", tmp_path / "out", protocol="prost", method=["prost"])
    assert evaluate.run(args) == 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert "The similarity around the truth" in page
    assert page.count("<polyline") == 2 * len(AXES)
    stored = json.loads((tmp_path / "out" / "landscapes.json").read_text())
    assert [(x["method"], x["number"]) for x in stored] == [("prost", 0), (BASELINE, 0), ("prost", 1), (BASELINE, 1)]


def test_plots_draw_from_lowest_to_highest() -> None:
    svg = ElementTree.fromstring(profiles_svg([("a", "#000", [3.0, 1.0, 2.0])], "depth, mm", 100.0))
    (line,) = svg.iter("{http://www.w3.org/2000/svg}polyline")
    y = [float(point.split(",")[1]) for point in str(line.get("points")).split()]
    assert y[0] < y[2] < y[1]
    assert y[2] - y[0] == pytest.approx(y[1] - y[2], abs=0.2)
    dots = ElementTree.fromstring(scatter_svg([("a", "#000", [0.0, 80.0], [5.0, 7.0])], "x", "y"))
    assert len([c for c in dots.iter("{http://www.w3.org/2000/svg}circle")]) == 2
