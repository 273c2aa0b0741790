"""One HTML page that shows an evaluation: self-contained, with its plots and pictures inside."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Sequence
from html import escape
from string import ascii_lowercase
from typing import Any

import numpy as np

from XRayRegistrationLib.evaluation.failure_pictures import FailurePicture
from XRayRegistrationLib.evaluation.landscape import AXES, BASELINE, REACH, Landscape
from XRayRegistrationLib.evaluation.paper_figures import SOPI_SOURCE, SOPI_TABLE, PaperFigure, paper_figures
from XRayRegistrationLib.evaluation.plots import COLOURS, Curve, Quantiles, axes_svg, cumulative_svg, profiles_svg, scatter_svg
from XRayRegistrationLib.evaluation.protocols import GROUPS, PROTOCOLS, Protocol
from XRayRegistrationLib.evaluation.score import ALL_CTS, PROPOSED, REFINED, STAGES, START, Row, Scored, in_group, summary
from XRayRegistrationLib.evaluation.store import ERROR
from XRayRegistrationLib.evaluation.variants import VARIANTS, variant

_METRICS = {"mtre_landmarks_mm": ("mTRE", "mtre"), "mpd_mm": ("projected mTRE on the detector (mPD)", "mpd")}
_MOST_ERRORS = 20
_STYLE = """
body{font:15px/1.45 sans-serif;margin:2em auto;max-width:86em;padding:0 1em;color:#1c1c1c}
h1{font-size:1.6em;margin-bottom:.2em}h2{margin-top:2em;border-bottom:1px solid #ccc}h3{margin-top:1.4em}
table{border-collapse:collapse;margin:.6em 0;font-size:14px}
td,th{border:1px solid #c8c8c8;padding:3px 9px;text-align:right;vertical-align:top;white-space:nowrap}
td.w,th.w{text-align:left;white-space:normal}th{background:#f0f0f0}tr.paper td{background:#fbf6e6}tr.bad td{background:#fde8e6}
td small{color:#555}figure{display:inline-block;width:20em;margin:.5em .6em .5em 0;vertical-align:top}
figure img{width:100%;background:#000}figcaption{font-size:13px}.note{color:#444}
.key{display:inline-block;width:1.6em;height:.55em;margin-right:.3em}pre{background:#f6f6f6;padding:.7em;overflow:auto;font-size:13px}
"""


def report_html(
    run: dict[str, Any],
    cases: Sequence[Scored],
    rows: Sequence[Row],
    pictures: Sequence[FailurePicture] = (),
    landscapes: Sequence[Landscape] = (),
) -> str:
    """The page.

    Args:
        run: the content of ``run.json``.
        cases: scored; rows: their table.
        pictures: of failures.
        landscapes: of learned similarities.
    """
    asked = run["asked"]
    protocol = PROTOCOLS[asked["protocol"]["name"]]
    methods = list(dict.fromkeys(row.method for row in rows))
    parts = [
        f"<h1>Evaluation: protocol {escape(protocol.name)}</h1>",
        f"<p>{escape(protocol.paper)}: {escape(protocol.summary)}. The paper's cases: {escape(protocol.paper_cases)}.</p>",
        *(f'<p class="note"><b>{escape(name)}</b>: {escape(variant(name).summary)}.</p>' for name in methods if name in VARIANTS),
        *_weights(run["record"].get("weights", {})),
        _reading(protocol),
        "<h2>Ours beside the papers</h2>",
        *_beside_papers(protocol, rows, methods),
        "<h2>How many cases are how good</h2>",
        *_curves(protocol, cases, methods),
        "<h2>Can the verdict be trusted?</h2>",
        _verdicts(rows, methods),
        "<h2>Groups of cases</h2>",
        _groups(rows, methods),
        "<h2>Each CT</h2>",
        _each_ct(protocol, rows, methods),
        "<h2>Errors by axis</h2>",
        *_axes(protocol, cases, methods),
        *_per_degree_of_freedom(protocol, rows, methods),
        *_landscapes(landscapes),
        "<h2>What failed</h2>",
        *_failures(cases, pictures),
        "<h2>How this was made</h2>",
        *_made(run, cases),
    ]
    head = f'<meta charset="utf-8"><title>Evaluation, {escape(protocol.name)}</title><style>{_STYLE}</style>'
    return "\n".join(["<!DOCTYPE html>", f"<html><head>{head}</head>", "<body>", *parts, "</body></html>", ""])


def summary_text(rows: Sequence[Row], group: str) -> str:
    """The few lines for a terminal: refined poses of one group, over all CTs."""
    lines = ["method                    n   median   95th %   beyond 10 mm   wrong but passed   seconds"]
    for method in dict.fromkeys(row.method for row in rows):
        row = summary(rows, method, group, REFINED)
        if row is not None:
            lines.append(
                f"{method:22s} {row.n:4d} {_mm(row.mtre_p50):>8} {_mm(row.mtre_p95):>8} {_percent(row.gfr10):>14} "
                f"{row.wrong_but_passed:>18} {_seconds(row.seconds_total):>9}"
            )
    return "\n".join(lines)


def _weights(of_methods: dict[str, dict[str, dict[str, Any]]]) -> list[str]:
    """Of each method that learned, whether it learned the very CTs that it is judged on."""
    parts = []
    for method, of_cts in of_methods.items():
        by_file: dict[tuple[str, bool], list[str]] = {}
        for ct, weights in of_cts.items():
            by_file.setdefault((weights["path"], weights["learned_this_ct"]), []).append(ct)
        words = [
            f"{escape(', '.join(cts))} by {escape(file)}, {'trained on that CT' if learned else 'which never saw that CT'}"
            for (file, learned), cts in by_file.items()
        ]
        parts.append(f'<p class="note"><b>{escape(method)}</b>: {"; ".join(words)}.</p>')
    return parts


def _reading(protocol: Protocol) -> str:
    return (
        '<p class="note">Errors in mm. mTRE is the mean distance of the landmarks, in view or not. Percentiles and rates are '
        "of <b>all</b> cases: one without a pose has an infinite error, is a failure, and stays in the denominator. GFR@x is "
        "the share of cases beyond x mm. Proposed is what the method itself found, refined what the shared refinement made "
        f"of it. The papers are compared with the group <b>{escape(protocol.paper_group)}</b>, without instruments or "
        "inversion, which they do not have. In brackets: 95 % bootstrap intervals.</p>"
    )


_NUMBERS = ("n", "25 %", "median", "75 %", "95 %", "GFR@5", "GFR@10", "below 10 mm", "s a case")


def _beside_papers(protocol: Protocol, rows: Sequence[Row], methods: Sequence[str]) -> list[str]:
    figures = paper_figures(protocol.name, ALL_CTS)
    parts = []
    for metric in _METRICS:
        of_metric = [f for f in figures if f.metric == metric]
        if metric != protocol.headline and not of_metric:
            continue
        name, prefix = _METRICS[metric]
        shown = _rows_of(rows, methods, protocol.paper_group)
        lines: list[tuple[str, list[str]]] = [("", _our_cells(row, prefix)) for row in shown]
        lines += [("paper", _paper_cells(f)) for f in of_metric]
        parts += [
            f"<h3>{escape(name)}, all CTs</h3>",
            _table(("<", "<", *("" for _ in _NUMBERS), "<"), ("method", "poses", *_NUMBERS, "remark"), lines),
        ]
    if protocol.simulated and figures:
        parts.append('<p class="note">The papers simulated other CTs than these: the comparison is a rough one.</p>')
    if not figures:
        parts.append('<p class="note">No paper gives figures for this protocol in the sources that we have.</p>')
    return parts


def _rows_of(rows: Sequence[Row], methods: Sequence[str], group: str) -> list[Row]:
    """Of every method and stage; the starts, which are the same for all methods, once."""
    found = [summary(rows, method, group, stage) for method in methods for stage in STAGES]
    there = [row for row in found if row is not None]
    starts = [row for row in there if row.stage == START]
    return [*starts[:1], *(row for row in there if row.stage != START)]


def _our_cells(row: Row, prefix: str) -> list[str]:
    of_mtre = prefix == "mtre"
    interval = f"<br><small>[{_mm(row.mtre_p50_low)}, {_mm(row.mtre_p50_high)}]</small>" if of_mtre else ""
    values = [getattr(row, f"{prefix}_p{q}") for q in (25, 50, 75, 95)]
    rates = [
        _percent(row.gfr5),
        f"{_percent(row.gfr10)}<br><small>[{_percent(row.gfr10_low)}, {_percent(row.gfr10_high)}]</small>",
        _percent(row.success10),
    ]
    seconds = {START: None, PROPOSED: row.seconds_propose, REFINED: row.seconds_total}[row.stage]
    return [
        f"<b>{escape(_method_of(row))}</b>", f"{row.stage}, ours", str(row.n), _mm(values[0]), _mm(values[1]) + interval,
        _mm(values[2]), _mm(values[3]), *(rates if of_mtre else ["", "", ""]), _seconds(seconds),
        f"{row.no_pose} without a pose" if row.no_pose else "",
    ]  # fmt: skip


def _paper_cells(figure: PaperFigure) -> list[str]:
    def rate(value: float | None) -> str:
        return "" if value is None else f"{value:.1f} %"

    return [
        escape(figure.method), f"<small>{escape(figure.source)}</small>", "" if figure.n is None else str(figure.n),
        _mm(figure.p25), _mm(figure.p50), "", _mm(figure.p95), rate(figure.gfr5), rate(figure.gfr10),
        rate(figure.success10), _seconds(figure.seconds), f"<small>{escape(figure.remark)}</small>",
    ]  # fmt: skip


def _curves(protocol: Protocol, cases: Sequence[Scored], methods: Sequence[str]) -> list[str]:
    parts = []
    for metric, (name, _) in _METRICS.items():
        curves = []
        for n, method in enumerate(methods):
            chosen = [c for c in cases if c.prediction.method == method and in_group(c, protocol.paper_group)]
            for stage in (REFINED, PROPOSED):
                errors = [getattr(c.error(stage), metric) for c in chosen]
                known = [e for e in errors if e is not None]
                if known and len(known) == len(errors):
                    curves.append(Curve(f"{method}, {stage}", known, COLOURS[n % len(COLOURS)], stage == PROPOSED))
        figures = [f for f in paper_figures(protocol.name, ALL_CTS) if f.metric == metric]
        papers = [
            Quantiles(f"{figure.method}, as published", ascii_lowercase[n % 26], points, _colour_of(figure, methods))
            for n, figure in enumerate(figures)
            if (points := _published_points(figure))
        ]
        if curves and (figures or metric == protocol.headline):
            parts.append(f"<h3>{escape(name)}</h3>" + cumulative_svg(curves, papers, name))
    return parts


def _colour_of(figure: PaperFigure, methods: Sequence[str]) -> str:
    """That of our own method of the name, else grey."""
    same = [n for n, method in enumerate(methods) if method.split(" (")[0] == figure.ours]
    return COLOURS[same[0] % len(COLOURS)] if same else "#666"


def _published_points(figure: PaperFigure) -> tuple[tuple[float, float], ...]:
    points = [(mm, q) for mm, q in ((figure.p25, 25.0), (figure.p50, 50.0), (figure.p95, 95.0)) if mm is not None]
    points += [(mm, 100.0 - rate) for mm, rate in ((5.0, figure.gfr5), (10.0, figure.gfr10)) if rate is not None]
    points += [(10.0, figure.success10)] if figure.success10 is not None else []
    return tuple(points)


def _verdicts(rows: Sequence[Row], methods: Sequence[str]) -> str:
    lines = []
    for method in methods:
        row = summary(rows, method, "all", REFINED)
        if row is not None:
            right = row.n - round(row.gfr10 * row.n)
            cells = [escape(method), str(row.n), str(right), str(row.passed), str(row.wrong_but_passed),
                     str(row.right_but_rejected), str(row.no_pose)]  # fmt: skip
            lines.append(("bad" if row.wrong_but_passed else "", cells))
    names = ("method", "n", "right (10 mm)", "passed", "wrong but passed", "right but rejected", "no pose")
    return _table(("<",), names, lines)


def _groups(rows: Sequence[Row], methods: Sequence[str]) -> str:
    lines = []
    for group in GROUPS:
        for row in _rows_of(rows, methods, group):
            lines.append(("", [escape(group), escape(_method_of(row)), row.stage, *_short_cells(row)]))
    return _table(("<", "<", "<"), ("group", "method", "poses", *_SHORT), lines)


def _method_of(row: Row) -> str:
    """The method's name; a start is no method's."""
    return "the start" if row.stage == START else row.method


_SHORT = (
    "n", "median", "95 %", "surface median", "mPD median", "in plane", "depth", "degrees", "GFR@2", "GFR@5", "GFR@10",
    "wrong but passed",
)  # fmt: skip


def _short_cells(row: Row) -> list[str]:
    passed = str(row.wrong_but_passed) if row.stage == REFINED else ""
    return [
        str(row.n), _mm(row.mtre_p50), _mm(row.mtre_p95), _mm(row.surface_p50), _mm(row.mpd_p50), _mm(row.in_plane_p50),
        _mm(row.depth_p50), _mm(row.rotation_p50), _percent(row.gfr2), _percent(row.gfr5), _percent(row.gfr10), passed,
    ]  # fmt: skip


def _each_ct(protocol: Protocol, rows: Sequence[Row], methods: Sequence[str]) -> str:
    lines = []
    for ct in dict.fromkeys(r.ct for r in rows if r.ct != ALL_CTS):
        for method in methods:
            for r in rows:
                if (r.ct, r.method, r.group, r.stage) == (ct, method, protocol.paper_group, REFINED):
                    lines.append(("", [escape(ct), f"<b>{escape(method)}</b>", *_short_cells(r)]))
        for f in paper_figures(protocol.name, ct):
            rates = ["" if v is None else f"{v:.1f} %" for v in (f.gfr5, f.gfr10)]
            method = f"{escape(f.method)} <small>{escape(f.source)}</small>"
            medians = [_mm(f.p50), _mm(f.p95), "", ""] if f.metric == "mtre_landmarks_mm" else ["", "", "", _mm(f.p50)]
            lines.append(("paper", [escape(ct), method, str(f.n or ""), *medians, "", "", "", "", *rates, ""]))
    return _table(("<", "<"), ("CT", "method, refined", *_SHORT), lines)


def _axes(protocol: Protocol, cases: Sequence[Scored], methods: Sequence[str]) -> list[str]:
    parts = [
        '<p class="note">Of refined poses: the motion from the true pose to the one found, about the bone\'s centroid, in '
        "camera axes; boxes from 25 to 75 %, whiskers from 5 to 95 %, without the cases that have no pose. One view sees "
        "depth (z) far worse than the rest.</p>"
    ]
    for name, unit, axes in (
        ("along_mm", "mm", ("along x (columns)", "along y (rows)", "along z (depth)")),
        ("about_deg", "degrees", ("about x", "about y", "about z (in the image)")),
    ):
        groups = []
        for n, method in enumerate(methods):
            chosen = [c for c in cases if c.prediction.method == method and in_group(c, protocol.paper_group)]
            if chosen:
                groups.append((method, COLOURS[n % len(COLOURS)], [getattr(c.refined, name) for c in chosen]))
        if groups:
            parts.append(axes_svg(groups, axes, unit))
    return parts


def _per_degree_of_freedom(protocol: Protocol, rows: Sequence[Row], methods: Sequence[str]) -> list[str]:
    """The table of SOPI's paper, for its protocol."""
    if protocol.name != "sopi":
        return []
    lines: list[tuple[str, list[str]]] = []
    for row in _rows_of(rows, methods, protocol.paper_group):
        seconds = {START: None, PROPOSED: row.seconds_propose, REFINED: row.seconds_total}[row.stage]
        errors = [f"{_mm(mean)} ± {_mm(sd)}" for mean, sd in ((row.about_mean, row.about_sd), (row.along_mean, row.along_sd))]
        lines.append(("", [escape(_method_of(row)), row.stage, *errors, _percent(row.gfr10), _seconds(seconds), "beyond 10 mm"]))
    for paper in SOPI_TABLE:
        errors = [f"{mean:.2f} ± {sd:.2f}" for mean, sd in (paper.rotation_deg, paper.translation_mm)]
        cells = [escape(paper.method), f"<small>{escape(SOPI_SOURCE)}</small>", *errors, f"{paper.failed:.1f} %"]
        remark = "; ".join(filter(None, ["failed by a threshold that is not given", paper.remark]))
        lines.append(("paper", [*cells, _seconds(paper.seconds), f"<small>{escape(remark)}</small>"]))
    names = ("method", "poses", "degrees", "mm", "failed", "s a case", "remark")
    return [
        "<h2>Mean error of a degree of freedom</h2>",
        '<p class="note">As SOPI reports it: mean and standard deviation of the absolute errors over all cases and three axes. '
        "Infinite where a case has no pose.</p>",
        _table(("<", "<", "", "", "", "", "<"), names, lines),
    ]


def _landscapes(found: Sequence[Landscape]) -> list[str]:
    """Figures 5 and 6 of ProST's paper: along each axis, and over rough starts."""
    if not found:
        return []
    labels = list(dict.fromkeys(landscape.method for landscape in found))
    colours = {label: "#777777" if label == BASELINE else COLOURS[n % len(COLOURS)] for n, label in enumerate(labels)}
    of = {label: [landscape for landscape in found if landscape.method == label] for label in labels}
    lines, dots = [], []
    for label in labels:
        distance, value = (np.concatenate([getattr(x, name) for x in of[label]]) for name in ("distance_mm", "value"))
        pooled = Landscape(label, "", 0, np.zeros((0, 0)), distance, value).correlation
        each = float(np.median([landscape.correlation for landscape in of[label]]))
        lines.append(("", [escape(label), str(len(of[label])), f"{pooled:.2f}", f"{each:.2f}"]))
        dots.append((label, colours[label], distance, value))
    profiles = [
        profiles_svg([(label, colours[label], np.mean([x.along[axis] for x in of[label]], axis=0)) for label in labels], *named)
        for axis, named in enumerate(zip(AXES, REACH, strict=True))
    ]
    cells = [("paper", ["ProST <small>as published, real images</small>", "", "0.56", ""])]
    cells.append(("paper", ["gradient NCC <small>as published</small>", "", "0.23", ""]))
    return [
        "<h2>The similarity around the truth</h2>",
        '<p class="note">Mean over cases, each curve from its lowest to its highest value; smaller is more alike, so the lowest '
        "point should be at 0. Below: the similarity at rough starts and on their ways to the truth, over the distance that is "
        "left (a radian counts 100 mm).</p>",
        "<p>" + "".join(profiles) + "</p>",
        scatter_svg(dots, "distance from the true pose, mm", "similarity"),
        _table(("<",), ("similarity", "cases", "correlation with the distance", "median of each case's"), [*lines, *cells]),
    ]


def _failures(cases: Sequence[Scored], pictures: Sequence[FailurePicture]) -> list[str]:
    parts = []
    if pictures:
        parts.append(
            '<p class="note">Those that the verification let through first, then near misses. Outlines of the CT\'s bone: '
            '<span class="key" style="background:#26f2ff"></span>at the true pose, '
            '<span class="key" style="background:#ff4040"></span>at the pose found.</p>'
        )
    for picture in pictures:
        image = f"data:image/png;base64,{base64.b64encode(picture.png).decode()}"
        caption = escape(picture.caption)
        parts.append(f'<figure><img src="{image}" alt="{caption}"><figcaption>{caption}</figcaption></figure>')
    errors = [c.prediction for c in cases if c.prediction.status == ERROR]
    if errors:
        counts: dict[tuple[str, str], int] = {}
        for p in errors:
            counts[p.method, p.message] = counts.get((p.method, p.message), 0) + 1
        most = sorted(counts.items(), key=lambda item: -item[1])[:_MOST_ERRORS]
        lines = [("bad", [escape(method), escape(message), str(n)]) for (method, message), n in most]
        parts.append(_table(("<", "<"), ("method", "gave no pose because", "cases"), lines))
    if parts:
        return parts
    wrong = sum(not case.right for case in cases)
    return [f"<p>{wrong} of {len(cases)}; none is shown.</p>" if wrong else "<p>Nothing: every pose is within 10 mm.</p>"]


def _made(run: dict[str, Any], cases: Sequence[Scored]) -> list[str]:
    redrawn = {(c.prediction.ct, c.prediction.number): c.prediction.redrawn for c in cases}
    total = sum(redrawn.values())
    parts = [f"<p>{len(redrawn)} X-rays, {len(cases)} predictions."]
    if total:
        parts.append(f"{total} poses showed too little bone and were drawn again: the hardest views are left out.")
    parts.append("Not for clinical use.</p>")
    for name, values in (("Settings", run["asked"]), ("Machine and versions", run["record"])):
        parts.append(f"<h3>{name}</h3><pre>{escape(json.dumps(values, indent=1))}</pre>")
    return parts


def _table(alignment: Sequence[str], names: Sequence[str], lines: Sequence[tuple[str, Sequence[str]]]) -> str:
    """Cells are HTML; ``"<"`` aligns a column to the left; a line comes with its class."""

    def classed(tag: str, column: int, text: str) -> str:
        left = column < len(alignment) and alignment[column] == "<"
        return f'<{tag} class="w">{text}</{tag}>' if left else f"<{tag}>{text}</{tag}>"

    out = ["<table><tr>" + "".join(classed("th", n, escape(name)) for n, name in enumerate(names)) + "</tr>"]
    for kind, cells in lines:
        row = "".join(classed("td", n, cell) for n, cell in enumerate(cells))
        out.append(f'<tr class="{kind}">{row}</tr>' if kind else f"<tr>{row}</tr>")
    return "\n".join([*out, "</table>"])


def _mm(value: float | None) -> str:
    if value is None:
        return ""
    return "∞" if math.isinf(value) else f"{value:.2f}" if value < 100 else f"{value:.0f}"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
