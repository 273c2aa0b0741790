"""Plots as inline SVG: text that needs no package, no network and no screen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import ArrayLike, NDArray

from XRayRegistrationLib.evaluation.metrics import percentile

Array = NDArray[np.float64]

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")  # told apart by colour-blind people
_WIDTH, _HEIGHT = 640, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 14, 46
_LEGEND_LINE = 19
_MOST_MM = 200.0  # of an error that is shown


@dataclass(frozen=True)
class Curve:
    """One line of :func:`cumulative_svg`.

    Attributes:
        label: for the legend.
        errors_mm: (n,), infinite where there is no pose.
        colour: one of :data:`COLOURS`; dashed: for poses before refinement.
    """

    label: str
    errors_mm: Sequence[float] | Array
    colour: str
    dashed: bool = False


@dataclass(frozen=True)
class Quantiles:
    """Points that a paper gives of its curve, each a circle with a letter.

    Attributes:
        label: for the legend; letter: in the circle.
        points: (error mm, percent of cases).
        colour: of the circle.
    """

    label: str
    letter: str
    points: tuple[tuple[float, float], ...]
    colour: str


def cumulative_svg(curves: Sequence[Curve], papers: Sequence[Quantiles] = (), what: str = "mTRE") -> str:
    """Percent of all cases (missing poses among them) whose error is at most x mm; x is logarithmic, 0.1 to 200.

    What is beyond 200 mm is not shown.
    """
    low, high = -1.0, np.log10(_MOST_MM)

    def x(error: float) -> float:
        place = (np.log10(min(max(error, 10.0**low), 10.0**high)) - low) / (high - low)
        return float(_LEFT + place * (_WIDTH - _LEFT - _RIGHT))

    def y(percent: float) -> float:
        return float(_TOP + (1.0 - percent / 100.0) * (_HEIGHT - _TOP - _BOTTOM))

    parts = []
    for tick in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200):
        strong = "#888" if tick == 10 else "#e3e3e3"
        parts.append(_line(x(tick), y(0), x(tick), y(100), strong))
        parts.append(_text(x(tick), y(0) + 16, f"{tick:g}"))
    for tick in (0, 25, 50, 75, 95, 100):
        parts.append(_line(_LEFT, y(tick), _WIDTH - _RIGHT, y(tick), "#e3e3e3"))
        parts.append(_text(_LEFT - 6, y(tick) + 4, f"{tick}", "end"))
    parts.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 10, f"{what}, mm (10 mm: a gross failure)"))
    parts.append(_text(14, (_TOP + _HEIGHT - _BOTTOM) / 2, "% of all cases", "middle", turned=True))
    for curve in curves:
        errors = np.sort(np.asarray(curve.errors_mm, dtype=np.float64))
        n = len(errors)
        steps = [f"M{x(0):.1f},{y(0):.1f}"]
        for k, error in enumerate(errors[errors <= _MOST_MM]):
            steps.append(f"H{x(error):.1f}V{y(100 * (k + 1) / n):.1f}")
        steps.append(f"H{x(np.inf):.1f}")
        dash = ' stroke-dasharray="5 4"' if curve.dashed else ""
        parts.append(f'<path d="{"".join(steps)}" fill="none" stroke="{curve.colour}" stroke-width="2"{dash}/>')
    for paper in papers:
        for error, percent in paper.points:
            if error <= _MOST_MM:
                parts.append(_circle(x(error), y(percent), paper.colour, paper.letter))
    legend = [(c.label, c.colour, c.dashed, "") for c in curves] + [(p.label, p.colour, False, p.letter) for p in papers]
    return _svg(parts, _WIDTH, _HEIGHT, legend, f"Cumulative {what}")


def axes_svg(groups: Sequence[tuple[str, str, ArrayLike]], names: Sequence[str], unit: str) -> str:
    """Boxes of signed errors: 25 to 75 % with the median, whiskers from 5 to 95 %.

    Args:
        groups: (label, colour, errors (n, len(names))), rows that are not finite left out.
        names: of the axes, below the boxes.
        unit: of the errors.
    """
    finite = [(label, colour, _finite(errors)) for label, colour, errors in groups]
    everything = np.concatenate([np.abs(values).ravel() for _, _, values in finite] or [np.zeros(0)])
    limit = _round_up(1.1 * float(percentile(everything, 95))) if len(everything) else 1.0
    height, middle = 260, (_TOP + 260 - _BOTTOM) / 2

    def y(error: float) -> float:
        return float(middle - np.clip(error / limit, -1.0, 1.0) * (middle - _TOP))

    slot = (_WIDTH - _LEFT - _RIGHT) / max(len(names), 1)
    wide = min(26.0, 0.7 * slot / max(len(finite), 1))
    parts = []
    for tick in (-limit, -limit / 2, 0.0, limit / 2, limit):
        parts.append(_line(_LEFT, y(tick), _WIDTH - _RIGHT, y(tick), "#888" if tick == 0 else "#e3e3e3"))
        parts.append(_text(_LEFT - 6, y(tick) + 4, f"{tick:.3g}", "end"))
    parts.append(_text(14, middle, unit, "middle", turned=True))
    for a, name in enumerate(names):
        centre = _LEFT + (a + 0.5) * slot
        parts.append(_text(centre, height - _BOTTOM + 18, name))
        for g, (_, colour, values) in enumerate(finite):
            if len(values) == 0:
                continue
            at = centre + (g - (len(finite) - 1) / 2) * (wide + 4)
            p5, p25, p50, p75, p95 = (float(percentile(values[:, a], q)) for q in (5, 25, 50, 75, 95))
            top, box = y(p75), max(y(p25) - y(p75), 1.0)
            parts.append(_line(at, y(p5), at, y(p95), colour))
            parts.append(
                f'<rect x="{at - wide / 2:.1f}" y="{top:.1f}" width="{wide:.1f}" height="{box:.1f}" '
                f'fill="white" stroke="{colour}" stroke-width="2"/>'
            )
            parts.append(_line(at - wide / 2, y(p50), at + wide / 2, y(p50), colour, 2.5))
    return _svg(parts, _WIDTH, height, [(label, colour, False, "") for label, colour, _ in finite], f"Errors, {unit}")


def profiles_svg(groups: Sequence[tuple[str, str, ArrayLike]], name: str, reach: float) -> str:
    """Curves of values over offsets from -reach to reach, each drawn from its lowest to its highest value.

    Args:
        groups: (label, colour, values (n,)).
        name: of the offset, with its unit.
    """
    width, height = 300, 190

    def x(offset: float) -> float:
        return _LEFT + (offset / reach + 1.0) / 2.0 * (width - _LEFT - _RIGHT)

    parts = [_line(x(0.0), _TOP, x(0.0), height - _BOTTOM, "#888")]
    for tick in (-reach, -reach / 2, 0.0, reach / 2, reach):
        parts.append(_text(x(tick), height - _BOTTOM + 16, f"{tick:g}"))
    parts.append(_text((_LEFT + width - _RIGHT) / 2, height - 10, name))
    for _, colour, given in groups:
        values = np.asarray(given, dtype=np.float64)
        scaled = (values - values.min()) / max(float(np.ptp(values)), 1e-12)
        points = zip(np.linspace(-reach, reach, len(values)), scaled, strict=True)
        path = " ".join(f"{x(o):.1f},{_TOP + (1.0 - v) * (height - _TOP - _BOTTOM):.1f}" for o, v in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
    return _svg(parts, width, height, [], name)


def scatter_svg(groups: Sequence[tuple[str, str, ArrayLike, ArrayLike]], x_name: str, y_name: str) -> str:
    """Dots, each group's y drawn from its lowest to its highest value.

    Args:
        groups: (label, colour, x (n,), y (n,)).
    """
    most = 4.0 * _round_up(max([float(np.max(x)) for _, _, x, _ in groups] or [4.0]) / 4.0)
    parts = [_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 10, x_name)]
    parts.append(_text(14, (_TOP + _HEIGHT - _BOTTOM) / 2, y_name, "middle", turned=True))
    for tick in np.linspace(0.0, most, 5):
        at = _LEFT + tick / most * (_WIDTH - _LEFT - _RIGHT)
        parts += [_line(at, _TOP, at, _HEIGHT - _BOTTOM, "#e3e3e3"), _text(at, _HEIGHT - _BOTTOM + 16, f"{tick:g}")]
    for _, colour, x, y in groups:
        values = np.asarray(y, dtype=np.float64)
        scaled = (values - values.min()) / max(float(np.ptp(values)), 1e-12)
        for a, b in zip(np.asarray(x, dtype=np.float64), scaled, strict=True):
            left = _LEFT + a / most * (_WIDTH - _LEFT - _RIGHT)
            top = _TOP + (1.0 - b) * (_HEIGHT - _TOP - _BOTTOM)
            parts.append(f'<circle cx="{left:.1f}" cy="{top:.1f}" r="2.2" fill="{colour}" fill-opacity="0.55"/>')
    legend = [(label, colour, False, "") for label, colour, _, _ in groups]
    return _svg(parts, _WIDTH, _HEIGHT, legend, f"{y_name} over {x_name}")


def _finite(errors: ArrayLike) -> Array:
    values = np.asarray(errors, dtype=np.float64)
    kept: Array = values[np.isfinite(values).all(axis=1)]
    return kept


def _round_up(value: float) -> float:
    """The next of 1, 2, 5, 10, ..."""
    if value <= 0:
        return 1.0
    power = 10.0 ** np.floor(np.log10(value))
    return float(next(m * power for m in (1, 2, 5, 10) if value <= m * power * (1 + 1e-9)))


def _svg(
    parts: Sequence[str], width: int, height: int, legend: Sequence[tuple[str, str, bool, str]], title: str
) -> str:
    """The plot with its legend below: (label, colour, dashed, letter in a circle instead)."""
    keys = []
    for n, (label, colour, dashed, letter) in enumerate(legend):
        y = height + 12 + n * _LEGEND_LINE
        if letter:
            keys.append(_circle(_LEFT + 14, y, colour, letter))
        else:
            keys.append(_line(_LEFT, y, _LEFT + 28, y, colour, 2.5, dashed))
        keys.append(_text(_LEFT + 36, y + 4, label, "start"))
    total = height + 8 + len(legend) * _LEGEND_LINE
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{escape(title)}" viewBox="0 0 {width} {total}" '
        f'width="{width}" height="{total}" font-family="sans-serif" font-size="12">' + "".join([*parts, *keys]) + "</svg>"
    )


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, wide: float = 1.0, dashed: bool = False) -> str:
    dash = ' stroke-dasharray="5 4"' if dashed else ""
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="{wide:g}"{dash}/>'
    )


def _circle(x: float, y: float, colour: str, letter: str) -> str:
    circle = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="7" fill="white" stroke="{colour}" stroke-width="2"/>'
    return circle + _text(x, y + 3.5, letter)


def _text(x: float, y: float, text: str, anchor: str = "middle", turned: bool = False) -> str:
    turn = f' transform="rotate(-90 {x:.1f} {y:.1f})"' if turned else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="#333"{turn}>{escape(text)}</text>'
