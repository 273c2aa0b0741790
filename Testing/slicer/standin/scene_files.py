"""``slicer.util.loadScene`` and ``saveScene``, which ask Qt's part of the application, on the scene alone."""

from __future__ import annotations

import os

import slicer
import slicer.util


def install_scene_files() -> None:
    def save_scene(filename, properties=None) -> bool:
        filename = str(filename)
        if filename.endswith(".mrb"):
            return bool(slicer.mrmlScene.WriteToMRB(filename))
        slicer.mrmlScene.SetRootDirectory(os.path.dirname(filename))
        slicer.mrmlScene.SetURL(filename)
        return bool(slicer.mrmlScene.Commit())

    def load_scene(filename, properties=None) -> None:
        filename = str(filename)
        clear = (properties or {}).get("clear", False)
        if clear:
            slicer.mrmlScene.Clear(0)
        if filename.endswith(".mrb"):
            done = slicer.mrmlScene.ReadFromMRB(filename, False)
        else:
            slicer.mrmlScene.SetURL(filename)
            done = slicer.mrmlScene.Import()
        if not done:
            raise RuntimeError(f"Failed to load node from file: {filename}")

    slicer.util.saveScene, slicer.util.loadScene = save_scene, load_scene
