"""The table of spectra against NIST's numbers, against itself, and against the packages it is made from."""

from __future__ import annotations

import json

import numpy as np
import pytest

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.simulation import physics
from XRayRegistrationLib.simulation.physics import FILTERS, KVP, TABLE, spectrum

ALL = [(kvp, filtration) for kvp in KVP for filtration in FILTERS]
# NIST XCOM, mm^-1: water, and cortical bone of 1.92 g/cm^3
NIST = {"soft": ([40, 50, 60, 80], [0.02683, 0.02269, 0.02059, 0.01837]),
        "bone": ([40, 50, 60, 80], [0.12778, 0.08145, 0.06044, 0.04280])}  # fmt: skip


@pytest.mark.parametrize(("kvp", "filtration"), ALL)
def test_each_spectrum_is_one(kvp, filtration):
    beam = spectrum(kvp, filtration)
    assert beam.weights.sum() == pytest.approx(1.0, abs=1e-4)
    assert (beam.weights > 0.02).all()
    assert (np.diff(beam.energy_kev) > 0).all()
    assert 15 < beam.energy_kev[0] < beam.energy_kev[-1] < kvp
    mu = beam.attenuation("steel")
    assert (np.diff(mu, axis=0) > 0).all()  # soft < bone < steel
    assert (np.diff(mu, axis=1) < 0).all()  # harder photons go further
    for name, (energy, expected) in NIST.items():
        inside = (beam.energy_kev > 40) & (beam.energy_kev < 80)
        between = np.exp(np.interp(np.log(beam.energy_kev[inside]), np.log(energy), np.log(expected)))
        # a bin is wide, and its mean above its middle
        np.testing.assert_allclose(beam.mu_per_mm[name][inside], between, rtol=0.07)


def test_harder_beams_have_less_contrast():
    def contrast(kvp: int, filtration: str) -> float:
        mu = spectrum(kvp, filtration)
        behind = mu.weights * np.exp(-200 * mu.mu_per_mm["soft"])
        return -np.log((behind * np.exp(-10 * mu.mu_per_mm["bone"])).sum() / behind.sum())

    assert contrast(60, "2.5Al") > contrast(90, "2.5Al") > contrast(120, "2.5Al") > contrast(120, "3.0Al+0.3Cu") > 0.3


def test_what_is_not_in_the_table_is_named():
    with pytest.raises(InputError, match=r"no spectrum of 85 kVp with 4\.0Al; allowed are 60, 70"):
        spectrum(85)
    with pytest.raises(InputError, match="metal 'gold' is unknown"):
        spectrum(80).attenuation("gold")


def test_making_the_table_again_gives_the_same():
    pytest.importorskip("spekpy", reason="the extra physics is not installed")
    pytest.importorskip("xraydb", reason="the extra physics is not installed")
    saved = json.loads(TABLE.read_text(encoding="utf-8"))
    kvp, name = 90, "3.0Al+0.1Cu"
    stored = next(row for row in saved["spectra"] if (row["kvp"], row["filtration"]) == (kvp, name))
    made = physics.make_row(kvp, name)
    assert made.keys() == stored.keys()
    for key in ("energy_kev", "weights"):
        np.testing.assert_allclose(made[key], stored[key], rtol=1e-3)
    for material, mu in stored["mu_per_mm"].items():
        np.testing.assert_allclose(made["mu_per_mm"][material], mu, rtol=1e-3)
    # six bins are as good as all of them, where an image shows anything
    energy, signal, fine = physics.fine_spectrum(kvp, name)
    beam = spectrum(kvp, name)
    for soft, bone in ((20, 0), (100, 0), (200, 20), (250, 40)):
        exact = -np.log((signal * np.exp(-fine["soft"] * soft - fine["bone"] * bone)).sum())
        binned = -np.log((beam.weights * np.exp(-beam.mu_per_mm["soft"] * soft - beam.mu_per_mm["bone"] * bone)).sum())
        assert binned == pytest.approx(exact, abs=0.05)
    assert len(energy) > 100
