"""The whole job in the panel, by clicks only, from an empty scene to a saved one that is opened again.

The test of the panel walks it, and ``make pictures`` takes a picture at every step.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import slicer
import slicer.util
from XRayRegistrationScene import xray_nodes

MODULE = Path(__file__).resolve().parents[2] / "XRayRegistration" / "XRayRegistration.py"
PATIENCE_S = 240.0


def walk(app, folder: Path, shoot: Callable[[str], object] = lambda name: None) -> dict:
    """Do it all.

    Args:
        app: the stand-in.
        folder: for what is exported and saved.
        shoot: called with a name after each step.

    Returns:
        What was seen on the way, for the test to judge.
    """
    seen: dict = {}
    loaded = app.load_module(MODULE)
    widget = loaded.widget
    ui = widget.ui
    seen["button at first"] = (ui.registerButton.enabled, ui.registerButton.toolTip)
    shoot("1-empty")
    ui.demoButton.click()
    app.processEvents()
    seen["button with a case"] = (ui.registerButton.enabled, ui.registerButton.text)
    shoot("2-demo-case")
    ui.segmentButton.click()
    app.processEvents()
    ui.sampleLandmarksButton.click()
    app.processEvents()
    shoot("3-bone")
    ui.registerButton.click()
    app.wait(lambda: ui.progressBar.value >= 30, PATIENCE_S)
    seen["while it runs"] = (ui.registerButton.text, ui.progressLabel.text, ui.importButton.enabled)
    shoot("4-registering")
    app.wait(lambda: not widget.busy, PATIENCE_S)
    app.processEvents()
    seen["verdict"] = ui.verdictLabel.text
    seen["landmarks shown"] = ui.landmarkTable.rowCount
    shoot("5-result")
    for n, mode in enumerate(("checkerboard", "edges", "drr", "xray", "blend")):
        ui.overlayComboBox.setCurrentIndex(ui.overlayComboBox.findData(mode))
        app.processEvents()
        shoot(f"6{'abcde'[n]}-{mode}")
    ui.sourceViewButton.click()
    app.processEvents()
    shoot("7-from-the-source")
    ui.showStartButton.click()
    app.processEvents()
    seen["verdict at the start"] = ui.verdictLabel.text
    shoot("8-start")
    ui.showResultButton.click()
    app.processEvents()
    seen["verdict back at the result"] = ui.verdictLabel.text
    app.files.append(str(folder / "export"))
    ui.exportButton.click()
    app.processEvents()
    (xray,) = xray_nodes.xray_nodes()
    seen["pose"] = xray_nodes.camera_from_world_of(xray)
    saved = str(folder / "case.mrb")
    assert slicer.util.saveScene(saved)
    slicer.mrmlScene.Clear(0)
    app.processEvents()
    seen["verdict of an empty scene"] = ui.verdictLabel.text
    slicer.util.loadScene(saved)
    app.processEvents()
    seen["verdict after loading"] = ui.verdictLabel.text
    (xray,) = xray_nodes.xray_nodes()
    seen["pose after loading"] = xray_nodes.camera_from_world_of(xray)
    seen["parameters after loading"] = {
        name: None if node is None else node.GetName()
        for name in ("ct", "segmentation", "landmarks")
        for node in [getattr(widget.parameters, name)]
    }
    ui.layoutButton.click()
    app.processEvents()
    shoot("9-opened-again")
    seen["messages"] = list(app.messages)
    seen["widget"] = widget
    return seen
