"""The pose error that PnP would make, against poses that are off by a known amount."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from XRayRegistrationLib.geometry.rigid import from_rotation_translation, inverse, rotation_exp, transform_points  # noqa: E402
from XRayRegistrationLib.training.pose_loss import pnp_error_mm  # noqa: E402

RNG = np.random.default_rng(0)
BONE = RNG.normal(size=(400, 3)) * [60.0, 40.0, 30.0] + [10.0, -20.0, 30.0]
CENTRE = BONE.mean(0)
SCATTER = (BONE - CENTRE).T @ (BONE - CENTRE) / len(BONE)
ROTATION = rotation_exp((0.4, -0.9, 0.2))
POSE = from_rotation_translation(ROTATION, np.array([25.0, -12.0, 650.0]) - ROTATION @ CENTRE)


def f(values):
    return torch.as_tensor(np.asarray(values), dtype=torch.float32)


def loss(points, weight=None, true=BONE):
    weight = torch.ones(1, len(BONE)) if weight is None else weight
    return pnp_error_mm(f(points)[None], f(true)[None], weight, f(POSE)[None], f(CENTRE), f(SCATTER))


@pytest.mark.parametrize(
    ("turn", "shift"),
    [((0.004, -0.006, 0.008), (1.0, -2.0, 3.0)), ((0.0, 0.0, 0.0), (0.0, 0.0, 8.0)), ((0.02, 0.0, 0.0), (0.0, 0.0, 0.0))],
)
def test_it_is_the_motion_that_points_agree_on(turn, shift):
    at = ROTATION @ CENTRE + POSE[:3, 3]
    r = rotation_exp(turn)
    off = from_rotation_translation(r, at - r @ at + np.array(shift)) @ POSE
    said = transform_points(inverse(POSE) @ off, BONE)  # the points that would be seen there from the wrong pose
    moved = np.linalg.norm(transform_points(off, BONE) - transform_points(POSE, BONE), axis=1)
    assert float(loss(said)) == pytest.approx(np.sqrt((moved**2).mean()), rel=0.03)


def test_errors_that_no_motion_explains_cost_little():
    noise = RNG.normal(size=BONE.shape) * 5.0
    rays = transform_points(POSE, BONE)
    along = 5.0 * rays / np.linalg.norm(rays, axis=1, keepdims=True) @ ROTATION
    assert float(loss(BONE + along)) < 1e-2  # along its ray a point may be anywhere
    assert float(loss(BONE + noise)) < 0.6 * 5.0 * np.sqrt(3)
    assert float(loss(BONE)) < 1e-3


def test_weights_leave_out_what_is_wrong_and_learn_to():
    wrong = BONE.copy()
    wrong[::4] += [30.0, 0.0, 0.0]
    weight = torch.ones(1, len(BONE))
    weight.requires_grad_()
    before = loss(wrong, weight)
    before.backward()
    assert float(weight.grad[0, ::4].mean()) > 0 > float(weight.grad[0, 1::4].mean())
    left_out = torch.ones(1, len(BONE))
    left_out[0, ::4] = 0.0
    true = BONE.copy()
    true[::4] = np.nan  # off the bone there is no true point
    assert float(loss(wrong, left_out, true)) < 1e-3 < 1.0 < float(before.detach())


def test_nothing_seen_is_no_loss_and_no_nan():
    points = f(np.full_like(BONE, 7.0))[None].requires_grad_()
    nothing = pnp_error_mm(
        points, f(np.full_like(BONE, np.nan))[None], torch.zeros(1, len(BONE)), f(POSE)[None], f(CENTRE), f(SCATTER)
    )
    assert float(nothing.detach()) < 1e-3
    nothing.sum().backward()
    assert torch.isfinite(points.grad).all()
