"""How long the panel keeps Slicer waiting while a registration runs: the longest turn of the event loop.

    python -m Testing.benchmarks.panel_latency

The real panel on the stand-in registers a simulated X-ray of the sample chest CT (512 x 512 x 133) in a process of
its own, as in Slicer. What is measured is every turn of Qt's events from the click on Register until the result is
there, apart from the last one, which shows it. Needs slicer-core and PySide6.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    os.environ["QT_QPA_PLATFORM"] = "offscreen"
    sys.path.insert(0, str(ROOT / "XRayRegistration"))
    from Testing.slicer.application import Application
    from Testing.slicer.standin import install

    app = install(Application())
    import slicer
    from XRayRegistrationScene import demo_case, volume_nodes

    from XRayRegistrationLib.images.sample import load_sample_ct

    _, widget, _ = app.load_module(ROOT / "XRayRegistration" / "XRayRegistration.py")
    ct = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "chest")
    volume_nodes.set_volume(ct, load_sample_ct())
    demo_case.add_xray_of(ct)
    widget.parameters.ct = ct
    app.processEvents()
    widget.show_chosen()
    app.processEvents()
    begin = time.perf_counter()
    widget.ui.registerButton.click()
    turns = [time.perf_counter() - begin]
    while widget.busy:
        time.sleep(0.002)
        turn = time.perf_counter()
        app.processEvents()
        turns.append(time.perf_counter() - turn)
    whole, shown = time.perf_counter() - begin, turns.pop()
    milliseconds = 1e3 * np.array(turns)
    print(widget.ui.verdictLabel.text)
    print(f"registered in {whole:.1f} s, {len(turns)} turns of the event loop meanwhile")
    print(f"the click on Register {milliseconds[0]:.0f} ms, showing the result {1e3 * shown:.0f} ms")
    print(f"of the others: median {np.median(milliseconds[1:]):.2f} ms, longest {milliseconds[1:].max():.0f} ms, "
          f"longer than 100 ms: {int((milliseconds[1:] > 100).sum())}")  # fmt: skip
    app.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
