"""Draws Resources/pictures/conventions.png with the library's own functions, so that it shows what the code does.

python docs/draw_conventions.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Arc, Ellipse, Polygon, Rectangle
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial import ConvexHull

from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.carm import NAMED_VIEWS, camera_from_ct_from_angles, named_view
from XRayRegistrationLib.geometry.rigid import inverse, rotation_exp, transform_points

Array = NDArray[np.float64]
OUT = Path(__file__).resolve().parent.parent / "Resources" / "pictures" / "conventions.png"

X, Y, Z = "#c62828", "#2e7d32", "#1565c0"  # first, second and third axis, everywhere
SKIN, OUTLINE, HEART, STEEL, BEAM, INK = "#ead9c8", "#a58d78", "#d98880", "#7f8c99", "#f2b01e", "#20262e"
SDD_MM, SOURCE_OBJECT_MM = 1000.0, 600.0
ISOCENTRE = np.array([0.0, 0.0, 0.0])

# ellipsoids: centre and half axes in mm along R, A, S, about the isocentre; the heart is on the left
BODY = {
    "legs": [((95, 0, -520), (75, 75, 330)), ((-95, 0, -520), (75, 75, 330))],
    "arms": [((235, -10, -40), (45, 45, 260)), ((-235, -10, -40), (45, 45, 260))],
    "trunk": [((0, 0, 0), (185, 110, 300))],
    "head": [((0, 5, 385), (75, 92, 110)), ((0, 100, 375), (12, 22, 18))],
}
HEART_AT = ((-45, 45, 70), (55, 40, 60))


def ball(centre: tuple[float, ...], half: tuple[float, ...]) -> Array:
    """Points (n, 3) on an ellipsoid."""
    a, b = np.meshgrid(np.linspace(0, 2 * np.pi, 40), np.linspace(0, np.pi, 20))
    unit = np.stack([np.cos(a) * np.sin(b), np.sin(a) * np.sin(b), np.cos(b)], axis=-1).reshape(-1, 3)
    return np.asarray(centre) + unit * np.asarray(half)


def hull(points: Array) -> Array:
    return points[ConvexHull(points).vertices]


def draw_patient(axes: Axes, project, parts=("legs", "arms", "trunk", "head")) -> None:
    """Outlines of the patient through ``project``: (n, 3) ct mm -> (n, 2)."""
    for part in parts:
        for centre, half in BODY[part]:
            axes.add_patch(Polygon(hull(project(ball(centre, half))), fc=SKIN, ec=OUTLINE, lw=0.8))
    axes.add_patch(Polygon(hull(project(ball(*HEART_AT))), fc=HEART, ec=HEART, lw=0.8))


def arrow(
    axes: Axes, start, end, colour: str, label: str = "", shift=(0, 0), size: float = 11, lw: float = 2.2
) -> None:
    start, end = np.asarray(start, dtype=float), np.asarray(end, dtype=float)
    axes.annotate(
        "", end, start, arrowprops={"arrowstyle": "-|>", "color": colour, "lw": lw, "shrinkA": 0, "shrinkB": 0}
    )
    if label:
        axes.text(*(end + shift), label, color=colour, fontsize=size, weight="bold", ha="center", va="center")


def note(axes: Axes, place: Array, shift: tuple[float, float], text: str, **style) -> None:
    axes.text(*(place + np.asarray(shift)), text, **{"fontsize": 10.5, "color": INK, **style})


def blank(axes: Axes, title: str) -> None:
    axes.set_aspect("equal")
    axes.axis("off")
    axes.set_title(title, fontsize=12.5, weight="bold", color=INK, loc="left", pad=8)


def draw_scene(axes: Axes) -> None:
    """The room, from the patient's left: beam from behind (primary 0, secondary 0)."""
    blank(axes, "Frames: patient (ct), camera, pixels — here at angles (0, 0), a PA beam")
    # page axes: mostly head to the right and front up, seen a little from the feet and from above
    turn = rotation_exp([0.42, 0, 0]) @ rotation_exp([0, -0.5, 0])
    page = np.array([[0, 0, 1.0], [0, 1.0, 0], [-1.0, 0, 0]])

    def project(points: Array) -> Array:
        return (np.asarray(points, dtype=float) @ (turn @ page).T)[..., :2]

    camera = Camera.from_spacing(9, 9, 36.0, SDD_MM)
    pose = named_view("pa", ISOCENTRE, SOURCE_OBJECT_MM)
    ct_from_camera = inverse(pose)

    def at(x: float, y: float, z: float) -> Array:
        return project(transform_points(ct_from_camera, [x, y, z]))

    angle = np.linspace(-np.pi / 2, np.pi / 2, 60)
    ring = np.stack([560 * np.cos(angle), 500 * np.sin(angle) - 100, np.zeros(60)], axis=1)
    axes.plot(*project(ring).T, color=STEEL, lw=11, alpha=0.55, solid_capstyle="round", zorder=0)
    half = 4.5 * 36.0
    corners = [(-half, -half), (half, -half), (half, half), (-half, half)]
    axes.add_patch(Polygon([at(x, y, SDD_MM) for x, y in corners], fc="#dfe5ea", ec=STEEL, lw=1.6, zorder=1))
    for q in np.arange(-half, half + 1, 36.0):
        axes.plot(*np.array([at(q, -half, SDD_MM), at(q, half, SDD_MM)]).T, color=STEEL, lw=0.4, zorder=1)
        axes.plot(*np.array([at(-half, q, SDD_MM), at(half, q, SDD_MM)]).T, color=STEEL, lw=0.4, zorder=1)
    for x, y in corners:
        axes.plot(*np.array([at(0, 0, 0), at(x, y, SDD_MM)]).T, color=BEAM, lw=0.9, ls=(0, (5, 3)), zorder=1)
    draw_patient(axes, project)

    point = np.array(HEART_AT[0], dtype=float)
    pixel = camera.project(transform_points(pose, point))
    on_detector = at(*(SDD_MM * np.array([*(pixel - 4) * 36.0 / SDD_MM, 1.0])))
    axes.plot(*np.array([at(0, 0, 0), on_detector]).T, color=BEAM, lw=2.2, zorder=4)
    axes.plot(*project(point), "o", color=INK, ms=6, zorder=5)
    axes.plot(*on_detector, "s", color=INK, ms=6, zorder=5)
    line = {"arrowstyle": "-", "color": INK, "lw": 0.8}
    aside = on_detector + np.array([-300, 60])
    axes.annotate("pixel (u, v)", on_detector, aside, fontsize=10.5, color=INK, va="center", arrowprops=line)
    note(axes, project(point), (20, -8), "point X", zorder=6)

    origin = np.array([-420.0, -60.0, -560.0])
    for axis, colour, label in (((170, 0, 0), X, "R (+x)"), ((0, 170, 0), Y, "A (+y)"), ((0, 0, 170), Z, "S (+z)")):
        shift = {"R (+x)": (46, 12), "A (+y)": (0, 22), "S (+z)": (50, -8)}[label]
        arrow(axes, project(origin), project(origin + axis), colour, label, shift)
    note(axes, project(origin), (-16, -18), "ct frame\nRAS, mm", ha="right", va="center")
    for axis, colour, label in (((200, 0, 0), X, "x"), ((0, 200, 0), Y, "y"), ((0, 0, 200), Z, "z")):
        shift = {"x": (-4, 24), "y": (-24, 0), "z": (22, 4)}[label]
        arrow(axes, at(0, 0, 0), at(*axis), colour, label, shift)
    axes.plot(*at(0, 0, 0), "o", color=BEAM, mec=INK, ms=11, zorder=6)
    note(axes, at(0, 0, 0), (26, -34), "source = origin of the camera frame")
    first = at(-half, -half, SDD_MM)
    arrow(axes, first, at(half * 0.5, -half, SDD_MM), X, "u", (22, 10))
    arrow(axes, first, at(-half, half * 0.5, SDD_MM), Y, "v", (-22, 4))
    note(axes, first, (22, -16), "pixel (0, 0)", va="center", zorder=6)
    axes.text(
        -0.06, -0.02,
        "camera_from_ct takes X from ct to camera\npixel = K camera_from_ct X\nct_from_camera is its inverse",
        transform=axes.transAxes, fontsize=10.5, family="monospace", color=INK, va="bottom",
    )  # fmt: skip
    axes.set_xlim(-860, 700)
    axes.set_ylim(-610, 480)


