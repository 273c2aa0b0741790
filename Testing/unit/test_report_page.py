"""The report says what the result says, and nothing that could pass for markup."""

from __future__ import annotations

from html.parser import HTMLParser

import numpy as np
import pytest

from XRayRegistrationLib.commands.report_page import report_html
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.carm import named_view
from XRayRegistrationLib.result import Result, View

POSE = named_view("ap", (0.0, 0.0, 0.0), 700.0)


class _Balanced(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "img", "!doctype"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def _result(status: str, covariance=None) -> Result:
    return Result(
        status,
        "the bone <fits> & more",
        "diffdrr",
        (View(Camera.from_spacing(100, 80, 1.0, 1000.0), "knee <1>"),),
        POSE[None],
        POSE[None],
        0.97 if status == "success" else 0.2,
        covariance=covariance,
        landmarks_ct=np.array([[0.0, 0, 0], [500.0, 0, 0]]),
        landmark_names=("tip", "far"),
    )


@pytest.mark.parametrize("status", ["success", "failure"])
def test_it_says_what_the_result_says(status):
    text = report_html(_result(status, np.diag([1e-6, 4e-6, 1e-6, 0.01, 0.01, 0.25])))
    parser = _Balanced()
    parser.feed(text)
    assert parser.open == []
    assert ("do not use this pose" in text) == (status == "failure")
    assert ("The beam ran from" in text) == (status == "success")
    assert "&lt;fits&gt; &amp; more" in text
    assert "knee &lt;1&gt;" in text
    assert "<td>depth</td><td>0.500</td>" in text
    assert "<td>tip</td><td>0.0</td><td>0.0</td><td>0.0</td><td>49.5</td><td>39.5</td><td>yes</td>" in text
    assert "<td>no</td>" in text
    assert "Not for clinical use" in text


def test_without_a_covariance_it_claims_no_precision():
    assert "Standard deviations" not in report_html(_result("success"))
