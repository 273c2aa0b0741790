"""Weighted robust Levenberg-Marquardt on reprojection errors, several poses at once, and the covariance of the result.

A pose is a rotation R (camera from CT) and the camera position c of the points' centroid: x = R p + c with p about the
centroid. A step is the twist (w, v) of ``geometry.rigid.increment_left`` about c: R <- exp(w) R, c <- c + v.

Each error r (px) is whitened with Sigma = Sigma_u + (f sigma_X / z)^2 I, and s = r' Sigma^-1 r goes through Tukey's
biweight: rho(s) = 1 - (1 - s / k^2)^3 below k^2 and 1 beyond, where a pair has no say (Beaton and Tukey 1974).

What sigma_X does to the estimate depends on how the points came about, and the bias is not small: with sigma_X = 10 mm
on a bone of 100 mm it is a tenth of the depth.

- "predicted": the true point is the given one plus an error that knows nothing of it, as from a network trained to the
  mean. Then J' W r = 0 with W held is unbiased (Berkson's model).
- "measured": the given point is the true one plus an error, as from a person. Then W's change with the pose belongs to
  the gradient, or the spread of the errors passes for size and the bone comes out too far away (Deming's regression).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from XRayRegistrationLib.geometry.rigid import rotation_exp, rotation_log, skew
from XRayRegistrationLib.solvers.pnp_pairs import Pairs

Array = NDArray[np.float64]
PointErrors = Literal["predicted", "measured"]

#: Tukey's k over the inlier threshold: at a threshold of 3 sigma it keeps 92 % of least squares' efficiency.
SOFT_EDGE = 1.5
_SETTLED, _LARGEST_CORRECTION = 1e-4, 0.4  # as below: last and first step of ``unshrunk``
_STEPPED = 1e-7  # rad, and fraction of the depth, below which steps end


@dataclass(frozen=True)
class Prior:
    """What is known of the pose before any pair.

    Attributes:
        rotation: (3, 3).
        centre: (3,) mm, the points' centroid in the camera.
        sigma: (6,) of the twist from it, (rad, mm).
    """

    rotation: Array
    centre: Array
    sigma: Array

    def twist(self, rotation: Array, centre: Array) -> Array:
        """(..., 6) from the prior to poses."""
        return np.concatenate([rotation_log(rotation @ self.rotation.T), centre - self.centre], axis=-1)

    def penalty(self, rotation: Array, centre: Array) -> Array:
        """(...,) squared Mahalanobis distance of poses from the prior."""
        return ((self.twist(rotation, centre) / self.sigma) ** 2).sum(axis=-1)


@dataclass(frozen=True)
class Poses:
    """rotation (b, 3, 3); centre (b, 3) mm."""

    rotation: Array
    centre: Array

    def __len__(self) -> int:
        return len(self.rotation)

    def at(self, chosen: NDArray | slice) -> Poses:
        return Poses(self.rotation[chosen], self.centre[chosen])


def joined(poses: list[Poses]) -> Poses:
    """One after the other."""
    return Poses(np.concatenate([p.rotation for p in poses]), np.concatenate([p.centre for p in poses]))


@dataclass(frozen=True)
class _Offsets:
    """Of b poses and n pairs: camera coordinates (b, 3, n), rays x/z and y/z (b, n), whitened errors (b, n), the
    whitening e_u = a r_u, e_v = d r_v - h r_u, and squared lengths ``s`` (b, n), infinite behind the source."""

    camera: Array
    ray_x: Array
    ray_y: Array
    e_u: Array
    e_v: Array
    a: Array
    d: Array
    h: Array | None
    s: Array


def squared_errors(pairs: Pairs, poses: Poses) -> Array:
    """s (b, n), unitless: squared whitened reprojection errors, infinite behind the source."""
    return np.concatenate([_offsets(part, poses).s for part in pairs.parts()], axis=1)


def residuals_px(pairs: Pairs, poses: Poses) -> Array:
    """(b, n) px: length of each reprojection error, infinite behind the source."""
    x = poses.rotation @ pairs.points + poses.centre[..., None]
    z = np.where(x[:, 2] > 0, x[:, 2], np.nan)
    offset = pairs.focal[:, None] * x[:, :2] / z[:, None] - pairs.pixels
    return np.nan_to_num(np.hypot(offset[:, 0], offset[:, 1]), nan=np.inf)


def mean_cost(s: Array, k: float) -> Array:
    """(b,) mean of Tukey's rho over the pairs, 0 to 1."""
    rest = np.maximum(1.0 - s / k**2, 0.0)
    return 1.0 - np.einsum("...i,...i,...i->...", rest, rest, rest) / s.shape[-1]


