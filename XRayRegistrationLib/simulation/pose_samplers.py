"""The distributions of poses that papers train and test on, under one name each.

All are about AP as ``simulation.poses`` has it: the camera's x runs to the patient's left (-x in RAS),
y to the feet (-z), z from front to back (-y). Orbital angles (LAO/RAO) turn about the body's long axis,
tilt (cranial/caudal) about the camera's x, roll about the beam. *Lateral* is the patient's left-right,
*longitudinal* head-feet, *depth* along the beam; at AP these are the camera's x, y and z.

The centre is the bone's centroid. Papers mostly use the centre of the CT, which is less repeatable:
it moves with the crop.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.rigid import from_rotation_translation, rotation_exp, transform_points
from XRayRegistrationLib.simulation.poses import AP_CAMERA_FROM_CT, PoseRange, rotation_from_angles, sample_pose

if TYPE_CHECKING:
    from XRayRegistrationLib.simulation.subject import Subject

Array = NDArray[np.float64]


class PoseSampler(Protocol):
    """A distribution of poses; a frozen dataclass whose fields are its numbers."""

    def sample(self, subject_or_centre: Subject | ArrayLike, camera: Camera, rng: np.random.Generator) -> Array:
        """One random ``camera_from_ct`` (4, 4) about the subject's bone, or about a point (3,) in ct mm."""
        ...


@dataclass(frozen=True)
class ScrPoses:
    """Scene coordinate regression (MICCAI 2023): a C-arm turned about an isocentre in an offset patient.

    LAO/RAO and cranial/caudal angles on a grid of 1 degree, -45..44 (8100 = 90 x 90 in the paper), and
    the patient's centre off the isocentre by N(0, 90 mm) laterally and N(0, 30 mm) otherwise, in the
    patient's axes. Views that show little of the bone belong to it. The paper does not give the
    source-isocentre distance; 632 mm is the CIOS Fusion's in DeepFluoro's extrinsic, our reading.
    """

    angle_deg: int = 45
    lateral_mm: float = 90.0
    other_mm: float = 30.0
    source_isocentre_mm: float = 632.0

    def sample(self, subject_or_centre: Subject | ArrayLike, camera: Camera, rng: np.random.Generator) -> Array:
        orbital, tilt = rng.integers(-self.angle_deg, self.angle_deg, 2)
        offset = rng.normal(size=3) * [self.lateral_mm, self.other_mm, self.other_mm]  # RAS: x is lateral
        rotation = rotation_from_angles(orbital, tilt, 0.0)
        return _seen_at(rotation, (0.0, 0.0, self.source_isocentre_mm), centre_of(subject_or_centre) + offset)


@dataclass(frozen=True)
class BoxPoses:
    """Uniform in a box about AP, as ProST's targets: the body turned and shifted in camera axes.

    R = Rx Ry Rz R_AP with independent U(+-rotation_deg), the centre at U(+-x), U(+-y) mm off the axis
    and U(+-depth) off ``source_isocentre_mm``.

    ProST (TMI 2024): targets U(+-25 mm, +-15 deg), source-isocentre 800 mm.
    """

    rotation_deg: float = 15.0
    shift_mm: tuple[float, float, float] = (25.0, 25.0, 25.0)
    source_isocentre_mm: float = 800.0

    def sample(self, subject_or_centre: Subject | ArrayLike, camera: Camera, rng: np.random.Generator) -> Array:
        angles = rng.uniform(-1.0, 1.0, 3) * self.rotation_deg
        shift = rng.uniform(-1.0, 1.0, 3) * self.shift_mm
        rotation = _euler_xyz(angles) @ AP_CAMERA_FROM_CT
        return _seen_at(rotation, np.add(shift, [0.0, 0.0, self.source_isocentre_mm]), centre_of(subject_or_centre))


