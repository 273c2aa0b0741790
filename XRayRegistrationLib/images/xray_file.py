"""Reading an X-ray: DICOM with its geometry, or a picture with a camera beside it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from XRayRegistrationLib.errors import InputError, MissingGeometryError
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.carm import camera_from_ct_from_angles, is_mirrored
from XRayRegistrationLib.images.camera_file import check_camera_size
from XRayRegistrationLib.images.dicom import frame_count, is_dicom, read_dicom, read_pixels
from XRayRegistrationLib.images.dicom_camera import HOW_TO_GIVE, acquisition_metadata, camera_from_dicom
from XRayRegistrationLib.images.dicom_shutter import open_field as shutter_open_field
from XRayRegistrationLib.images.dicom_values import value_hints
from XRayRegistrationLib.images.itk_file import check_file, read_itk
from XRayRegistrationLib.images.prepare import HeaderHints
from XRayRegistrationLib.images.raw_xray import RawXRay
from XRayRegistrationLib.images.xray import XRay

_NO_PROJECTIONS = ("MR", "US", "PT", "NM", "IVUS", "OCT", "SEG", "SR", "RTSTRUCT", "RTDOSE", "RTPLAN", "ECG", "OPT")
PICTURES = (".png", ".tif", ".tiff", ".jpg", ".jpeg")
IMAGES = (*PICTURES, ".nrrd", ".nhdr", ".mha", ".mhd", ".nii", ".nii.gz")


def read_xray(
    path: str | os.PathLike[str],
    camera: Camera | None = None,
    *,
    polarity: str = "auto",
    frame: int | None = None,
    source_detector_distance_mm: float | None = None,
    pixel_spacing_mm: float | tuple[float, float] | None = None,
    mask: NDArray[np.bool_] | str | os.PathLike[str] | None = "auto",
) -> XRay:
    """Read one X-ray and make it ready to register.

    Args:
        path: DICOM (any modality that is an image), PNG, TIFF, JPEG, NRRD, MHA or NIfTI.
        camera: of this image; None takes it from the header and the options below.
        polarity: ``"auto"``, ``"bone_bright"`` or ``"bone_dark"``.
        frame: of a file with several, from 0; when None, the middle one of a DICOM run.
        source_detector_distance_mm, pixel_spacing_mm: (column, row) or one number, on the detector;
            they replace what the header says.
        mask: ``"auto"``, None for every pixel, (height, width) bool, or the path of an image that is
            not 0 where the X-ray is valid.

    Raises:
        InputError: unreadable, no X-ray, no geometry, a camera or mask of another size.
    """
    raw = read_raw_xray(
        path,
        camera,
        polarity=polarity,
        frame=frame,
        source_detector_distance_mm=source_detector_distance_mm,
        pixel_spacing_mm=pixel_spacing_mm,
        mask=mask,
    )
    return raw.prepared()


def read_raw_xray(
    path: str | os.PathLike[str],
    camera: Camera | None = None,
    *,
    polarity: str = "auto",
    frame: int | None = None,
    source_detector_distance_mm: float | None = None,
    pixel_spacing_mm: float | tuple[float, float] | None = None,
    mask: NDArray[np.bool_] | str | os.PathLike[str] | None = "auto",
) -> RawXRay:
    """Read one X-ray as it is; arguments and errors as for :func:`read_xray`.

    Raises:
        MissingGeometryError: the file does not state a value of the camera, and it was not given.
    """
    file = check_file(path, "the X-ray")
    spacing = None if pixel_spacing_mm is None else _pair(pixel_spacing_mm)
    header = HeaderHints()
    if is_dicom(file):
        values, found, provenance, metadata, header = _from_dicom(file, camera, frame, source_detector_distance_mm, spacing)
    else:
        values, found, provenance, metadata = _from_image(file, camera, frame, source_detector_distance_mm, spacing)
    region: NDArray[np.bool_] | str | None
    if mask is None or isinstance(mask, np.ndarray) or mask == "auto":
        region = mask
    else:
        region = _grey(read_itk(os.fspath(mask), "the mask", IMAGES), Path(mask), "the mask", None)[0] != 0
    if metadata.pop("mirrored", False):
        values, found = np.ascontiguousarray(values[:, ::-1]), found.mirrored()
        region = region[:, ::-1] if isinstance(region, np.ndarray) and region.ndim == 2 else region
        if header.open_field is not None:
            header = replace(header, open_field=header.open_field[:, ::-1])
        provenance["mirror"] = "found: DICOM PatientOrientation (0020,0020) shows the picture mirrored; it was mirrored back"
        metadata["mirrored_back"] = True
    return RawXRay(values, found, polarity, region, header, provenance, str(file), metadata)


def _from_dicom(
    file: Path,
    camera: Camera | None,
    frame: int | None,
    distance: float | None,
    spacing: tuple[float, float] | None,
) -> tuple[NDArray[Any], Camera, dict[str, str], dict[str, Any], HeaderHints]:
    dataset = read_dicom(file, "the X-ray")
    _check_projection(dataset, file)
    count = frame_count(dataset)
    number = _frame(frame, count, file)
    pixels = read_pixels(dataset, file, "the X-ray", number)
    height, width = pixels.values.shape
    metadata = acquisition_metadata(dataset, number)
    if camera is None:
        camera, provenance, warnings = camera_from_dicom(
            dataset, width, height, number, source_detector_distance_mm=distance, pixel_spacing_mm=spacing
        )
        if warnings:
            metadata["warnings"] = warnings
    else:
        check_camera_size(camera, (width, height), "the camera")
        provenance = {"camera": "given"}
    if count > 1 and frame is None:
        provenance["frame"] = f"assumed: the middle one, {number} of 0 to {count - 1}"
    if _is_slot_scan(dataset):
        metadata.setdefault("warnings", []).append(
            "this is a CT localizer, a slot scan: no pinhole camera fits it, a registration will be off along the scan"
        )
    metadata["mirrored"] = _is_mirrored(dataset, metadata)
    open_field = shutter_open_field(dataset, height, width, number)
    if pixels.padding.any():
        open_field = ~pixels.padding if open_field is None else open_field & ~pixels.padding
    return pixels.values, camera, provenance, metadata, replace(value_hints(dataset, number), open_field=open_field)


def _from_image(
    file: Path,
    camera: Camera | None,
    frame: int | None,
    distance: float | None,
    spacing: tuple[float, float] | None,
) -> tuple[NDArray[Any], Camera, dict[str, str], dict[str, Any]]:
    image = read_itk(file, "the X-ray", IMAGES)
    values, number = _grey(image, file, "the X-ray", frame)
    height, width = values.shape
    metadata: dict[str, Any] = {"frame": number}
    if camera is not None:
        check_camera_size(camera, (width, height), "the camera")
        return values, camera, {"camera": "given"}, metadata
    provenance: dict[str, str] = {}
    if distance is None:
        raise MissingGeometryError(
            f"the X-ray {file} has no source-detector distance (SDD); {HOW_TO_GIVE} --sdd MM", "source_detector_distance_mm"
        )
    provenance["source_detector_distance_mm"] = "given"
    if spacing is None:
        # pictures carry a print resolution, not the detector's pixel size
        if file.name.lower().endswith(PICTURES):
            raise MissingGeometryError(
                f"the X-ray {file} has no pixel spacing on the detector; {HOW_TO_GIVE} --pixel-spacing MM", "pixel_spacing_mm"
            )
        spacing = (float(image.GetSpacing()[0]), float(image.GetSpacing()[1]))
        if spacing == (1.0, 1.0):
            raise MissingGeometryError(
                f"the X-ray {file} has a pixel spacing of 1 mm, as files have that state none; "
                f"{HOW_TO_GIVE} --pixel-spacing MM",
                "pixel_spacing_mm",
            )
        provenance["pixel_spacing_mm"] = "found: image header"
    else:
        provenance["pixel_spacing_mm"] = "given"
    provenance["principal_point_px"] = "assumed: the image's centre"
    return values, Camera.from_spacing(width, height, spacing, distance), provenance, metadata


def _grey(image: sitk.Image, file: Path, what: str, frame: int | None) -> tuple[NDArray[Any], int]:
    """One frame (height, width) of an image of one component, or of equal ones."""
    values = sitk.GetArrayFromImage(image)
    components = image.GetNumberOfComponentsPerPixel()
    if components > 1:
        colours = values[..., :3] if components in (3, 4) else values
        if not (colours == colours[..., :1]).all():
            raise InputError(f"{what} {file} is in colour ({components} components); allowed is greyscale, convert it")
        values = colours[..., 0]
    if values.ndim == 2:
        return values, _frame(frame, 1, file)
    if values.ndim != 3:
        raise InputError(f"{what} {file} has {values.ndim} dimensions; allowed is one image, or a stack of frames")
    if frame is None and len(values) > 1:
        raise InputError(
            f"{what} {file} holds {len(values)} images, a stack of frames or a volume; allowed is one X-ray, "
            f"or say which frame with --frame, 0 to {len(values) - 1} (a CT goes to --ct)"
        )
    number = _frame(frame, len(values), file)
    return values[number], number


def _frame(frame: int | None, count: int, file: Path) -> int:
    if frame is None:
        return count // 2
    if not 0 <= frame < count:
        raise InputError(f"frame {frame} of the X-ray {file} does not exist; allowed is 0 to {count - 1}")
    return frame


def _pair(spacing: float | tuple[float, float]) -> tuple[float, float]:
    pair = np.broadcast_to(np.asarray(spacing, dtype=np.float64), (2,))
    if not (np.isfinite(pair).all() and (pair > 0).all()):
        raise InputError(f"pixel spacing is {spacing!r}; allowed are one or two positive lengths in mm")
    return float(pair[0]), float(pair[1])


def _check_projection(dataset: Dataset, file: Path) -> None:
    """Refuse DICOM that is no projection: slices, ultrasound, documents."""
    modality = str(dataset.get("Modality") or "")
    if modality in _NO_PROJECTIONS or (modality == "CT" and not _is_slot_scan(dataset)):
        raise InputError(
            f"the X-ray {file} is DICOM of modality {modality}, not a projection; "
            "allowed are X-rays such as XA, RF, DX and CR (a CT goes to --ct)"
        )


def _is_slot_scan(dataset: Dataset) -> bool:
    return str(dataset.get("Modality")) == "CT" and "LOCALIZER" in [str(t) for t in dataset.get("ImageType") or []]


def _is_mirrored(dataset: Dataset, metadata: dict[str, Any]) -> bool:
    """Whether the picture is stored mirrored, as PA chests are; False where the header does not tell."""
    orientation = [str(code) for code in dataset.get("PatientOrientation") or []]
    primary = metadata.get("positioner_primary_angle_deg")
    if primary is None:
        primary = {"AP": 180.0, "PA": 0.0, "LL": 90.0, "RL": -90.0}.get(metadata.get("view_position", ""))
    if primary is None:
        return False
    pose = camera_from_ct_from_angles(
        primary, metadata.get("positioner_secondary_angle_deg", 0.0), centre_ct=np.zeros(3), source_object_distance_mm=700.0
    )
    return bool(is_mirrored(orientation, pose))
