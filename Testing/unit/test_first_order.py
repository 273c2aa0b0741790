"""Adam through DiffDRR's renderer: the baseline as DiffDRR itself runs it, from the same start."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import solver_phantom as phantom

from XRayRegistrationLib.drr.volume import WATER_MU_PER_MM, AttenuationVolume
from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.geometry import rigid
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.images.xray import XRay
from XRayRegistrationLib.solvers.problem import View

torch = pytest.importorskip("torch", reason="the extra torch is not installed")
pytest.importorskip("diffdrr.drr", reason="the extra diffdrr is not installed")

from XRayRegistrationLib.solvers.first_order import (  # noqa: E402
    FirstOrderOptions,
    diffdrr_density,
    solve,
    weighted_ncc,
)

CAMERA = Camera.from_spacing(30, 26, 6.0, 800.0)
# the phantom is small: smaller steps than the baseline's 7 mm
SMALL = FirstOrderOptions(size_px=30, patch_px=7, iterations=20, rotation_rate=1e-2, translation_rate=1.5)


def test_the_preset_is_the_sheets():
    preset = FirstOrderOptions()
    assert (preset.size_px, preset.iterations, preset.patch_px) == (224, 100, 23)
    assert (preset.rotation_rate, preset.translation_rate) == (7e-3, 7.0)
    assert (preset.decay_every, preset.decay) == (25, 0.9)
    assert (preset.ncc_weight, preset.patch_weight) == (0.5, 0.5)
    assert (preset.renderer, preset.bone_multiplier) == ("siddon", 2.5)


def test_density_by_hand():
    # HU -1000 (air), -700, 0, 300 (soft), 500 and 1000 (bone, times 2): the thinnest soft is -700
    hu = np.array([-1000.0, -700.0, 0.0, 300.0, 500.0, 1000.0])
    mu = (WATER_MU_PER_MM * (1.0 + hu / 1000.0)).astype(np.float32)
    expected = np.array([0.0, 0.0, 700.0, 1000.0, 1700.0, 2700.0]) / 2700.0
    np.testing.assert_allclose(diffdrr_density(mu, 2.0), expected, atol=1e-6)
    with pytest.raises(InputError, match="nothing but air"):
        diffdrr_density(np.zeros((2, 2, 2), np.float32), 2.0)
    with pytest.raises(InputError, match="same everywhere"):
        diffdrr_density(np.full((2, 2, 2), 0.02, np.float32), 2.0)


def patchwise(a: np.ndarray, b: np.ndarray, p: int) -> float:
    def scores(x):
        windows = np.lib.stride_tricks.sliding_window_view(x, (p, p)).reshape(-1, p * p)
        return (windows - windows.mean(1, keepdims=True)) / np.sqrt(windows.var(1, keepdims=True) + 1e-5)

    return float((scores(a) * scores(b)).mean(1).mean())


def test_weighted_ncc_against_unfolded_patches():
    rng = np.random.default_rng(0)
    a, b = 40.0 * rng.random((2, 30, 26))
    b[:12] = 0.25 * a[:12] + 3.0
    full = torch.ones((30, 26), dtype=torch.bool)
    options = FirstOrderOptions(patch_px=7)
    ta, tb = torch.as_tensor(a), torch.as_tensor(b)
    global_ncc = ((a - a.mean()) * (b - b.mean())).mean() / np.sqrt((a.var() + 1e-5) * (b.var() + 1e-5))
    assert float(weighted_ncc(ta, tb, full, options)) == pytest.approx(0.5 * global_ncc + 0.5 * patchwise(a, b, 7))
    # a masked strip: the same as cutting it off
    mask = full.clone()
    mask[:, 20:] = False
    ta[:, 20:], tb[:, 20:] = 1e3, -1e5
    cut = [torch.as_tensor(np.ascontiguousarray(x[:, :20])) for x in (a, b)]
    expected = float(weighted_ncc(*cut, full[:, :20], options))
    assert float(weighted_ncc(ta, tb, mask, options)) == pytest.approx(expected, abs=1e-12)


def problem(seed: int = 0, masked: bool = True):
    volume = phantom.ellipsoids()
    truth = phantom.true_pose(volume)
    xray = phantom.xray_at(volume, CAMERA, truth, seed=seed)
    if not masked:
        clean = np.where(xray.mask, xray.line_integrals, 5.0).astype(np.float32)
        xray = XRay(clean, np.ones_like(xray.mask), CAMERA)
    return volume, truth, View(volume, xray)


def diffdrrs_own_loop(volume, xray, camera_from_ct, options):
    """The registration as a user of DiffDRR writes it: DRR module, se3_log_map, Adam, whole-image autograd.

    Returns the similarity and the place of the source (ct mm) of each iteration.
    """
    import torchio
    from diffdrr.drr import DRR
    from diffdrr.pose import convert

    density = np.ascontiguousarray(diffdrr_density(volume.mu, options.bone_multiplier).transpose(2, 1, 0))[None]
    affine = volume.ct_from_ijk.copy()
    affine[:3, 3] -= volume.centre_ct
    image = torchio.ScalarImage(tensor=torch.from_numpy(density), affine=affine)
    reorient = torch.tensor([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    camera = xray.camera
    drr = DRR(
        torchio.Subject(volume=image, density=image, mask=None, reorient=reorient),
        sdd=800.0,
        height=camera.height,
        width=camera.width,
        delx=6.0,
    )
    fixed = torch.as_tensor(xray.line_integrals).double()
    fixed = (fixed - fixed.min()) / (fixed.max() - fixed.min())
    # source and detector of the start, by our own camera; from them DiffDRR's rotation and translation
    x, y, z = camera_from_ct[:3, :3]
    source = -camera_from_ct[:3, :3].T @ camera_from_ct[:3, 3] - volume.centre_ct
    columns = np.stack([-x, -y, z], axis=1)  # DiffDRR's camera: x left, y up, z along the beam
    motion = rigid.from_rotation_translation(columns, source)
    twist = rigid.se3_log(motion @ np.linalg.inv(reorient.numpy().astype(float)))
    rotation = torch.tensor(twist[None, :3], dtype=torch.float32, requires_grad=True)
    translation = torch.tensor(twist[None, 3:], dtype=torch.float32, requires_grad=True)
    adam = torch.optim.Adam(
        [{"params": [rotation], "lr": options.rotation_rate}, {"params": [translation], "lr": options.translation_rate}],
        maximize=True, amsgrad=True,
    )
    schedule = torch.optim.lr_scheduler.StepLR(adam, 25, 0.9)
    full = torch.ones(fixed.shape, dtype=torch.bool)
    values, sources = [], []
    for _ in range(options.iterations):
        adam.zero_grad()
        pose = convert(rotation, translation, parameterization="se3_log_map")
        moving = drr(pose)[0, 0].double()
        value = weighted_ncc(moving, fixed, full, options)
        value.backward()
        values.append(float(value.detach()))
        sources.append(drr.detector(pose, None)[0][0, 0].detach().numpy() + volume.centre_ct)
        adam.step()
        schedule.step()
    return values, sources


def test_it_is_diffdrrs_own_registration():
    volume, truth, view = problem(masked=False)
    start = phantom.moved(volume, truth, [3.0, -2.0, 4.0, 5.0, -6.0, 20.0])
    # a tenth of the published rates: steps as long as those overshoot here, which multiplies DiffDRR's float32 rounding
    options = replace(SMALL, iterations=12, rotation_rate=7e-4, translation_rate=0.7)
    values, sources = diffdrrs_own_loop(volume, view.xray, start, options)
    result = solve([view], start, None, options)
    ours = [entry["similarity"] for entry in result.trace]
    np.testing.assert_allclose(ours, values, atol=1e-4)
    assert values[-1] > values[0] + 0.02
    best = int(np.argmax(values))
    source = -result.rig_from_ct[:3, :3].T @ result.rig_from_ct[:3, 3]
    np.testing.assert_allclose(source, sources[best], atol=0.01)


@pytest.mark.parametrize("renderer", ["siddon", "trilinear"])
def test_it_comes_closer(renderer):
    volume, truth, view = problem()
    start = phantom.moved(volume, truth, [3.0, -2.0, 3.0, 4.0, -4.0, 10.0])
    seen = []
    options = replace(SMALL, renderer=renderer, step_mm=2.0)
    result = solve([view], start, volume.centre_ct, options, lambda f, text: seen.append(f))
    before, after = (phantom.distance_mm(volume, pose, truth) for pose in (start, result.rig_from_ct))
    assert after < 0.5 * before
    assert result.cost < result.start_cost
    assert result.iterations == len(result.trace) == 20
    rigid.check_rigid(result.rig_from_ct, "result", tolerance=1e-9)
    np.testing.assert_allclose(seen, np.arange(1, 21) / 20)


def test_it_never_returns_worse_than_its_start():
    _, truth, view = problem()
    # steps so large that whatever they reach is worse
    wild = replace(SMALL, iterations=3, rotation_rate=1.0, translation_rate=300.0)
    result = solve([view], truth, None, wild)
    np.testing.assert_allclose(result.rig_from_ct, truth, atol=1e-12)
    assert result.cost == result.start_cost
    assert "nothing they found is better" in result.message


def test_two_views_share_one_pose():
    volume, truth, view = problem()
    side = rigid.from_rotation_translation(rigid.rotation_exp([0.0, np.pi / 2, 0.0]), [-500.0, 0.0, 500.0])
    # the second view's volume is cropped, so that its world has another origin
    cut = np.eye(4)
    cut[:3, 3] = [0, 2, 4]
    cropped = AttenuationVolume(volume.mu[4:, 2:, :], volume.ct_from_ijk @ cut)
    second = View(cropped, phantom.xray_at(cropped, CAMERA, side @ truth, seed=1), side)
    start = phantom.moved(volume, truth, [3.0, -2.0, 3.0, 4.0, -4.0, 10.0])
    both = solve([view, second], start, None, replace(SMALL, iterations=1))
    alone = [
        solve([replace(v, camera_from_rig=np.eye(4))], v.camera_from_rig @ start, None, replace(SMALL, iterations=1))
        for v in (view, second)
    ]
    assert both.cost == pytest.approx(np.mean([r.cost for r in alone]), abs=1e-5)
    result = solve([view, second], start, None, SMALL)
    assert phantom.distance_mm(volume, result.rig_from_ct, truth) < 0.5 * phantom.distance_mm(volume, start, truth)


def test_raising_from_the_progress_cancels():
    _, truth, view = problem()

    def cancel(fraction: float, text: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        solve([view], truth, None, SMALL, cancel)


def test_bad_input_says_what_is_allowed():
    _, truth, view = problem()
    with pytest.raises(InputError, match="no view"):
        solve([], truth)
    with pytest.raises(InputError, match="not a 4x4 matrix"):
        solve([view], np.eye(3))
    with pytest.raises(InputError, match="no whole patch of 41 x 41"):
        solve([view], truth, None, replace(SMALL, patch_px=41))
    with pytest.raises(InputError, match="renderer is 'sidon'"):
        FirstOrderOptions(renderer="sidon")
    with pytest.raises(InputError, match="patch_px is 8"):
        FirstOrderOptions(patch_px=8)
    with pytest.raises(InputError, match="iterations is 0"):
        FirstOrderOptions(iterations=0)
    empty = replace(view.xray, mask=np.zeros_like(view.xray.mask))
    with pytest.raises(InputError, match="no valid pixel"):
        solve([replace(view, xray=empty)], truth, None, SMALL)
