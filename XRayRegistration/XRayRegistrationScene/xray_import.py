"""X-rays into the scene: from files, with the geometry that their header states, or from volumes that are there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import slicer
import slicer.util

from XRayRegistrationLib.errors import InputError, MissingGeometryError
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.images.camera_file import check_camera_size, read_camera
from XRayRegistrationLib.images.xray_file import read_raw_xray

from .xray_nodes import MISSING, NOMINAL_SDD_MM, add_xray

_NOMINAL_WIDTH_MM = 300.0  # where no pixel size is known: the picture is drawn this wide


def import_xray(
    path, camera=None, *, frame=None, source_detector_distance_mm=None, pixel_spacing_mm=None, polarity="auto", mask=True,
    name=None,
):  # fmt: skip
    """Read an X-ray from a file into the scene.

    Args:
        path: DICOM, PNG, TIFF, JPEG, NRRD or MHA.
        camera: Camera, or the path of camera.json or MayaCam text; None takes what the header states.
        frame: of a run, from 0; None is the middle one.
        source_detector_distance_mm, pixel_spacing_mm: where the header is silent or wrong.
        polarity: "auto", "bone_bright" or "bone_dark".
        mask: look for collimator and saturation.
        name: of the node; None takes the file's.

    Returns:
        The X-ray node. Values that neither the header states nor you give are marked as missing; the X-ray can
        be looked at, and registered once they are typed in.

    Raises:
        InputError: unreadable, no X-ray, or a camera of another size. Nothing is added to the scene then.
    """
    if isinstance(camera, (str, Path)):
        camera = read_camera(camera)
    given = {"source_detector_distance_mm": source_detector_distance_mm, "pixel_spacing_mm": pixel_spacing_mm}
    raw, missing = _read(path, camera, frame, given)
    provenance = {**raw.provenance, **dict.fromkeys(missing, f"{MISSING}: neither in the file nor given")}
    return add_xray(
        raw.values, raw.camera, name or Path(path).stem, provenance, polarity, mask, raw.header, raw.metadata
    )  # fmt: skip


def xray_from_volume(volume_node, camera=None, *, frame=None, polarity="auto", mask=True):
    """Make an X-ray of an image that is in the scene already; the image itself stays as it is.

    A volume that Slicer loaded from DICOM is read again from its file, for Slicer keeps neither source-detector
    distance nor shutter.

    Args:
        volume_node: a one-slice volume, or a stack of frames of which ``frame`` is taken.
        camera: as in :func:`import_xray`; None takes the DICOM header, or the volume's spacing as the pixel size.
        frame, polarity, mask: as in :func:`import_xray`.

    Raises:
        InputError: no image, or several and no frame named.
    """
    if volume_node is None:
        raise InputError("no image is chosen; choose a volume of one slice, or import a file")
    name = volume_node.GetName()
    file = _dicom_file(volume_node)
    if file is not None:
        return import_xray(file, camera, frame=frame, polarity=polarity, mask=mask, name=f"{name} X-ray")
    if volume_node.GetImageData() is None:
        raise InputError(f"the image '{name}' holds no pixels; load its data or choose another")
    values = slicer.util.arrayFromVolume(volume_node)
    if values.ndim == 4:
        if not (values[..., :3] == values[..., :1]).all():
            raise InputError(f"the image '{name}' is in colour; allowed is greyscale, convert it")
        values = values[..., 0]
    if frame is None and len(values) > 1:
        raise InputError(
            f"the image '{name}' has {len(values)} slices, a run or a CT; allowed is one X-ray: name its frame, 0 to "
            f"{len(values) - 1}"
        )
    if frame is not None and not 0 <= frame < len(values):
        raise InputError(f"frame {frame} of '{name}' does not exist; allowed is 0 to {len(values) - 1}")
    values = np.array(values[frame or 0])
    if isinstance(camera, (str, Path)):
        camera = read_camera(camera)
    if camera is not None:
        check_camera_size(camera, values.shape[::-1], "the camera")
        return add_xray(values, camera, f"{name} X-ray", {"camera": "given"}, polarity, mask)
    spacing = volume_node.GetSpacing()[:2]
    stated = spacing != (1.0, 1.0)  # as readers set it where a file states none
    provenance = {
        "source_detector_distance_mm": f"{MISSING}: the volume has none",
        "pixel_spacing_mm": "assumed: the volume's spacing is the detector's" if stated else f"{MISSING}: spacing is 1 mm",
        "principal_point_px": "assumed: the image's centre",
    }
    height, width = values.shape
    if not stated:
        spacing = (_NOMINAL_WIDTH_MM / width,) * 2
    camera = Camera.from_spacing(width, height, spacing, NOMINAL_SDD_MM)
    return add_xray(values, camera, f"{name} X-ray", provenance, polarity, mask)


def _read(path, camera, frame, given):
    """RawXRay, and the names of camera values that were made up to be able to show it."""
    given, missing = dict(given), []
    while True:
        try:
            return read_raw_xray(path, camera, frame=frame, mask=None, **given), missing
        except MissingGeometryError as error:
            if error.value in missing:
                raise
            missing.append(error.value)
            given[error.value] = NOMINAL_SDD_MM if error.value == "source_detector_distance_mm" else _nominal_spacing(path)


def _nominal_spacing(path):
    nominal = read_raw_xray(path, frame=0, source_detector_distance_mm=NOMINAL_SDD_MM, pixel_spacing_mm=1.0, mask=None)
    return _NOMINAL_WIDTH_MM / nominal.camera.width


def _dicom_file(volume_node):
    uids = (volume_node.GetAttribute("DICOM.instanceUIDs") or "").split()
    database = getattr(slicer, "dicomDatabase", None)
    if not uids or database is None:
        return None
    file = database.fileForInstance(uids[0])
    return file if file and Path(file).exists() else None
