"""The torch renderer against the plain one, and its derivatives against autograd's own checks."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from XRayRegistrationLib.drr import AttenuationVolume, render, render_with_jacobian
from XRayRegistrationLib.geometry import rigid
from XRayRegistrationLib.geometry.camera import Camera

torch = pytest.importorskip("torch", reason="the extra torch is not installed")

OBLIQUE = rigid.from_rotation_translation(rigid.rotation_exp([0.2, -0.3, 0.5]), [-20.0, 35.0, 10.0])


def phantom(channels: int = 1, seed: int = 0) -> AttenuationVolume:
    """Blobs on an oblique, flipped, anisotropic grid, not 0 at the grid's edge."""
    rng = np.random.default_rng(seed)
    mu = ndimage.gaussian_filter(rng.random((channels, 14, 18, 22)), (0, 2, 2, 2))
    mu = (0.04 * (mu - mu.min()) / np.ptp(mu)).astype(np.float32)
    ct_from_ijk = OBLIQUE @ np.diag([-2.0, 1.5, 3.0, 1.0])
    return AttenuationVolume(mu if channels > 1 else mu[0], ct_from_ijk)


def smooth_phantom() -> AttenuationVolume:
    """Two Gaussian blobs that vanish well inside the grid."""
    k, j, i = np.indices((30, 36, 40), dtype=float)
    mu = 0.03 * np.exp(-0.5 * (((i - 17) / 5) ** 2 + ((j - 19) / 4) ** 2 + ((k - 14) / 3.5) ** 2))
    mu += 0.04 * np.exp(-0.5 * (((i - 25) / 4) ** 2 + ((j - 15) / 3.5) ** 2 + ((k - 17) / 4) ** 2))
    return AttenuationVolume(mu, OBLIQUE @ np.diag([-1.5, 1.5, 1.8, 1.0]))


def camera() -> Camera:
    return Camera.from_spacing(24, 20, (4.0, 5.0), 900.0, principal_point_px=(10.2, 9.1))


def poses(volume: AttenuationVolume, n: int, seed: int = 1) -> np.ndarray:
    """Looking at the volume from n directions, 600 mm away."""
    rng = np.random.default_rng(seed)
    rotation = rigid.rotation_exp(rng.normal(size=(n, 3)))
    centre_camera = np.array([0.0, 0.0, 600.0]) + rng.normal(size=(n, 3)) * [5, 5, 30]
    return rigid.from_rotation_translation(rotation, centre_camera - rotation @ volume.centre_ct)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("step_mm", [0.75, 2.3])
def test_image_and_jacobian_agree_with_the_plain_renderer(channels, step_mm):
    volume = phantom(channels)
    camera_from_ct = poses(volume, 4)
    centre = rigid.transform_points(camera_from_ct[0], volume.centre_ct + np.array([3.0, -8.0, 5.0]))
    plain_image, plain_jacobian = render_with_jacobian(
        volume, camera(), camera_from_ct, centre, backend="scipy", step_mm=step_mm
    )
    image = render(volume, camera(), camera_from_ct, backend="torch", step_mm=step_mm)
    with_jacobian, jacobian = render_with_jacobian(
        volume, camera(), camera_from_ct, centre, backend="torch", step_mm=step_mm
    )
    assert plain_image.max() > 0.3
    assert image.shape == plain_image.shape
    assert image.dtype == np.float32
    assert jacobian.shape == plain_jacobian.shape
    np.testing.assert_allclose(image, plain_image, atol=1e-5 * plain_image.max())
    np.testing.assert_allclose(with_jacobian, plain_image, atol=1e-5 * plain_image.max())
    largest = np.abs(plain_jacobian).max(axis=(-2, -1), keepdims=True)
    assert (np.abs(jacobian - plain_jacobian) <= 1e-4 * largest).all()


def test_chunks_do_not_show(monkeypatch):
    from XRayRegistrationLib.drr import backend_torch, torch_field

    volume = phantom(2)
    camera_from_ct = poses(volume, 2)
    centres = np.zeros((2, 3))
    expected = backend_torch.render_rays_with_jacobian(volume, camera(), camera_from_ct, centres, 1.0)
    monkeypatch.setattr(torch_field, "_SAMPLES_AT_ONCE", {"cpu": 500, "cuda": 500})
    got = backend_torch.render_rays_with_jacobian(volume, camera(), camera_from_ct, centres, 1.0)
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6 * np.abs(b).max())


def test_an_empty_view_is_zero():
    volume = phantom()
    behind = rigid.from_rotation_translation(np.eye(3), [0.0, 0.0, -2000.0])
    aside = rigid.from_rotation_translation(np.eye(3), [3000.0, 0.0, 600.0])
    image, jacobian = render_with_jacobian(volume, camera(), np.stack([behind, aside]), [0, 0, 600.0], backend="torch")
    assert not image.any()
    assert not jacobian.any()


def test_jacobian_against_central_differences():
    volume = smooth_phantom()
    camera_from_ct = poses(volume, 1)[0]
    centre = rigid.transform_points(camera_from_ct, volume.centre_ct)
    _, jacobian = render_with_jacobian(volume, camera(), camera_from_ct, centre, backend="torch", step_mm=0.1)
    field = torch.as_tensor(volume.mu).double()
    for parameter, h in enumerate([1e-3] * 3 + [0.1, 0.1, 1.0]):  # rad, mm: in depth, over some samples' distance
        step = np.zeros(6)
        step[parameter] = h
        up, down = (
            from_numpy_pose(field, volume, rigid.increment_left(camera_from_ct, s * step, centre), 0.02)
            for s in (1, -1)
        )
        difference = (up - down) / (2 * h)
        assert np.abs(jacobian[parameter] - difference).max() <= 0.01 * np.abs(difference).max()


