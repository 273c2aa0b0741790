"""X-rays into the scene: from files, with the geometry that their header states, or from volumes that are there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import slicer
import slicer.util

from XRayRegistrationLib.errors import InputError, MissingGeometryError
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.images.camera_file import check_camera_size, read_camera
from XRayRegistrationLib.images.polarity import check_polarity
from XRayRegistrationLib.images.xray_file import read_raw_xray

from .checks import check_node
from .xray_nodes import MISSING, NOMINAL_SDD_MM, ROLE, XRAY, add_xray

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
        source_detector_distance_mm, pixel_spacing_mm: where the header is silent or wrong; not with a camera.
        polarity: "auto", "bone_bright" or "bone_dark".
        mask: look for collimator and saturation.
        name: of the node; None takes the file's.

    Returns:
        The X-ray node. Values that neither the header states nor you give are marked as missing; the X-ray can
        be looked at, and registered once they are typed in.

    Raises:
        InputError: unreadable, no X-ray, a camera of another size, or a value given twice. Nothing is added to the
            scene then.
    """
    if path is None:
        raise InputError("there is no file to read; give the path of an X-ray")
    check_polarity(polarity)
    given = {"source_detector_distance_mm": source_detector_distance_mm, "pixel_spacing_mm": pixel_spacing_mm}
    if camera is not None and any(value is not None for value in given.values()):
        raise InputError(
            "a camera file was given and also a distance or a pixel size, which it has already; give one or the other"
        )
    if isinstance(camera, (str, Path)):
        camera = read_camera(camera)
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
    check_node(volume_node, "vtkMRMLVolumeNode", "an image of the scene")
    check_polarity(polarity)
    name = volume_node.GetName()
    if volume_node.GetAttribute(ROLE) == XRAY:
        raise InputError(f"'{name}' is an X-ray already; choose another image, or register this one")
    files = _dicom_files(volume_node)
    if files:
        if len(files) > 1:  # one image each, in the order of the slices
            files, frame = [files[_frame_of(frame, len(files), name)]], None
        return import_xray(files[0], camera, frame=frame, polarity=polarity, mask=mask, name=f"{name} X-ray")
    if volume_node.GetImageData() is None:
        raise InputError(f"the image '{name}' holds no pixels; load its data or choose another")
    values = slicer.util.arrayFromVolume(volume_node)
    if values.ndim == 4:
        if not (values[..., :3] == values[..., :1]).all():
            raise InputError(f"the image '{name}' is in colour; allowed is greyscale, convert it")
        values = values[..., 0]
    values = np.array(values[_frame_of(frame, len(values), name)])
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


def _frame_of(frame, count, name):
    if frame is None and count > 1:
        raise InputError(
            f"the image '{name}' has {count} slices, a run or a CT; allowed is one X-ray: name its frame, 0 to {count - 1}"
        )
    if frame is not None and not 0 <= frame < count:
        raise InputError(f"frame {frame} of '{name}' does not exist; allowed is 0 to {count - 1}")
    return frame or 0


def _dicom_files(volume_node):
    """The files that a volume was loaded from, all of them or none."""
    uids = (volume_node.GetAttribute("DICOM.instanceUIDs") or "").split()
    database = getattr(slicer, "dicomDatabase", None)
    if not uids or database is None:
        return []
    files = [database.fileForInstance(uid) for uid in uids]
    return files if all(file and Path(file).exists() for file in files) else []
