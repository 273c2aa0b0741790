"""From embeddings to a pose: where each point of the CT is most likely seen, and the poses that most of them agree on.

Needs torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.rigid import transform_points
from XRayRegistrationLib.methods.ray_templates import Templates
from XRayRegistrationLib.networks.ray_subspaces import hard_basis, similarity, soft_basis
from XRayRegistrationLib.solvers.pnp import PnpFailure, PnpOptions, PnpPose, solve_pnp
from XRayRegistrationLib.solvers.pnp_published import RAYEMB2024, pnp_as_published
from XRayRegistrationLib.solvers.search_range import NOMINAL_DEPTH

Array = NDArray[np.float64]

NEIGHBOURS = 9  # templates about a direction
_ANCHORS, _TRIED = 9, 3  # directions looked along first, and of those the ones that poses are made of
_SCOUTS = 250  # points that tell directions apart
_PAIRS = 400  # points of a pose, the surest
_MODES = 2
_ROUNDS = 2  # of looking again with the templates about a pose
_REACH = 2  # cells about a peak that make up its place
_CALIBRATION = 0.25  # of a peak's variance: it is as wide as what was trained for, and better known than that
_LEAST_SHARE = 0.3  # a peak that is less of its map's mass counts as this
_FLOOR_CELLS = 0.25  # of a peak's standard deviation
_IN_VIEW_MARGIN = 1 / 16  # of the image's width
_AT_ONCE = 250  # points
_LEAST_TEMPLATES = 2

_PAPER_KEPT, _PAPER_TEMPLATES = 600, 4
_PAPER_AT_ONCE = 64  # points, each of which makes four maps of the image's size
_PAPER_PX = 10.0 / (1436.0 / 224.0)  # 10 pixels of the full detector, in those of the network


@dataclass(frozen=True)
class Matching:
    """How similarities are read: as the network was trained.

    Attributes:
        temperature: a difference of so much is a factor of e in probability.
        ridge: of networks.ray_subspaces.soft_basis.
        absent: similarity that "not on this X-ray" has.
    """

    temperature: float
    ridge: float
    absent: float


@dataclass(frozen=True)
class Peaks:
    """Where points are most likely seen.

    Attributes:
        pixels: (n, 2) of the image. covariance_px: (n, 2, 2) px^2.
        share: (n,) of each map's probability that lies at its peak, and not elsewhere or off the X-ray.
        similarity: (n,) at the peak.
    """

    pixels: Array
    covariance_px: Array
    share: Array
    similarity: Array


def peaks(basis: Tensor, field: Tensor, open_cells: Tensor, camera: Camera, matching: Matching) -> Peaks:
    """Sub-pixel peaks of similarity maps: mean and covariance of softmax(sim / temperature) about the largest cell.

    Args:
        basis: (n, k, d) of the points. field: (d, h, w) of the X-ray.
        open_cells: (h, w) bool, where a peak may lie.
        camera: of the X-ray that the network saw.
    """
    parts = [_peaks(basis[i : i + _AT_ONCE], field, open_cells, matching) for i in range(0, len(basis), _AT_ONCE)]
    cells, covariance, share, best = (torch.cat(p).double().numpy() for p in zip(*parts, strict=True))
    rows, columns = field.shape[1:]
    step = np.array([camera.width / columns, camera.height / rows])
    return Peaks((cells + 0.5) * step - 0.5, covariance * step[:, None] * step, share, best)


def _peaks(basis: Tensor, field: Tensor, open_cells: Tensor, matching: Matching) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rows, columns = field.shape[1:]
    sim = similarity(basis, field).masked_fill(~open_cells, -1.0)
    with_absent = torch.nn.functional.pad(sim.flatten(1), (0, 1), value=matching.absent)
    flat = torch.softmax(with_absent / matching.temperature, dim=1)
    best, at = sim.flatten(1).max(dim=1)
    v, u = at // columns, at % columns
    reach = torch.arange(-_REACH, _REACH + 1)
    dv, du = (x.flatten() for x in torch.meshgrid(reach, reach, indexing="ij"))
    y, x = v[:, None] + dv, u[:, None] + du
    inside = (y >= 0) & (y < rows) & (x >= 0) & (x < columns)
    weight = flat.gather(1, y.clamp(0, rows - 1) * columns + x.clamp(0, columns - 1)) * inside
    share = weight.sum(1)
    weight = weight / share[:, None].clamp(min=1e-30)
    offsets = torch.stack([du, dv], -1).float()
    mean = weight @ offsets
    apart = offsets - mean[:, None]
    covariance = torch.einsum("nk,nki,nkj->nij", weight, apart, apart) + _FLOOR_CELLS**2 * torch.eye(2)
    return torch.stack([u, v], -1) + mean, covariance, share, best


def find_poses(
    field: Tensor, open_cells: Tensor, camera: Camera, templates: Templates, matching: Matching, seed: int
) -> tuple[PnpPose, ...]:
    """Poses that the X-ray's embeddings suggest, best first.

    Subspaces are made of templates that look from about the same side, and one side after the other is tried: rays
    that differ little are told from others more surely than rays from anywhere. A pose that was found is looked at
    again with the templates about it.

    Args:
        field: (d, h, w) of the X-ray. open_cells: (h, w) where there is X-ray.
        camera: of the X-ray that the network saw.

    Raises:
        PnpFailure: no pose that enough points agree on.
    """

    def pose_of(near: NDArray[np.int64], chosen: NDArray[np.int64], modes: int) -> tuple[PnpPose, ...]:
        found = peaks(soft_basis(templates.features[chosen][:, near], templates.seen[chosen][:, near], matching.ridge), *view)
        order = np.argsort(-found.share, kind="stable")[:_PAIRS]
        covariance = _CALIBRATION * found.covariance_px[order] / np.maximum(found.share[order], _LEAST_SHARE)[:, None, None]
        points, pixels = templates.points_ct[chosen[order]], found.pixels[order]
        options = PnpOptions(modes=modes, pixel_errors="predicted")
        return solve_pnp(points, pixels, camera, covariance_px=covariance, options=options, seed=seed)

    view = (field, open_cells, camera, matching)
    middle = templates.points_ct.mean(axis=0)
    everywhere: list[PnpPose] = []
    reasons: list[str] = []
    for near in _sides(templates, view):
        try:
            everywhere += pose_of(near, _shown(templates, near), _MODES)
        except PnpFailure as error:
            reasons.append(str(error))
    if not everywhere:
        raise PnpFailure(reasons[0] if reasons else "no template shows enough of the bone")
    everywhere.sort(key=lambda pose: pose.cost)
    found = [pose for pose in everywhere if _between(pose, camera, middle)]
    if not found:
        ahead = [pose for pose in everywhere if transform_points(pose.camera_from_ct, middle)[2] > 0.0]
        if not ahead or camera.source_detector_distance_mm is None:
            raise PnpFailure("no pose has the bone between source and detector")
        return tuple(_brought_between(pose, camera, middle) for pose in ahead)
    best = found[0]
    for _ in range(_ROUNDS):
        near = nearest(templates, best.camera_from_ct[2, :3])
        pixels = camera.project(transform_points(best.camera_from_ct, templates.points_ct))
        on_image = camera.in_view(_drawn_in(pixels, camera))
        shown = _shown(templates, near)
        chosen = shown[on_image[shown]]
        try:
            again = pose_of(near, chosen, 1)[0]
        except PnpFailure:
            break  # what was found before stands
        if again.cost >= best.cost or not _between(again, camera, middle):
            break
        best = again
        found.insert(0, best)
    return tuple(found)


def _between(pose: PnpPose, camera: Camera, middle_ct: Array) -> bool:
    """Whether the bone is between source and detector."""
    far = camera.source_detector_distance_mm or np.inf
    return bool(0.2 * min(far, 1000.0) < transform_points(pose.camera_from_ct, middle_ct)[2] < far)


def _brought_between(pose: PnpPose, camera: Camera, middle_ct: Array) -> PnpPose:
    """The pose with the bone moved along its ray to where a C-arm's patient is.

    Points of a CT that the network never saw are matched too close together, which makes its bone seem small and far, and
    lets it lie behind the detector. The direction is known all the same.
    """
    assert camera.source_detector_distance_mm is not None
    at = transform_points(pose.camera_from_ct, middle_ct)
    camera_from_ct = pose.camera_from_ct.copy()
    camera_from_ct[:3, 3] += at * (NOMINAL_DEPTH * camera.source_detector_distance_mm / at[2] - 1.0)
    return replace(pose, camera_from_ct=camera_from_ct)


def _drawn_in(pixels: Array, camera: Camera) -> Array:
    """Pixels moved towards the image's middle by a margin, so that those just outside count as on the image."""
    middle = np.array([camera.width - 1, camera.height - 1]) / 2.0
    apart = pixels - middle
    return middle + np.sign(apart) * np.maximum(np.abs(apart) - _IN_VIEW_MARGIN * camera.width, 0.0)


