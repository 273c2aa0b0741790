"""Draw the extension's icon, 128 pixels: an X-ray source, its beam, and a bone on the detector.

    python Resources/Icons/draw_icon.py

Slicer shows the icon at 128, 32 and 24 pixels: few shapes, each thick, so that the smallest still reads.
It is drawn large and averaged down, which gives every edge the same smoothness.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageChops, ImageDraw, ImageFilter

SIZE = 128
_OVER = 8  # drawn this many times larger

_BEAM = (255, 196, 46)
_TUBE = (242, 140, 24)
_HOUSING = (92, 122, 150)
_FILM = (24, 46, 76)
_LIT = (64, 118, 172)
_FRAME = (150, 190, 226)
_BONE = (250, 250, 245)


def _scaled(*values: float) -> list[float]:
    return [v * _OVER for v in values]


def _mask() -> tuple[Image.Image, ImageDraw.ImageDraw]:
    mask = Image.new("L", (SIZE * _OVER, SIZE * _OVER), 0)
    return mask, ImageDraw.Draw(mask)


def _fade(start: float, end: float) -> Image.Image:
    """Opaque above ``start``, clear below ``end``."""
    rows = [max(0, min(255, round(255 * (end - y / _OVER) / (end - start)))) for y in range(SIZE * _OVER)]
    column = Image.new("L", (1, len(rows)))
    column.putdata(rows)
    return column.resize((len(rows), len(rows)))


def _bone() -> Image.Image:
    """A long bone, lying: a shaft with two knobs at each end."""
    mask, draw = _mask()
    draw.line(_scaled(42, 97, 86, 87), fill=255, width=14 * _OVER)
    for x, y in ((33, 91), (37, 107), (91, 77), (95, 93)):
        draw.ellipse(_scaled(x - 10, y - 9, x + 10, y + 9), fill=255)
    return mask


def draw_icon() -> Image.Image:
    """The icon, RGBA, transparent around its shapes."""
    picture = Image.new("RGBA", (SIZE * _OVER, SIZE * _OVER), (0, 0, 0, 0))

    def paint(mask: Image.Image, colour: tuple[int, int, int]) -> None:
        # onto the transparent ground with its own colour, or dark fringes would stay at the edges
        picture.alpha_composite(Image.merge("RGBA", [*(Image.new("L", mask.size, c) for c in colour), mask]))

    # the detector, a plate that lies in perspective
    frame, draw = _mask()
    draw.polygon(_scaled(22, 60, 106, 60, 127, 126, 1, 126), fill=255)
    paint(frame, _FRAME)
    film, draw = _mask()
    draw.polygon(_scaled(27, 66, 101, 66, 118, 120, 10, 120), fill=255)
    paint(film, _FILM)

    # the beam, and what it lights of the plate
    lit, draw = _mask()
    draw.ellipse(_scaled(16, 67, 112, 118), fill=255)
    paint(ImageChops.multiply(lit, film), _LIT)
    beam, draw = _mask()
    draw.polygon(_scaled(56, 26, 72, 26, 113, 90, 15, 90), fill=255)
    paint(ImageChops.multiply(beam, _fade(58, 88)), _BEAM)

    bone = _bone()
    outline = bone.filter(ImageFilter.GaussianBlur(2 * _OVER)).point(lambda v: min(255, 3 * v))
    paint(ImageChops.multiply(outline, frame), _FILM)
    paint(bone, _BONE)

    # the tube with its port
    tube, draw = _mask()
    draw.rounded_rectangle(_scaled(34, 1, 94, 23), radius=9 * _OVER, fill=255)
    draw.polygon(_scaled(52, 22, 76, 22, 82, 32, 46, 32), fill=255)
    paint(tube, _HOUSING)
    body, draw = _mask()
    draw.rounded_rectangle(_scaled(39, 5, 89, 19), radius=6 * _OVER, fill=255)
    paint(body, _TUBE)

    return picture.resize((SIZE, SIZE), Image.Resampling.BOX)


def main() -> None:
    root = Path(__file__).resolve().parents[2]
    # the Extensions Manager's, and the module's, where Slicer looks for it
    for target in (root / "XRayRegistration.png", root / "XRayRegistration/Resources/Icons/XRayRegistration.png"):
        target.parent.mkdir(parents=True, exist_ok=True)
        draw_icon().save(target, optimize=True)


if __name__ == "__main__":
    main()
