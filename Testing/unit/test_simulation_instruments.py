"""Chords of capsules against geometry, and the metal's amount and place in the image."""

from __future__ import annotations

import numpy as np
import pytest

from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.simulation.instruments import Instrument, capsule_interval, draw_instruments, metal_mm

CAMERA = Camera.from_spacing(96, 80, 3.0, 1000.0)


def _unit(*d: float) -> np.ndarray:
    return np.array(d) / np.linalg.norm(d)


def _chord(d: np.ndarray, tail: tuple, tip: tuple, radius: float) -> float:
    t_in, t_out = capsule_interval(d[None], np.array(tail, float), np.array(tip, float), radius)
    return float((t_out - t_in)[0])


@pytest.mark.parametrize(
    ("d", "tail", "tip", "expected"),
    [
        ((0, 0, 1), (-40, 0, 600), (40, 0, 600), 6.0),  # across the middle: the diameter
        ((0, 0, 1), (-40, 2, 600), (40, 2, 600), 2 * np.sqrt(9 - 4)),  # off the axis
        ((0, 0, 1), (0, 0, 600), (0, 0, 680), 86.0),  # along the axis: the length and two half balls
        ((0, 0, 1), (0, 1, 600), (0, 1, 680), 80 + 2 * np.sqrt(8)),  # along it, off the middle
        ((0, 0, 1), (-2, 0, 600), (-80, 0, 600), 2 * np.sqrt(9 - 4)),  # past the end, through the ball
        ((0, 0, 1), (-4, 0, 600), (-80, 0, 600), 0.0),  # past the ball
        ((0, 0, 1), (-40, 3.5, 600), (40, 3.5, 600), 0.0),  # beside it
        ((0, 0, 1), (-30, 0, 570), (30, 0, 630), 6.0 * np.sqrt(2)),  # aslant, by 45 degrees
    ],
)
def test_chords_by_hand(d, tail, tip, expected):
    assert _chord(_unit(*d), tail, tip, 3.0) == pytest.approx(expected, abs=1e-9)


def test_chords_by_small_steps():
    rng = np.random.default_rng(2)
    seen = 0
    for _ in range(60):
        tail, tip = rng.normal(size=(2, 3)) * [25, 25, 25] + [0, 0, 300]
        d = np.array([*rng.normal(0, 0.05, 2), 1.0])
        d /= np.linalg.norm(d)
        t = np.arange(150.0, 450.0, 0.01)
        x = t[:, None] * d
        along = np.clip((x - tail) @ (tip - tail) / ((tip - tail) @ (tip - tail)), 0, 1)
        inside = np.linalg.norm(x - tail - along[:, None] * (tip - tail), axis=1) < 8.0
        chord = _chord(d, tuple(tail), tuple(tip), 8.0)
        assert chord == pytest.approx(inside.sum() * 0.01, abs=0.03)
        seen += chord > 1
    assert seen > 8


def test_a_wire_keeps_its_amount_of_metal_however_thin():
    z, length = 600.0, 100.0
    for radius in (0.4, 1.0, 3.0):
        wire = Instrument("wire", (0.5, 0.5), 0.0, (0.6, 0.8, 0.0), length, radius)
        image = metal_mm([wire], CAMERA, z)
        volume = image.sum() * (z / CAMERA.K[0, 0]) * (z / CAMERA.K[1, 1])
        assert volume == pytest.approx(np.pi * radius**2 * length + 4 / 3 * np.pi * radius**3, rel=0.03)
        v, u = np.mgrid[:80, :96]
        middle = [(image * c).sum() / image.sum() for c in (u, v)]
        np.testing.assert_allclose(middle, [47.5, 39.5], atol=0.02)
        # it lies along (0.6, 0.8)
        spread = np.linalg.eigh(np.cov(np.stack([u.ravel(), v.ravel()]), aweights=image.ravel()))[1][:, 1]
        assert abs(spread @ [0.6, 0.8]) == pytest.approx(1.0, abs=1e-4)


def test_only_what_it_touches_changes_and_two_add_up():
    rod = Instrument("rod", (0.2, 0.5), 10.0, (0.0, 1.0, 0.0), 60.0, 2.5)
    other = Instrument("rod", (0.8, 0.5), -10.0, (0.0, 0.6, 0.8), 60.0, 2.5)
    a, b, both = (metal_mm(some, CAMERA, 650.0) for some in ([rod], [other], [rod, other]))
    np.testing.assert_allclose(both, a + b, rtol=1e-5)
    assert not ((a > 0) & (b > 0)).any()
    assert a.max() == pytest.approx(5.0, abs=0.3)
    assert not metal_mm([Instrument("rod", (3.0, 0.5), 0.0, (0.0, 1.0, 0.0), 60.0, 2.5)], CAMERA, 650.0).any()
    assert metal_mm([Instrument("rod", (0.5, 0.5), 0.0, (0.0, 0.0, 1.0), 60.0, 2.5)], CAMERA, 650.0).max() > 50


def test_a_screw_has_a_thread_and_a_head():
    near = Camera.from_spacing(600, 200, 0.3, 1000.0)
    screw = Instrument("screw", (0.5, 0.5), 0.0, (1.0, 0.0, 0.0), 40.0, 3.0, (5.0, 4.0), (1.0, 4.0))
    image = metal_mm([screw], near, 600.0)
    mm = 600.0 / near.K[0, 0]
    rows = (image > 0.05).sum(axis=0) * mm  # thickness along the shaft, in mm
    u = (np.arange(600) - 299.5) * mm
    shaft = (np.abs(u) < 15)
    assert 4.0 < rows[shaft].min() < rows[shaft].max() < 6.4  # one side's ridge is over the other's groove
    upper = (image[:100] > 0.05).sum(axis=0)[shaft] * mm
    spectrum = np.abs(np.fft.rfft(upper - upper.mean()))
    pitch = len(upper) * mm / spectrum.argmax()
    assert pitch == pytest.approx(4.0, rel=0.1)
    assert rows[(u > -26) & (u < -20)].max() == pytest.approx(10.0, abs=0.4)  # the head is at the tail


def test_drawn_ones_are_repeatable_and_in_range():
    drawn = [draw_instruments(np.random.default_rng(n)) for n in range(60)]
    assert drawn == [draw_instruments(np.random.default_rng(n)) for n in range(60)]
    assert {one[0].kind for one in drawn} == {"screw", "wire", "rod"}
    for instrument in (i for some in drawn for i in some):
        assert 0.5 <= instrument.radius_mm <= 3.75
        assert np.linalg.norm(instrument.direction) == pytest.approx(1.0)
    assert {len(some) for some in drawn} == {1, 2, 3, 4}
