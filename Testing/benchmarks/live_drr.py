"""How fast the panel's DRR follows a hand that drags the X-ray: whole renewals of the scene, not renders alone.

    python -m Testing.benchmarks.live_drr            both renderers, 64 to 256 px, on the sample chest CT

A drag is one change of the pose transform after the other; after each, everything that hangs on the X-ray is
renewed as in the panel: beam, DRR, overlay, projected landmarks, slice view. Needs slicer-core.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "XRayRegistration"))

MOVES = 60
WARM_UP = 3


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moves", type=int, default=MOVES)
    arguments = parser.parse_args()
    from Testing.slicer.application import Application

    application = Application()
    print("| renderer | DRR | overlay | median | 95th percentile | a second |")
    print("|---|---|---|---|---|---|")
    for backend, sizes in (("numba", (128, 256)), ("scipy", (64, 128))):
        for size in sizes:
            for mode in ("blend", "edges"):
                times = _drag(application, backend, size, mode, arguments.moves if backend == "numba" else arguments.moves // 6)
                middle, slow = np.percentile(times, (50, 95))
                print(f"| {backend} | {size} px | {mode} | {1e3 * middle:.0f} ms | {1e3 * slow:.0f} ms | {1 / middle:.1f} |")
    return 0


def _drag(application, backend: str, size: int, mode: str, moves: int) -> list[float]:
    import slicer
    from XRayRegistrationScene import overlays, xray_nodes
    from XRayRegistrationScene.sync import SceneSync

    from Testing.benchmarks import scene
    from XRayRegistrationLib.geometry.rigid import from_rotation_translation, rotation_exp

    application.clear()
    volume = scene.load_volume()
    pose = scene.make_pose(volume)
    camera = scene.make_camera(1024)  # as detectors have; the DRR is coarser
    node = xray_nodes.add_xray(np.random.default_rng(0).integers(0, 4000, (1024, 1024)).astype(np.uint16), camera, "X-ray")
    xray_nodes.set_camera_from_world(node, pose)
    markups = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "landmarks")
    for point in volume.centre_ct + 50.0 * np.eye(3):
        markups.AddControlPoint(*point)
    waiting: list = []
    sync = SceneSync(waiting.append, size, backend)
    sync.follow(node, volume, markups)
    _renew(waiting)
    overlays.show_overlay(node, mode)
    _renew(waiting)
    times = []
    for n in range(WARM_UP + moves):
        nudge = from_rotation_translation(rotation_exp((0, 0, 0.002 * n)), (0.2 * n, 0.1 * n, 0.0))
        begin = time.perf_counter()
        xray_nodes.set_camera_from_world(node, nudge @ pose)
        _renew(waiting)
        times.append(time.perf_counter() - begin)
    sync.close()
    return times[WARM_UP:]


def _renew(waiting: list) -> None:
    while waiting:
        waiting.pop(0)()


if __name__ == "__main__":
    raise SystemExit(main())
