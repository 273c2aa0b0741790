"""The camera of a DICOM X-ray, and for each of its values where it comes from."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from XRayRegistrationLib.errors import MissingGeometryError
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.images.dicom import attribute, frame_count, name_of, numbers, positive

HOW_TO_GIVE = "give it in a camera file (--camera camera.json or MayaCam text) or as the option"
_AT_PATIENT = ("XA", "RF")  # where PixelSpacing, when it is there, is by calibration at the patient
_DISAGREEMENT = 0.02


def camera_from_dicom(
    dataset: Dataset,
    width: int,
    height: int,
    frame: int = 0,
    *,
    source_detector_distance_mm: float | None = None,
    pixel_spacing_mm: tuple[float, float] | None = None,
) -> tuple[Camera, dict[str, str], list[str]]:
    """The pinhole camera that a DICOM X-ray states.

    Args:
        dataset: XA, RF, DX, CR and the like, enhanced or not.
        width, height: its size in pixels.
        frame: from 0.
        source_detector_distance_mm, pixel_spacing_mm: (column, row) on the detector; when given
            they replace what the file says.

    Returns:
        Camera, provenance of each of its values (``"found: ..."``, ``"assumed: ..."`` or ``"given"``), warnings.

    Raises:
        MissingGeometryError: pixel spacing or source-detector distance neither stated nor given.
    """
    warnings: list[str] = []
    provenance: dict[str, str] = {}
    distance, provenance["source_detector_distance_mm"] = _distance(dataset, frame, source_detector_distance_mm)
    spacing, provenance["pixel_spacing_mm"] = _spacing(dataset, frame, distance, pixel_spacing_mm)
    point, provenance["principal_point_px"] = _principal_point(dataset, frame, width, height, spacing)
    stated, geometric = positive(dataset, "EstimatedRadiographicMagnificationFactor", frame), _ratio(dataset, frame, distance)
    if stated and geometric and abs(stated / geometric - 1) > _DISAGREEMENT:
        warnings.append(
            f"the file states a magnification of {stated:g}, its distances give {geometric:.3f}; "
            "check the source-detector distance"
        )
    return Camera.from_spacing(width, height, spacing, distance, point), provenance, warnings


def acquisition_metadata(dataset: Dataset, frame: int = 0) -> dict[str, Any]:
    """What else the file says about the view, by name with unit; absent values are left out.

    Positioner angles are DICOM's: primary is the detector's side about the patient's long axis,
    + towards the patient's left (LAO); secondary + towards the head (cranial). On a moving gantry
    the frame's increment, taken from the first frame's position, is added.
    """
    found: dict[str, Any] = {
        "modality": str(dataset.get("Modality") or ""),
        "frame": frame,
        "number_of_frames": frame_count(dataset),
        "photometric_interpretation": str(dataset.get("PhotometricInterpretation") or ""),
    }
    for name, keyword in (
        ("positioner_primary_angle_deg", "PositionerPrimaryAngle"),
        ("positioner_secondary_angle_deg", "PositionerSecondaryAngle"),
    ):
        angle = numbers(dataset, keyword, 1, frame)
        if angle is not None:
            steps = attribute(dataset, f"{keyword}Increment", frame)
            try:
                steps = np.atleast_1d(np.asarray([] if steps is None else steps, dtype=np.float64))
            except (TypeError, ValueError):
                steps = np.zeros(0)  # no numbers: the angle of the run is that of the frame
            found[name] = float(angle[0]) + (float(steps[frame]) if len(steps) == frame_count(dataset) else 0.0)
    for name, keyword in (
        ("source_object_distance_mm", "DistanceSourceToPatient"),
        ("magnification", "EstimatedRadiographicMagnificationFactor"),
    ):
        value = positive(dataset, keyword, frame)
        if value is not None:
            found[name] = value
    for name, keyword in (("patient_position", "PatientPosition"), ("view_position", "ViewPosition")):
        if dataset.get(keyword):
            found[name] = str(dataset.get(keyword))
    return found


def _distance(dataset: Dataset, frame: int, given: float | None) -> tuple[float, str]:
    if given is not None:
        return given, "given"
    keyword = "DistanceSourceToDetector"
    stated = positive(dataset, keyword, frame)
    if stated is not None:
        return stated, f"found: DICOM {name_of(keyword)}"
    to_patient = positive(dataset, "DistanceSourceToPatient", frame)
    magnification = positive(dataset, "EstimatedRadiographicMagnificationFactor", frame)
    if to_patient is not None and magnification is not None:
        return to_patient * magnification, (
            f"found: DICOM {name_of('DistanceSourceToPatient')} x {name_of('EstimatedRadiographicMagnificationFactor')}"
        )
    raise MissingGeometryError(
        f"the X-ray does not state its source-detector distance (DICOM {name_of(keyword)} is absent); {HOW_TO_GIVE} --sdd MM",
        "source_detector_distance_mm",
    )


def _ratio(dataset: Dataset, frame: int, distance: float) -> float | None:
    """Magnification from the distances."""
    to_patient = positive(dataset, "DistanceSourceToPatient", frame)
    return distance / to_patient if to_patient else None


def _spacing(dataset: Dataset, frame: int, distance: float, given: tuple[float, float] | None) -> tuple[tuple[float, float], str]:
    """(column, row) spacing on the detector; DICOM gives rows first."""
    if given is not None:
        return given, "given"
    imager, at_patient = (_lengths(dataset, k, frame) for k in ("ImagerPixelSpacing", "PixelSpacing"))
    if imager is not None:
        return imager, f"found: DICOM {name_of('ImagerPixelSpacing')}"
    if at_patient is not None:
        return _spacing_from_pixel_spacing(dataset, frame, distance, at_patient)
    scanned = _lengths(dataset, "NominalScannedPixelSpacing", frame)
    if scanned is not None:
        return scanned, f"assumed: DICOM {name_of('NominalScannedPixelSpacing')} of the digitised film is the detector's"
    raise MissingGeometryError(
        f"the X-ray does not state its pixel spacing (DICOM {name_of('ImagerPixelSpacing')} and "
        f"{name_of('PixelSpacing')} are absent); {HOW_TO_GIVE} --pixel-spacing MM, on the detector",
        "pixel_spacing_mm",
    )


def _spacing_from_pixel_spacing(
    dataset: Dataset, frame: int, distance: float, spacing: tuple[float, float]
) -> tuple[tuple[float, float], str]:
    """PixelSpacing lies at the patient when it was calibrated, and then the detector's is larger by the magnification."""
    tag = f"DICOM {name_of('PixelSpacing')}"
    calibrated = str(attribute(dataset, "PixelSpacingCalibrationType", frame) or "")
    modality = dataset.get("Modality")
    localizer = modality == "CT"  # its pixels are at the isocentre
    if not calibrated and not localizer and modality not in _AT_PATIENT:
        return spacing, f"assumed: {tag} is the detector's, no {name_of('ImagerPixelSpacing')}"
    magnification = positive(dataset, "EstimatedRadiographicMagnificationFactor", frame)
    how = name_of("EstimatedRadiographicMagnificationFactor")
    if magnification is None:
        magnification = _ratio(dataset, frame, distance)
        how = f"source-detector distance / {name_of('DistanceSourceToPatient')}"
    if magnification is not None:
        scaled = (spacing[0] * magnification, spacing[1] * magnification)
        return scaled, f"{'found' if calibrated else 'assumed'}: {tag} at the patient x magnification {magnification:.4f} ({how})"
    if calibrated:
        raise MissingGeometryError(
            f"the X-ray states its pixel spacing at the patient ({tag}, calibrated by {calibrated}) but no magnification; "
            f"{HOW_TO_GIVE} --pixel-spacing MM, on the detector",
            "pixel_spacing_mm",
        )
    return spacing, f"assumed: {tag} is the detector's, no {name_of('ImagerPixelSpacing')} and no magnification"


