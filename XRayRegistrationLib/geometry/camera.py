"""The X-ray camera: a pinhole at the source, pixels on a flat detector.

Camera frame: origin at the source, x along image columns to the right, y along rows downwards,
z from source to detector (OpenCV). Pixel (u, v) = (column, row), integer = pixel centre.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.geometry.rigid import check_rigid

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Camera:
    """Intrinsics of one X-ray image.

    Attributes:
        width, height: image size in pixels.
        K: 3x3 camera matrix in pixels, ``[[fx, 0, cx], [0, fy, cy], [0, 0, 1]]``.
        source_detector_distance_mm: SDD where known; rays need only K, millimetres on the
            detector and the frustum's size need it too.
        camera_from_rig: 4x4, for a calibrated rig of several X-rays that share one pose.
    """

    width: int
    height: int
    K: Array
    source_detector_distance_mm: float | None = None
    camera_from_rig: Array | None = field(default=None)

    def __post_init__(self) -> None:
        for name in ("width", "height"):
            value = getattr(self, name)
            if isinstance(value, bool) or int(value) != value or value < 1:
                raise InputError(f"camera {name} is {value!r}; allowed is a whole number of pixels, at least 1")
            object.__setattr__(self, name, int(value))
        try:
            k = np.array(self.K, dtype=np.float64)
        except (TypeError, ValueError):
            k = np.empty(0)
        if k.shape != (3, 3) or not np.isfinite(k).all():
            raise InputError(
                "camera K is not a 3x3 matrix of finite numbers; allowed is [[fx,0,cx],[0,fy,cy],[0,0,1]] in pixels"
            )
        if k[0, 0] <= 0 or k[1, 1] <= 0 or k[0, 1] != 0 or k[1, 0] != 0 or k[2].tolist() != [0, 0, 1]:
            raise InputError(
                f"camera K is {k.tolist()}; allowed is [[fx,0,cx],[0,fy,cy],[0,0,1]] in pixels with fx, fy > 0 "
                "(for a frame with negative focal lengths use the DeepFluoro adapter, xrayreg convert)"
            )
        object.__setattr__(self, "K", k)
        sdd = self.source_detector_distance_mm
        if sdd is not None and not (np.isfinite(sdd) and sdd > 0):
            raise InputError(f"source_detector_distance_mm is {sdd!r}; allowed is a positive length in mm")
        if self.camera_from_rig is not None:
            object.__setattr__(self, "camera_from_rig", check_rigid(self.camera_from_rig, "camera_from_rig"))

    @classmethod
    def from_spacing(
        cls,
        width: int,
        height: int,
        pixel_spacing_mm: tuple[float, float] | float,
        source_detector_distance_mm: float,
        principal_point_px: tuple[float, float] | None = None,
        camera_from_rig: ArrayLike | None = None,
    ) -> Camera:
        """From SDD and pixel spacing (column spacing, row spacing) on the detector, both in mm.

        fx = SDD / column spacing; without a principal point it is the image centre
        ((width - 1) / 2, (height - 1) / 2).

        Raises:
            InputError: a spacing or the distance is not a positive number.
        """
        sx, sy = np.broadcast_to(np.asarray(pixel_spacing_mm, dtype=np.float64), (2,))
        if not (np.isfinite([sx, sy]).all() and sx > 0 and sy > 0):
            raise InputError(f"pixel_spacing_mm is [{sx:g}, {sy:g}]; allowed are two positive lengths in mm")
        if not (np.isfinite(source_detector_distance_mm) and source_detector_distance_mm > 0):
            raise InputError(
                f"source_detector_distance_mm is {source_detector_distance_mm!r}; allowed is a positive length in mm"
            )
        cx, cy = principal_point_px if principal_point_px is not None else ((width - 1) / 2, (height - 1) / 2)
        k = [[source_detector_distance_mm / sx, 0, cx], [0, source_detector_distance_mm / sy, cy], [0, 0, 1]]
        rig = None if camera_from_rig is None else np.asarray(camera_from_rig, dtype=np.float64)
        return cls(width, height, np.array(k), float(source_detector_distance_mm), rig)

    @property
    def pixel_spacing_mm(self) -> tuple[float, float] | None:
        """(column, row) spacing on the detector in mm, None when the SDD is unknown."""
        if self.source_detector_distance_mm is None:
            return None
        return (
            self.source_detector_distance_mm / float(self.K[0, 0]),
            self.source_detector_distance_mm / float(self.K[1, 1]),
        )

    def project(self, points_camera: ArrayLike) -> Array:
        """Pixels (..., 2) = (u, v) of points (..., 3) in the camera frame, NaN behind the source.

        u = fx x / z + cx, v = fy y / z + cy.
        """
        p = np.asarray(points_camera, dtype=np.float64)
        z = np.where(p[..., 2] > 0, p[..., 2], np.nan)
        u = self.K[0, 0] * p[..., 0] / z + self.K[0, 2]
        v = self.K[1, 1] * p[..., 1] / z + self.K[1, 2]
        return np.stack([u, v], axis=-1)

    def in_view(self, pixels: ArrayLike) -> NDArray[np.bool_]:
        """Whether pixels (..., 2) fall on the image, whose area is [-0.5, width - 0.5] x [-0.5, height - 0.5]."""
        p = np.asarray(pixels, dtype=np.float64)
        with np.errstate(invalid="ignore"):
            return (
                (p[..., 0] >= -0.5) & (p[..., 0] <= self.width - 0.5)
                & (p[..., 1] >= -0.5) & (p[..., 1] <= self.height - 0.5)
            )  # fmt: skip

    def ray_directions(self) -> Array:
        """Directions (height, width, 3) of the rays in the camera frame, scaled to z = 1.

        d = ((u - cx) / fx, (v - cy) / fy, 1): the point at depth z mm is z d.
        """
        u = (np.arange(self.width) - self.K[0, 2]) / self.K[0, 0]
        v = (np.arange(self.height) - self.K[1, 2]) / self.K[1, 1]
        d = np.ones((self.height, self.width, 3))
        d[..., 0] = u[None, :]
        d[..., 1] = v[:, None]
        return d

    def mirrored(self) -> Camera:
        """The camera of the image with its columns in reverse order."""
        k = self.K.copy()
        k[0, 2] = self.width - 1 - k[0, 2]
        return replace(self, K=k)

    def cropped(self, left: int, top: int, width: int, height: int) -> Camera:
        """The camera of the sub-image that starts at pixel (left, top)."""
        k = self.K.copy()
        k[0, 2] -= left
        k[1, 2] -= top
        return replace(self, width=width, height=height, K=k)

    def resized(self, width: int, height: int) -> Camera:
        """The camera of the same image resampled to width x height: u' = (u + 0.5) s - 0.5."""
        sx, sy = width / self.width, height / self.height
        k = self.K.copy()
        k[0, 0] *= sx
        k[1, 1] *= sy
        k[0, 2] = (k[0, 2] + 0.5) * sx - 0.5
        k[1, 2] = (k[1, 2] + 0.5) * sy - 0.5
        return replace(self, width=width, height=height, K=k)
