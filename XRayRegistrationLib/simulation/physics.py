"""Spectra of X-ray tubes, and how tissue and metal attenuate them, in a few energy bins.

The numbers are in ``spectra.json`` beside this file, so that nothing has to be installed to use them.
They are made from spekpy (tube spectra) and xraydb (Elam's cross-sections) by

    python -m XRayRegistrationLib.simulation.physics

In each bin the weight is the share of the open beam's signal: photons behind the filters, times the
fraction that 0.6 mm of CsI absorbs, times their energy (the detector integrates energy). The bin's
attenuation is the mean over the bin, weighted in the same way. What a detector reads behind lengths
A_m of the materials, over the open beam, is

    I = sum_e w_e exp(-sum_m mu_me A_m),   sum_e w_e = 1.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from XRayRegistrationLib.errors import InputError, MissingDependencyError

TABLE = Path(__file__).with_name("spectra.json")
KVP = (60, 70, 80, 90, 100, 110, 120)
#: Beside the tube's own window: (material, mm). Fluoroscopes use 2.5 to 4 mm Al, many with a copper filter.
FILTERS: dict[str, tuple[tuple[str, float], ...]] = {
    "2.5Al": (("Al", 2.5),),
    "4.0Al": (("Al", 4.0),),
    "3.0Al+0.1Cu": (("Al", 3.0), ("Cu", 0.1)),
    "3.0Al+0.3Cu": (("Al", 3.0), ("Cu", 0.3)),
}
BINS = 6  # of about equal signal behind 100 mm of water, so that no bin is idle

# density in g/cm^3 and elements by mass: water; ICRU-44 cortical bone; Ti-6Al-4V; 316L steel
_MATERIALS: dict[str, tuple[float, dict[str, float]]] = {
    "soft": (1.0, {"H": 0.1119, "O": 0.8881}),
    "bone": (1.92, {"H": 0.034, "C": 0.155, "N": 0.042, "O": 0.435, "Na": 0.001, "Mg": 0.002,
                    "P": 0.103, "S": 0.003, "Ca": 0.225}),
    "titanium": (4.43, {"Ti": 0.90, "Al": 0.06, "V": 0.04}),
    "steel": (8.0, {"Fe": 0.655, "Cr": 0.17, "Ni": 0.13, "Mo": 0.025, "Mn": 0.02}),
}  # fmt: skip
METALS = ("titanium", "steel")
_CSI_MM, _CSI_DENSITY = 0.6, 4.51
_CSI = {"Cs": 0.5115, "I": 0.4885}
_ANODE_DEG = 12.0
_SOFTEST = 0.15  # of the open beam's signal, in a bin of their own


@dataclass(frozen=True, eq=False)
class Spectrum:
    """One beam in its bins.

    Attributes:
        kvp: tube voltage.
        filtration: of :data:`FILTERS`.
        energy_kev: (bins,) mean energy of each bin's signal.
        weights: (bins,) share of the open beam's signal, sum 1.
        mu_per_mm: (bins,) for each of "soft" (water), "bone" (cortical), "titanium" and "steel".
    """

    kvp: int
    filtration: str
    energy_kev: NDArray[np.float64]
    weights: NDArray[np.float64]
    mu_per_mm: dict[str, NDArray[np.float64]]

    def attenuation(self, metal: str = "titanium") -> NDArray[np.float64]:
        """(3, bins) mm^-1 of soft tissue, bone and this metal: the order of ``subject.MATERIALS``.

        Raises:
            InputError: another metal than :data:`METALS`.
        """
        if metal not in METALS:
            raise InputError(f"metal {metal!r} is unknown; allowed are {', '.join(METALS)}")
        return np.stack([self.mu_per_mm[name] for name in ("soft", "bone", metal)])


def spectrum(kvp: int, filtration: str = "4.0Al") -> Spectrum:
    """The beam of a tube voltage and a filtration that are in the table.

    Raises:
        InputError: not in the table.
    """
    table = _table()
    if (kvp, filtration) not in table:
        raise InputError(
            f"there is no spectrum of {kvp} kVp with {filtration}; allowed are {', '.join(map(str, KVP))} kVp "
            f"with {', '.join(FILTERS)}"
        )
    return table[kvp, filtration]


@lru_cache(maxsize=1)
def _table() -> dict[tuple[int, str], Spectrum]:
    data = json.loads(TABLE.read_text(encoding="utf-8"))
    return {
        (row["kvp"], row["filtration"]): Spectrum(
            row["kvp"],
            row["filtration"],
            np.array(row["energy_kev"]),
            np.array(row["weights"]),
            {name: np.array(mu) for name, mu in row["mu_per_mm"].items()},
        )
        for row in data["spectra"]
    }


def make_table() -> dict[str, Any]:
    """The content of ``spectra.json``, from spekpy and xraydb (some seconds).

    Raises:
        MissingDependencyError: one of the two is not installed.
    """
    about = (
        "signal shares and linear attenuation (mm^-1) in energy bins; made by "
        "python -m XRayRegistrationLib.simulation.physics from spekpy and xraydb"
    )
    return {"about": about, "bins": BINS, "spectra": [make_row(kvp, name) for kvp in KVP for name in FILTERS]}


def make_row(kvp: int, filtration: str) -> dict[str, Any]:
    """One spectrum of :func:`make_table`."""
    energy_kev, signal, mu = fine_spectrum(kvp, filtration)
    # a bin for the softest photons, which only thin tissue lets through, so that thin parts are right too; the
    # others are equal parts of the signal behind a patient
    behind = np.cumsum(signal * np.exp(-mu["soft"] * 100.0))
    number = np.minimum((behind / behind[-1] * (BINS - 1)).astype(int), BINS - 2) + 1
    number[np.cumsum(signal) < _SOFTEST] = 0
    weights = np.bincount(number, signal, BINS)

    def mean(values: NDArray[np.float64]) -> list[float]:
        return [float(f"{x:.6g}") for x in np.bincount(number, signal * values, BINS) / weights]

    return {
        "kvp": kvp,
        "filtration": filtration,
        "energy_kev": mean(energy_kev),
        "weights": [float(f"{w:.6g}") for w in weights],
        "mu_per_mm": {name: mean(values) for name, values in mu.items()},
    }


def fine_spectrum(
    kvp: int, filtration: str
) -> tuple[NDArray[np.float64], NDArray[np.float64], dict[str, NDArray[np.float64]]]:
    """Energies (n,) keV in steps of 0.5, the share of the detector's signal in each, and mm^-1 of each material."""
    tube = _package("spekpy").Spek(kvp=kvp, th=_ANODE_DEG, dk=0.5)
    for material, thickness_mm in FILTERS[filtration]:
        tube.filter(material, thickness_mm)
    energy, fluence = (np.asarray(x) for x in tube.get_spectrum(edges=False))
    mu = {name: _mu_per_mm(density, parts, energy) for name, (density, parts) in _MATERIALS.items()}
    signal = fluence * energy * (1.0 - np.exp(-_mu_per_mm(_CSI_DENSITY, _CSI, energy) * _CSI_MM))
    return energy, signal / signal.sum(), mu


def _mu_per_mm(density: float, parts: dict[str, float], energy_kev: NDArray[np.float64]) -> NDArray[np.float64]:
    xraydb = _package("xraydb")
    total = sum(parts.values())
    per_g = sum(share / total * xraydb.mu_elam(element, energy_kev * 1000.0) for element, share in parts.items())
    mu: NDArray[np.float64] = np.asarray(per_g) * density / 10.0
    return mu


def _package(name: str) -> Any:
    from importlib import import_module

    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise MissingDependencyError(name, "making the table of spectra", "physics") from error


def main() -> None:
    """Write ``spectra.json`` again."""
    from XRayRegistrationLib.files.json_file import json_text

    TABLE.write_text(json_text(make_table()), encoding="utf-8")


if __name__ == "__main__":
    main()
