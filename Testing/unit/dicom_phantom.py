"""DICOM files made by hand, attribute by attribute, for the readers to read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

CT_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
XA_STORAGE = "1.2.840.10008.5.1.4.1.1.12.1"


def write_dicom(path: Path, pixels: np.ndarray | None, **attributes: Any) -> Path:
    """One file; pixels (rows, columns) or (frames, rows, columns), uint8, uint16 or int16, or (rows, columns, 3) uint8.

    ``attributes`` are DICOM keywords; None leaves one out.
    """
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = attributes.pop("SOPClassUID", XA_STORAGE)
    meta.MediaStorageSOPInstanceUID = attributes.pop("SOPInstanceUID", generate_uid())
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128, is_implicit_VR=False)
    dataset.SOPClassUID = meta.MediaStorageSOPClassUID
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    values: dict[str, Any] = {"Modality": "XA", "PhotometricInterpretation": "MONOCHROME2", "SamplesPerPixel": 1}
    if pixels is not None:
        colour = pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.dtype == np.uint8
        if colour:
            values |= {"SamplesPerPixel": 3, "PlanarConfiguration": 0, "PhotometricInterpretation": "RGB"}
        elif pixels.ndim == 3:
            values["NumberOfFrames"] = len(pixels)
        rows, columns = pixels.shape[:2] if colour else pixels.shape[-2:]
        bits = 8 * pixels.dtype.itemsize
        values |= {"Rows": rows, "Columns": columns, "BitsAllocated": bits, "BitsStored": bits, "HighBit": bits - 1}
        values["PixelRepresentation"] = int(np.issubdtype(pixels.dtype, np.signedinteger))
    for keyword, value in {**values, **attributes}.items():
        if value is not None:
            setattr(dataset, keyword, value)
    if pixels is not None:
        dataset.PixelData = np.ascontiguousarray(pixels).tobytes()
    dataset.save_as(path)
    return path


def write_xray(path: Path, pixels: np.ndarray, **attributes: Any) -> Path:
    """An angiograph's frame, SID 1000 mm, 0.5 mm between columns, 0.4 mm between rows."""
    stated = {"DistanceSourceToDetector": 1000.0, "ImagerPixelSpacing": [0.4, 0.5], **attributes}
    return write_dicom(path, pixels, **stated)


def write_ct_series(
    folder: Path,
    values: np.ndarray,
    lps_from_ijk: np.ndarray,
    *,
    names: list[str] | None = None,
    offset: int = 1024,
    **attributes: Any,
) -> str:
    """One file a slice of HU values (nk, nj, ni) int16, stored as unsigned + offset; returns the series UID.

    Attributes that are lists as long as the series give each slice its own value.
    """
    folder.mkdir(exist_ok=True, parents=True)
    uid = attributes.pop("SeriesInstanceUID", generate_uid())
    spacing = np.linalg.norm(lps_from_ijk[:3, :3], axis=0)
    axes = lps_from_ijk[:3, :3] / spacing
    for k, plane in enumerate(values):
        position = lps_from_ijk[:3, 2] * k + lps_from_ijk[:3, 3]
        own = {key: v[k] if isinstance(v, list) and len(v) == len(values) else v for key, v in attributes.items()}
        stated = {
            "SOPClassUID": CT_STORAGE,
            "Modality": "CT",
            "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
            "SeriesInstanceUID": uid,
            "ImagePositionPatient": [decimal(x) for x in position],
            "ImageOrientationPatient": [decimal(x) for x in (*axes[:, 0], *axes[:, 1])],
            "PixelSpacing": [decimal(spacing[1]), decimal(spacing[0])],  # between rows first
            "RescaleSlope": 1,
            "RescaleIntercept": -offset,
            **own,
        }
        name = names[k] if names else f"{uid[-6:]}_{k:03d}.dcm"
        write_dicom(folder / name, (plane.astype(np.int32) + offset).astype(np.uint16), **stated)
    return uid


def decimal(value: float) -> str:
    """At most 16 characters, as DICOM's decimal strings have."""
    return f"{value:.10g}"[:16]


def group(**attributes: Any) -> Dataset:
    """A functional group of an enhanced object: each keyword a sequence of one item with these attributes."""
    out = Dataset()
    for keyword, inner in attributes.items():
        item = Dataset()
        for name, value in inner.items():
            setattr(item, name, value)
        setattr(out, keyword, Sequence([item]))
    return out