def draw_dial(axes: Axes, title: str, plane: str) -> None:
    """Where the detector stands: the primary angle seen from the feet, the secondary from the left."""
    blank(axes, title)
    transverse = plane == "transverse"
    # page right, page up in ct axes
    page = np.array([[-1.0, 0, 0], [0, 1, 0]]) if transverse else np.array([[0, 0, 1.0], [0, 1, 0]])

    def project(points: Array) -> Array:
        return np.asarray(points, dtype=float) @ page.T

    if transverse:
        draw_patient(axes, project, ("arms", "trunk", "head"))
    else:
        for part in ("legs", "trunk", "head"):
            for centre, half in BODY[part]:
                c, h = project(np.array(centre)) * 0.5, np.abs(page) @ np.array(half) * 0.5
                axes.add_patch(Ellipse(c, *(2 * h), fc=SKIN, ec=OUTLINE, lw=0.8))
    radius = 420.0
    axes.add_patch(
        Arc((0, 0), 2 * radius, 2 * radius, theta1=0, theta2=360 if transverse else 180, color=STEEL, lw=1.2)
    )
    places = (
        [(0, 0, "0°: PA"), (90, 0, "+90°\nlat-left"), (-90, 0, "−90°\nlat-right"), (180, 0, "180°: AP")]
        if transverse
        else [(0, 0, "0°"), (0, 90, "+90°\nhead"), (0, -90, "−90°\nfeet")]
    )
    for primary, secondary, label in places:
        d = project(beam(primary, secondary))
        axes.plot(*(radius * d), "s", color=STEEL, ms=8)
        away = 1.14 if abs(d[1]) > 0.5 else 1.3
        axes.text(*(radius * away * d), label, ha="center", va="center", fontsize=10.5, color=INK)
    primary, secondary = (30, 0) if transverse else (0, 30)
    d = project(beam(primary, secondary))
    side = np.array([-d[1], d[0]])
    axes.plot(*np.array([-radius * d, radius * d]).T, color=BEAM, lw=2.2)
    axes.plot(*(-radius * d), "o", color=BEAM, mec=INK, ms=11)
    axes.plot(*np.array([radius * d - 90 * side, radius * d + 90 * side]).T, color=INK, lw=5)
    axes.text(
        *(radius * 1.07 * d + [22, 26]),
        "LAO 30°" if transverse else "cranial 30°",
        fontsize=10.5,
        ha="left",
        weight="bold",
    )
    axes.text(*(-radius * 1.1 * d - [0, 30]), "source", fontsize=10.5, ha="center", va="top")
    ends = [("R", (-330, 0)), ("L", (330, 0)), ("A", (0, 165)), ("P", (0, -165))] if transverse else []
    for letter, place in ends:
        axes.text(*place, letter, color=Z, fontsize=11, weight="bold", ha="center", va="center")
    axes.text(
        0, -545, "seen from the feet" if transverse else "seen from the left", fontsize=10.5, color=INK, ha="center"
    )
    axes.set_xlim(-640, 640)
    axes.set_ylim(-570, 570)


