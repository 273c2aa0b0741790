"""Pictures with words: orientation letters, scale, verdict. With matplotlib, and without a screen."""

from __future__ import annotations

import logging
import textwrap
from typing import Any

import numpy as np
from numpy.typing import NDArray

from XRayRegistrationLib.errors import MissingDependencyError
from XRayRegistrationLib.pictures.orientation import beam_words, edge_letters, scale_bar
from XRayRegistrationLib.pictures.raster import blended, checkerboard, dimmed, outlined, png_bytes, tinted
from XRayRegistrationLib.pictures.scene import ScenePicture
from XRayRegistrationLib.pictures.verdict import Verdict
from XRayRegistrationLib.pictures.view import PictureView

_BACKGROUND, _TEXT, _FAINT = "#101216", "#e8eaed", "#9aa0a6"
_LANDMARK = "#ffe14d"
_DPI = 100
_MOST_NAMES = 24  # with more landmarks their names would hide the bone
LEGEND = "Letters at the edges: patient's R right, L left, A front, P back, S head, I feet"
NOT_CLINICAL = "Not for clinical use"


def overlay_figure(view: PictureView, verdict: Verdict) -> bytes:
    """PNG: the X-ray, the bone outlines of the CT on it, and the whole CT in colour on it."""
    if view.bone_only:
        laid_over = ("X-ray with the CT's bone in blue", tinted(view.xray, view.drr))
    else:
        laid_over = ("X-ray (orange) + CT (blue): grey where they agree", blended(view.xray, view.drr))
    panels = [
        ("X-ray", dimmed(view.xray, view.mask)),
        ("X-ray with the CT's bone outlines", outlined(view.xray, view.edges, view.mask)),
        (laid_over[0], dimmed(laid_over[1], view.mask)),
    ]
    return _figure(view, panels, verdict, panel_px=470, landmarks_on=(0, 1))


def edges_figure(view: PictureView, verdict: Verdict) -> bytes:
    """PNG: the bone outlines of the CT on the X-ray, large."""
    panels = [("The CT's bone outlines, seen from the pose that was found, on the X-ray",
               outlined(view.xray, view.edges, view.mask))]  # fmt: skip
    return _figure(view, panels, verdict, panel_px=760, landmarks_on=(0,))


def checkerboard_figure(view: PictureView, verdict: Verdict) -> bytes:
    """PNG: squares of X-ray and CT in turn; bones must run on across the borders."""
    picture, _ = checkerboard(view.xray, view.drr)
    panels = [
        (
            "Squares of the X-ray (grey) and of the CT (bluish): bones must run on across the borders",
            dimmed(picture, view.mask),
        )
    ]
    return _figure(view, panels, verdict, panel_px=760)


def scene_figure(scene: ScenePicture, view: PictureView, verdict: Verdict) -> bytes:
    """PNG: bone, X-ray source and detector in space."""
    height, width = scene.rgb.shape[:2]
    figure = _canvas(width, height, verdict)
    axes = _panel(figure, (0, _FOOT / figure.px_height, 1, height / figure.px_height), scene.rgb)
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(height - 0.5, -0.5)
    label = {"ha": "center", "va": "center", "fontsize": 12, "color": _TEXT}
    x, y = scene.anchors["source"]
    axes.text(x, y + 34, "X-ray source", **label)
    x, y = scene.anchors["detector top"]
    axes.text(x, max(y - 20, 14), "X-ray on its detector", **label)
    _triad(axes, scene, 84.0, height - 84.0)
    beam = beam_words(view.camera_from_ct)
    words = f"Where the X-ray was taken from: the beam ran from the patient's {beam}"
    if not verdict.ok:
        words = f"The pose that was found and must not be used: its beam runs from the patient's {beam}"
    axes.text(14, 20, words, ha="left", va="center", fontsize=12, color=_TEXT)
    _foot(figure, LEGEND.replace("Letters at the edges", "Letters at the small axes"))
    return _png(figure)


_HEAD_LINE, _FOOT, _PANEL_TITLE, _GAP = 24, 30, 30, 10


def _figure(
    view: PictureView,
    panels: list[tuple[str, NDArray[np.float32]]],
    verdict: Verdict,
    panel_px: int,
    landmarks_on: tuple[int, ...] = (),
) -> bytes:
    rows, columns = panels[0][1].shape[:2]
    scale = panel_px / max(rows, columns)
    width, height = round(columns * scale), round(rows * scale)
    total = len(panels) * width + (len(panels) + 1) * _GAP
    figure = _canvas(total, height + _PANEL_TITLE + _GAP, verdict)
    for n, (title, picture) in enumerate(panels):
        left = _GAP + n * (width + _GAP)
        box = (left / total, (_FOOT + _GAP) / figure.px_height, width / total, height / figure.px_height)
        axes = _panel(figure, box, picture)
        axes.set_title(_wrapped(title, width, 10.5), fontsize=10.5, color=_TEXT, pad=6)
        _letters(axes, view)
        if n == 0:
            _scale(axes, view)
        if n in landmarks_on:
            _landmarks(axes, view)
        axes.set_xlim(-0.5, columns - 0.5)
        axes.set_ylim(rows - 0.5, -0.5)
    _foot(figure, LEGEND if total > 600 else "")
    return _png(figure)


