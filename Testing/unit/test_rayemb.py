"""RayEmb: subspaces against the plain formula, peaks and poses of a perfect network, its training and its cache."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lightning_fabric")
pytest.importorskip("poselib")
import torch

from XRayRegistrationLib.bone.model import BoneModel
from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.rigid import transform_points
from XRayRegistrationLib.images.volume import Volume
from XRayRegistrationLib.images.xray import XRay
from XRayRegistrationLib.methods import get_method
from XRayRegistrationLib.methods.ray_matching import Matching, find_pose_as_published, find_poses, peaks
from XRayRegistrationLib.methods.ray_templates import (
    Templates,
    TemplateViews,
    cached_templates,
    point_features,
    render_windows,
    spread_points,
    view_grid,
    view_header,
    views_of_header,
)
from XRayRegistrationLib.methods.rayemb import template_views
from XRayRegistrationLib.networks.ray_encoder import ViTEncoder, ray_encoder
from XRayRegistrationLib.networks.ray_subspaces import hard_basis, sample_field, similarity, soft_basis
from XRayRegistrationLib.networks.vit import VisionTransformer, load_pretrained
from XRayRegistrationLib.simulation.poses import PoseRange, sample_pose
from XRayRegistrationLib.simulation.subject import Subject
from XRayRegistrationLib.solvers.pnp import PnpFailure
from XRayRegistrationLib.training.options import TrainingOptions
from XRayRegistrationLib.training.ray_scenes import RayBatch
from XRayRegistrationLib.training.rayemb import contrast

CAMERA = Camera.from_spacing(64, 64, 4.6, 1020.0)
FINE = Camera.from_spacing(128, 128, 2.3, 1020.0)
MATCHING = Matching(temperature=0.05, ridge=0.02, absent=0.6)


@pytest.fixture(autouse=True)
def one_thread():
    """Small tensors gain nothing from more, and lose much on a machine that is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pose_of(subject: Subject, seed: int) -> np.ndarray:
    near = PoseRange(orbital_deg=(-30, 30), tilt_deg=(-20, 20), least_in_view=0.9)
    return sample_pose(CAMERA, subject.bone.surface_points, subject.bone.centroid, np.random.default_rng(seed), near)


# --- subspaces


def plain(features: np.ndarray, field: np.ndarray) -> np.ndarray:
    """e' F F^+ e / (|e| |F F^+ e|) with the pseudo-inverse, cell by cell."""
    f = features.T.astype(float)
    projection = f @ np.linalg.pinv(f)
    e = field.reshape(len(field), -1).astype(float)
    projected = projection @ e
    return ((e * projected).sum(0) / np.linalg.norm(e, axis=0) / np.linalg.norm(projected, axis=0)).reshape(field.shape[1:])


@pytest.mark.parametrize("kind", ["soft", "hard"])
def test_similarity_is_the_plain_formula(kind: str) -> None:
    make = torch.Generator().manual_seed(3)
    features, field = torch.randn(5, 4, 32, generator=make), torch.randn(32, 6, 7, generator=make)
    seen = torch.ones(5, 4, dtype=torch.bool)
    basis = soft_basis(features, seen, 1e-7) if kind == "soft" else hard_basis(features, seen, 4)
    sim = similarity(basis, field)
    for n in range(5):
        np.testing.assert_allclose(sim[n], plain(features[n].numpy(), field.numpy()), atol=2e-6)
    up = similarity(basis, field, (24, 28))
    full = torch.nn.functional.interpolate(field[None], (24, 28), mode="bilinear", align_corners=False)[0]
    np.testing.assert_allclose(up[2], plain(features[2].numpy(), full.numpy()), atol=2e-6)


@pytest.mark.parametrize("kind", ["soft", "hard"])
def test_templates_that_do_not_see_a_point_have_no_say(kind: str) -> None:
    make = torch.Generator().manual_seed(5)
    features, field = torch.randn(1, 6, 32, generator=make), torch.randn(32, 4, 4, generator=make)
    seen = torch.tensor([[True, False, True, True, False, False]])
    basis = soft_basis(features, seen, 1e-7) if kind == "soft" else hard_basis(features, seen, 6)
    np.testing.assert_allclose(similarity(basis, field)[0], plain(features[0][seen[0]].numpy(), field.numpy()), atol=2e-6)


