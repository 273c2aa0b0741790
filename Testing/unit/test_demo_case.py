"""A demo case is a raw X-ray, its CT, and the truth; it needs no extra package and keeps a window alive."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import XRayRegistrationLib.simulation.demo_case as demo_case
from XRayRegistrationLib.bone.model import BoneModel, build_bone_model
from XRayRegistrationLib.demo import true_error
from XRayRegistrationLib.drr.render import render
from XRayRegistrationLib.drr.volume import AttenuationVolume, attenuation_from_hu
from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.geometry.rigid import check_rigid
from XRayRegistrationLib.images.prepare import prepare_xray
from XRayRegistrationLib.images.volume import Volume
from XRayRegistrationLib.registration import register
from XRayRegistrationLib.simulation.demo_case import DemoCase, demo_case_steps, make_demo_case, simulate

PLAIN = """
import sys
for name in ("numba", "torch", "diffdrr", "pydicom", "matplotlib", "pandas", "cv2", "skimage"):
    sys.modules[name] = None  # as if it were not installed
from XRayRegistrationLib.simulation.demo_case import make_demo_case
case = make_demo_case(size_px=64)
assert case.values.shape == (64, 64)
"""


def _taken(steps: Iterator[tuple[float, str]]) -> tuple[list[tuple[float, str]], Any]:
    said = []
    while True:
        try:
            said.append(next(steps))
        except StopIteration as stop:
            return said, stop.value


@pytest.fixture(scope="module")
def torso_case() -> DemoCase:
    return make_demo_case(size_px=96)


def test_a_case_of_the_torso_is_what_a_detector_reads(torso_case: DemoCase) -> None:
    values, camera = torso_case.values, torso_case.camera
    assert values.dtype == np.uint16
    assert values.shape == (camera.height, camera.width) == (96, 96)
    assert camera.source_detector_distance_mm == pytest.approx(1020.0)
    check_rigid(torso_case.camera_from_ct, "camera_from_ct")
    xray = prepare_xray(values, camera)
    assert "bone dark" in xray.provenance["polarity"]
    # what is seen is what the true pose shows: dark where the patient lets little light through
    volume = AttenuationVolume(attenuation_from_hu(torso_case.ct.values), torso_case.ct.ras_from_ijk)
    drr = render(volume, camera, torso_case.camera_from_ct, step_mm=3.0)
    assert np.corrcoef(drr[xray.mask], xray.line_integrals[xray.mask])[0, 1] > 0.9


def test_the_case_registers_without_a_start(torso_case: DemoCase) -> None:
    pytest.importorskip("numba")  # the plain backend takes a minute
    xray = prepare_xray(torso_case.values, torso_case.camera)
    model = build_bone_model(torso_case.ct)
    result = register(torso_case.ct, xray, bone=model)
    assert result.ok
    assert result.probability > 0.95
    assert true_error(result.camera_from_ct, torso_case.camera_from_ct, model.surface_points).mtre_mm < 2.0


def test_steps_tell_how_far_they_are_and_return_the_case(ct: Volume) -> None:
    said, case = _taken(demo_case_steps(ct, 64, 3))
    fractions = [fraction for fraction, _ in said]
    assert fractions == sorted(fractions)
    assert fractions[0] >= 0.0
    assert fractions[-1] < 1.0
    assert all(text for _, text in said)
    same = make_demo_case(ct, 64, 3)
    np.testing.assert_array_equal(case.values, same.values)
    np.testing.assert_array_equal(case.camera_from_ct, same.camera_from_ct)
    assert case.ct is ct
    other = make_demo_case(ct, 64, 4)
    assert np.abs(other.camera_from_ct - case.camera_from_ct).max() > 0.1


@pytest.mark.parametrize("backend", ["scipy", "auto"])
def test_bands_of_rows_are_the_whole_image(ct: Volume, monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    whole = make_demo_case(ct, 64, 5, backend)
    monkeypatch.setattr(demo_case, "_RAYS_AT_ONCE", 64 * 7)  # the last band is a shorter one
    said, banded = _taken(demo_case_steps(ct, 64, 5, backend))
    assert len(said) >= 10
    np.testing.assert_array_equal(banded.values, whole.values)


def test_simulate_takes_the_same_pose_and_noise(ct: Volume, model: BoneModel) -> None:
    case = make_demo_case(ct, 64, 2)
    values, pose = simulate(ct, model, case.camera, 2)
    np.testing.assert_array_equal(values, case.values)
    np.testing.assert_array_equal(pose, case.camera_from_ct)


def test_a_ct_of_bone_on_an_empty_background_has_no_flesh(ct: Volume) -> None:
    bone = Volume(np.where(ct.values > 300, ct.values, 0).astype(np.int16), ct.ras_from_ijk, "bone alone")
    case = make_demo_case(bone, 64, 1)
    light = prepare_xray(case.values, case.camera).line_integrals
    assert np.median(light) < 0.2 * light.max()  # most rays meet nothing


@pytest.mark.parametrize(
    ("options", "says"),
    [({"size_px": 32}, "64 to 1024"), ({"size_px": 4096}, "64 to 1024"), ({"backend": "x"}, "'x'")],
)
def test_bad_input_is_refused_before_any_work(options: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        next(demo_case_steps(**options))


def test_a_ct_without_bone_is_refused() -> None:
    air = np.full((20, 20, 20), -1000, np.int16)
    air[5:15, 5:15, 5:15] = 20
    with pytest.raises(InputError, match="no bone"):
        make_demo_case(Volume(air, np.diag([4.0, 4.0, 4.0, 1.0]), "a box of water"), 64)


def test_it_needs_only_numpy_scipy_and_simpleitk() -> None:
    subprocess.run([sys.executable, "-c", PLAIN], check=True, timeout=300)
