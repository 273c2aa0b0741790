"""DICOM files: their attributes, also inside the functional groups of enhanced objects, and their pixels."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pydicom
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import RLELossless

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.images.itk_file import check_file, quiet_stderr


@dataclass(frozen=True)
class DicomPixels:
    """One frame of a DICOM image.

    Attributes:
        values: (rows, columns) after the modality transform (rescale or modality LUT). The VOI
            window is for display and would clip bone away, so it is not applied.
        padding: (rows, columns) bool, True where the file says that there is no image.
    """

    values: NDArray[Any]
    padding: NDArray[np.bool_]


def is_dicom(path: str | os.PathLike[str]) -> bool:
    """Whether a file starts as DICOM files do (``DICM`` at byte 128)."""
    with open(path, "rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def read_dicom(path: str | os.PathLike[str], what: str, *, pixels: bool = True) -> Dataset:
    """The dataset of one DICOM file, with or without its pixels.

    Raises:
        InputError: missing, not DICOM, damaged or cut short.
    """
    file = check_file(path, what)
    if not is_dicom(file):
        raise InputError(f"{what} {file} is not DICOM (no DICM mark at byte 128); give a DICOM file")
    with _one_line(f"{what} {file} is damaged or cut short; copy or export it again"), _quiet():
        return pydicom.dcmread(file, stop_before_pixels=not pixels)


def attribute(dataset: Dataset, keyword: str, frame: int = 0) -> Any:
    """Value of an attribute for a frame: its own functional group's, else the shared, else the top level's.

    None when it is absent or empty.
    """
    frames = dataset.get("PerFrameFunctionalGroupsSequence") or []
    groups = [*([frames[frame]] if frame < len(frames) else []), *(dataset.get("SharedFunctionalGroupsSequence") or [])]
    for group in groups:
        for element in group:
            if element.VR == "SQ" and element.value and element.value[0].get(keyword) not in (None, ""):
                return element.value[0].get(keyword)
    value = dataset.get(keyword)
    return None if value is None or value == "" or (isinstance(value, Sequence) and not value) else value


def numbers(dataset: Dataset, keyword: str, count: int, frame: int = 0) -> NDArray[np.float64] | None:
    """The attribute as ``count`` finite numbers, None when it is absent or empty.

    Raises:
        InputError: there, but not ``count`` finite numbers.
    """
    text: Any = "unreadable"
    try:
        with _quiet():
            text = attribute(dataset, keyword, frame)
            if text is None:
                return None
            found = np.atleast_1d(np.asarray(text, dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise InputError(f"DICOM {name_of(keyword)} is {text!r}; allowed are {count} number(s)") from error
    if found.shape != (count,) or not np.isfinite(found).all():
        raise InputError(f"DICOM {name_of(keyword)} is {text}; allowed are {count} finite number(s)")
    return found


def positive(dataset: Dataset, keyword: str, frame: int = 0) -> float | None:
    """The attribute as one positive number; None when absent, or 0, which writers use for unknown."""
    found = numbers(dataset, keyword, 1, frame)
    return float(found[0]) if found is not None and found[0] > 0 else None


def name_of(keyword: str) -> str:
    """Keyword and tag, such as ``"DistanceSourceToDetector (0018,1110)"``."""
    tag = tag_for_keyword(keyword) or 0
    return f"{keyword} ({tag >> 16:04X},{tag & 0xFFFF:04X})"


def frame_count(dataset: Dataset) -> int:
    try:
        return max(1, int(dataset.get("NumberOfFrames") or 1))
    except (TypeError, ValueError):
        return 1  # it says nothing that is a number


def read_pixels(dataset: Dataset, path: str | os.PathLike[str], what: str, frame: int = 0) -> DicomPixels:
    """Decode one frame and apply the modality transform.

    Args:
        dataset: of :func:`read_dicom`, with pixels.
        path: its file, from which SimpleITK decodes compressed pixels.
        frame: from 0.

    Raises:
        InputError: no pixels, colour, or damaged or cut short.
    """
    if dataset.get("PixelData") is None and dataset.get("FloatPixelData") is None:
        raise InputError(f"{what} {path} holds no image (no pixel data); give the DICOM file of an image")
    with _one_line(f"the pixels of {what} {path} are damaged, cut short or of an unknown encoding; export it again uncompressed"):
        stored = _grey(_stored(dataset, path, frame), f"{what} {path}")
    padding = np.zeros(stored.shape, bool)
    first = dataset.get("PixelPaddingValue")
    if first is not None and np.issubdtype(stored.dtype, np.integer):
        last = dataset.get("PixelPaddingRangeLimit", first)
        padding = (stored >= min(first, last)) & (stored <= max(first, last))
    return DicomPixels(_modality(stored, dataset, frame), padding)


def _stored(dataset: Dataset, path: str | os.PathLike[str], frame: int) -> NDArray[Any]:
    """Stored values (rows, columns[, samples]) of a frame, as they are in the file."""
    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_compressed or syntax == RLELossless:
        with _quiet():
            array = np.asarray(dataset.pixel_array)
        return array[frame] if frame_count(dataset) > 1 else array
    # pydicom needs extra packages for JPEG, JPEG-LS and JPEG 2000; GDCM inside SimpleITK has them.
    with quiet_stderr():
        array = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    array = array[frame] if array.ndim > 2 else array
    if array.ndim == 3 or dataset.get("SamplesPerPixel", 1) > 1:
        return array
    # It also applied the rescale and turned MONOCHROME1 round; undo both.
    slope, intercept = _rescale(dataset, frame)
    array = np.round((array - intercept) / slope).astype(np.int32)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        array = (-1 if dataset.PixelRepresentation else 2**dataset.BitsStored - 1) - array
    return array


def _grey(stored: NDArray[Any], what: str) -> NDArray[Any]:
    if stored.ndim == 2:
        return stored
    if (stored[..., :1] != stored[..., :3]).any():
        raise InputError(f"{what} is in colour; convert it to greyscale (one channel)")
    return stored[..., 0]


def _modality(stored: NDArray[Any], dataset: Dataset, frame: int) -> NDArray[Any]:
    lut = dataset.get("ModalityLUTSequence")
    if lut:
        count, first, _ = (int(n) for n in lut[0].LUTDescriptor)
        data = lut[0].LUTData
        table = np.frombuffer(data, "<u2") if isinstance(data, bytes) else np.asarray(data)
        return table.astype(np.float32)[np.clip(stored.astype(np.int64) - first, 0, min(count or 65536, len(table)) - 1)]
    slope, intercept = _rescale(dataset, frame)
    if slope == 1 and intercept == 0:
        return stored
    if slope == 1 and intercept == int(intercept):
        return stored.astype(np.int32) + int(intercept)
    return (stored * slope + intercept).astype(np.float32)


def _rescale(dataset: Dataset, frame: int) -> tuple[float, float]:
    slope, intercept = numbers(dataset, "RescaleSlope", 1, frame), numbers(dataset, "RescaleIntercept", 1, frame)
    # a slope of 0 would flatten the image, so it can only mean "not given"
    return (float(slope[0]) if slope is not None else 1.0) or 1.0, float(intercept[0]) if intercept is not None else 0.0


@contextmanager
def _quiet() -> Iterator[None]:
    """Without pydicom's warnings about values that bend the standard: they are read as far as they go."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _one_line(message: str) -> Iterator[None]:
    """Turn whatever a decoder raises on damaged bytes (they raise nearly anything) into one line."""
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:
        raise InputError(message) from error
