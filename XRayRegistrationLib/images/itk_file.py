"""One image file through SimpleITK: silent, whole, and with errors that a user can act on."""

from __future__ import annotations

import gzip
import os
import struct
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from XRayRegistrationLib.errors import InputError

_STDERR = 2
_LOCK = threading.Lock()

# ITK works in LPS, this library in RAS: the first two axes change sign.
RAS_FROM_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def read_itk(path: str | os.PathLike[str], what: str, extensions: tuple[str, ...]) -> sitk.Image:
    """Read one image file of the given formats.

    Args:
        path: the file.
        what: its role, to begin messages with, such as ``"the CT"``.
        extensions: the allowed file extensions, lower case with the dot; the longest match counts.

    Raises:
        InputError: missing, a folder, empty, of another format, damaged or cut short.
    """
    file = check_file(path, what)
    if not file.name.lower().endswith(extensions):
        raise InputError(f"{what} {file} is of an unknown format; allowed are {', '.join(extensions)} and DICOM")
    _check_whole(file, what)
    try:
        with quiet_stderr():
            return sitk.ReadImage(str(file))
    except RuntimeError as error:
        raise InputError(f"{what} {file} cannot be read{_reason(error)}; give a whole file that 3D Slicer opens") from error


def ras_from_ijk(image: sitk.Image) -> NDArray[np.float64]:
    """4x4, RAS mm of a voxel index (i, j, k) of a 3-D SimpleITK image: LPS to RAS of its own affine."""
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * np.asarray(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return RAS_FROM_LPS @ affine


def check_file(path: str | os.PathLike[str], what: str) -> Path:
    """The path of a file that exists, is not empty and may be read.

    Raises:
        InputError: it is not.
    """
    file = Path(path)
    if not file.exists():
        raise InputError(f"{what} {file} does not exist; give the path of a file that does")
    if not file.is_file():
        raise InputError(f"{what} {file} is no file; give the path of one image file")
    try:
        with open(file, "rb") as stream:
            first = stream.read(1)
    except OSError as error:
        raise InputError(f"{what} {file} cannot be opened ({error.strerror}); give a file that you may read") from error
    if not first:
        raise InputError(f"{what} {file} is empty (0 bytes); give a whole file")
    return file


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Hold back what C++ readers print to the process's standard error.

    MetaIO, GDCM and libtiff write there directly, past Python and past ITK's own switch, and the
    user gets our one line instead. Other threads' messages of these milliseconds are lost too.
    """
    with _LOCK:
        try:
            saved = os.dup(_STDERR)
        except OSError:  # the process has no standard error, as in a windowed application
            yield
            return
        try:
            if sys.stderr is not None:
                sys.stderr.flush()
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), _STDERR)
            yield
        finally:
            os.dup2(saved, _STDERR)
            os.close(saved)


def _reason(error: RuntimeError) -> str:
    """What can be told from ITK's message, in our words."""
    text = str(error)
    if "orthonormal" in text:
        return ": its axes are sheared (not at right angles)"
    if "Unable to determine ImageIO" in text:
        return ": its content is not of the format that its name says"
    return ": it is damaged or cut short"


def _check_whole(file: Path, what: str) -> None:
    """Refuse files whose missing end the reader would fill with zeros or grey without a word."""
    name = file.name.lower()
    if name.endswith((".nii", ".nii.gz")):
        whole = _whole_nifti(file)
    elif name.endswith((".jpg", ".jpeg")):
        with open(file, "rb") as stream:
            stream.seek(max(0, file.stat().st_size - 4096))
            whole = b"\xff\xd9" in stream.read()  # the end-of-image marker
    else:
        return
    if not whole:
        raise InputError(f"{what} {file} cannot be read: it is damaged or cut short; copy or download it again")


def _whole_nifti(file: Path) -> bool:
    """Whether a NIfTI-1 or -2 file holds all the voxels that its header announces."""
    packed = file.name.lower().endswith(".gz")
    size = file.stat().st_size
    try:
        with gzip.open(file) if packed else open(file, "rb") as stream:
            header = stream.read(540)
        needed = _nifti_bytes(header)
        if not packed:
            return size >= needed
        with open(file, "rb") as raw:
            raw.seek(-4, os.SEEK_END)
            unpacked_modulo = struct.unpack("<I", raw.read(4))[0]
        # The trailer of a one-piece gzip file tells at once; a file in pieces is unpacked to be sure.
        return unpacked_modulo == needed % 2**32 or _unpacked_size(file) >= needed
    except (OSError, EOFError, struct.error, gzip.zlib.error):  # type: ignore[attr-defined]
        return False


def _nifti_bytes(header: bytes) -> int:
    """Bytes of a whole NIfTI file: offset of the voxels + count x size, from its header."""
    order = "<" if struct.unpack("<i", header[:4])[0] in (348, 540) else ">"
    if struct.unpack(order + "i", header[:4])[0] == 540:  # NIfTI-2
        bits = struct.unpack(order + "h", header[14:16])[0]
        dims = struct.unpack(order + "8q", header[16:80])
        offset = struct.unpack(order + "q", header[168:176])[0]
    else:
        dims = struct.unpack(order + "8h", header[40:56])
        bits = struct.unpack(order + "h", header[72:74])[0]
        offset = int(struct.unpack(order + "f", header[108:112])[0])
    count = 1
    for n in dims[1 : 1 + max(0, min(7, dims[0]))]:
        count *= max(1, n)
    return int(offset) + count * bits // 8


def _unpacked_size(file: Path) -> int:
    total = 0
    with gzip.open(file) as stream:
        while block := stream.read(1 << 22):
            total += len(block)
    return total
