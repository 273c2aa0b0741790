"""What went wrong, to be looked at: X-rays with the bone's outlines at the true pose and at the one found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from XRayRegistrationLib.evaluation.cases import CaseSource
from XRayRegistrationLib.evaluation.score import Scored
from XRayRegistrationLib.pictures.raster import FAILURE_COLOUR, OUTLINE_COLOUR, outlined, png_bytes
from XRayRegistrationLib.pictures.view import picture_view

TRUE_COLOUR, FOUND_COLOUR = OUTLINE_COLOUR, FAILURE_COLOUR
_SIDE_PX = 320


@dataclass(frozen=True)
class FailurePicture:
    """A PNG, and what it shows."""

    png: bytes
    caption: str


def chosen_failures(cases: Sequence[Scored], most: int) -> list[Scored]:
    """At most ``most`` failures a method: those that the verification let through first, then the smallest errors.

    The smallest ones, for they are the near misses that can be learnt from; beyond some 50 mm all look alike.
    """
    out: list[Scored] = []
    for method in dict.fromkeys(c.prediction.method for c in cases):
        wrong = [c for c in cases if c.prediction.method == method and not c.right]
        wrong.sort(key=lambda c: (not c.passed, c.refined.mtre_landmarks_mm, c.prediction.key))
        out += wrong[:most]
    return out


def failure_picture(source: CaseSource, scored: Scored, backend: str = "auto") -> FailurePicture:
    """The X-ray with the outlines at the true pose (blue), and at the one found (red) where there is one."""
    p = scored.prediction
    case, bone = source.case(p.ct, p.number), source.patient(p.ct).bone
    true = picture_view(case.xray, bone, p.true_camera_from_ct, backend=backend, longest_side=_SIDE_PX)
    picture = outlined(true.xray, true.edges, true.mask, TRUE_COLOUR)
    if p.camera_from_ct is None:
        words = f"no pose: {p.message}"
    else:
        found = picture_view(case.xray, bone, p.camera_from_ct, backend=backend, longest_side=_SIDE_PX)
        picture = outlined(picture, found.edges, colour=FOUND_COLOUR)
        words = f"{scored.refined.mtre_landmarks_mm:.1f} mm, {scored.refined.rotation_deg:.1f} degrees off"
        words += ", PASSED by the verification" if scored.passed else f", rejected (probability {p.probability or 0:.2f})"
    return FailurePicture(png_bytes(picture), f"{p.method}, {p.ct} {p.number} ({', '.join(p.tags)}): {words}")
