"""Other patients out of a few: a subject bent smoothly, stretched and mirrored, its points and labels with it.

The map is known in closed form, from the warped patient to the one at hand:

    y = c + A (x - c) + sum_k a_k sin(w_k . (x - c) + p_k),

with A a stretch along the axes (and a mirror), and waves of 120 to 400 mm. The waves' strains sum to less than A's
smallest stretch, so nothing folds and the inverse is a contraction.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from XRayRegistrationLib.bone.model import BoneModel
from XRayRegistrationLib.drr.volume import WATER_MU_PER_MM, AttenuationVolume
from XRayRegistrationLib.geometry.rigid import transform_points
from XRayRegistrationLib.images.volume import Volume
from XRayRegistrationLib.simulation.materials import BONE_MU_PER_MM
from XRayRegistrationLib.simulation.subject import Subject

Array = NDArray[np.float64]

_METAL_MU_PER_MM = 0.25  # titanium at 70 keV
_STEPS = 30  # of the inverse, each halving the error or better
_AIR_HU = -1000.0
_VOXEL_MM = 2.0


@dataclass(frozen=True)
class WarpOptions:
    """How different the other patients are.

    Attributes:
        size: of the whole, log-uniform. stretch: of each axis beyond that, log-uniform.
        waves: number of waves. wavelength_mm: of each, log-uniform.
        strain: bound of all waves' strains together, below 0.6.
        p_mirror: chance that left and right change places.
    """

    size: tuple[float, float] = (0.85, 1.15)
    stretch: tuple[float, float] = (0.92, 1.08)
    waves: int = 6
    wavelength_mm: tuple[float, float] = (120.0, 400.0)
    strain: float = 0.5
    p_mirror: float = 0.5


@dataclass(frozen=True)
class Warp:
    """The map of one warp, see the head of the file.

    Attributes:
        centre: (3,) mm, c. linear: (3,), the diagonal of A.
        waves: (k, 3) rad/mm, w. amplitudes: (k, 3) mm, a. phases: (k,) rad, p.
    """

    centre: Array
    linear: Array
    waves: Array
    amplitudes: Array
    phases: Array

    def source_of(self, points: ArrayLike) -> Array:
        """Where points (n, 3) mm of the warped patient come from."""
        x = np.asarray(points, dtype=np.float64) - self.centre
        return self.centre + x * self.linear + np.sin(x @ self.waves.T + self.phases) @ self.amplitudes

    def warped(self, points: ArrayLike) -> Array:
        """Where points (n, 3) mm of the original go: the inverse of :meth:`source_of`, to 1e-6 mm."""
        y = np.asarray(points, dtype=np.float64) - self.centre
        x = y / self.linear
        for _ in range(_STEPS):
            x = (y - np.sin(x @ self.waves.T + self.phases) @ self.amplitudes) / self.linear
        return x + self.centre


def draw_warp(rng: np.random.Generator, centre: ArrayLike, options: WarpOptions | None = None) -> Warp:
    """A random warp about a centre (3,) mm."""
    o = options or WarpOptions()

    def log_uniform(span: tuple[float, float], count: int | None = None) -> Array:
        return np.asarray(span[0] * (span[1] / span[0]) ** rng.random(count))

    scale = log_uniform(o.size) * log_uniform(o.stretch, 3)
    linear = 1.0 / scale
    if rng.random() < o.p_mirror:
        linear[0] = -linear[0]
    direction, push = rng.normal(size=(2, o.waves, 3))
    waves = direction / np.linalg.norm(direction, axis=1, keepdims=True)
    waves *= 2.0 * np.pi / log_uniform(o.wavelength_mm, o.waves)[:, None]
    share = rng.dirichlet(np.full(o.waves, 3.0)) if o.waves else np.zeros(0)
    strain = o.strain * rng.uniform(0.5, 1.0) * share / np.linalg.norm(waves, axis=1)
    amplitudes = push / np.linalg.norm(push, axis=1, keepdims=True) * strain[:, None]
    return Warp(np.asarray(centre, dtype=np.float64), linear, waves, amplitudes, rng.uniform(0, 2 * np.pi, o.waves))


def warped_subject(subject: Subject, seed: int | tuple[int, ...], options: WarpOptions | None = None) -> Subject:
    """Another patient, on a grid of 2 mm, or of the materials where those are coarser; the same seed gives the same.

    Takes about as long as rendering 50 X-rays. CT, materials, bone mask, labels, surface points and landmarks belong
    together as those of a subject do.
    """
    rng = np.random.default_rng(seed)
    warp = draw_warp(rng, subject.centre_ct, options)
    ct_from_ijk, shape = _grid(subject.materials, warp)
    points = _grid_sources(warp, ct_from_ijk, shape)
    materials = np.stack([_sampled(c, subject.materials.ct_from_ijk, points, 1) for c in subject.materials.channels])
    share = _sampled(subject.bone_share.channels[0], subject.bone_share.ct_from_ijk, points, 1)
    mask = share >= 0.5
    mu_per_mm = np.array([WATER_MU_PER_MM, BONE_MU_PER_MM, _METAL_MU_PER_MM], np.float32)
    attenuation = np.tensordot(mu_per_mm, materials, 1)
    hu = np.where(attenuation > 0, 1000.0 * (attenuation / WATER_MU_PER_MM - 1.0), _AIR_HU).astype(np.float32)
    name = f"{subject.name}, warped by {seed}"
    bone = BoneModel(
        full=AttenuationVolume(attenuation, ct_from_ijk),
        bone=AttenuationVolume(attenuation * mask, ct_from_ijk),
        surface_points=warp.warped(subject.bone.surface_points),
        centroid=transform_points(ct_from_ijk, np.argwhere(mask)[:, ::-1].mean(axis=0)),
        mask=Volume(mask.astype(np.uint8), ct_from_ijk, name),
        bone_only_ct=subject.bone.bone_only_ct,
        rendered=subject.bone.rendered,
    )
    labels = None
    if subject.labels is not None:
        values = _sampled(subject.labels.values, subject.labels.ras_from_ijk, points, 0)
        labels = Volume(values, ct_from_ijk, name)
    landmarks = warp.warped(subject.landmarks_ct)
    ct = Volume(hu, ct_from_ijk, name)
    return Subject(name, ct, bone, AttenuationVolume(materials, ct_from_ijk), landmarks, subject.landmark_names, labels)


def _grid(materials: AttenuationVolume, warp: Warp) -> tuple[Array, tuple[int, int, int]]:
    """Affine and shape (k, j, i) of a grid along the old one's axes that holds all of the warped patient.

    Its voxels are no smaller than 2 mm.
    """
    n = np.array(materials.mu.shape[-3:][::-1])
    faces = np.linspace(0.0, 1.0, 9)
    box = np.stack(np.meshgrid(*[faces] * 3, indexing="ij"), axis=-1).reshape(-1, 3) * (n - 1)
    edge = box[((box == 0) | (box == n - 1)).any(axis=1)]
    corners = warp.warped(transform_points(materials.ct_from_ijk, edge))
    ijk = transform_points(np.linalg.inv(materials.ct_from_ijk), corners)
    low, high = ijk.min(axis=0) - 1, ijk.max(axis=0) + 1
    step = np.maximum(_VOXEL_MM / materials.spacing_mm, 1.0)
    ijk_from_new = np.diag([*step, 1.0])
    ijk_from_new[:3, 3] = low
    size = np.ceil((high - low) / step).astype(int)[::-1] + 1
    return materials.ct_from_ijk @ ijk_from_new, (int(size[0]), int(size[1]), int(size[2]))


def _grid_sources(warp: Warp, ct_from_ijk: Array, shape: tuple[int, int, int]) -> NDArray[np.float32]:
    """(3, k, j, i) mm: where each voxel comes from. A wave on a grid is a product of three, one for each axis."""
    a, t = ct_from_ijk[:3, :3], ct_from_ijk[:3, 3] - warp.centre
    i, j, k = (np.arange(n) for n in shape[::-1])
    out = np.empty((3, *shape), dtype=np.float32)
    for axis in range(3):
        plane = a[axis, 2] * k[:, None, None] + a[axis, 1] * j[:, None] + a[axis, 0] * i
        out[axis] = warp.centre[axis] + warp.linear[axis] * (plane + t[axis])
    for w, amplitude, phase in zip(warp.waves, warp.amplitudes, warp.phases, strict=True):
        wi, wj, wk = w @ a
        first = np.exp(1j * (wk * k + w @ t + phase)).astype(np.complex64)
        wave = (first[:, None, None] * (np.exp(1j * wj * j)[:, None] * np.exp(1j * wi * i)).astype(np.complex64)).imag
        for axis in range(3):
            out[axis] += np.float32(amplitude[axis]) * wave
    return out


def _sampled(values: NDArray, ct_from_ijk: Array, points: NDArray[np.float32], order: int) -> NDArray:
    """Values (k, j, i) at points (3, ...) mm, 0 outside."""
    m = np.linalg.inv(ct_from_ijk)
    ijk = np.tensordot(m[:3, :3].astype(np.float32), points, 1) + m[:3, 3].astype(np.float32)[:, None, None, None]
    return ndimage.map_coordinates(values, ijk[::-1], order=order, mode="constant", cval=0, prefilter=False)