@dataclass(frozen=True)
class NormalPoses:
    """Normal about AP: the body turned and shifted in camera axes.

    R = Rx Ry Rz R_AP with N(0, rotation_deg) about the camera's x, y and z (the last is roll), the
    centre at N(0, shift_mm) off the axis and off ``source_isocentre_mm``.

    ProST's moving images in training: N(0, 25 mm) in the plane, N(0, 60 mm) in depth, N(0, 25 deg).
    SOPI: rotation (6, 6, 6) for targets and (6, 3, 3) for starts in its (rx, ry, rz), translation
    (30, 9, 4.5) mm in (tx, ty, tz), about 900 mm. tx is its depth axis, so rx is our roll; that
    ty, ry are our x and tz, rz our y is our reading.
    """

    rotation_deg: tuple[float, float, float] = (25.0, 25.0, 25.0)
    shift_mm: tuple[float, float, float] = (25.0, 25.0, 60.0)
    source_isocentre_mm: float = 800.0

    def sample(self, subject_or_centre: Subject | ArrayLike, camera: Camera, rng: np.random.Generator) -> Array:
        angles, shift = rng.normal(size=3) * self.rotation_deg, rng.normal(size=3) * self.shift_mm
        rotation = _euler_xyz(angles) @ AP_CAMERA_FROM_CT
        depth = max(self.source_isocentre_mm + shift[2], 0.25 * self.source_isocentre_mm)
        return _seen_at(rotation, (shift[0], shift[1], depth), centre_of(subject_or_centre))


@dataclass(frozen=True)
class RayEmbPoses:
    """RayEmb (ACCV 2024) and DiffPose: the C-arm moved off AP by a random motion in the patient's axes.

    log-rotation N(0; 0.2, 0.1, 0.25) rad about the lateral, anterior and long axis (so tilt, roll and
    orbital angle); translation N((10, 250, 5), (70, 90, 50)) mm, lateral, depth and longitudinal, from
    a source at half the SDD (510 mm) of the centre. The papers' exponential turns about the corner of
    the volume; ours about the bone's centroid, which keeps the distributions and drops the shift by
    the volume's size.
    """

    rotation_rad: tuple[float, float, float] = (0.2, 0.1, 0.25)
    mean_mm: tuple[float, float, float] = (10.0, 250.0, 5.0)
    sigma_mm: tuple[float, float, float] = (70.0, 90.0, 50.0)
    source_isocentre_mm: float = 510.0

    def sample(self, subject_or_centre: Subject | ArrayLike, camera: Camera, rng: np.random.Generator) -> Array:
        turn = rng.normal(size=3) * self.rotation_rad
        lateral, depth, longitudinal = self.mean_mm + rng.normal(size=3) * self.sigma_mm
        # the C-arm to the patient's left and head: the patient to the picture's left and down
        at = (-lateral, longitudinal, max(self.source_isocentre_mm + depth, 0.5 * self.source_isocentre_mm))
        return _seen_at(AP_CAMERA_FROM_CT @ rotation_exp(-turn), at, centre_of(subject_or_centre))


@dataclass(frozen=True)
class XvrPoses:
    """xvr (2025), hip set: uniform C-arm angles about AP and a uniform place of the bone in camera axes.

    Its U(135..225, +-45, +-15 deg) is counted from PA: orbital +-45 about AP, tilt +-45, roll +-15;
    translation U(+-150, 450..1000, +-150) mm, lateral, depth and longitudinal.
    """

    orbital_deg: float = 45.0
    tilt_deg: float = 45.0
    roll_deg: float = 15.0
    in_plane_mm: float = 150.0
    depth_mm: tuple[float, float] = (450.0, 1000.0)

    def sample(self, subject_or_centre: Subject | ArrayLike, camera: Camera, rng: np.random.Generator) -> Array:
        orbital, tilt, roll = rng.uniform(-1.0, 1.0, 3) * [self.orbital_deg, self.tilt_deg, self.roll_deg]
        x, y = rng.uniform(-1.0, 1.0, 2) * self.in_plane_mm
        at = (x, y, rng.uniform(*self.depth_mm))
        return _seen_at(rotation_from_angles(orbital, tilt, roll), at, centre_of(subject_or_centre))


@dataclass(frozen=True)
class UniformPoses:
    """All that a C-arm can do, with enough of the bone in view: ``simulation.poses.PoseRange``.

    About a point (not a subject) there is no bone to see; the point itself is in view.
    """

    pose_range: PoseRange = field(default_factory=PoseRange)

    def sample(self, subject_or_centre: Subject | ArrayLike, camera: Camera, rng: np.random.Generator) -> Array:
        centre = centre_of(subject_or_centre)
        points = _surface_of(subject_or_centre)
        return sample_pose(camera, centre[None] if points is None else points, centre, rng, self.pose_range)


