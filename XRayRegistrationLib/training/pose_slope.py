"""What a learned similarity is trained on: its slope in the pose, and where the true pose lies.

Poses move as everywhere here (geometry.rigid.increment_left): (w, v), a turn about the bone's centre and a shift of it, in
camera axes. The squared geodesic distance is ||log R||^2 rho^2 + ||dp||^2 for the turn R and shift dp that lead to the
true pose, with rho mm for a radian; its slope in (w, v) is -2 (rho^2 log R, dp), in closed form.
"""

from __future__ import annotations

import torch
from torch import Tensor

from XRayRegistrationLib.networks.pose_parameters import rotation_of_vector
from XRayRegistrationLib.solvers.learned_descent import ROUND_WITHIN


def pose_slope(similarity: Tensor, projections: Tensor, jacobian: Tensor) -> Tensor:
    """dS/d(w, v), (N, 6), differentiable once more.

    Args:
        similarity: (N,), of ``projections`` (N, C, H, W), each of its own image alone.
        jacobian: (N, C, 6, H, W), derivative images (networks.derivative_images).
    """
    (slope,) = torch.autograd.grad(similarity.sum(), projections, create_graph=True)
    return torch.einsum("nchw,nckhw->nk", slope, jacobian)


def geodesic_loss(slope: Tensor, motion: Tensor, length_mm: float) -> Tensor:
    """The TMI paper's, (N,): squared geodesic distance of slope and geodesic slope, read as poses themselves.

    Args:
        slope, motion: (N, 6), of the similarity, and to the true pose, per rad and mm.
        length_mm: the paper's unit of length, half of the volume.
    """
    unit = slope.new_tensor([1.0] * 3 + [length_mm] * 3)
    true = -2.0 * motion / unit  # per rad, and per unit of length
    ours = slope * unit
    turn = rotation_angle(ours[:, :3], true[:, :3])
    return turn.square() + (ours[:, 3:] - true[:, 3:]).square().sum(1)


def rotation_angle(a: Tensor, b: Tensor) -> Tensor:
    """Angle (N,) between the rotations of two rotation vectors (N, 3); differentiable where it is not 0 or pi."""
    cosine = ((rotation_of_vector(a).transpose(1, 2) @ rotation_of_vector(b)).diagonal(dim1=1, dim2=2).sum(1) - 1.0) / 2.0
    return torch.acos(cosine.clamp(-1.0 + 1e-6, 1.0 - 1e-6))


def distance_loss(similarity: Tensor, slope: Tensor, motion: Tensor, length_mm: float) -> tuple[Tensor, Tensor]:
    """Ours, (N,) and (N,): of the slope, and of the similarity itself, which is to be the distance to the true pose.

    A distance has a slope of length 1 everywhere, so pairs far apart do not drown those that are near, and its value ranks
    starts. Lengths are in ``length_mm``, which a radian counts for as well.
    """
    unit = slope.new_tensor([1.0] * 3 + [length_mm] * 3)
    away = -motion / unit
    distance = (away.square().sum(1) + ROUND_WITHIN**2).sqrt()
    return (slope * unit - away / distance[:, None]).square().sum(1), (similarity - distance).square()


def direction_loss(slope: Tensor, motion: Tensor) -> Tensor:
    """The MICCAI paper's, and SOPI's, (N,): squared distance of unit vectors, of turn and shift each by itself."""
    loss = slope.new_zeros(len(slope))
    for part in (slice(0, 3), slice(3, 6)):
        ours = torch.nn.functional.normalize(slope[:, part], dim=1, eps=1e-12)
        true = torch.nn.functional.normalize(-motion[:, part], dim=1, eps=1e-12)
        loss = loss + (ours - true).square().sum(1)
    return loss


def points_to_the_truth(slope: Tensor, motion: Tensor) -> Tensor:
    """(N,) bool, whether a small step along the motion to the truth goes down the slope; both (N, 6), whatever their units."""
    return (slope * motion).sum(1) < 0
