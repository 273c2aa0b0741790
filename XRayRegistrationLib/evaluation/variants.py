"""Methods with settings, under names of their own: what papers compare with, and a method's ways of ending.

``xrayreg evaluate --method`` takes these beside the methods themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

from XRayRegistrationLib.methods import METHODS
from XRayRegistrationLib.solvers.cma_es import CmaEsOptions, Similarity


@dataclass(frozen=True)
class Variant:
    """A method as an evaluation runs it.

    Attributes:
        method: in the registry.
        options: of it, plain values.
        summary: a line for the report.
        from_start: it is told the start of a case that has one.
    """

    method: str
    options: Mapping[str, Any]
    summary: str
    from_start: bool = True


def _plain(options: CmaEsOptions) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(options).items()}


def _alone(options: CmaEsOptions) -> dict[str, Any]:
    return {"solver": "cma_es", "cma_es": _plain(options)}


def _of_sopi(similarity: Similarity) -> dict[str, Any]:
    # its projections are of the whole CT, and NCC sees more of what is around the bone than of the bone
    return {**_alone(CmaEsOptions.sopi_baseline(similarity)), "volume": "full"}


# ProST's images have 128 pixels (a pose that CMA-ES finds there was lost on 64); the box after it gets twice as many,
# and bone of 2 mm is fine enough for both. A step longer than a voxel is sampled plane by plane, which is the fast way.
_PROST = CmaEsOptions.prost_benchmark(downsampling=128 / 1436, box_downsampling=256 / 1436, voxel_mm=2.0, step_mm=3.0)

VARIANTS: Mapping[str, Variant] = MappingProxyType(
    {
        "search": Variant("diffdrr", {}, "our search, told nothing of the start", from_start=False),
        "cma_es": Variant("diffdrr", _alone(CmaEsOptions()), "xReg's CMA-ES on patch gradient NCC"),
        "cma_es_prost": Variant("diffdrr", _alone(_PROST), "CMA-ES as ProST compares with: population 300, 45 degrees, 200 mm"),
        "opt_nccl": Variant("diffdrr", _of_sopi("ncc_and_laplacian"), "SOPI's Opt-NCCL"),
        "opt_ngi": Variant("diffdrr", _of_sopi("gradient_information"), "SOPI's Opt-NGI, done right"),
        "opt_gc": Variant("diffdrr", _of_sopi("gradient_ncc"), "SOPI's Opt-GC"),
        "prost_cma_es": Variant("prost", {"finish": "cma_es", "cma_es": _plain(_PROST)}, "ProST, then CMA-ES as in the paper"),
        "deep_reg": Variant(
            "prost", {"paper_mode": True, "variant": "miccai2020"}, "ProST of MICCAI 2020 by gradient descent, as SOPI's Deep-reg"
        ),
    }
)

#: Everything that ``--method`` takes.
NAMES = (*METHODS, *VARIANTS)


def variant(name: str) -> Variant:
    """The variant of this name, or the method of this name as it is; KeyError for neither."""
    return VARIANTS[name] if name in VARIANTS else Variant(METHODS[name].name, {}, METHODS[name].summary)
