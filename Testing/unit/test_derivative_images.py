"""Projections of a learned volume and their derivatives: right in the pose, and right in the volume."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from scipy import ndimage

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("numba", reason="numba is not installed")

from XRayRegistrationLib.drr.backend_torch import render_torch  # noqa: E402
from XRayRegistrationLib.errors import MissingDependencyError  # noqa: E402
from XRayRegistrationLib.geometry.camera import Camera  # noqa: E402
from XRayRegistrationLib.geometry.rigid import from_rotation_translation, increment_left, rotation_exp  # noqa: E402
from XRayRegistrationLib.methods import METHODS  # noqa: E402
from XRayRegistrationLib.networks import derivative_images as module  # noqa: E402
from XRayRegistrationLib.networks.derivative_images import derivative_images  # noqa: E402

CAMERA = Camera.from_spacing(20, 16, 6.0, 1000.0)
CT_FROM_IJK = np.diag([3.0, 3.2, 3.1, 1.0])
CT_FROM_IJK[:3, 3] = (-36.0, -35.0, -31.0)
STEP_MM = 0.25


@pytest.fixture(scope="module")
def poses() -> np.ndarray:
    rng = np.random.default_rng(0)
    turns = [rotation_exp(0.5 * rng.normal(size=3)) for _ in range(2)]
    return np.stack([from_rotation_translation(r, np.array([3.0, -4.0, 700.0]) + 5.0 * rng.normal(size=3)) for r in turns])


@pytest.fixture(scope="module")
def volume():  # type: ignore[no-untyped-def]
    """Two smooth channels of either sign."""
    rng = np.random.default_rng(1)
    channels = [ndimage.gaussian_filter(rng.normal(size=(20, 22, 24)), 2.0) for _ in range(2)]
    return torch.from_numpy(np.stack(channels).astype(np.float32))


def test_images_are_the_renderers(volume, poses) -> None:  # type: ignore[no-untyped-def]
    image, _ = derivative_images(volume, CT_FROM_IJK, CAMERA, poses, poses[:, :3, 3], STEP_MM)
    expected = render_torch(volume, CT_FROM_IJK, CAMERA, torch.from_numpy(poses), STEP_MM)
    assert image.shape == (2, 2, 16, 20)
    assert torch.allclose(image, expected, atol=1e-4 * float(expected.abs().max()))


def test_derivatives_are_those_of_the_image(volume, poses) -> None:  # type: ignore[no-untyped-def]
    _, jacobian = derivative_images(volume, CT_FROM_IJK, CAMERA, poses, poses[:, :3, 3], STEP_MM)
    for parameter in range(6):
        step = np.zeros(6)
        step[parameter] = 1e-3 if parameter < 3 else 0.1
        ahead, behind = (
            np.stack([increment_left(p, sign * step, p[:3, 3]) for p in poses]) for sign in (1.0, -1.0)
        )
        images = [
            render_torch(volume.double(), CT_FROM_IJK, CAMERA, torch.from_numpy(p), STEP_MM) for p in (ahead, behind)
        ]
        expected = (images[0] - images[1]) / (2.0 * step[parameter])
        difference = (jacobian[:, :, parameter] - expected).abs().mean() / expected.abs().mean()
        assert difference < (0.2 if parameter == 5 else 0.03), parameter  # depth shows least, beside the noise of steps


@pytest.mark.parametrize("compiled", [True, False])
def test_the_way_back_to_the_volume_is_the_adjoint(volume, poses, compiled, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    if not compiled:  # as on a CUDA device
        monkeypatch.setattr(module, "_compiled_sums", module._sums)
        monkeypatch.setattr(module, "_compiled_adjoint", module._adjoint)
    leaf = volume.clone().requires_grad_()
    image, jacobian = derivative_images(leaf, CT_FROM_IJK, CAMERA, poses, poses[:, :3, 3], STEP_MM)
    torch.manual_seed(2)
    a, b, other = torch.randn_like(image), torch.randn_like(jacobian), torch.randn_like(volume)
    (slope,) = torch.autograd.grad((image * a).sum() + (jacobian * b).sum(), leaf)
    image, jacobian = derivative_images(other, CT_FROM_IJK, CAMERA, poses, poses[:, :3, 3], STEP_MM)
    expected = float((image * a).sum() + (jacobian * b).sum())
    assert float((slope * other).sum()) == pytest.approx(expected, rel=1e-3)


def test_both_ways_of_summing_are_one(volume, poses, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    first = derivative_images(volume, CT_FROM_IJK, CAMERA, poses, poses[:, :3, 3], STEP_MM)
    monkeypatch.setattr(module, "_compiled_sums", module._sums)
    second = derivative_images(volume, CT_FROM_IJK, CAMERA, poses, poses[:, :3, 3], STEP_MM)
    for a, b in zip(first, second, strict=True):
        assert torch.allclose(a, b, atol=1e-4 * float(a.abs().max()))


def test_without_numba_it_says_what_to_install(volume, poses, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.delitem(sys.modules, "XRayRegistrationLib.drr._derivative_kernels", raising=False)
    monkeypatch.delattr("XRayRegistrationLib.drr._derivative_kernels", raising=False)
    with pytest.raises(MissingDependencyError, match=r"needs the package 'numba'.*pip install"):
        derivative_images(volume, CT_FROM_IJK, CAMERA, poses, poses[:, :3, 3], STEP_MM)
    for name in ("prost", "sopi"):
        assert "numba" in METHODS[name].needs.packages