def _lengths(dataset: Dataset, keyword: str, frame: int) -> tuple[float, float] | None:
    found = numbers(dataset, keyword, 2, frame)
    return (float(found[1]), float(found[0])) if found is not None and found.min() > 0 else None


def _principal_point(
    dataset: Dataset, frame: int, width: int, height: int, spacing: tuple[float, float]
) -> tuple[tuple[float, float], str]:
    """Where the ray that is normal to the detector meets it, taken to be the centre of its active area.

    An image that shows only a part of the detector (FieldOfViewOrigin), perhaps turned or mirrored
    afterwards, is off-centre. In (row, column) mm from the corner of the physical detector::

        centre of the active area = active_origin * element + active_dimensions / 2
        centre of the image       = fov_origin * element + image size / 2

    and their difference, turned clockwise by FieldOfViewRotation, then mirrored, counts from the
    image's centre (DICOM PS3.3 C.8.11.4).
    """
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    origin = numbers(dataset, "FieldOfViewOrigin", 2, frame)
    element = _pair(dataset, "DetectorElementSpacing", frame)
    active = _pair(dataset, "DetectorActiveDimensions", frame)
    if origin is None or element is None or active is None:
        return (float(centre[0]), float(centre[1])), "assumed: the image's centre"
    active_origin = numbers(dataset, "DetectorActiveOrigin", 2, frame)
    turn = numbers(dataset, "FieldOfViewRotation", 1, frame)
    quarter_turns = round(float(turn[0]) / 90) % 4 if turn is not None else 0
    image = np.array([height * spacing[1], width * spacing[0]])
    if quarter_turns % 2:
        image = image[::-1]
    corner = active_origin * element if active_origin is not None else np.zeros(2)
    down, right = corner + active / 2 - origin * element - image / 2
    for _ in range(quarter_turns):
        right, down = -down, right  # clockwise, rows downwards: right becomes down, down becomes left
    if str(attribute(dataset, "FieldOfViewHorizontalFlip", frame) or "NO").upper().startswith("Y"):
        right = -right
    point = centre + np.array([right / spacing[0], down / spacing[1]])
    return (float(point[0]), float(point[1])), (
        f"found: DICOM {name_of('FieldOfViewOrigin')} in {name_of('DetectorActiveDimensions')}; "
        "assumed: the central ray meets the detector's centre"
    )


def _pair(dataset: Dataset, keyword: str, frame: int) -> NDArray[np.float64] | None:
    """Two positive lengths (rows, columns), None when absent; one length (a round detector) counts for both."""
    value = attribute(dataset, keyword, frame)
    if value is None:
        return None
    count = len(np.atleast_1d(np.asarray(value, dtype=object)))
    found = numbers(dataset, keyword, 1 if count == 1 else 2, frame)
    if found is None or found.min() <= 0:
        return None
    return np.broadcast_to(found, 2)
