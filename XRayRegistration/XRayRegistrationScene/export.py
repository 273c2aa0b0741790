"""A registered X-ray as files that Slicer and others read."""

from __future__ import annotations

import csv
import io

import numpy as np

from XRayRegistrationLib.bone.model import build_bone_model
from XRayRegistrationLib.commands.report_page import report_html
from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.files.atomic import OutputFolder
from XRayRegistrationLib.files.result_file import files_of_earlier_result, numbered, write_result
from XRayRegistrationLib.files.volume_file import write_image
from XRayRegistrationLib.pictures.write import write_pictures

from . import landmark_nodes
from .bone_nodes import label_map_of
from .checks import check_node
from .drr_nodes import drr_image
from .registration import is_of_another_ct, result_of, views_of_result
from .volume_nodes import volume_of
from .xray_nodes import camera_of, prepared_xray


def export_result(xray_node, folder, ct_node, segmentation_node=None, image_landmarks=None, backend="auto"):
    """Write what a registration found.

    - ``result.json``, ``ct_from_camera.tfm`` and ``.h5``, ``landmarks.mrk.json``: as the command line writes them.
    - ``landmarks.csv``: on the CT, on the X-ray, and how far off.
    - ``drr.nrrd`` (line integrals), ``drr.png``, ``overlay.png``; ``report.html`` with all of it.

    Args:
        xray_node: registered; of a rig, any of its views, and all are written.
        folder: to write into; files of an earlier export there are replaced.
        ct_node: that it was registered to.
        segmentation_node: its bone, for the outlines; None finds it.
        image_landmarks: points on the X-ray, to compare with.

    Returns:
        The paths of the files.

    Raises:
        InputError: not registered, moved or given another camera since, or the folder cannot be written. Nothing is
            half-written.
    """
    result = result_of(xray_node)
    if result is None:
        raise InputError(
            f"the X-ray '{xray_node.GetName()}' stands at no result; register it, or go back to its result (Show result)"
        )
    if is_of_another_ct(xray_node, ct_node):
        raise InputError(f"the X-ray '{xray_node.GetName()}' was registered to another CT; choose that one")
    nodes = views_of_result(result, xray_node)
    for node, view in zip(nodes, result.views, strict=True):
        _check_same_camera(node, view.camera)
    ct = volume_of(ct_node)
    if segmentation_node is not None:
        check_node(segmentation_node, "vtkMRMLSegmentationNode", "a segmentation")
    model = build_bone_model(ct, bone="auto" if segmentation_node is None else label_map_of(segmentation_node, ct_node))
    pictures = tuple(numbered("overlay", n) + ".png" for n in range(len(nodes)))
    with OutputFolder(folder, "the folder") as out:
        write_result(out, result)
        write_pictures(out, result, [prepared_xray(node) for node in nodes], model, landmarks=bool(len(result.landmarks_ct)))
        rows = []
        for n, node in enumerate(nodes):
            drr = drr_image(model.full, node, None, backend)
            write_image(out.path(numbered("drr", n) + ".nrrd"), drr, result.views[n].camera.pixel_spacing_mm)
            rows += _landmark_rows(result, n, node, image_landmarks if node is xray_node else None)
        out.path("landmarks.csv").write_text(_csv(rows), encoding="utf-8")
        out.path("report.html").write_text(report_html(result, pictures), encoding="utf-8")
        return [str(path) for path in out.commit(remove=_files_of_earlier_export(out.folder))]


def _check_same_camera(node, registered) -> None:
    """A pose belongs to the camera that it was found with."""
    camera = camera_of(node)
    same = np.allclose(camera.K, registered.K, rtol=1e-6, atol=1e-4)
    sdd, before = camera.source_detector_distance_mm, registered.source_detector_distance_mm
    same &= (sdd is None) == (before is None) and (sdd is None or bool(np.isclose(sdd, before, rtol=1e-6)))
    if not same or (camera.width, camera.height) != (registered.width, registered.height):
        raise InputError(f"the camera of the X-ray '{node.GetName()}' was changed since it was registered; register it again")


def _files_of_earlier_export(folder):
    """As files_of_earlier_result, with the DRRs: of a rig there may have been more than are written now."""
    names = files_of_earlier_result(folder)
    return [*names, *(name.replace(".png", ".nrrd") for name in names if name.startswith("drr"))]


def _landmark_rows(result, n, node, image_landmarks):
    compared = {}
    if image_landmarks is not None:
        compared = dict(zip(*landmark_nodes.pixels_of(image_landmarks, node), strict=True))
    in_view = result.views[n].camera.in_view(result.landmarks_px_views[n])
    for name, point, pixel, seen in zip(
        result.landmark_names, result.landmarks_ct, result.landmarks_px_views[n], in_view, strict=True
    ):
        off = np.linalg.norm(compared[name] - pixel) if name in compared else np.nan
        numbers = ["" if np.isnan(x) else x for x in (*pixel, off)]  # nothing there, or behind the source
        yield [n + 1, name, *point, *numbers[:2], "yes" if seen else "no", numbers[2]]


def _csv(rows) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["view", "name", "r_mm", "a_mm", "s_mm", "column_px", "row_px", "in_view", "off_px"])
    writer.writerows([[f"{x:.4f}" if isinstance(x, float) else x for x in row] for row in rows])
    return text.getvalue()
