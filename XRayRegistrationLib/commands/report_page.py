"""A result as one page for people: ``report.html``."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from XRayRegistrationLib import __version__
from XRayRegistrationLib.commands.report import carm_words
from XRayRegistrationLib.pictures.orientation import beam_words
from XRayRegistrationLib.pictures.verdict import verdict_of
from XRayRegistrationLib.result import Result

_STYLE = (
    "body{font:15px sans-serif;margin:2em auto;max-width:60em}table{border-collapse:collapse}"
    "td,th{border:1px solid #bbb;padding:3px 9px;text-align:left}img{max-width:100%}"
    ".ok{background:#1b5e20}.failed{background:#b71c1c}.ok,.failed{color:white;padding:10px;border-radius:5px}"
)


def report_html(result: Result, pictures: tuple[str, ...] = ("overlay.png",)) -> str:
    """The page; pictures are files beside it, and patient data is in none of it but the pixels."""
    verdict = verdict_of(result)
    parts = [
        f'<h1 class="{"ok" if verdict.ok else "failed"}">{escape(verdict.headline)}</h1>',
        *(f"<p>{escape(text)}</p>" for text in verdict.sentences),
    ]
    if verdict.ok:
        parts.append(
            f"<p>The beam ran from the patient's {escape(beam_words(result.camera_from_ct))}; {escape(carm_words(result))}.</p>"
        )
    parts += [f'<p><img src="{escape(name)}" alt="{escape(name)}"></p>' for name in pictures]
    deviations = result.standard_deviations
    if deviations is not None:
        degrees, millimetres = deviations
        sigmas = zip(("columns", "rows", "depth"), millimetres, degrees, strict=True)
        shown = [(axis, f"{mm:.3f}", f"{degree:.3f}") for axis, mm, degree in sigmas]
        parts.append("<h2>Standard deviations, from image noise alone</h2>")
        parts.append(_table(("axis of the X-ray", "along, mm", "about, degrees"), shown))
    assert result.landmarks_px_views is not None
    for n, view in enumerate(result.views):
        seen = view.camera.in_view(result.landmarks_px_views[n])
        rows = [
            (name, *(f"{x:.1f}" for x in point), *("" if np.isnan(x) else f"{x:.1f}" for x in pixel), "yes" if inside else "no")
            for name, point, pixel, inside in zip(
                result.landmark_names, result.landmarks_ct, result.landmarks_px_views[n], seen, strict=True
            )
        ]
        parts.append(f"<h2>Landmarks on {escape(view.source or f'X-ray {n + 1}')}</h2>")
        parts.append(_table(("name", "R mm", "A mm", "S mm", "column px", "row px", "in view"), rows))
    parts.append("<h2>ct_from_camera (RAS, mm)</h2>")
    parts.append(_table((), [tuple(f"{x:.6f}" for x in row) for row in result.ct_from_camera]))
    made = f"Method {escape(result.method)}, seed {result.seed}, XRayRegistration {__version__}."
    parts.append(f"<p>{made} Not for clinical use.</p>")
    head = f'<meta charset="utf-8"><title>X-ray registration</title><style>{_STYLE}</style>'
    return "\n".join(["<!DOCTYPE html>", f"<html><head>{head}</head>", "<body>", *parts, "</body></html>", ""])


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = ["<table>"]
    if head:
        lines.append("<tr>" + "".join(f"<th>{escape(text)}</th>" for text in head) + "</tr>")
    lines += ["<tr>" + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>" for row in rows]
    return "\n".join([*lines, "</table>"])