def robust_cost(pairs: Pairs, poses: Poses, k: float, prior: Prior | None = None) -> Array:
    """(b,) mean of Tukey's rho, plus the prior's share on the same scale."""
    return mean_cost(squared_errors(pairs, poses), k) + _prior_share(pairs, poses, k, prior)


def refine(
    pairs: Pairs,
    poses: Poses,
    k: float,
    steps: int,
    point_errors: PointErrors = "predicted",
    prior: Prior | None = None,
    enough: float = 0.0,
) -> Poses:
    """Poses at the nearest minimum of the robust cost; a step that does not lower a pose's cost is not taken.

    Args:
        pairs: to fit.
        poses: b starts.
        k: where Tukey's weight reaches 0, in sigmas.
        steps: of Levenberg-Marquardt, at most.
        point_errors: see the top of this file.
        prior: of the pose, or None.
        enough: a step of less than this squared Mahalanobis length is the last.
    """
    rotation, centre = poses.rotation.copy(), poses.centre.copy()
    damping = np.full(len(poses), 1e-4)
    running = np.ones(len(poses), bool)
    parts = pairs.parts()
    for _ in range(steps):
        now = Poses(rotation, centre)
        cost = np.asarray(_prior_share(pairs, now, k, prior) + np.zeros(len(now)))
        gram, slope, stiffness = np.zeros((len(now), 6, 6)), np.zeros((len(now), 6)), np.zeros((2, len(now)))
        held: list[Array | None] = [None] * len(parts)
        for i, part in enumerate(parts):
            if point_errors == "predicted" and part.variance_mm2 is not None:
                held[i] = rotation[:, 2] @ part.points + centre[:, 2:]
            offsets = _offsets(part, now)
            share = len(part) / len(pairs)
            cost += share * mean_cost(offsets.s, k)
            part_gram, part_slope = _normal_equations(part, now, offsets, k, point_errors)
            gram, slope = gram + part_gram, slope + part_slope
            stiffness += _stiffness(offsets.s, k)
        # where Tukey's weights fall, the cost bends less than they say: Newton's step is longer than reweighting's
        bend = np.clip(stiffness[1] / np.maximum(stiffness[0], 1e-12), 0.5, 1.0)
        gram *= bend[:, None, None]
        if prior is not None:
            prior_gram, prior_slope = _prior_equations(now, prior)
            gram, slope = gram + prior_gram, slope + prior_slope
        diagonal = np.diagonal(gram, axis1=1, axis2=2)
        ridge = damping[:, None] * diagonal + 1e-12 * diagonal.max(axis=1, keepdims=True) + 1e-30
        step = -np.linalg.solve(gram + ridge[:, :, None] * np.eye(6), slope[..., None])[..., 0]
        length = np.linalg.norm(step[:, :3], axis=1)
        limit = np.abs(step[:, 3:]).max(axis=1) / (0.3 * np.maximum(centre[:, 2], 1.0))
        step /= np.maximum(1.0, np.maximum(length / 0.6, limit))[:, None]
        moved = Poses(rotation_exp(step[:, :3]) @ rotation, centre + step[:, 3:])
        moved_cost = np.asarray(_prior_share(pairs, moved, k, prior) + np.zeros(len(now)))
        for part, depth in zip(parts, held, strict=True):
            moved_cost += len(part) / len(pairs) * mean_cost(_offsets(part, moved, depth).s, k)
        better = running & (moved_cost <= cost)
        small = np.maximum(np.linalg.norm(step[:, :3], axis=1), np.abs(step[:, 3:]).max(axis=1) / centre[:, 2]) < _STEPPED
        rotation = np.where(better[:, None, None], moved.rotation, rotation)
        centre = np.where(better[:, None], moved.centre, centre)
        damping = np.where(better, np.maximum(damping / 10, 1e-9), damping * 8)
        small |= better & (-(slope * step).sum(axis=1) < enough)
        running &= ~(small | (damping > 1e6))
        if not running.any():
            break
    u, _, vt = np.linalg.svd(rotation)
    return Poses(u @ vt, centre)