def test_the_soft_basis_weighs_directions_by_how_many_templates_share_them() -> None:
    features = torch.tensor([[[2.0, 0.0, 0.0], [2.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])
    basis = soft_basis(features, torch.ones(1, 3, dtype=torch.bool), 1.0)  # r = mean squared norm = 3
    lengths = (basis[0] @ torch.eye(3)).square().sum(0)
    np.testing.assert_allclose(lengths, [8 / (8 + 3), 1 / (1 + 3), 0.0], atol=1e-6)


def test_the_hard_basis_cuts_weak_directions_and_keeps_the_rank() -> None:
    features = torch.diag(torch.tensor([1.0, 0.5, 0.04]))[None]
    seen = torch.ones(1, 3, dtype=torch.bool)
    lengths = hard_basis(features, seen, 3).square().sum((1, 2))
    assert float(lengths) == pytest.approx(2.0)
    assert float(hard_basis(features, seen, 1).square().sum()) == pytest.approx(1.0)


def test_the_soft_basis_has_a_derivative_where_singular_values_meet() -> None:
    features = torch.eye(4, 32)[None].clone().requires_grad_()
    similarity(soft_basis(features, torch.ones(1, 4, dtype=torch.bool), 0.02), torch.ones(32, 2, 2)).sum().backward()
    assert torch.isfinite(features.grad).all()


def test_a_field_is_sampled_at_its_cells_centres() -> None:
    field = torch.arange(12.0).reshape(1, 1, 3, 4)  # of 16 x 12 pixels: cell (i, j) at (4 j + 1.5, 4 i + 1.5)
    at = torch.tensor([[[1.5, 1.5], [9.5, 5.5], [3.5, 1.5], [13.5, 9.5]]])
    np.testing.assert_allclose(sample_field(field, at, 16, 12)[0, :, 0], [0.0, 6.0, 0.5, 11.0], atol=1e-6)


# --- networks


def test_the_published_encoder_has_the_published_size() -> None:
    count = sum(p.numel() for p in VisionTransformer().parameters())
    assert count == 22_056_576  # 22.06 million
    encoder = ViTEncoder()
    assert sum(p.numel() for p in encoder.head.parameters()) == 12_320
    with torch.inference_mode():
        assert encoder.eval()(torch.rand(1, 1, 56, 28)).shape == (1, 32, 4, 2)


def test_the_light_encoder_fits_into_four_megabytes() -> None:
    network = ray_encoder({"paper_mode": False})
    assert network.stride == 4
    assert 2 * sum(t.numel() for t in network.state_dict().values()) < 4e6
    assert network.eval()(torch.rand(1, 1, 64, 96)).shape == (1, 32, 16, 24)


def test_a_file_of_encoder_weights_has_to_fit(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    small = VisionTransformer(width=24, depth=1, heads=2, grid=4)
    save_file({n: t + 1.0 for n, t in small.state_dict().items()}, tmp_path / "vit.safetensors")
    other = VisionTransformer(width=24, depth=1, heads=2, grid=4)
    load_pretrained(other, tmp_path / "vit.safetensors")
    assert torch.equal(other.pos_embed, small.pos_embed + 1.0)
    with pytest.raises(InputError, match="is not DINOv2's ViT-S/14"):
        load_pretrained(VisionTransformer(width=48, depth=1, heads=2, grid=4), tmp_path / "vit.safetensors")
    with pytest.raises(InputError, match="there is no file"):
        load_pretrained(other, tmp_path / "nothing.safetensors")


# --- peaks and poses


def test_a_peak_between_cells_is_found_between_them() -> None:
    make = torch.Generator().manual_seed(0)
    field = 0.02 * torch.randn(32, 16, 16, generator=make)
    basis = torch.zeros(1, 1, 32)
    basis[0, 0, 0] = 1.0
    field[0] -= field[0]
    field[0, 5, 9], field[0, 5, 10] = 3.0, 3.0  # between two cells
    found = peaks(basis, field, torch.ones(16, 16, dtype=torch.bool), CAMERA, replace(MATCHING, temperature=0.02))
    np.testing.assert_allclose(found.pixels[0], [(9.5 + 0.5) * 4 - 0.5, (5 + 0.5) * 4 - 0.5], atol=0.1)
    assert found.covariance_px[0, 0, 0] > 2 * found.covariance_px[0, 1, 1]  # along u it is one cell or the other
    assert found.share[0] > 0.99
    assert peaks(basis, field, torch.ones(16, 16, dtype=torch.bool), CAMERA, replace(MATCHING, absent=1.5)).share[0] < 0.01
    closed = torch.ones(16, 16, dtype=torch.bool)
    closed[:, 8:] = False
    assert peaks(basis, field, closed, CAMERA, replace(MATCHING, temperature=0.02)).pixels[0, 0] < 32


def perfect(subject: Subject, pose: np.ndarray, views: int = 12) -> tuple[torch.Tensor, Templates]:
    """Embeddings that know everything: a cell's is that of the bone point seen there, the same in all templates."""
    rng = np.random.default_rng(1)
    points = subject.bone.surface_points
    pixels = FINE.project(transform_points(pose, points))
    kept: list[int] = []
    for n in range(len(points)):  # a cell can be the embedding of one point only
        if np.linalg.norm(pixels[kept] - pixels[n], axis=1).min(initial=np.inf) > 7.0:
            kept.append(n)
    points, pixels = points[kept], pixels[kept]
    own = rng.normal(size=(len(points), 32))
    v, u = np.mgrid[:32, :32] * 4 + 1.5
    apart = np.hypot(pixels[:, 0, None, None] - u, pixels[:, 1, None, None] - v)
    field = np.einsum("nhw,nd->dhw", np.exp(-0.5 * (apart / 3.0) ** 2), own) + 1e-3 * rng.normal(size=(32, 32, 32))
    features = torch.as_tensor(np.repeat(own[:, None], views, axis=1), dtype=torch.float32)
    directions = rng.normal(size=(views, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    seen = torch.ones(len(points), views, dtype=torch.bool)
    return torch.as_tensor(field, dtype=torch.float32), Templates(points, features, seen, directions)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_perfect_network_gives_the_pose(subject: Subject, seed: int) -> None:
    pose = pose_of(subject, seed)
    field, templates = perfect(subject, pose)
    opened = torch.ones(32, 32, dtype=torch.bool)
    points = subject.bone.surface_points
    for found, lateral_mm in (
        (find_poses(field, opened, FINE, templates, MATCHING, seed=0)[0], 1.5),
        (find_pose_as_published(field, opened, FINE, templates, seed=0)[0], 3.0),
    ):
        # a cell is 4 pixels, some 6 mm at the bone; the depth of one view is an order more uncertain
        off = transform_points(found.camera_from_ct, points) - transform_points(pose, points)
        assert np.linalg.norm(off[:, :2], axis=1).mean() < lateral_mm
        assert np.linalg.norm(off, axis=1).mean() < 30.0


def test_bone_that_seems_behind_the_detector_is_brought_back_along_its_ray(subject: Subject) -> None:
    pose = pose_of(subject, 0)
    field, templates = perfect(subject, pose)
    middle = templates.points_ct.mean(axis=0)
    # to rays that are matched too close together the bone seems as small as if it were larger and further away
    large = replace(templates, points_ct=middle + 1.8 * (templates.points_ct - middle))
    assert 1.8 * transform_points(pose, middle)[2] > 1020.0
    found = find_poses(field, torch.ones(32, 32, dtype=torch.bool), FINE, large, MATCHING, seed=0)[0]
    assert transform_points(found.camera_from_ct, middle)[2] == pytest.approx(0.7 * 1020.0)
    pixels = [FINE.project(transform_points(p, middle)) for p in (found.camera_from_ct, pose)]
    assert np.linalg.norm(pixels[0] - pixels[1]) < 4.0  # a cell
    turn = found.camera_from_ct[:3, :3].T @ pose[:3, :3]
    assert np.degrees(np.arccos((np.trace(turn) - 1.0) / 2.0)) < 10.0


def test_embeddings_that_mean_nothing_are_a_failure_with_a_reason(subject: Subject) -> None:
    _, templates = perfect(subject, pose_of(subject, 0))
    noise = torch.randn(32, 32, 32, generator=torch.Generator().manual_seed(2))
    with pytest.raises(PnpFailure, match="pairs"):
        find_poses(noise, torch.ones(32, 32, dtype=torch.bool), FINE, templates, MATCHING, seed=0)


# --- the loss


def hand_made(pixel: tuple[float, float]) -> tuple[torch.Tensor, RayBatch]:
    """Two X-rays of 4 x 4 cells whose embeddings are all orthogonal; the second is the template of the first."""
    field = torch.eye(16, 32).T.reshape(1, 32, 4, 4).repeat(2, 1, 1, 1)
    at = torch.tensor(pixel).reshape(1, 1, 2).repeat(2, 1, 1)
    weight, seen = torch.tensor([[1.0], [0.0]]), torch.tensor([[[True]], [[False]]])
    present = torch.ones(2, 1, dtype=torch.bool)
    return field, RayBatch(torch.zeros(2, 1, 16, 16), at, present, weight, at[:, :, None].clone(), seen)


def test_the_loss_by_hand() -> None:
    field, batch = hand_made((5.5, 9.5))  # the middle of cell (2, 1)
    loss, parts = contrast(field, batch, 16, 16, 0.5, 1e-6, 0.0)
    assert float(loss) == pytest.approx(-np.log(np.exp(2.0) / (np.exp(2.0) + 15 * np.exp(2e-4))), rel=1e-3)
    assert parts["right"] == 1.0
    soft, _ = contrast(field, batch, 16, 16, 0.5, 1e-6, 0.5)
    weights = np.exp(-0.5 * ((np.arange(4) - 2) / 0.5) ** 2), np.exp(-0.5 * ((np.arange(4) - 1) / 0.5) ** 2)
    share = weights[0][2] / weights[0].sum() * weights[1][1] / weights[1].sum()
    assert float(soft) == pytest.approx(np.log(np.exp(2.0) + 15) - 2.0 * share, rel=1e-3)
    batch.present[0] = False  # then the one cell that is right is "not on this X-ray", of similarity 0.5
    loss, _ = contrast(field, batch, 16, 16, 0.5, 1e-6, 0.0, absent=0.5)
    assert float(loss) == pytest.approx(np.log(np.exp(2.0) + 15 + np.exp(1.0)) - 1.0, rel=1e-3)
    assert float(contrast(field, batch, 16, 16, 0.5, 1e-6, 0.0)[0]) == 0.0  # as published, such points are left out
    batch.present[0] = True
    batch.template_pixels[0] = torch.tensor([13.5, 1.5])  # the template says it is elsewhere
    assert contrast(field, batch, 16, 16, 0.5, 1e-6, 0.0)[1]["right"] == 0.0


# --- templates and their cache


def test_windows_are_the_template_and_show_all_of_the_bone(subject: Subject) -> None:
    camera = Camera.from_spacing(64, 64, 2.3, 1020.0)  # too narrow for the bone
    views = TemplateViews(camera, view_grid(20.0, 10.0, (2, 2)), 700.0)
    windows = render_windows(subject, views)
    assert len(windows.view) > 4
    points = spread_points(subject.bone, 200, 50)
    templates = point_features(ray_encoder({"paper_mode": False}).eval(), windows, views, points, False)
    assert bool(templates.seen.all())
    np.testing.assert_allclose(np.linalg.norm(templates.directions, axis=1), 1.0)
    from XRayRegistrationLib.simulation.shots import shoot

    k = 1
    corner = windows.corner[k]
    own = camera.cropped(int(corner[0]), int(corner[1]), 64, 64)
    alone = shoot(subject, own, windows.poses[windows.view[k]], hits_stride=64).path_mm[0]
    np.testing.assert_allclose(windows.path_mm[k], alone, atol=1e-3)


def test_the_cache_gives_back_what_was_made_and_a_damaged_file_is_made_anew(subject: Subject, tmp_path: Path) -> None:
    weights = tmp_path / "w.safetensors"
    weights.write_bytes(b"some weights")
    views = TemplateViews(CAMERA, view_grid(20.0, 10.0, (2, 2)), 700.0)
    points = spread_points(subject.bone, 50, 10)
    made = 0

    def make() -> Templates:
        nonlocal made
        made += 1
        rng = np.random.default_rng(0)
        seen = torch.ones(60, 4, dtype=torch.bool)
        return Templates(points, torch.as_tensor(rng.normal(size=(60, 4, 32)), dtype=torch.float32), seen, np.eye(4)[:, :3])

    def ask() -> Templates:
        return cached_templates(tmp_path / "cache", weights, subject.ct, points, views, make)

    first, second = ask(), ask()
    assert made == 1
    assert torch.equal(first.features, second.features)
    (file,) = (tmp_path / "cache").iterdir()
    file.write_bytes(file.read_bytes()[:200])
    assert torch.equal(ask().features, first.features)
    assert made == 2
    file.write_bytes(b"")
    ask()
    assert made == 3
    weights.write_bytes(b"other weights")
    ask()
    assert made == 4


# --- training


OPTIONS = TrainingOptions(
    minutes=None, iterations=60, batch_size=10, learning_rate=2e-3, warmup=10, averaging=0.9, validate_every=60,
    device="cpu", checkpoint_s=1e9, precision="32",
)  # fmt: skip


def task_of(subject: Subject):
    method = get_method("rayemb")
    task = method.task([subject], [], method.options({"poses": "prost"}), OPTIONS, CAMERA)
    task.scene_options = task.stream.options = replace(
        task.scene_options, appearances=(task.scene_options.template_appearance,), scenes=1, queries=20, templates=8, warped=0.0
    )
    return task


def test_it_learns_in_seconds_and_serves_a_ct_it_was_not_trained_on(
    subject: Subject, ct: Volume, model: BoneModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from XRayRegistrationLib.training.loop import fit

    monkeypatch.setattr("XRayRegistrationLib.training.rayemb._JUDGED_XRAYS", 8)
    torch.manual_seed(0)
    task = task_of(subject)

    def point_px(network: torch.nn.Module) -> float:
        with torch.inference_mode():
            return task.validate(network, torch.device("cpu")).details["point_px"]

    before = point_px(task.network().eval())
    out = tmp_path / "rayemb.safetensors"
    fit(task, out, OPTIONS)
    method = get_method("rayemb")
    monkeypatch.setenv("XRAYREGISTRATION_HOME", str(tmp_path / "home"))
    other = replace(ct, values=np.where(ct.values > 100, ct.values * 1.1, ct.values).astype(np.float32))
    prepared = method.prepare(other, model, method.options({"weights": str(out)}))
    after = point_px(prepared.data["network"])
    assert after < 0.6 * before  # of 64 pixels; chance is some 20
    assert len(list((tmp_path / "home" / "cache").glob("rayemb-*.npz"))) == 1
    pose = pose_of(subject, 0)
    from XRayRegistrationLib.simulation.shots import shoot

    path = shoot(subject, CAMERA, pose, hits_stride=64).path_mm[0].numpy()
    image = (0.5 * path[0] + 2.5 * path[1]).astype(np.float32)
    xray = XRay(image, np.ones(image.shape, bool), CAMERA)
    proposal = method.propose([xray], prepared)
    again = method.propose([xray], prepared)
    np.testing.assert_array_equal(proposal.candidates[0].rig_from_ct, again.candidates[0].rig_from_ct)


def test_bad_input_is_one_line(subject: Subject) -> None:
    method = get_method("rayemb")

    def task(options: dict, camera: Camera | None = None):
        return method.task([subject], [], method.options(options), OPTIONS, camera)

    with pytest.raises(InputError, match="poses 'nowhere' are unknown"):
        task({"poses": "nowhere"})
    with pytest.raises(InputError, match="multiples of 32"):
        task({}, Camera.from_spacing(100, 100, 3.0, 1000.0))
    with pytest.raises(InputError, match="paper_mode learns from 224 x 224"):
        task({"paper_mode": True}, Camera.from_spacing(112, 112, 3.0, 1000.0))
    with pytest.raises(InputError, match="'encoder_weights' is for the published network"):
        task({"encoder_weights": "x.safetensors"})
    with pytest.raises(InputError, match="at least one CT"):
        method.task([], [], method.options(), OPTIONS, None)
    with pytest.raises(InputError, match="batch size is 4; method 'rayemb' learns from 5 X-rays"):
        method.task([subject], [], method.options(), replace(OPTIONS, batch_size=4), None)


def test_paper_mode_is_the_published_recipe(subject: Subject) -> None:
    method = get_method("rayemb")
    task = method.task([subject], [], method.options({"paper_mode": True}), OPTIONS, None)
    assert isinstance(task.optimizer(ViTEncoder(), OPTIONS), torch.optim.Adam)
    assert task.header()["input"]["poses"] == "rayemb"
    views = template_views(task.camera, True)
    assert len(views.angles_deg) == 44  # the first draw and ten more, of 4 templates each
    assert len(np.unique(views.angles_deg[:4], axis=0)) == 4
    assert np.isin(views.angles_deg.round(6), np.linspace(-45, 45, 18).round(6)).all()
    assert views.depth_mm == 900.0
    assert views.camera.source_detector_distance_mm == 1800.0
    assert 900.0 / 1800.0 * 224 * views.camera.pixel_spacing_mm[0] == pytest.approx(358.4)  # mm at the bone
    assert task.scene_options.points == 40
    assert task.scene_options.absent == 0.0  # all of them on the X-ray
    # what is learned is what is rendered to be looked for
    assert views.contrast == (1.0, 3.0)
    assert task.scene_options.template_appearance.linear_bone == (3.0, 3.0)
    assert views_of_header(task.header()).contrast == views.contrast
    assert views_of_header({"templates": {k: v for k, v in view_header(views).items() if k != "contrast"}}).contrast == (0.5, 2.5)
    assert task.scene_options.used_templates == 4