@dataclass(frozen=True)
class MixedPoses:
    """Some distributions, each in its share of the poses, without views of hardly any bone.

    Attributes:
        of: the distributions; shares: of the poses, which sum to 1.
        least_in_view: fraction of the bone's surface points that falls on the image; a pose that shows less is drawn
            again. About a point there is no bone to see.
    """

    of: tuple[PoseSampler, ...]
    shares: tuple[float, ...]
    least_in_view: float = 0.2

    def sample(self, subject_or_centre: Subject | ArrayLike, camera: Camera, rng: np.random.Generator) -> Array:
        sampler = self.of[int(rng.choice(len(self.of), p=self.shares))]
        return sample_poses(sampler, subject_or_centre, camera, rng, 1, self.least_in_view)[0]


POSE_SAMPLERS: dict[str, PoseSampler] = {
    "scr": ScrPoses(),
    "prost": BoxPoses(),
    "prost-moving": NormalPoses(),
    "prost-start": BoxPoses(50.0, (200.0, 200.0, 300.0)),
    "prost-oblique": MixedPoses((BoxPoses(), XvrPoses()), (0.6, 0.4)),
    "sopi": NormalPoses((6.0, 6.0, 6.0), (9.0, 4.5, 30.0), 900.0),
    "sopi-start": NormalPoses((3.0, 3.0, 6.0), (9.0, 4.5, 30.0), 900.0),
    "rayemb": RayEmbPoses(),
    "xvr": XvrPoses(),
    "uniform": UniformPoses(),
}


def pose_sampler(name: str) -> PoseSampler:
    """The sampler of this name.

    Raises:
        InputError: not one of :data:`POSE_SAMPLERS`.
    """
    if name not in POSE_SAMPLERS:
        raise InputError(f"poses {name!r} are unknown; allowed are {', '.join(POSE_SAMPLERS)}")
    return POSE_SAMPLERS[name]


def sample_poses(
    sampler: PoseSampler | str,
    subject_or_centre: Subject | ArrayLike,
    camera: Camera,
    rng: np.random.Generator,
    count: int,
    least_in_view: float = 0.0,
) -> Array:
    """``count`` poses (count, 4, 4); those that show less of the bone are drawn again.

    Args:
        sampler: or its name.
        least_in_view: the least fraction of the bone's surface points that falls on the image; above 0
            the distribution is cut off, so that a learner sees no image without bone.

    Raises:
        InputError: an unknown name, or hardly any pose that shows so much.
    """
    sampler = pose_sampler(sampler) if isinstance(sampler, str) else sampler
    points = _surface_of(subject_or_centre)
    poses: list[Array] = []
    tried = 0
    while len(poses) < count:
        pose = sampler.sample(subject_or_centre, camera, rng)
        tried += 1
        if least_in_view <= 0 or points is None or fraction_in_view(points, camera, pose) >= least_in_view:
            poses.append(pose)
        elif tried > 1000 * (len(poses) + 1):
            raise InputError(
                f"of {tried} poses only {len(poses)} show {least_in_view:g} of the bone; "
                "ask for less of it in view, or choose other poses or a camera with a wider field"
            )
    return np.stack(poses) if poses else np.empty((0, 4, 4))


def fraction_in_view(points_ct: ArrayLike, camera: Camera, camera_from_ct: ArrayLike) -> float:
    """The fraction of points (n, 3) that falls on the image."""
    pose = np.asarray(camera_from_ct, dtype=np.float64)
    return float(camera.in_view(camera.project(transform_points(pose, points_ct))).mean())


def centre_of(subject_or_centre: Subject | ArrayLike | Any) -> Array:
    """(3,) mm: the bone's centroid of a subject, or the point itself."""
    centre = np.asarray(getattr(subject_or_centre, "centre_ct", subject_or_centre), dtype=np.float64)
    if centre.shape != (3,) or not np.isfinite(centre).all():
        raise InputError(f"the centre of the poses is {subject_or_centre!r}; allowed is a subject or a point (3,) in ct mm")
    return centre


def _surface_of(subject_or_centre: Subject | ArrayLike | Any) -> Array | None:
    bone = getattr(subject_or_centre, "bone", None)
    return None if bone is None else bone.surface_points


def _seen_at(rotation: Array, at_camera: ArrayLike, point_ct: Array) -> Array:
    """camera_from_ct = [R | at - R point]: the point comes to lie at ``at_camera``, in mm."""
    return from_rotation_translation(rotation, np.asarray(at_camera, dtype=np.float64) - rotation @ point_ct)


def _euler_xyz(angles_deg: ArrayLike) -> Array:
    """Rx Ry Rz, (3, 3), of three angles in degrees."""
    x, y, z = rotation_exp(np.diag(np.deg2rad(angles_deg)))
    return x @ y @ z