def beam(primary: float, secondary: float) -> Array:
    """Unit vector from source to detector in ct axes, as the library has it."""
    pose = camera_from_ct_from_angles(primary, secondary, centre_ct=ISOCENTRE, source_object_distance_mm=1.0)
    return pose[2, :3]


def draw_view(axes: Axes, name: str) -> None:
    """The picture of a named view, and which sides of the patient it has left and right."""
    pose = named_view(name, ISOCENTRE, SOURCE_OBJECT_MM)
    camera = Camera.from_spacing(1001, 1001, 1.4, SDD_MM)

    def project(points: Array) -> Array:
        return camera.project(transform_points(pose, points))

    axes.add_patch(Rectangle((-100, -200), 1200, 1200, fc="#f4f6f8", ec=STEEL, lw=1.0))
    for part in ("trunk", "head"):
        for centre, half in BODY[part]:
            patch = Polygon(hull(project(ball(centre, half))), fc=SKIN, ec=OUTLINE, lw=0.8)
            axes.add_patch(patch)
    axes.add_patch(Polygon(hull(project(ball(*HEART_AT))), fc=HEART, ec=HEART))
    sides = {"R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0)}
    for letter, direction in sides.items():
        u = (pose[:3, :3] @ np.array(direction))[0]
        if abs(u) > 0.9:
            axes.text(500 + 470 * u, 480, letter, color=Z, fontsize=12, weight="bold", ha="center", va="center")
    axes.set_aspect("equal")
    axes.axis("off")
    axes.set_xlim(-110, 1110)
    axes.set_ylim(1010, -210)
    source = {"ap": "source in front", "pa": "source behind", "lat-left": "source at the right",
              "lat-right": "source at the left"}[name]  # fmt: skip
    axes.set_title(f"{name}\n{source}", fontsize=10.5, color=INK)


def draw_pixels(axes: Axes) -> None:
    """Integer = pixel centre, and what a resize does to it."""
    blank(axes, "Pixels: integer = centre")
    for u in range(4):
        for v in range(3):
            axes.add_patch(Rectangle((u - 0.5, v - 0.5), 1, 1, fc="#f4f6f8", ec=STEEL, lw=1.0))
            axes.plot(u, v, ".", color=INK, ms=5)
            axes.text(u, v + 0.24, f"({u}, {v})", fontsize=9.5, color=INK, ha="center", va="center")
    axes.plot(1.5, 1.0, "+", color=BEAM, ms=15, mew=3)
    axes.text(1.5, 0.70, "(cx, cy)", fontsize=9.5, color=INK, ha="center", weight="bold")
    axes.plot(-0.5, -0.5, "o", color=INK, ms=5)
    axes.text(-0.62, -0.68, "(−0.5, −0.5)", fontsize=9.5, color=INK, ha="center", va="bottom")
    arrow(axes, (0.6, -0.72), (3.4, -0.72), X, "u = column", (-1.2, -0.24), 10.5)
    arrow(axes, (-0.75, 0.1), (-0.75, 2.4), Y, "v", (-0.22, -0.1), 10.5)
    axes.text(
        -0.9, 2.75, "crop:    u' = u − left\nresize:  u' = (u + 0.5) s − 0.5\ncentre:  cx = (W − 1) / 2",
        fontsize=10.5, family="monospace", color=INK, va="top",
    )  # fmt: skip
    axes.set_xlim(-1.3, 3.7)
    axes.set_ylim(4.1, -1.25)


def main() -> None:
    plt.rcParams["font.family"] = "DejaVu Sans"
    figure = plt.figure(figsize=(15, 10), dpi=100, facecolor="white")
    draw_scene(figure.add_axes((0.01, 0.40, 0.62, 0.56)))
    draw_dial(figure.add_axes((0.65, 0.46, 0.34, 0.49)), "Primary angle: where the detector is", "transverse")
    draw_dial(figure.add_axes((0.01, 0.01, 0.24, 0.36)), "Secondary angle", "sagittal")
    figure.text(0.265, 0.368, "Named views, as the source sees them", fontsize=12.5, weight="bold", color=INK)
    for n, name in enumerate(NAMED_VIEWS):
        draw_view(figure.add_axes((0.262 + 0.112 * n, 0.06, 0.105, 0.24)), name)
    draw_pixels(figure.add_axes((0.73, 0.02, 0.26, 0.37)))
    OUT.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(OUT)
    # a palette of 256 colours, without dithering: half the size
    Image.open(OUT).convert("RGB").quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(
        OUT, optimize=True
    )
    print(f"{OUT} ({OUT.stat().st_size / 1000:.0f} kB)")


if __name__ == "__main__":
    main()
