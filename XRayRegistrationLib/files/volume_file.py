"""Volumes and images as files that 3D Slicer reads."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import ArrayLike, NDArray

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.images.itk_file import RAS_FROM_LPS, quiet_stderr
from XRayRegistrationLib.images.volume import Volume

_PIECE_BYTES = 1 << 21
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


def write_ct_steps(path: Path, volume: Volume) -> Generator[tuple[float, str], None, None]:
    """Write a volume uncompressed as ``.nhdr`` with its voxels beside it, in steps of some milliseconds.

    For a program that has other things to do meanwhile; yields (fraction, text).
    """
    values = np.asarray(volume.values)
    raw = path.with_suffix(".raw")
    rows = max(1, _PIECE_BYTES // max(1, values.nbytes // len(values)))
    with open(raw, "wb") as stream:
        for begin in range(0, len(values), rows):
            stream.write(np.ascontiguousarray(values[begin : begin + rows]).astype(values.dtype.newbyteorder("<")).tobytes())
            yield min(1.0, (begin + rows) / len(values)), "handing over the CT"
    vectors = [f"({','.join(repr(float(x)) for x in volume.ras_from_ijk[:3, column])})" for column in range(4)]
    kind = {"f": {4: "float", 8: "double"}}.get(values.dtype.kind, {}).get(values.dtype.itemsize, values.dtype.name)
    lines = (
        "NRRD0004",
        f"type: {kind}",
        "dimension: 3",
        "space: right-anterior-superior",
        f"sizes: {' '.join(map(str, values.shape[::-1]))}",
        f"space directions: {' '.join(vectors[:3])}",
        f"space origin: {vectors[3]}",
        "endian: little",
        "encoding: raw",
        f"data file: {raw.name}",
    )
    path.write_text("\n".join(lines) + "\n\n", encoding="ascii")


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
