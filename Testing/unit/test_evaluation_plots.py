"""The plots and the choice of failures say what the numbers say."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from XRayRegistrationLib.evaluation.failure_pictures import chosen_failures
from XRayRegistrationLib.evaluation.metrics import PoseError
from XRayRegistrationLib.evaluation.plots import Curve, Quantiles, axes_svg, cumulative_svg
from XRayRegistrationLib.evaluation.score import Scored
from XRayRegistrationLib.evaluation.store import Prediction
from XRayRegistrationLib.geometry.camera import Camera

SVG = "{http://www.w3.org/2000/svg}"
INF = float("inf")


def tick(svg: ElementTree.Element, text: str, axis: str) -> float:
    """Where an axis has this number."""
    return float(next(t.get(axis) for t in svg.iter(f"{SVG}text") if t.text == text))


def test_a_curve_ends_at_the_share_of_cases_with_a_pose():
    paper = Quantiles("a paper", "a", ((2.0, 50.0), (3095.0, 95.0)), "#666")
    svg = ElementTree.fromstring(cumulative_svg([Curve("<ours>", [1.0, 10.0, 900.0, INF], "#0072b2")], [paper]))
    (path,) = svg.iter(f"{SVG}path")
    steps = [(float(x), float(y)) for x, y in re.findall(r"H([\d.]+)V([\d.]+)", str(path.get("d")))]
    x1, x10 = (tick(svg, text, "x") for text in ("1", "10"))
    y25, y75 = (tick(svg, text, "y") - 4 for text in ("25", "75"))  # the text stands 4 px below its line
    y50 = (y25 + y75) / 2
    np.testing.assert_allclose(steps, [(x1, y25), (x10, y50)], atol=0.11)  # 900 mm and no pose are off the plot
    circles = [c for c in svg.iter(f"{SVG}circle") if float(str(c.get("cy"))) < y25 + 1]
    assert len(circles) == 1  # the paper's 3095 mm is not drawn at the edge
    assert float(str(circles[0].get("cx"))) == pytest.approx(tick(svg, "2", "x"), abs=0.11)
    assert any(t.text == "<ours>" for t in svg.iter(f"{SVG}text"))


def test_boxes_leave_out_what_has_no_pose():
    errors = np.r_[np.linspace(-2.0, 6.0, 101)[:, None] * [1.0, 0.5], [[INF, INF]]]
    svg = ElementTree.fromstring(axes_svg([("ours", "#0072b2", errors)], ("x", "y"), "mm"))
    boxes = [r for r in svg.iter(f"{SVG}rect")]
    assert len(boxes) == 2
    per_mm = (tick(svg, "0", "y") - tick(svg, "5", "y")) / 5.0
    heights = [float(str(b.get("height"))) / per_mm for b in boxes]
    np.testing.assert_allclose(heights, [4.0, 2.0], atol=0.05)  # the middle half of 8 and of 4 mm
    empty = ElementTree.fromstring(axes_svg([("none", "#000", [[INF, INF]])], ("x", "y"), "mm"))
    assert not list(empty.iter(f"{SVG}rect"))


def test_failures_that_passed_come_first_and_near_misses_before_far_ones():
    def scored(number: int, error: float, status: str) -> Scored:
        camera = Camera.from_spacing(10, 10, 1.0, 1000.0)
        p = Prediction("m", "ct", number, (), 0, camera, np.eye(4), status, "", 0.5, np.zeros((0, 4, 4)), None, {})
        e = PoseError(error, error, error, error, error, error, (0.0, 0.0, 0.0), (0.0, 0.0, 0.0))
        return Scored(p, e, e)

    cases = [
        scored(0, 3.0, "success"), scored(1, INF, "error"), scored(2, 80.0, "success"), scored(3, 12.0, "failure"),
        scored(4, 30.0, "failure"), scored(5, 4.0, "failure"),
    ]  # fmt: skip
    assert [c.prediction.number for c in chosen_failures(cases, 12)] == [2, 3, 4, 1]
    assert [c.prediction.number for c in chosen_failures(cases, 2)] == [2, 3]