def covariance(pairs: Pairs, pose: Poses, k: float, prior: Prior | None, trust: float) -> Array:
    """(6, 6) of the twist about the centroid, (rad, mm): (J' W J / scale^2 + P)^-1, P the prior's precision.

    W holds Tukey's weights; scale^2 is the mean squared whitened error of the pairs that count, taken together with
    ``trust`` degrees of freedom of the stated sigmas, without which few points that fit by chance would claim to be
    exact. Errors are taken to be independent: of dense predictions, whose neighbours err alike, it is too small.
    """
    gram, spread, total = np.zeros((6, 6)), 0.0, 0.0
    for part in pairs.parts():
        offsets = _offsets(part, pose)
        gram = gram + _normal_equations(part, pose, offsets, k, "predicted")[0][0]
        weight = np.maximum(1.0 - offsets.s / k**2, 0.0) ** 2
        spread += float((weight * np.where(weight > 0, offsets.s, 0.0)).sum())
        total += float(weight.sum())
    precision = gram / ((spread + trust) / (max(2.0 * total - 6.0, 0.0) + trust))
    if prior is not None:
        precision = precision + np.diag(prior.sigma**-2.0)
    scale = np.diag([0.01, 0.01, 0.01, 1.0, 1.0, 1.0])  # radians as hundredths: evens out the digits
    return scale @ np.linalg.pinv(scale @ precision @ scale, hermitian=True) @ scale


def _offsets(pairs: Pairs, poses: Poses, depth: Array | None = None) -> _Offsets:
    """``depth`` (b, n): where to take Sigma, the pose's own if None."""
    camera = poses.rotation @ pairs.points
    camera += poses.centre[..., None]
    z = camera[:, 2]
    behind = z <= 0
    hidden = bool(behind.any())
    front = np.where(behind, 1.0, z) if hidden else z
    inverse = 1.0 / front
    ray_x, ray_y = camera[:, 0] * inverse, camera[:, 1] * inverse
    r_u, r_v = pairs.focal[0] * ray_x - pairs.pixels[0], pairs.focal[1] * ray_y - pairs.pixels[1]
    uu, vv, uv = pairs.covariance_at(front if depth is None else depth)
    a = 1.0 / np.sqrt(uu)
    if uv is not None:
        slope = uv / uu
        d = 1.0 / np.sqrt(vv - slope * uv)
        h: Array | None = d * slope
        e_u, e_v = a * r_u, d * r_v - h * r_u
    else:
        d, h = 1.0 / np.sqrt(vv), None
        e_u, e_v = a * r_u, d * r_v
    s = e_u * e_u + e_v * e_v
    if hidden:
        s[behind] = np.inf
    return _Offsets(camera, ray_x, ray_y, e_u, e_v, a, d, h, s)


