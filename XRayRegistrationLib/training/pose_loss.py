"""How far the pose by PnP would be off, as a loss: one Gauss-Newton step of PnP at the true pose, in closed form."""

from __future__ import annotations

import torch
from torch import Tensor

_LENGTH_MM = 100.0  # the unit below: displacements and turns of a bone then weigh alike
_RIDGE = 1e-4  # against views that do not tell the pose; of the information that one sure point has across the ray


def pnp_error_mm(
    points_ct: Tensor, true_ct: Tensor, weight: Tensor, camera_from_ct: Tensor, centre_ct: Tensor, scatter_mm2: Tensor
) -> Tensor:
    """Root mean square motion of the bone between the true pose and the one that weighted PnP would give.

    Each point's error is seen across its ray; what the six motions of the CT explain of it, by weighted least squares
    linearised at the true pose, is what PnP takes for motion. The mean error of points may be large and harmless, or
    small and all in the depth: this tells one from the other, and teaches the weights as well.

    Args:
        points_ct: (N, m, 3) mm, what a network says.
        true_ct: (N, m, 3) mm, finite where ``weight`` is above 0.
        weight: (N, m), 0 for points that do not count; only their ratios matter.
        camera_from_ct: (N, 4, 4), the true poses.
        centre_ct: (3,) mm, of the bone.
        scatter_mm2: (3, 3), mean of d d' over the bone's points, d from the centre.

    Returns:
        (N,) mm; 0 where nothing counts.
    """
    counts = (weight > 0)[..., None]
    true_ct = torch.where(counts, true_ct, centre_ct)
    rotation = camera_from_ct[:, :3, :3]
    turned = rotation.transpose(1, 2)
    centre = (rotation @ centre_ct + camera_from_ct[:, :3, 3]) / _LENGTH_MM
    d = ((true_ct - centre_ct) / _LENGTH_MM) @ turned
    error = torch.where(counts, (points_ct - true_ct) / _LENGTH_MM, 0.0) @ turned
    dx, dy, dz = d.unbind(-1)
    z = (dz + centre[:, None, 2]).clamp(min=1e-2)
    a, b = (dx + centre[:, None, 0]) / z, (dy + centre[:, None, 1]) / z
    none, one = torch.zeros_like(a), torch.ones_like(a)
    # columns: turns about x, y, z at the bone's centre, then displacements
    along_u = torch.stack([-a * dy, dz + a * dx, -dy, one, none, -a], -1)
    along_v = torch.stack([-dz - b * dy, b * dx, dx, none, one, -b], -1)
    share = (weight / weight.sum(1, keepdim=True).clamp(min=1e-12))[..., None]
    seen_u, seen_v = error[..., 0] - a * error[..., 2], error[..., 1] - b * error[..., 2]
    information = along_u.transpose(1, 2) @ (share * along_u) + along_v.transpose(1, 2) @ (share * along_v)
    gradient = (share * (along_u * seen_u[..., None] + along_v * seen_v[..., None])).sum(1)
    ridge = _RIDGE * torch.eye(6, dtype=gradient.dtype, device=gradient.device)
    motion = torch.linalg.solve(information + ridge, gradient)
    turn, displacement = motion[:, :3], motion[:, 3:]
    scatter = rotation @ (scatter_mm2 / _LENGTH_MM**2) @ turned
    inertia = torch.diag_embed(scatter.diagonal(dim1=1, dim2=2).sum(1, keepdim=True).expand(-1, 3)) - scatter
    square = displacement.square().sum(1) + torch.einsum("na,nab,nb->n", turn, inertia, turn)
    return _LENGTH_MM * (square.clamp(min=0.0) + 1e-12).sqrt()