def _sides(templates: Templates, view: tuple[Tensor, Tensor, Camera, Matching]) -> list[NDArray[np.int64]]:
    """Templates of the sides from which the points' peaks are the clearest, best first."""
    scouts = np.unique(np.linspace(0, len(templates.points_ct) - 1, _SCOUTS).astype(int))
    scored = []
    for anchor in _anchors(templates.directions):
        near = nearest(templates, templates.directions[anchor])
        basis = soft_basis(templates.features[scouts][:, near], templates.seen[scouts][:, near], view[3].ridge)
        share = np.sort(peaks(basis, *view).share)[::-1]
        scored.append((float(share[: max(1, len(share) // 4)].mean()), near))
    return [near for _, near in sorted(scored, key=lambda s: -s[0])[:_TRIED]]


def _anchors(directions: Array) -> list[int]:
    """Directions far from one another, the first nearest to their mean."""
    mean = directions.mean(axis=0)
    chosen = [int(np.argmax(directions @ mean))]
    while len(chosen) < min(_ANCHORS, len(directions)):
        closest = (directions @ directions[chosen].T).max(axis=1)
        chosen.append(int(np.argmin(closest)))
    return chosen


def nearest(templates: Templates, direction: Array) -> NDArray[np.int64]:
    """The templates that look most along a direction (3,)."""
    order: NDArray[np.int64] = np.argsort(-(templates.directions @ direction), kind="stable")[:NEIGHBOURS]
    return order


def _shown(templates: Templates, near: NDArray[np.int64]) -> NDArray[np.int64]:
    """Points that enough of some templates show."""
    return np.flatnonzero(templates.seen[:, near].sum(1).numpy() >= min(_LEAST_TEMPLATES, len(near)))


def find_pose_as_published(
    field: Tensor, open_cells: Tensor, camera: Camera, templates: Templates, seed: int
) -> tuple[PnpPose, ...]:
    """The published search: 4 templates, the 600 points of the highest peaks, 10 more draws, MAGSAC of 10 pixels.

    Peaks are whole pixels, decoded at their middle; the published code took the corner, half a pixel off.

    Args:
        templates: the draws one after the other, 4 templates each.

    Raises:
        PnpFailure: RANSAC finds no pose.
        MissingDependencyError: OpenCV is not installed.
    """
    height, width = camera.height, camera.width
    opened = torch.nn.functional.interpolate(open_cells[None, None].float(), (height, width))[0, 0] > 0
    everything = np.arange(len(templates.points_ct))
    pixels, peak = _published_peaks(field, opened, templates, everything, 0)
    kept = np.argsort(-peak, kind="stable")[:_PAPER_KEPT]
    pixels, peak = pixels[kept], peak[kept]
    for draw in range(1, templates.features.shape[1] // _PAPER_TEMPLATES):
        others, higher = _published_peaks(field, opened, templates, kept, draw)
        pixels[higher > peak] = others[higher > peak]
        peak = np.maximum(peak, higher)
    return (pnp_as_published(templates.points_ct[kept], pixels, camera, _PAPER_PX, RAYEMB2024, seed),)


def _published_peaks(
    field: Tensor, opened: Tensor, templates: Templates, chosen: NDArray[np.int64], draw: int
) -> tuple[Array, Array]:
    """Largest pixel (n, 2) of each map at full size, and its value (n,), with one draw of templates."""
    drawn = slice(draw * _PAPER_TEMPLATES, (draw + 1) * _PAPER_TEMPLATES)
    size = (int(opened.shape[0]), int(opened.shape[1]))
    places, values = [], []
    for part in _batches(chosen, _PAPER_AT_ONCE):
        basis = hard_basis(templates.features[part][:, drawn], templates.seen[part][:, drawn], _PAPER_TEMPLATES, 0.0)
        sim = similarity(basis, field, size).masked_fill(~opened, -1.0).flatten(1)
        best, at = sim.max(dim=1)
        places.append(torch.stack([at % size[1], at // size[1]], -1))
        values.append(best)
    return torch.cat(places).double().numpy(), torch.cat(values).double().numpy()


def _batches(indices: NDArray[np.int64], size: int) -> Iterable[NDArray[np.int64]]:
    return (indices[i : i + size] for i in range(0, len(indices), size))