def _normal_equations(
    pairs: Pairs, poses: Poses, o: _Offsets, k: float, point_errors: PointErrors
) -> tuple[Array, Array]:
    """J'WJ (b, 6, 6) and J'We (b, 6) of the whitened errors under Tukey's weights.

    With d = x - c: du = f_u / z ((-X dy, dz + X dx, -dy), (1, 0, -X)) and
    dv = f_v / z ((-dz - Y dy, Y dx, dx), (0, 1, -Y)), X = x / z, Y = y / z.
    """
    # behind the source: no weight, and no matter what the formulas say there
    weight = np.maximum(1.0 - o.s / k**2, 0.0) ** 2
    d = o.camera - poses.centre[..., None]
    z = np.where(o.camera[:, 2] > 0, o.camera[:, 2], 1.0)
    u, v = _jacobian(pairs, o, d, o.ray_x, o.ray_y, z)
    weighted_u, weighted_v = weight[:, None] * u, weight[:, None] * v
    gram = weighted_u @ np.swapaxes(u, 1, 2) + weighted_v @ np.swapaxes(v, 1, 2)
    slope = (weighted_u @ o.e_u[..., None] + weighted_v @ o.e_v[..., None])[..., 0]
    if point_errors == "measured" and pairs.variance_mm2 is not None:
        # Sigma shrinks with depth: d(s / 2) = r' Sigma^-1 diag(f^2) Sigma^-1 r sigma_X^2 / z^3 dz
        g_u, g_v = o.a * o.e_u - (0.0 if o.h is None else o.h * o.e_v), o.d * o.e_v
        gain = (pairs.focal[0] * g_u) ** 2 + (pairs.focal[1] * g_v) ** 2
        per_depth = weight * gain * pairs.variance_mm2 / z**3
        slope[:, 0] += (per_depth * d[:, 1]).sum(axis=1)  # dz = w_x dy - w_y dx + v_z
        slope[:, 1] -= (per_depth * d[:, 0]).sum(axis=1)
        slope[:, 5] += per_depth.sum(axis=1)
    return gram, slope


def _jacobian(pairs: Pairs, o: _Offsets, d: Array, ray_x: Array, ray_y: Array, z: Array) -> tuple[Array, Array]:
    """Rows (b, 6, n) of the whitened errors' derivatives, for points at d (b, 3, n) from the centre, on these rays."""
    u = np.zeros((len(d), 6, len(pairs)))
    u[:, 0], u[:, 1], u[:, 2] = -ray_x * d[:, 1], d[:, 2] + ray_x * d[:, 0], -d[:, 1]
    u[:, 3], u[:, 5] = 1.0, -ray_x
    v = np.zeros_like(u)
    v[:, 0], v[:, 1], v[:, 2] = -d[:, 2] - ray_y * d[:, 1], ray_y * d[:, 0], d[:, 0]
    v[:, 4], v[:, 5] = 1.0, -ray_y
    v *= (o.d * pairs.focal[1] / z)[:, None]
    if o.h is not None:
        v -= (o.h * pairs.focal[0] / z)[:, None] * u
    u *= (o.a * pairs.focal[0] / z)[:, None]
    return u, v


