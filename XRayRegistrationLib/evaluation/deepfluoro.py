"""The DeepFluoro data set (Grupp et al., IJCARS 2020): six pelvis CTs, 366 fluoroscopies, and the true poses.

The reader takes the full-resolution file ``ipcai_2020_full_res_data.h5``, which a user gets from its
authors (CC BY-NC). Its layout, as its documentation has it::

    proj-params/ intrinsic (3x3), extrinsic (4x4), num-cols, num-rows, pixel-col-spacing, pixel-row-spacing
    <specimen>/ vol/ pixels, spacing, origin, dir-mat                LPS mm; HU
                vol-seg/image/ (the same)                            labels 1 to 7
                vol-landmarks/<name>                                 LPS mm
                projections/<nnn>/ image/pixels                      raw intensities
                                   gt-poses/cam-to-pelvis-vol        4x4
                                   gt-landmarks/<name>               column, row
                                   rot-180-for-up                    0 or 1

Frames are converted by geometry.deepfluoro: images come mirrored and, where flagged, turned, and the
CT in RAS.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from XRayRegistrationLib.bone.model import build_bone_model
from XRayRegistrationLib.errors import InputError, MissingDependencyError
from XRayRegistrationLib.evaluation.cases import Case, CaseSource, Patient, fingerprint, is_truncated
from XRayRegistrationLib.evaluation.protocols import PLAIN, PROTOCOLS, TRUNCATED, Protocol
from XRayRegistrationLib.files.landmarks import Landmarks
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.cios import BORDER_PX
from XRayRegistrationLib.geometry.deepfluoro import (
    camera_from_ct_from_deepfluoro,
    camera_from_deepfluoro,
    image_from_deepfluoro,
    pixels_from_deepfluoro,
)
from XRayRegistrationLib.geometry.lps import affine_ras_from_lps, points_ras_from_lps
from XRayRegistrationLib.images.prepare import prepare_xray
from XRayRegistrationLib.images.resize import resize_xray
from XRayRegistrationLib.images.volume import Volume

Array = NDArray[np.float64]

#: Both halves of the pelvis, upper and lower sacrum: what the true pose is of. Femurs move against
#: them, and so do vertebrae.
PELVIS_LABELS = (1, 2, 4, 7)
_ALLOWED = "allowed is DeepFluoro's full-resolution file ipcai_2020_full_res_data.h5"


@dataclass(frozen=True)
class Projection:
    """One fluoroscopy as our camera sees it, in its full size.

    Attributes:
        values: (height, width) raw intensities, bone dark.
        camera: of these pixels; camera_from_ct: 4x4, the true pose of the pelvis.
        landmarks_px: (n, 2) pixels (u, v), NaN for those not stored; in the order of the specimen's.
        turned: the flag ``rot-180-for-up``.
    """

    values: NDArray[np.float32]
    camera: Camera
    camera_from_ct: Array
    landmarks_px: Array
    turned: bool


@dataclass(frozen=True)
class DeepFluoroFile:
    """The file; it is opened for each reading, so that processes can share it."""

    path: Path

    def specimens(self) -> dict[str, tuple[int, ...]]:
        """Numbers of the projections of each specimen, in the file's order.

        Raises:
            InputError: no such file, or it has no specimen.
        """
        with self._open() as h5:
            found = {
                name: tuple(sorted(int(n) for n in group["projections"]))
                for name, group in h5.items()
                if hasattr(group, "keys") and "projections" in group
            }
        if not found:
            raise InputError(f"{self.path} holds no specimen with projections; {_ALLOWED}")
        return found

    def ct(self, specimen: str) -> Volume:
        """The CT, HU."""
        with self._open() as h5:
            return self._volume(h5, f"{specimen}/vol")

    def labels(self, specimen: str) -> Volume:
        """1 left and 2 right hemipelvis, 3 vertebrae, 4 and 7 upper and lower sacrum, 5 left and 6 right femur."""
        with self._open() as h5:
            return self._volume(h5, "/".join((specimen, "vol-seg", "image")))

    def landmarks(self, specimen: str) -> Landmarks:
        """The anatomical landmarks on the CT, in order of name."""
        with self._open() as h5:
            group = self._get(h5, f"{specimen}/vol-landmarks")
            names = tuple(sorted(group))
            points = np.array([np.asarray(group[name], dtype=np.float64).ravel()[:3] for name in names])
        return Landmarks(points_ras_from_lps(points), names)

    def projection(self, specimen: str, number: int) -> Projection:
        """A fluoroscopy and its true pose."""
        names = self.landmarks(specimen).names
        with self._open() as h5:
            where = f"{specimen}/projections/{number:03d}"
            turned = bool(np.asarray(self._get(h5, f"{where}/rot-180-for-up")).ravel()[0])
            stored = np.asarray(self._get(h5, "/".join((where, "image", "pixels"))), dtype=np.float32)
            pose = np.asarray(self._get(h5, "/".join((where, "gt-poses", "cam-to-pelvis-vol"))), dtype=np.float64)
            intrinsic = np.asarray(self._get(h5, "proj-params/intrinsic"), dtype=np.float64)
            extrinsic = np.asarray(self._get(h5, "proj-params/extrinsic"), dtype=np.float64)
            spacing = float(np.asarray(self._get(h5, "proj-params/pixel-col-spacing")).ravel()[0])
            marks = h5[where].get("gt-landmarks", {})
            pixels = np.full((len(names), 2), np.nan)
            for n, name in enumerate(names):
                if name in marks:
                    pixels[n] = np.asarray(marks[name], dtype=np.float64).ravel()[:2]
        height, width = stored.shape
        return Projection(
            np.ascontiguousarray(image_from_deepfluoro(stored, turned=turned), dtype=np.float32),
            camera_from_deepfluoro(intrinsic, width, height, spacing, turned=turned),
            camera_from_ct_from_deepfluoro(extrinsic, pose, turned=turned),
            pixels_from_deepfluoro(pixels, width, height, turned=turned),
            turned,
        )

    def _volume(self, h5: Any, where: str) -> Volume:
        values = np.asarray(self._get(h5, f"{where}/pixels"))
        spacing, origin = (np.asarray(self._get(h5, f"{where}/{n}"), dtype=np.float64).ravel() for n in ("spacing", "origin"))
        lps_from_ijk = np.eye(4)
        lps_from_ijk[:3, :3] = np.asarray(self._get(h5, f"{where}/dir-mat"), dtype=np.float64) * spacing
        lps_from_ijk[:3, 3] = origin
        return Volume(values, affine_ras_from_lps(lps_from_ijk), f"{self.path.name} {where}")

    def _get(self, h5: Any, key: str) -> Any:
        if key not in h5:
            raise InputError(f"{self.path} has no {key}; {_ALLOWED}")
        return h5[key]

    @contextmanager
    def _open(self) -> Iterator[Any]:
        try:
            import h5py
        except ImportError as error:
            raise MissingDependencyError("h5py", "reading the DeepFluoro data set", "deepfluoro") from error
        if not self.path.is_file():
            raise InputError(f"the DeepFluoro file {self.path} does not exist; {_ALLOWED}, from its authors")
        if not h5py.is_hdf5(self.path):
            raise InputError(f"{self.path} is no HDF5 file; {_ALLOWED}")
        with h5py.File(self.path, "r") as h5:
            yield h5


@dataclass(frozen=True)
class DeepFluoroCases(CaseSource):
    """The real fluoroscopies as cases; their number is that of the projection.

    Attributes:
        path: of the file.
        specimens: which, by id; None for all.
        size_px: longest side that the cropped images are reduced to; None keeps their 1436.
        border_px: cropped on every side, where the collimator is.
    """

    path: Path
    specimens: tuple[str, ...] | None = None
    size_px: int | None = 512
    border_px: int = BORDER_PX

    @property
    def protocol(self) -> Protocol:  # type: ignore[override]
        """``deepfluoro``."""
        return PROTOCOLS["deepfluoro"]

    def names(self) -> tuple[str, ...]:
        """Ids of the specimens.

        Raises:
            InputError: one that was asked for is not in the file.
        """
        there = tuple(DeepFluoroFile(self.path).specimens())
        for name in self.specimens or ():
            if name not in there:
                raise InputError(f"specimen {name!r} is not in {self.path}; allowed are {', '.join(there)}")
        return there if self.specimens is None else self.specimens

    def numbers(self, name: str, limit: int | None = None) -> list[int]:
        """All projections, or some spread over them: neighbours in the file show nearly the same view."""
        numbers = DeepFluoroFile(self.path).specimens()[name]
        if limit is None or limit >= len(numbers):
            return list(numbers)
        mixed = np.random.default_rng(zlib.crc32(name.encode())).permutation(len(numbers))
        return sorted(numbers[n] for n in mixed[:limit])

    def patient(self, name: str) -> Patient:
        """The CT, and the pelvis as its bone."""
        return _patient(self.path, name)

    def case(self, name: str, number: int) -> Case:
        """One fluoroscopy, cropped and reduced."""
        projection = DeepFluoroFile(self.path).projection(name, number)
        border = self.border_px
        height, width = (n - 2 * border for n in projection.values.shape)
        camera = projection.camera.cropped(border, border, width, height)
        values = projection.values[border : border + height, border : border + width]
        xray = prepare_xray(values, camera, polarity="bone_dark", source=f"DeepFluoro {name} {number:03d}")
        if self.size_px is not None and max(width, height) > self.size_px:
            scale = self.size_px / max(width, height)
            xray = resize_xray(xray, round(width * scale), round(height * scale))
        pose = projection.camera_from_ct
        cut = is_truncated(xray.camera, pose, self.patient(name).bone)
        return Case(name, number, xray.camera, pose, xray, (PLAIN, TRUNCATED) if cut else (PLAIN,))

    def describe(self) -> dict[str, Any]:
        """Hash of the file, and what is made of its images."""
        return {
            "kind": "deepfluoro",
            "file": fingerprint(self.path),
            "size_px": self.size_px,
            "border_px": self.border_px,
            "labels": list(PELVIS_LABELS),
        }


@lru_cache(maxsize=2)
def _patient(path: Path, name: str) -> Patient:
    file = DeepFluoroFile(path)
    ct, labels, landmarks = file.ct(name), file.labels(name), file.landmarks(name)
    there = [n for n in PELVIS_LABELS if (labels.values == n).any()]
    if not there:
        raise InputError(f"{path}: the labels of {name} have none of {PELVIS_LABELS}, the pelvis; {_ALLOWED}")
    return Patient(name, ct, build_bone_model(ct, bone=labels, labels=there), landmarks.points_ct, landmarks.names)