def from_numpy_pose(field, volume, camera_from_ct, step_mm):
    from XRayRegistrationLib.drr.backend_torch import render_torch

    pose = torch.as_tensor(camera_from_ct)
    return render_torch(field, volume.ct_from_ijk, camera(), pose, step_mm).numpy()


@pytest.mark.parametrize("channels", [1, 2])
def test_render_torch_is_the_same_image(channels):
    from XRayRegistrationLib.drr.backend_torch import render_torch

    volume = phantom(channels)
    camera_from_ct = poses(volume, 3)
    expected = render(volume, camera(), camera_from_ct, backend="scipy", step_mm=0.9)
    got = render_torch(
        torch.as_tensor(volume.mu).double(), volume.ct_from_ijk, camera(), torch.as_tensor(camera_from_ct), 0.9
    )
    assert got.shape == expected.shape
    np.testing.assert_allclose(got.numpy(), expected, atol=2e-6 * expected.max())
    one = render_torch(
        torch.as_tensor(volume.mu), volume.ct_from_ijk, camera(), torch.as_tensor(camera_from_ct[1]), 0.9
    )
    assert one.dtype == torch.float32
    np.testing.assert_allclose(one.numpy(), expected[1], atol=1e-5 * expected.max())


def tiny():
    """A pose of 6 parameters as a torch function, over a volume of 5x4x3 voxels and 3x2 pixels."""
    from XRayRegistrationLib.drr.backend_torch import render_torch

    rng = np.random.default_rng(5)
    ct_from_ijk = OBLIQUE @ np.diag([2.0, -3.0, 2.5, 1.0])
    field = torch.as_tensor(rng.random((3, 4, 5)))
    volume = AttenuationVolume(field.numpy(), ct_from_ijk)
    small = Camera.from_spacing(3, 2, 4.0, 300.0)
    camera_from_ct = torch.as_tensor(poses(volume, 1, seed=6)[0])
    camera_from_ct[2, 3] -= 400.0

    def image(twist, values):
        w = twist[:3]
        zero = torch.zeros((), dtype=w.dtype)
        skew = torch.stack([zero, -w[2], w[1], w[2], zero, -w[0], -w[1], w[0], zero]).reshape(3, 3)
        motion = torch.eye(4, dtype=w.dtype)
        motion = motion + torch.nn.functional.pad(torch.linalg.matrix_exp(skew) - torch.eye(3), (0, 1, 0, 1))
        motion = motion + torch.nn.functional.pad(twist[3:, None], (3, 0, 0, 1))
        return render_torch(values, ct_from_ijk, small, motion @ camera_from_ct, 0.7)

    return image, field


def test_autograd_in_pose_and_volume():
    image, field = tiny()
    twist = torch.tensor([0.01, -0.02, 0.03, 0.4, -0.3, 0.2], dtype=torch.float64, requires_grad=True)
    assert image(twist, field).detach().max() > 1.0
    assert torch.autograd.gradcheck(image, (twist, field.clone().requires_grad_()), eps=1e-7, atol=1e-4)


def test_double_backward_in_pose_and_volume():
    # the second derivative of a trilinear field exists off the cells' faces, which these samples are
    image, field = tiny()
    twist = torch.tensor([0.01, -0.02, 0.03, 0.4, -0.3, 0.2], dtype=torch.float64, requires_grad=True)
    values = field.clone().requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x, y: image(x, y).sum(), (twist, values), eps=1e-7, atol=1e-3)
    (first,) = torch.autograd.grad(image(twist, field).square().sum(), twist, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), twist)
    assert second.abs().max() > 0


def test_autograd_agrees_with_the_accumulated_jacobian():
    from XRayRegistrationLib.drr.backend_torch import render_torch

    volume = smooth_phantom()
    camera_from_ct = poses(volume, 1)[0]
    centre = rigid.transform_points(camera_from_ct, volume.centre_ct)
    _, jacobian = render_with_jacobian(volume, camera(), camera_from_ct, centre, backend="torch", step_mm=0.05)
    pose = torch.tensor(camera_from_ct, requires_grad=True)
    image = render_torch(torch.as_tensor(volume.mu).double(), volume.ct_from_ijk, camera(), pose, 0.05)
    towards = [
        (rigid.increment_left(camera_from_ct, step, centre) - camera_from_ct) / 1e-6 for step in 1e-6 * np.eye(6)
    ]
    for weights in jacobian:
        (gradient,) = torch.autograd.grad((image * torch.as_tensor(weights)).sum(), pose, retain_graph=True)
        got = np.array([(gradient.numpy() * t).sum() for t in towards])
        size = np.sqrt((jacobian**2).sum(axis=(1, 2)) * (weights**2).sum())
        error = np.abs(got - (jacobian * weights).sum(axis=(1, 2))) / size
        # autograd keeps the noise of the samples along the ray, which shows in depth
        assert (error < [2e-3] * 5 + [2e-2]).all(), error


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch has no CUDA device here")
def test_the_gpu_agrees():
    from XRayRegistrationLib.drr.backend_torch import render_rays_with_jacobian

    volume = phantom(2)
    camera_from_ct = poses(volume, 3)
    centres = rigid.transform_points(camera_from_ct[0], volume.centre_ct) * np.ones((3, 1))
    cpu, gpu = (
        render_rays_with_jacobian(volume, camera(), camera_from_ct, centres, 1.0, device=d) for d in ("cpu", "cuda")
    )
    for a, b in zip(gpu, cpu, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(b).max())