def unshrunk(pairs: Pairs, pose: Poses, k: float, prior: Prior | None = None, steps: int = 10) -> Poses:
    """A pose fitted to pixels that were predicted, as by a network, rather than measured.

    What a network predicts is drawn together: the true pixel is the predicted one plus an error that knows nothing of it
    (Berkson's model, as of points above). Least squares takes the lesser spread for distance, and puts the bone a tenth
    too far where pixels err by a third of their spread. What is unbiased is J' W r = 0 with J taken on the rays of the
    predicted pixels, at the points' depths: an instrument that the errors know nothing of.

    Args:
        pairs: fitted; pose: one, the least squares'.
        k: where Tukey's weight reaches 0, in sigmas.

    Returns:
        The pose; the one given where the steps, which have no cost to lower, do not settle.
    """
    rotation, centre = pose.rotation.copy(), pose.centre.copy()
    length = np.inf
    for _ in range(steps):
        now = Poses(rotation, centre)
        equations, right = np.zeros((6, 6)), np.zeros(6)
        for part in pairs.parts():
            o = _offsets(part, now)
            weight = np.maximum(1.0 - o.s / k**2, 0.0) ** 2
            z = np.where(o.camera[:, 2] > 0, o.camera[:, 2], 1.0)
            u, v = _jacobian(part, o, o.camera - centre[..., None], o.ray_x, o.ray_y, z)
            ray_x, ray_y = ((part.pixels[axis] / part.focal[axis])[None] for axis in (0, 1))
            seen = np.stack([ray_x * z, ray_y * z, z], axis=1)
            seen_u, seen_v = _jacobian(part, o, seen - centre[..., None], ray_x, ray_y, z)
            seen_u, seen_v = weight[:, None] * seen_u, weight[:, None] * seen_v
            equations += (seen_u @ np.swapaxes(u, 1, 2) + seen_v @ np.swapaxes(v, 1, 2))[0]
            right += (seen_u @ o.e_u[..., None] + seen_v @ o.e_v[..., None])[0, :, 0]
        if prior is not None:
            prior_gram, prior_slope = _prior_equations(now, prior)
            equations, right = equations + prior_gram[0], right + prior_slope[0]
        if np.linalg.matrix_rank(equations) < 6:
            return pose
        step = -np.linalg.solve(equations, right)
        before, length = length, max(float(np.linalg.norm(step[:3])), float(np.abs(step[3:]).max() / centre[0, 2]))
        if length > min(before, _LARGEST_CORRECTION):
            return pose
        rotation, centre = rotation_exp(step[None, :3]) @ rotation, centre + step[None, 3:]
        if length < _SETTLED:
            break
    u_, _, vt = np.linalg.svd(rotation)
    return Poses(u_ @ vt, centre)


def _stiffness(s: Array, k: float) -> Array:
    """(2, b) sums over the pairs of the weight w, and of w + s dw/ds, the mean curvature along the two directions."""
    rest = np.maximum(1.0 - s / k**2, 0.0)
    # s / k^2 = 1 - rest where rest > 0, and rest^2 + (1 - rest) (-2 rest) = 3 rest^2 - 2 rest
    square = np.einsum("bi,bi->b", rest, rest)
    return np.stack([square, 3.0 * square - 2.0 * rest.sum(axis=1)])


def _prior_equations(poses: Poses, prior: Prior) -> tuple[Array, Array]:
    """What the prior adds to the normal equations: (b, 6, 6) and (b, 6)."""
    twist = prior.twist(poses.rotation, poses.centre)
    turn = np.concatenate([_inverse_left_jacobian(twist[:, :3]), np.zeros((len(poses), 3, 3))], axis=2)
    jacobian = np.concatenate([turn, np.broadcast_to(np.eye(6)[3:], turn.shape)], axis=1) / prior.sigma[:, None]
    transposed = np.swapaxes(jacobian, 1, 2)
    return transposed @ jacobian, (transposed @ (twist / prior.sigma)[..., None])[..., 0]


def _prior_share(pairs: Pairs, poses: Poses, k: float, prior: Prior | None) -> Array | float:
    """rho is 3 s / k^2 near 0, so a squared distance adds 3 / k^2 of itself to the sum."""
    return 0.0 if prior is None else prior.penalty(poses.rotation, poses.centre) * (3.0 / (k**2 * len(pairs)))


def _inverse_left_jacobian(w: Array) -> Array:
    """(..., 3, 3): how log(exp(dw) exp(w)) changes with dw."""
    angle = np.maximum(np.linalg.norm(w, axis=-1), 1e-4)[..., None, None]
    k = skew(w)
    return np.eye(3) - 0.5 * k + (1.0 / angle**2 - 0.5 / (angle * np.tan(0.5 * angle))) * (k @ k)
