"""The real panel on the stand-in, driven as a person would."""

from __future__ import annotations

import csv

import numpy as np
import slicer
from XRayRegistrationScene import xray_nodes

from Testing.slicer.walkthrough import MODULE, walk


def test_the_whole_job_by_clicks_from_an_empty_scene_to_one_opened_again(gui, tmp_path) -> None:
    seen = walk(gui, tmp_path)
    assert seen["messages"] == []
    assert seen["button at first"] == (False, "Choose the CT.")
    assert seen["button with a case"] == (True, "Register")
    button, words, may_import = seen["while it runs"]
    assert button == "Cancel"
    assert "left" in words
    assert not may_import
    for when in ("verdict", "verdict back at the result", "verdict after loading"):
        assert seen[when].startswith("✔ Registration accepted"), when
    assert seen["verdict at the start"].startswith("Moved, or its camera changed")
    assert seen["verdict of an empty scene"] == "Not registered yet."
    assert seen["landmarks shown"] == 12
    np.testing.assert_allclose(seen["pose after loading"], seen["pose"], atol=1e-6)
    assert set(seen["parameters after loading"].values()) == {"Demo CT", "Demo CT bone", "Demo CT landmarks"}
    files = {path.name for path in (tmp_path / "export").iterdir()}
    assert {"result.json", "ct_from_camera.tfm", "landmarks.csv", "drr.nrrd", "overlay.png", "report.html"} <= files
    with open(tmp_path / "export" / "landmarks.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 12
    assert all(float(row["column_px"]) for row in rows)


def test_the_modules_own_test_passes(gui) -> None:
    gui.load_module(MODULE)
    import XRayRegistration

    XRayRegistration.XRayRegistrationTest().runTest()
    assert len(xray_nodes.xray_nodes()) == 1  # it has run: its case is still there
    assert slicer.mrmlScene.GetFirstNodeByName("Demo CT") is not None