def _canvas(width: int, body_height: int, verdict: Verdict) -> Any:
    """A figure of ``width`` pixels with the verdict on top and room for a footer; its body is free."""
    figure_type = _matplotlib()
    width = max(width, 420)
    lines = [verdict.headline, *verdict.sentences]
    wrapped = [_wrapped(line, width - 24, 14 if n == 0 else 10.5) for n, line in enumerate(lines)]
    counts = [text.count("\n") + 1 for text in wrapped]
    head = 14 + _HEAD_LINE * counts[0] + 18 * sum(counts[1:])
    total = head + body_height + _FOOT
    figure = figure_type(figsize=(width / _DPI, total / _DPI), dpi=_DPI, facecolor=_BACKGROUND)
    figure.px_height, figure.px_width = total, width
    y = total - 8
    for n, (text, count) in enumerate(zip(wrapped, counts, strict=True)):
        style = (
            {"fontsize": 14, "weight": "bold", "color": verdict.colour}
            if n == 0
            else {"fontsize": 10.5, "color": _TEXT}
        )
        figure.text(12 / width, y / total, text, ha="left", va="top", **style)
        y -= (_HEAD_LINE if n == 0 else 18) * count
    return figure


def _matplotlib() -> Any:
    try:
        # its font manager announces, on the first run of all, that it builds a cache
        logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError("matplotlib", "drawing pictures with captions", "pictures") from error

    def make(**options: Any) -> Any:
        figure = Figure(**options)
        FigureCanvasAgg(figure)
        return figure

    return make


def _panel(figure: Any, box: tuple[float, float, float, float], picture: NDArray[np.float32]) -> Any:
    axes = figure.add_axes(box)
    axes.imshow(np.clip(picture, 0, 1), interpolation="lanczos", aspect="auto")
    axes.set_axis_off()
    return axes


def _letters(axes: Any, view: PictureView) -> None:
    letters = edge_letters(view.camera_from_ct)
    places = {"left": (0.025, 0.5), "right": (0.975, 0.5), "top": (0.5, 0.965), "bottom": (0.5, 0.035)}
    for edge, (x, y) in places.items():
        text = axes.text(
            x, y, letters[edge], transform=axes.transAxes, fontsize=13, weight="bold", color=_LANDMARK,
            ha={"left": "left", "right": "right"}.get(edge, "center"), va="center",
        )  # fmt: skip
        _rim(text)


def _triad(axes: Any, scene: ScenePicture, x: float, y: float, length: float = 46.0) -> None:
    """The patient's three axes as the viewer sees them, with letters at both ends."""
    for axis, (plus, minus) in enumerate((("R", "L"), ("A", "P"), ("S", "I"))):
        dx, dy, away = scene.viewer_from_ct[:, axis]
        axes.plot([x - length * dx, x + length * dx], [y - length * dy, y + length * dy], color=_FAINT, linewidth=1.5)
        for sign, name in ((1, plus), (-1, minus)):
            if np.hypot(dx, dy) < 0.25 and sign * away > 0:
                continue  # the far end of an axis along the view lies behind the near one
            at = (
                x + sign * (length * dx + 13 * dx / np.hypot(dx, dy)),
                y + sign * (length * dy + 13 * dy / np.hypot(dx, dy)),
            )
            axes.text(*at, name, ha="center", va="center", fontsize=12, weight="bold", color=_LANDMARK)


def _scale(axes: Any, view: PictureView) -> None:
    bar = scale_bar(view.camera, view.camera_from_ct, view.centre_ct)
    if bar is None:
        return
    length_mm, length_px = bar
    x, y = 0.03 * view.camera.width, 0.95 * view.camera.height
    axes.plot([x, x + length_px], [y, y], color="black", linewidth=5, solid_capstyle="butt")
    axes.plot([x, x + length_px], [y, y], color="white", linewidth=3, solid_capstyle="butt")
    text = axes.text(
        x, y - 0.022 * view.camera.height, f"{length_mm:g} mm at the bone", fontsize=9.5, color="white", va="bottom"
    )
    _rim(text)


def _landmarks(axes: Any, view: PictureView) -> None:
    seen = view.camera.in_view(view.landmarks_px)
    if not seen.any():
        return
    points = view.landmarks_px[seen]
    axes.plot(points[:, 0], points[:, 1], "+", color="black", markersize=12, markeredgewidth=3)
    axes.plot(points[:, 0], points[:, 1], "+", color=_LANDMARK, markersize=11, markeredgewidth=1.5)
    names = [name for name, inside in zip(view.landmark_names, seen, strict=True) if inside]
    if len(names) <= _MOST_NAMES:
        for (x, y), name in zip(points, names, strict=True):
            right = x > 0.8 * view.camera.width  # keep the name inside the picture
            text = axes.annotate(
                name, (x, y), xytext=(-6 if right else 6, 4), textcoords="offset points", fontsize=9,
                color=_LANDMARK, ha="right" if right else "left",
            )  # fmt: skip
            _rim(text)


def _rim(text: Any) -> None:
    from matplotlib import patheffects

    text.set_path_effects([patheffects.withStroke(linewidth=2.5, foreground="black")])


def _foot(figure: Any, legend: str) -> None:
    y = 0.5 * _FOOT / figure.px_height
    figure.text(12 / figure.px_width, y, legend, ha="left", va="center", fontsize=9, color=_FAINT)
    figure.text(1 - 12 / figure.px_width, y, NOT_CLINICAL, ha="right", va="center", fontsize=9, color=_FAINT)


def _wrapped(text: str, width_px: float, fontsize: float) -> str:
    return "\n".join(textwrap.wrap(text, max(20, int(width_px / (0.80 * fontsize)))))


def _png(figure: Any) -> bytes:
    """The figure as a PNG of 6 bits a colour: no eye sees it, and a noisy X-ray packs to half the size."""
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3]
    return png_bytes(np.round(pixels / 4.0) * 4.0 / 255.0)
