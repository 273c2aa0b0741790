"""Landmark methods: perfect maps give the pose, what is learned is where it is seen, bad input, and real training."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("lightning_fabric")
pytest.importorskip("poselib")
import torch

from XRayRegistrationLib.bone.model import BoneModel
from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.files.landmarks import Landmarks, write_landmarks
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.rigid import transform_points
from XRayRegistrationLib.images.volume import Volume
from XRayRegistrationLib.images.xray import XRay
from XRayRegistrationLib.methods import get_method
from XRayRegistrationLib.methods.fixed_landmarks import (
    DEFAULT_RECIPE,
    DFLNET_RECIPE,
    Recipe,
    matched_landmarks,
    read_maps,
    solve_landmarks,
)
from XRayRegistrationLib.networks.heatmaps import gaussian_heatmaps
from XRayRegistrationLib.simulation.appearance_options import AppearanceOptions
from XRayRegistrationLib.simulation.poses import PoseRange, sample_pose
from XRayRegistrationLib.simulation.subject import Subject, make_subject
from XRayRegistrationLib.solvers.pnp import PnpFailure
from XRayRegistrationLib.solvers.pnp_published import RAYEMB2024, SCR2023, PublishedPnp, pnp_as_published
from XRayRegistrationLib.training.fixed_landmarks import FixedLandmarksTask, dice_loss, label_classes, same_landmarks
from XRayRegistrationLib.training.loop import fit
from XRayRegistrationLib.training.options import TrainingOptions
from XRayRegistrationLib.training.xray_stream import StreamOptions

CAMERA = Camera.from_spacing(128, 128, 2.3, 1020.0)
SMALL = Camera.from_spacing(64, 64, 4.6, 1020.0)
METHOD, DFLNET = get_method("fixed_landmarks"), get_method("dflnet")
OPTIONS = TrainingOptions(minutes=None, iterations=1, batch_size=8, device="cpu", precision="32")


def pose_of(subject: Subject, seed: int) -> np.ndarray:
    near = PoseRange(orbital_deg=(-30, 30), tilt_deg=(-20, 20), least_in_view=0.9)
    return sample_pose(CAMERA, subject.bone.surface_points, subject.bone.centroid, np.random.default_rng(seed), near)


def error_mm(subject: Subject, a: np.ndarray, b: np.ndarray) -> float:
    points = subject.bone.surface_points
    return float(np.linalg.norm(transform_points(a, points) - transform_points(b, points), axis=1).mean())


def header_of(recipe: Recipe, points: np.ndarray) -> dict[str, Any]:
    prior = {"rotation": np.eye(3).tolist(), "centre_camera": [0.0, 0.0, 700.0], "sigma": [1.0] * 3 + [200.0] * 3}
    return {"recipe": asdict(recipe), "landmarks": {"classes": [1] * len(points)}, "prior": prior}


def perfect(points: np.ndarray, pose: np.ndarray, recipe: Recipe) -> torch.Tensor:
    """The maps of a network that knows everything, one cell for each pixel."""
    pixels = torch.as_tensor(CAMERA.project(transform_points(pose, points)))
    seen = torch.as_tensor(CAMERA.in_view(pixels.numpy()))
    maps = gaussian_heatmaps(pixels, seen, 128, 128, 1, recipe.sigma)
    return torch.log(maps + 1e-30) + 10.0 if recipe.maps == "locations" else maps


@pytest.mark.parametrize(
    ("recipe", "count", "limit_mm"),
    [
        (DEFAULT_RECIPE, 40, 0.3),
        (replace(DEFAULT_RECIPE, maps="heatmaps", sigma=1.5, accept=0.8), 14, 2.0),  # at the image's edge they are cut off
        (DFLNET_RECIPE, 14, 15.0),  # whole pixels of 2.3 mm, most of it in depth
        (replace(DFLNET_RECIPE, solver="iterative", accept=0.8), 14, 15.0),
    ],
)
def test_perfect_maps_give_the_pose(subject: Subject, recipe: Recipe, count: int, limit_mm: float) -> None:
    points = subject.bone.surface_points[:count]
    labels = torch.tensor([-1.0, 1.0])[:, None, None].expand(2, 128, 128)  # all of it bone
    for seed in range(3):
        pose, maps = pose_of(subject, seed), perfect(points, pose_of(subject, seed), recipe)
        field = np.ones((128, 128), bool)
        found = solve_landmarks(maps, labels, CAMERA, field, header_of(recipe, points), points, subject.bone.centroid, seed=0)
        assert error_mm(subject, found[0].camera_from_ct, pose) < limit_mm


def test_landmarks_out_of_sight_are_left_out_and_too_few_are_a_failure(subject: Subject) -> None:
    points, pose = subject.bone.surface_points[:12], pose_of(subject, 1)
    maps, header = perfect(points, pose, DEFAULT_RECIPE), header_of(DEFAULT_RECIPE, points)
    maps[7:] = -20.0  # five not seen
    unknown = points.copy()
    unknown[0] = np.nan  # one that this CT does not have
    field, labels = np.ones((128, 128), bool), torch.zeros(1, 128, 128)
    found = solve_landmarks(maps, labels, CAMERA, field, header, unknown, subject.bone.centroid, seed=0)[0]
    assert len(found.inliers) == 6
    assert error_mm(subject, found.camera_from_ct, pose) < 1.0
    maps[3:] = -20.0
    with pytest.raises(PnpFailure, match="finds 3 of 12 landmarks; at least 4"):
        solve_landmarks(maps, labels, CAMERA, field, header, points, subject.bone.centroid, seed=0)


def test_a_landmark_is_looked_for_in_its_own_label(subject: Subject) -> None:
    header = header_of(DFLNET_RECIPE, np.zeros((2, 3)))
    header["landmarks"]["classes"] = [2, 0]  # the second has no label: anywhere on bone
    maps = gaussian_heatmaps(torch.tensor([[30.0, 40.0]]), torch.tensor([True]), 128, 128, 1, 2.5)
    maps = (maps + 0.5 * gaussian_heatmaps(torch.tensor([[90.0, 40.0]]), torch.tensor([True]), 128, 128, 1, 2.5)).repeat(2, 1, 1)
    labels = torch.zeros(3, 128, 128)
    labels[1, :, :64], labels[2, :, 64:] = 1.0, 1.0
    assert read_maps(maps, labels, np.ones((128, 128), bool), header).pixels[:, 0].tolist() == [90.0, 30.0]


@pytest.mark.parametrize("published", [SCR2023, RAYEMB2024])
def test_published_pnp_is_repeatable_and_fails_with_a_reason(subject: Subject, published: PublishedPnp) -> None:
    points, pose = subject.bone.surface_points[:14], pose_of(subject, 2)
    rng = np.random.default_rng(0)
    pixels = CAMERA.project(transform_points(pose, points)) + rng.normal(0, 0.3, (14, 2))
    pixels[:3] += 60.0
    first, again = (pnp_as_published(points, pixels, CAMERA, 5.0, published, seed=4) for _ in range(2))
    np.testing.assert_array_equal(first.camera_from_ct, again.camera_from_ct)
    assert not first.inliers[:3].any()
    assert first.inliers[3:].all()
    with pytest.raises(PnpFailure):
        pnp_as_published(points[:3], pixels[:3], CAMERA, 5.0, published, seed=0)
    if published is SCR2023:  # MAGSAC counts no inliers, and gives some pose of pixels at random
        with pytest.raises(PnpFailure, match="no pose explains"):
            pnp_as_published(points, rng.uniform(0, 128, (14, 2)), CAMERA, 0.5, published, seed=0)


def task_of(subject: Subject, recipe: Recipe = DEFAULT_RECIPE, count: int = 20, held_out: Any = ()) -> FixedLandmarksTask:
    stream = StreamOptions(SMALL, "prost", AppearanceOptions.clean())
    return FixedLandmarksTask("fixed_landmarks", [subject], held_out, recipe, count, stream, OPTIONS)


def test_a_landmark_is_learned_where_it_is_seen_and_nowhere_under_the_collimator(subject: Subject) -> None:
    task = task_of(subject)
    batch = task.batch(0, torch.device("cpu"))
    pixels, visible = task.seen([subject], batch)
    points = task.points_ct[id(subject)]
    for n, pose in enumerate(batch.camera_from_ct):
        true = SMALL.project(transform_points(pose, points))
        np.testing.assert_allclose(pixels[n], true, atol=1e-3)
        np.testing.assert_array_equal(visible[n], SMALL.in_view(true))
    assert visible.any()
    closed = replace(batch, open_field=torch.zeros_like(batch.open_field))
    assert not task.seen([subject], closed)[1].any()


def test_dice_by_hand() -> None:
    shadows = torch.zeros(1, 2, 1, 4, dtype=torch.bool)
    shadows[0, 0, 0, :2], shadows[0, 1, 0, 1:3] = True, True  # the second pixel has both labels and counts as the first
    certain = torch.tensor([[0, 0, 0, 1], [1, 1, 0, 0], [0, 0, 1, 0]], dtype=torch.float32)[None, :, None] * 100.0
    assert float(dice_loss(certain, shadows)) == pytest.approx(0.0, abs=1e-6)
    # a third everywhere: 2 (k / 3) / (4 / 9 + k) for k pixels of a class
    expected = np.mean([1 - 2 * (k / 3) / (4 / 9 + k) for k in (1, 2, 1)])
    assert float(dice_loss(torch.zeros(1, 3, 1, 4), shadows)) == pytest.approx(expected)


def test_labels_of_the_ct_are_learned_where_it_has_some(ct: Volume, model: BoneModel, subject: Subject) -> None:
    bone = model.mask.values > 0
    i = np.arange(bone.shape[2]) < 40
    labels = Volume(np.where(bone, np.where(i, 3, 7), 0).astype(np.int16), ct.ras_from_ijk)
    labelled = make_subject(ct, bone=model, labels=labels, name="labelled")
    points = model.surface_points[:10]
    wanted = 1 + (np.linalg.solve(ct.ras_from_ijk, np.c_[points, np.ones(10)].T)[0] > 39.5)
    assert label_classes(labelled, points, (3, 7)) == wanted.tolist()
    assert label_classes(labelled, np.array([[500.0, 0.0, 0.0]]), (3, 7)) == [0]
    for recipe, count in ((DEFAULT_RECIPE, 2), (DFLNET_RECIPE, 3)):
        task = task_of(labelled, replace(recipe, network="light"))
        assert task.header()["architecture"]["labels"] == count
        loss, parts = task.loss(task.network(), task.batch(0, torch.device("cpu")))
        assert torch.isfinite(loss)
        assert parts["labels"] > 0
    chosen = model.surface_points[20:30]
    named = [replace(s, landmarks_ct=chosen, landmark_names=tuple("abcdefghij")) for s in (labelled, subject)]
    with pytest.raises(InputError, match=r"has the labels \[\] and labelled \[3, 7\]; allowed are the same labels"):
        task_of(named[0], held_out=named[1:])


def test_landmarks_of_several_cts_are_matched_by_name(subject: Subject) -> None:
    points = subject.bone.surface_points[20:26]
    first = replace(subject, landmarks_ct=points, landmark_names=tuple("abcdef"), name="first")
    second = replace(subject, landmarks_ct=points[::-1] + 1.0, landmark_names=tuple("fedcba"), name="second")
    names, places = same_landmarks([first, second], 40)
    assert names == tuple("abcdef")
    np.testing.assert_allclose(places[1], places[0] + 1.0)
    lacking = replace(second, landmarks_ct=points[:5], landmark_names=tuple("abcde"))
    with pytest.raises(InputError, match=r"second has no landmark f; allowed are CTs that have all of first's"):
        same_landmarks([first, lacking], 40)
    with pytest.raises(InputError, match="phantom has no landmarks, and several CTs learn by theirs"):
        same_landmarks([first, subject], 40)
    names, places = same_landmarks([subject], 30)  # nobody chose any
    assert len(names) == len(places[0]) == 30


@pytest.mark.parametrize(
    ("points", "names", "words"),
    [
        (np.zeros((0, 3)), (), "has 0 landmarks; allowed are at least 4"),
        (np.zeros((3, 3)), ("a", "b", "c"), "has 3 landmarks; allowed are at least 4"),
        (np.diag([1.0, 2.0, 9000.0, 0.0])[:, :3], tuple("abcd"), r"'c' of phantom lies at \(0, 0, 9000\) mm RAS, outside"),
        (np.zeros((4, 3)), ("a", "a", "b", "c"), "several landmarks of the name 'a'"),
    ],
)
def test_landmarks_that_cannot_be_learned_are_said_in_one_line(
    subject: Subject, points: Any, names: tuple[str, ...], words: str
) -> None:
    bad = replace(subject, landmarks_ct=np.asarray(points, dtype=float), landmark_names=names)
    with pytest.raises(InputError, match=words) as caught:
        METHOD.task([bad], [], METHOD.options(), OPTIONS, None)
    assert "\n" not in str(caught.value)


def test_options_and_files_that_make_no_sense(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="count of the landmarks is 3; allowed is at least 4"):
        METHOD.options({"count": 3})
    with pytest.raises(InputError, match="has 1 of the landmarks that the network knows"):
        matched_landmarks(Landmarks(np.zeros((2, 3)), ("a", "x")), tuple("abcd"), "L.mrk.json")


@pytest.mark.parametrize("method", [METHOD, DFLNET])
@pytest.mark.parametrize("paper_mode", [False, True])
def test_headers_rebuild_their_networks(subject: Subject, method: Any, paper_mode: bool) -> None:
    task = method.task([subject], [], method.options({"paper_mode": paper_mode}), OPTIONS, None)
    header = task.header()
    with torch.device("meta"):
        wanted, found = task.network().state_dict(), method.network(header).state_dict()
    assert {k: v.shape for k, v in wanted.items()} == {k: v.shape for k, v in found.items()}
    assert Recipe(**header["recipe"]) == method.recipe(paper_mode)[0]
    assert len(header["landmarks"]["names"]) == (40 if method is METHOD and not paper_mode else 14)
    optimizer = task.optimizer(torch.nn.Linear(2, 2), OPTIONS)
    kinds = {(METHOD, False): "Muon", (METHOD, True): "SGD", (DFLNET, False): "Muon", (DFLNET, True): "Adam"}
    assert type(optimizer).__name__ == kinds[method, paper_mode]
    if paper_mode:
        assert optimizer.param_groups[0]["lr"] == {"SGD": 0.1, "Adam": 1e-4}[type(optimizer).__name__]


def test_it_learns_and_registers(ct: Volume, model: BoneModel, subject: Subject, tmp_path: Path) -> None:
    camera = SMALL.resized(128, 128)
    stream = StreamOptions(camera, "prost", AppearanceOptions.clean())
    training = replace(OPTIONS, iterations=160, warmup=20, validate_every=160, averaging=0.95, learning_rate=3e-3)
    task = FixedLandmarksTask("fixed_landmarks", [subject], [], DEFAULT_RECIPE, 20, stream, training)
    torch.manual_seed(0)
    untrained = task.validate(task.network().eval(), torch.device("cpu"))
    result = fit(task, tmp_path / "w.safetensors", training)
    assert untrained.median_mm == np.inf
    assert result.validation_mm < 15.0
    options = METHOD.options({"weights": str(result.weights), "search_on_failure": False})
    batch = task.held_out.batch(0, torch.device("cpu"))
    errors = []
    prepared = METHOD.prepare(ct, model, options)
    write_landmarks(tmp_path / "L.mrk.json", task.points_ct[id(subject)], task.header()["landmarks"]["names"])
    other = Volume(ct.values + 5.0, ct.ras_from_ijk)  # known by its landmarks alone
    with pytest.raises(InputError, match="not on this CT"):
        METHOD.prepare(other, model, options)
    there = METHOD.prepare(other, model, replace(options, landmarks=str(tmp_path / "L.mrk.json")))
    np.testing.assert_allclose(there.data["landmarks_ct"], prepared.data["landmarks_ct"], atol=1e-4)
    for image, pose in zip(batch.image[:, 0], batch.camera_from_ct, strict=True):
        xray = XRay(image.numpy(), np.ones((128, 128), bool), camera)
        errors.append(error_mm(subject, METHOD.propose([xray], prepared).candidates[0].rig_from_ct, pose))
    assert np.median(errors) < 20.0
