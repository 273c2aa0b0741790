"""Reading a CT, or the labels of its bones, into patient space (RAS)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.images.dicom import is_dicom
from XRayRegistrationLib.images.dicom_series import read_ct_series
from XRayRegistrationLib.images.itk_file import ras_from_ijk, read_itk
from XRayRegistrationLib.images.volume import Volume

CT_EXTENSIONS = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")
_MOST_LABELS = 1024
_SAME_GRID_VOXELS = 1e-2  # corners of two grids this close, in voxels, are one grid


def read_ct(path: str | os.PathLike[str]) -> Volume:
    """Read a CT: NIfTI, NRRD, MetaImage, a DICOM folder, or one slice of a DICOM series.

    A folder with several CT series gives the largest; :attr:`Volume.source` names the others.

    Returns:
        HU (nk, nj, ni), int16 where they are whole numbers, else float32, with the file's own
        orientation: oblique, flipped and anisotropic grids stay as they are.

    Raises:
        InputError: missing, damaged, not a CT, not 3-D, without HU, not finite, or a DICOM series
            that is no regular grid (gantry tilt, missing slices).
    """
    place = Path(path)
    if place.is_dir() or (place.is_file() and is_dicom(place)):
        values, affine, source = read_ct_series(place)
    else:
        image = read_itk(place, "the CT", CT_EXTENSIONS)
        values, affine = _volume_3d(image, f"the CT {place}")
        source = str(place)
    _check_hu(values, f"the CT {place}")
    return Volume(_compact(values), affine, source)


def read_labels(path: str | os.PathLike[str], ct: Volume | None = None) -> Volume:
    """Read a label map: whole numbers, 0 for background.

    Args:
        path: NIfTI, NRRD (also a one-layer ``.seg.nrrd``) or MetaImage.
        ct: when given, the labels come back on its grid (nearest voxel, 0 outside).

    Raises:
        InputError: unreadable, not whole numbers, empty, or labels that lie outside ``ct``.
    """
    what = f"the label map {path}"
    values, affine = _volume_3d(read_itk(path, "the label map", CT_EXTENSIONS), what)
    labels = Volume(_whole_numbers(values, what), affine, str(path))
    if ct is None or _same_grid(labels, ct):
        return labels
    moved = _on_grid(labels, ct)
    inside, there = np.count_nonzero(moved) * _voxel_mm3(ct), np.count_nonzero(labels.values) * _voxel_mm3(labels)
    if inside < 0.5 * there:
        raise InputError(
            f"{what} lies {100 * (1 - inside / there):.0f} % outside of the CT {ct.source}; "
            "give the labels of this CT, in the same patient space"
        )
    return Volume(moved, ct.ras_from_ijk, str(path))


def _volume_3d(image: sitk.Image, what: str) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Voxels (nk, nj, ni) and ras_from_ijk of an image that has to be one scalar volume."""
    if image.GetNumberOfComponentsPerPixel() > 1:
        raise InputError(
            f"{what} has {image.GetNumberOfComponentsPerPixel()} values a voxel (colour or layers); "
            "allowed is one volume of single values"
        )
    size = list(image.GetSize())
    if len(size) == 4 and size[3] == 1:
        image = sitk.Extract(image, [*size[:3], 0])
        size = size[:3]
    if len(size) != 3 or min(size) < 2:
        raise InputError(
            f"{what} is {' x '.join(map(str, size))}, a picture or a series; "
            "allowed is a volume of at least 2 voxels along each of 3 axes"
        )
    return sitk.GetArrayFromImage(image), ras_from_ijk(image)


def _check_hu(values: NDArray[Any], what: str) -> None:
    """Refuse what cannot be HU; a bone-only CT in units of its own, such as 0 to 4095, passes."""
    if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
        bad = int(values.size - np.count_nonzero(np.isfinite(values)))
        raise InputError(f"{what} has {bad} NaN or infinite voxels; allowed are finite HU, so set them to -1000 (air)")
    low, high = float(values.min()), float(values.max())
    if low == high:
        raise InputError(f"{what} is constant ({low:g} everywhere); allowed is a CT in HU, air near -1000 and bone above 200")
    if low >= 0 and high <= 255:
        raise InputError(
            f"{what} has values from {low:g} to {high:g}, an 8-bit picture without air or bone HU; "
            "allowed is a CT in HU (air near -1000, bone above 200), so export it without windowing"
        )


def _compact(values: NDArray[Any]) -> NDArray[Any]:
    """int16 where nothing is lost, else float32."""
    if values.dtype == np.int16 or values.dtype == np.float32:
        return values
    limits = np.iinfo(np.int16)
    whole = np.issubdtype(values.dtype, np.integer)
    fits = whole and values.min() >= limits.min and values.max() <= limits.max
    return values.astype(np.int16 if fits else np.float32)


def _whole_numbers(values: NDArray[Any], what: str) -> NDArray[Any]:
    allowed = "allowed are whole numbers from 0 (background), one for each bone"
    if np.issubdtype(values.dtype, np.floating):
        if not np.isfinite(values).all() or (values != np.round(values)).any():
            raise InputError(f"{what} has values that are no whole numbers; {allowed}")
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > np.iinfo(np.uint16).max:
        raise InputError(f"{what} has values from {low} to {high}; {allowed}")
    labels = values.astype(np.uint8 if high <= 255 else np.uint16)
    count = np.count_nonzero(np.bincount(labels.ravel()))
    if high == 0:
        raise InputError(f"{what} is empty (0 everywhere); {allowed}")
    if count > _MOST_LABELS:
        raise InputError(f"{what} has {count} different values, which looks like an image; {allowed}")
    return labels


def _same_grid(a: Volume, b: Volume) -> bool:
    if a.values.shape != b.values.shape:
        return False
    n = np.array(a.values.shape[::-1]) - 1
    corners = np.array([[i, j, k, 1] for i in (0, n[0]) for j in (0, n[1]) for k in (0, n[2])], dtype=float).T
    apart = np.linalg.norm(((a.ras_from_ijk - b.ras_from_ijk) @ corners)[:3], axis=0)
    return bool(apart.max() <= _SAME_GRID_VOXELS * b.spacing_mm.min())


def _on_grid(labels: Volume, ct: Volume) -> NDArray[Any]:
    """Labels at the CT's voxel centres, nearest neighbour, 0 outside."""
    label_from_ct = np.linalg.inv(labels.ras_from_ijk) @ ct.ras_from_ijk  # (i, j, k) to (i, j, k)
    matrix = label_from_ct[:3, :3][::-1, ::-1]  # arrays are indexed [k, j, i]
    offset = label_from_ct[:3, 3][::-1]
    return ndimage.affine_transform(labels.values, matrix, offset, ct.values.shape, order=0, mode="constant", cval=0)


def _voxel_mm3(volume: Volume) -> float:
    return float(abs(np.linalg.det(volume.ras_from_ijk[:3, :3])))
