"""Pictures of the panel and of the real 2D and 3D views at every step of the whole job.

    make pictures                       into pictures-out/, to be looked at
    make pictures ARGS="--committed"    also the ones that README and the Extensions Index show

The widgets are the stand-in's: a picture of the panel is a picture of the test bed, not of Slicer.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SIZE = (1640, 1330)
PANEL_PX = 500
SHOWN = {"5-result": "panel.png", "6b-edges": "edges.png"}
LAYOUT_FIRST_SHOWN = "2-demo-case"
_COLOURS = 128  # of a committed picture: small files


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("pictures-out"))
    parser.add_argument("--committed", action="store_true", help="also write those in Resources/pictures")
    arguments = parser.parse_args()
    os.environ["QT_QPA_PLATFORM"] = "offscreen"
    sys.path.insert(0, str(ROOT / "XRayRegistration"))
    from Testing.slicer.application import Application
    from Testing.slicer.standin import install

    app = install(Application())
    from Testing.slicer.walkthrough import walk

    arguments.out.mkdir(parents=True, exist_ok=True)

    def shoot(name: str) -> None:
        path = app.picture(arguments.out / f"{name}.png", *SIZE, PANEL_PX)
        if name == LAYOUT_FIRST_SHOWN:  # only now the stand-in's views have their sizes; Slicer's have them at once
            app.modules[0].widget.ui.layoutButton.click()
            app.processEvents()
            path = app.picture(path, *SIZE, PANEL_PX)
        panel = app.modules[0].panel  # by itself, as long as it is: no window shows all of it
        panel.resize(PANEL_PX - 20, panel.sizeHint().height())
        panel.grab().save(str(arguments.out / f"{name}-panel.png"))
        print(path, flush=True)
        if arguments.committed and name in SHOWN:
            _commit(path, ROOT / "Resources" / "pictures" / SHOWN[name])

    with tempfile.TemporaryDirectory() as folder:
        seen = walk(app, Path(folder), shoot)
    print(seen["verdict"])
    app.close()
    return 0


def _commit(path: Path, place: Path) -> None:
    from PIL import Image

    Image.open(path).convert("RGB").quantize(_COLOURS).save(place, optimize=True)
    print(place, place.stat().st_size)


if __name__ == "__main__":
    raise SystemExit(main())
