"""The picture files of a result."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

import numpy as np

from XRayRegistrationLib.bone.model import BoneModel
from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.files.atomic import OutputFolder
from XRayRegistrationLib.files.result_file import numbered
from XRayRegistrationLib.images.xray import XRay
from XRayRegistrationLib.pictures import figures
from XRayRegistrationLib.pictures.raster import crossed_out, dimmed, outlined, png_bytes, windowed
from XRayRegistrationLib.pictures.scene import bone_surface, draw_scene
from XRayRegistrationLib.pictures.verdict import Verdict, verdict_of
from XRayRegistrationLib.pictures.view import enlarged, picture_view
from XRayRegistrationLib.result import Result

KINDS = ("basic", "all", "none")


def can_caption() -> bool:
    """Whether matplotlib is there; without it the pictures have no words."""
    return importlib.util.find_spec("matplotlib") is not None


def write_pictures(
    out: OutputFolder,
    result: Result,
    xrays: Sequence[XRay],
    model: BoneModel,
    *,
    kind: str = "basic",
    backend: str = "auto",
    landmarks: bool = True,
    verdict: Verdict | None = None,
) -> list[str]:
    """Draw the pictures of every view into an open output folder; returns the files' names.

    - ``"basic"``: ``overlay.png``, and ``drr.png``: the CT seen from the pose, bone bright, in the
      X-ray's own size and pixels.
    - ``"all"``: also ``edges.png``, ``checkerboard.png`` and ``scene.png`` (in 3D), where
      matplotlib is installed.

    Without matplotlib ``overlay.png`` is the X-ray with the outlines and no words, crossed out in
    red for a failure.

    Further views get ``_2``, ``_3``, ... before the ending.

    Args:
        landmarks: whether to mark the result's landmarks.
        verdict: what to print on top; None is the result's own.

    Raises:
        InputError: an unknown kind.
    """
    if kind not in KINDS:
        raise InputError(f"pictures {kind!r} is unknown; allowed are {', '.join(KINDS)}")
    if kind == "none":
        return []
    verdict = verdict or verdict_of(result)
    files: dict[str, bytes] = {}
    marks = (result.landmarks_ct, result.landmark_names) if landmarks else ((), ())
    surface = bone_surface(model.mask) if kind == "all" and can_caption() else None
    for i, (xray, pose) in enumerate(zip(xrays, result.camera_from_ct_views, strict=True)):
        view = picture_view(xray, model, pose, *marks, backend=backend)
        drr = enlarged(view.line_integrals, view.camera, xray.camera)
        files[numbered("drr", i) + ".png"] = png_bytes(windowed(drr, xray.mask))
        if not can_caption():
            plain = outlined(view.xray, view.edges, view.mask)
            files[numbered("overlay", i) + ".png"] = png_bytes(plain if verdict.ok else crossed_out(plain))
            continue
        files[numbered("overlay", i) + ".png"] = figures.overlay_figure(view, verdict)
        if surface is not None:
            files[numbered("edges", i) + ".png"] = figures.edges_figure(view, verdict)
            files[numbered("checkerboard", i) + ".png"] = figures.checkerboard_figure(view, verdict)
            scene = draw_scene(*surface, xray.camera, np.asarray(pose), dimmed(view.xray, view.mask)[..., 0])
            files[numbered("scene", i) + ".png"] = figures.scene_figure(scene, view, verdict)
    for name, data in files.items():
        out.path(name).write_bytes(data)
    return list(files)
