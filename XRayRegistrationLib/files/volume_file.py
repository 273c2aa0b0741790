"""Volumes and images as files that 3D Slicer reads."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import ArrayLike, NDArray

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.images.itk_file import RAS_FROM_LPS, quiet_stderr
from XRayRegistrationLib.images.volume import Volume

VOLUME_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha")


def write_volume(path: str | os.PathLike[str], volume: Volume) -> None:
    """Write a volume (nk, nj, ni) with its place in the patient, compressed, and read it back to be sure.

    Raises:
        InputError: an unknown ending, or the file cannot be written (the writers report no full disk).
    """
    file = Path(path)
    if not file.name.lower().endswith(VOLUME_SUFFIXES):
        raise InputError(f"{file} has an unknown ending; allowed for a volume are {', '.join(VOLUME_SUFFIXES)}")
    affine = RAS_FROM_LPS @ volume.ras_from_ijk
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image = sitk.GetImageFromArray(np.ascontiguousarray(volume.values))
    image.SetSpacing(spacing.tolist())
    image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    _write(image, file)


def write_image(path: str | os.PathLike[str], values: ArrayLike, pixel_spacing_mm: tuple[float, float] | None) -> None:
    """Write an image (height, width) as float32 with its (column, row) spacing, to ``.mha`` or ``.nrrd``.

    Raises:
        InputError: the file cannot be written.
    """
    image = sitk.GetImageFromArray(np.asarray(values, dtype=np.float32))
    if pixel_spacing_mm is not None:
        image.SetSpacing([float(s) for s in pixel_spacing_mm])
    _write(image, Path(path))


def write_counts(path: str | os.PathLike[str], counts: NDArray[np.uint16]) -> None:
    """Write detector counts (height, width) as a 16-bit PNG or TIFF.

    Raises:
        InputError: the file cannot be written.
    """
    _write(sitk.GetImageFromArray(np.asarray(counts, dtype=np.uint16)), Path(path))


def _write(image: sitk.Image, file: Path) -> None:
    try:
        with quiet_stderr():
            sitk.WriteImage(image, str(file), useCompression=True)
            written = sitk.GetArrayFromImage(sitk.ReadImage(str(file)))
        same = np.array_equal(written, sitk.GetArrayFromImage(image))
    except RuntimeError:
        same = False
    if not same:
        raise InputError(
            f"cannot write {file.name}; the disk may be full, free some space or choose another place with --out"
        )
