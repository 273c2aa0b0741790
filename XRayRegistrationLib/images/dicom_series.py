"""A CT out of a folder of DICOM files: find the series, check that it is a regular grid, stack it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.images.dicom import attribute, frame_count, is_dicom, numbers, read_dicom, read_pixels
from XRayRegistrationLib.images.itk_file import RAS_FROM_LPS

_SAME_DIRECTION = 1e-2  # largest difference of direction cosines within one series
_SAME_PLACE_MM = 1e-3
_SPACING_TOLERANCE = 0.2  # of the slice distance: headers are rounded, missing slices are off by 1


@dataclass(frozen=True)
class _Slice:
    """One slice: a file, or a frame of an enhanced CT."""

    path: Path
    header: Dataset
    frame: int
    position: NDArray[np.float64]  # LPS mm of the first voxel
    axes: NDArray[np.float64]  # (2, 3): directions of increasing column and row index, LPS
    spacing: NDArray[np.float64]  # mm between columns, between rows

    @property
    def normal(self) -> NDArray[np.float64]:
        n = np.cross(self.axes[0], self.axes[1])
        return n / np.linalg.norm(n)


def read_ct_series(place: Path) -> tuple[NDArray[Any], NDArray[np.float64], str]:
    """Read the largest CT series of a folder, or the series that one file belongs to.

    Returns:
        HU (nk, nj, ni), ras_from_ijk, and a text that names the series and any others there.

    Raises:
        InputError: no DICOM, no CT series, two series of the same size, gantry tilt, missing or
            repeated slices, slices that do not match, damaged files.
    """
    series = _find_series(place)
    chosen = _choose(series, place)
    slices = _sorted_and_checked(series[chosen], f"the CT series {chosen} in {place}")
    others = [name for name in series if name != chosen]
    source = f"{place}: series {chosen}" + (f" (also there: {'; '.join(others)})" if others else "")
    first, last = slices[0], slices[-1]
    affine = np.eye(4)
    affine[:3, 0] = first.axes[0] * first.spacing[0]
    affine[:3, 1] = first.axes[1] * first.spacing[1]
    affine[:3, 2] = (last.position - first.position) / (len(slices) - 1)
    affine[:3, 3] = first.position
    return _stack(slices), RAS_FROM_LPS @ affine, source


def _find_series(place: Path) -> dict[str, list[_Slice]]:
    """CT series by a name for messages, the largest first."""
    folder = place if place.is_dir() else place.parent
    files = sorted(p for p in (folder.rglob("*") if place.is_dir() else folder.iterdir()) if p.is_file())
    headers = [(p, read_dicom(p, "the slice", pixels=False)) for p in files if p.stat().st_size > 132 and is_dicom(p)]
    if not headers:
        raise InputError(f"the folder {folder} holds no DICOM file; give a folder of CT slices, or a NIfTI, NRRD or MHA file")
    slices = [s for path, header in headers if _is_ct_slice(header) for s in _slices(path, header)]
    if not slices:
        kinds = sorted({"CT localizer" if h.get("Modality") == "CT" else str(h.get("Modality")) for _, h in headers})
        raise InputError(f"{place} holds no CT slices, only {', '.join(kinds)}; give the folder of an axial CT series")
    groups: list[list[_Slice]] = []
    for s in slices:
        home = next((g for g in groups if _belongs(s, g[0])), None)
        if home is None:
            groups.append([s])
        else:
            home.append(s)
    if place.is_file():
        groups = [g for g in groups if any(s.path == place for s in g)]
        if not groups:
            raise InputError(f"{place} is no slice of a CT series; give the folder, or one slice, of an axial CT series")
    groups = [part for g in groups for part in _split_repeats(g)]
    groups.sort(key=len, reverse=True)
    named: dict[str, list[_Slice]] = {}
    for i, group in enumerate(groups):
        name = _name(group, i, folder)
        named[name if name not in named else f"{name}, number {i + 1} of them"] = group
    return named


def _is_ct_slice(header: Dataset) -> bool:
    kind = [str(v) for v in header.get("ImageType") or []]
    return header.get("Modality") == "CT" and "LOCALIZER" not in kind and bool(header.get("Rows"))


def _slices(path: Path, header: Dataset) -> list[_Slice]:
    found = []
    for frame in range(frame_count(header)):
        position = numbers(header, "ImagePositionPatient", 3, frame)
        axes = numbers(header, "ImageOrientationPatient", 6, frame)
        spacing = numbers(header, "PixelSpacing", 2, frame)
        if position is None or axes is None or spacing is None:
            raise InputError(
                f"the slice {path} does not say where it lies (ImagePositionPatient, ImageOrientationPatient or "
                "PixelSpacing is missing); export the series again with its geometry"
            )
        if spacing.min() <= 0:
            raise InputError(f"the slice {path} has the PixelSpacing {spacing.tolist()}; allowed are two lengths above 0 mm")
        found.append(_Slice(path, header, frame, position, axes.reshape(2, 3), spacing[::-1]))  # DICOM: rows first
    return found


def _belongs(a: _Slice, b: _Slice) -> bool:
    return (
        a.header.get("SeriesInstanceUID") == b.header.get("SeriesInstanceUID")
        and (a.header.Rows, a.header.Columns) == (b.header.Rows, b.header.Columns)
        and bool(np.abs(a.axes - b.axes).max() < _SAME_DIRECTION)
        and bool(np.abs(a.spacing - b.spacing).max() < 1e-3 * b.spacing.min())
    )


def _split_repeats(group: list[_Slice]) -> list[list[_Slice]]:
    """Copies of one file count once; passes over the same positions are told apart by their acquisition."""
    unique: dict[Any, _Slice] = {}
    for s in group:
        uid = s.header.get("SOPInstanceUID")
        unique.setdefault((uid, s.frame) if uid else (s.path, s.frame), s)
    group = list(unique.values())
    if not _has_repeats(group):
        return [group]
    parts: dict[str, list[_Slice]] = {}
    for s in group:
        parts.setdefault(str(attribute(s.header, "AcquisitionNumber", s.frame)), []).append(s)
    return [group] if any(_has_repeats(p) for p in parts.values()) else list(parts.values())


def _has_repeats(group: list[_Slice]) -> bool:
    along = np.sort([s.position @ group[0].normal for s in group])
    return bool((np.diff(along) < _SAME_PLACE_MM).any())


def _name(group: list[_Slice], index: int, folder: Path) -> str:
    header = group[0].header
    number = header.get("SeriesNumber")
    words = [str(number if number not in (None, "") else index + 1)]
    if header.get("SeriesDescription"):
        words.append(f"'{header.SeriesDescription}'")
    acquisition = header.get("AcquisitionNumber")
    if acquisition not in (None, ""):
        words.append(f"acquisition {acquisition}")
    return f"{' '.join(words)} of {len(group)} slices, for example {group[0].path.relative_to(folder)}"


def _choose(series: dict[str, list[_Slice]], place: Path) -> str:
    names = list(series)
    tied = [n for n in names if len(series[n]) == len(series[names[0]])]
    if len(tied) > 1:
        raise InputError(
            f"{place} holds {len(names)} CT series and no single largest: {'; '.join(names)}; "
            "give the path of one slice of the series that you mean"
        )
    return names[0]


def _sorted_and_checked(group: list[_Slice], what: str) -> list[_Slice]:
    """The slices along their normal, on a regular grid at right angles."""
    normal = group[0].normal
    slices = sorted(group, key=lambda s: float(s.position @ normal))
    if len(slices) < 2:
        raise InputError(f"{what} has one slice; allowed is a volume of at least 2 slices, so give the whole series")
    positions = np.array([s.position for s in slices])
    along = positions @ normal
    gaps = np.diff(along)
    step = float(np.median(gaps))
    if gaps.min() < _SAME_PLACE_MM:
        k = int(np.argmin(gaps))
        raise InputError(
            f"{what} has several slices at one place ({slices[k].path.name} and {slices[k + 1].path.name}), "
            "as a 4-D or repeated scan has; put one pass into a folder of its own"
        )
    fitted = along[0] + (along[-1] - along[0]) * np.arange(len(along)) / (len(along) - 1)
    k = int(np.argmax(np.abs(gaps - step)))
    if np.abs(gaps - step).max() > _SPACING_TOLERANCE * step or np.abs(along - fitted).max() > _SPACING_TOLERANCE * step:
        raise InputError(
            f"{what} has slices missing or unevenly spaced: {gaps[k]:.2f} mm between {slices[k].path.name} and "
            f"{slices[k + 1].path.name}, else {step:.2f} mm; give the complete series, or resample it to even slices"
        )
    drift = (positions[-1] - positions[0]) - (along[-1] - along[0]) * normal
    if np.linalg.norm(drift) > 0.5 * slices[0].spacing.min():
        tilt = np.degrees(np.arctan2(np.linalg.norm(drift), along[-1] - along[0]))
        raise InputError(
            f"{what} was taken with the gantry tilted by {tilt:.1f} degrees, so its voxels are sheared; "
            "resample it to right angles first (in 3D Slicer: the acquisition transform, hardened)"
        )
    return slices


def _stack(slices: list[_Slice]) -> NDArray[Any]:
    planes: list[NDArray[Any]] = []
    read: tuple[Path, Dataset] | None = None
    for s in slices:
        if read is None or read[0] != s.path:
            read = (s.path, read_dicom(s.path, "the slice"))
        plane = read_pixels(read[1], s.path, "the slice", s.frame).values
        if plane.shape != (s.header.Rows, s.header.Columns):
            raise InputError(f"the slice {s.path} has {plane.shape} pixels, its header says otherwise; export it again")
        planes.append(plane)
    return np.stack(planes)
