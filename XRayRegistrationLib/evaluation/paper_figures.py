"""What the papers report, as data with its source, to stand beside our own figures.

Taken from the papers' tables (RayEmb's from its poster) by hand; where they contradict themselves or
where a number is ours by arithmetic, the remark says so. A paper's simulated figures are of its own
CTs, so what stands beside them compares methods only roughly; its real ones are of the same images.
Orders of specimens differ between papers, so specimens are named by their id.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Metric = Literal["mtre_landmarks_mm", "mpd_mm"]

# DeepFluoro's specimens by RayEmb's and by SCR's numbers, which differ; n tells SCR's apart but for two
_RAYEMB_ORDER = {
    "17-1882": 111, "18-1109": 104, "18-0725": 24, "18-2799": 48, "18-2800": 55, "17-1905": 24,
}  # fmt: skip
_UNSURE = "18-0725 or 17-1905"
_SCR_ORDER = (("17-1882", 111), (_UNSURE, 24), ("18-1109", 104), (_UNSURE, 24), ("18-2799", 48), ("18-2800", 55))

_RAYEMB = "Shrestha et al., ACCV 2024, poster"
_SCR_1 = "Shrestha et al., MICCAI 2023, table 1"
_SCR_2 = "Shrestha et al., MICCAI 2023, table 2"
_PROST = "Gao et al., IEEE TMI 2024"
_SOPI_1 = "Chen et al., ICASSP 2024, table 1"


@dataclass(frozen=True)
class PaperFigure:
    """One row of a paper's table.

    Attributes:
        method: as the paper calls it; ours: the same of ours, one of ``variants.NAMES``, or "" where none is it.
        protocol: of ours that it is comparable with.
        ct: the paper's specimen, or ``"all"``.
        n: images, None where not given.
        metric: what the percentiles are of, mm; p25, p50, p95: None where not given.
        gfr5, gfr10: percent of cases beyond 5 and 10 mm; success10: percent below 10 mm.
        seconds: a case.
        source: table or text; remark: what to know before comparing.
    """

    method: str
    ours: str
    protocol: str
    ct: str
    n: int | None
    metric: Metric
    p25: float | None
    p50: float | None
    p95: float | None
    gfr5: float | None = None
    gfr10: float | None = None
    success10: float | None = None
    seconds: float | None = None
    source: str = ""
    remark: str = ""


def paper_figures(protocol: str, ct: str | None = None) -> list[PaperFigure]:
    """What papers report for a protocol, of one specimen where ``ct`` is given ("all": pooled or mean)."""
    return [figure for figure in FIGURES if figure.protocol == protocol and ct in (None, figure.ct)]


def _rayemb() -> list[PaperFigure]:
    """25 / 50 / 95 %, GFR@10, GFR@5; the poster's OCR calls the rates CPR, but lower is better."""
    table = {
        ("DiffDRR", "diffdrr"): (
            (2.125, 14.259, 147.349, 54.05, 63.06), (2.049, 8.879, 203.835, 48.077, 59.615),
            (1.402, 2.007, 119.635, 12.5, 20.833), (3.529, 7.402, 216.490, 41.667, 66.667),
            (9.062, 75.597, 140.134, 74.545, 76.364), (11.263, 43.853, 375.553, 75.0, 79.167),
        ),
        ("Fixed landmarks (RayEmb's)", "fixed_landmarks"): (
            (1.520, 1.960, 6.701, 2.703, 9.009), (1.602, 2.027, 7.660, 1.923, 19.231),
            (1.474, 2.100, 4.628, 0.0, 4.167), (1.887, 2.065, 23.770, 14.583, 35.417),
            (1.190, 1.414, 8.172, 1.818, 25.45), (1.875, 11.250, 121.944, 50.0, 62.5),
        ),
        ("RayEmb", "rayemb"): (
            (1.625, 2.010, 6.520, 4.505, 9.910), (1.604, 2.049, 7.772, 0.962, 17.308),
            (1.549, 2.053, 3.239, 0.0, 8.333), (2.094, 3.157, 15.375, 10.417, 29.167),
            (1.248, 1.447, 7.633, 0.0, 18.182), (1.647, 3.580, 28.496, 33.333, 45.833),
        ),
        ("RayEmb* (other patients)", "rayemb"): (
            (1.502, 2.031, 6.525, 2.703, 10.811), (1.578, 2.254, 8.281, 0.962, 20.192),
            (1.583, 2.019, 4.737, 4.167, 8.333), (2.186, 3.167, 14.103, 12.5, 33.333),
            (1.211, 1.452, 8.313, 1.818, 21.818), (1.754, 3.090, 23.832, 25.0, 45.833),
        ),
    }  # fmt: skip
    pooled = {  # by arithmetic: images beyond the threshold over 366; the mean of the six medians
        "DiffDRR": (25.3, 62.8, 52.5),
        "Fixed landmarks (RayEmb's)": (3.47, 21.0, 6.8),
        "RayEmb": (2.38, 18.0, 5.2),
        "RayEmb* (other patients)": (2.34, 20.2, 4.9),
    }
    seen = {"RayEmb": "specimens 1 to 5 seen in training", "Fixed landmarks (RayEmb's)": "specimens 1 to 5 seen in training"}
    out = []
    for (method, ours), rows in table.items():
        remark = "; ".join(["after DiffDRR refinement, it seems", *([seen[method]] if method in seen else [])])
        for (specimen, n), (p25, p50, p95, gfr10, gfr5) in zip(_RAYEMB_ORDER.items(), rows, strict=True):
            out.append(
                PaperFigure(
                    method, ours, "deepfluoro", specimen, n, "mtre_landmarks_mm", p25, p50, p95, gfr5, gfr10,
                    source=_RAYEMB, remark=remark,
                )
            )  # fmt: skip
        p50, gfr5, gfr10 = pooled[method]
        out.append(
            PaperFigure(
                method, ours, "deepfluoro", "all", 366, "mtre_landmarks_mm", None, p50, None, gfr5, gfr10,
                source=_RAYEMB, remark=f"rates pooled and median averaged over specimens by us; {remark}",
            )
        )  # fmt: skip
    return out


def _scr_simulated() -> list[PaperFigure]:
    table = {
        ("PoseNet", "posenet", None): (
            (5.75, 8.37, 24.81, 38.53), (6.97, 10.23, 25.95, 51.63), (5.42, 7.86, 23.34, 35.35),
            (4.67, 6.46, 16.91, 18.77), (4.81, 6.52, 18.98, 22.43), (4.06, 5.85, 18.42, 22.69),
            (5.28, 7.55, 21.40, 31.57),
        ),
        ("DFLNet", "dflnet", None): (
            (3.36, 212.59, 680.58, 62.27), (1.98, 7.04, 656.41, 46.15), (1.03, 2.51, 583.63, 28.65),
            (0.98, 2.30, 558.20, 23.59), (1.51, 4.28, 767.56, 37.47), (2.26, 139.96, 15321.19, 58.72),
            (1.85, 61.45, 3094.60, 42.81),
        ),
        ("SCR", "scene_coordinates", 1.75): (
            (1.37, 2.50, 9.80, 4.87), (1.15, 2.14, 7.98, 2.54), (1.67, 3.05, 12.25, 8.56),
            (1.76, 3.38, 19.19, 12.54), (3.09, 5.30, 17.32, 18.85), (3.80, 6.37, 18.25, 23.18),
            (2.14, 3.79, 14.13, 11.76),
        ),
    }  # fmt: skip
    remarks = {
        "PoseNet": "",
        "DFLNet": "without segmentation or refinement; its failures were left out of the percentiles and of the failures",
        "SCR": "no refinement; one network a specimen, tested on its own CT",
    }
    out = []
    for (method, ours, seconds), rows in table.items():
        for n, (p25, p50, p95, gfr10) in enumerate(rows):
            mean = n == 6
            remark = "; ".join(filter(None, ["mean of the six specimens" if mean else "", remarks[method]]))
            out.append(
                PaperFigure(
                    method, ours, "scr", "all" if mean else f"the paper's {n + 1}", None if mean else 1620,
                    "mtre_landmarks_mm", p25, p50, p95, None, gfr10, seconds=seconds, source=_SCR_1, remark=remark,
                )
            )  # fmt: skip
    return out


def _scr_real() -> list[PaperFigure]:
    table = {
        ("PoseNet", "posenet"): (
            (43.64, 49.11, 64.23), (19.42, 27.18, 43.68), (31.18, 38.97, 66.06), (35.52, 38.37, 57.07),
            (38.97, 46.60, 69.06), (34.51, 37.13, 47.72), (33.87, 39.56, 57.97),
        ),
        ("SCR", "scene_coordinates"): (
            (5.45, 8.02, 55.87), (2.74, 3.32, 6.48), (7.60, 11.85, 162.83), (11.12, 15.52, 92.34),
            (6.09, 9.07, 21.91), (7.18, 10.14, 20.78), (6.70, 9.65, 60.04),
        ),
    }  # fmt: skip
    out = []
    for (method, ours), rows in table.items():
        for n, (p25, p50, p95) in enumerate(rows):
            specimen, count = (*_SCR_ORDER, ("all", None))[n]
            remark = "projected mTRE, on the detector; no refinement"
            remark += "; mean of the six specimens" if n == 6 else ""
            remark += f"; the paper's {n + 1}, one of two with 24 images" if specimen == _UNSURE else ""
            out.append(
                PaperFigure(
                    method, ours, "deepfluoro", specimen, count, "mpd_mm", p25, p50, p95, source=_SCR_2, remark=remark
                )
            )
    return out


def _prost() -> list[PaperFigure]:
    rows = (  # success on real AP images and on simulated ones, and the medians
        ("CMA-ES alone", "cma_es_prost", 36.0, 28.5, None, None),
        ("ProST + CMA-ES", "prost_cma_es", 73.2, 65.6, 2.2, 4.4),
        ("ProST, no randomisation", "", 71.4, 65.4, None, None),
        ("ProST, loss of the value", "", 28.8, 27.9, None, None),
        ("ProST, full CT", "", 59.4, None, None, None),
        ("ProST of MICCAI 2020", "deep_reg", 51.2, 45.0, None, None),
        ("DeepIM", "deepim", 41.2, 59.6, None, None),
    )
    remark = "TRE over all voxels of the bone, after CMA-ES"
    out = []
    for method, ours, real, simulated, real_p50, simulated_p50 in rows:
        for protocol, n, success, p50, of in (
            ("deepfluoro", 500, real, real_p50, "100 chosen AP images, 5 starts each"),
            ("prost", 1000, simulated, simulated_p50, "50 of each of 20 CTs"),
        ):
            if success is not None:
                out.append(
                    PaperFigure(
                        method, ours, protocol, "all", n, "mtre_landmarks_mm", None, p50, None, success10=success,
                        seconds=15.0 if method == "ProST + CMA-ES" else None, source=_PROST, remark=f"{remark}; {of}",
                    )
                )  # fmt: skip
    out.append(
        PaperFigure(
            "ProST + CMA-ES", "prost_cma_es", "prost-challenging", "all", 500, "mtre_landmarks_mm", None, None, None,
            success10=45.8, source=_PROST, remark=f"{remark}; 100 real X-rays chosen by hand, 5 starts each",
        )
    )  # fmt: skip
    return out


FIGURES: tuple[PaperFigure, ...] = (*_rayemb(), *_scr_simulated(), *_scr_real(), *_prost())


@dataclass(frozen=True)
class PerDegreeOfFreedom:
    """A row of SOPI's table 1: absolute errors, mean and standard deviation over cases and axes.

    Attributes:
        method: as the paper calls it.
        rotation_deg, translation_mm: (mean, standard deviation).
        failed: percent of cases, by a threshold that is not given.
        seconds: a case.
        remark: what to know before comparing.
    """

    method: str
    rotation_deg: tuple[float, float]
    translation_mm: tuple[float, float]
    failed: float
    seconds: float | None = None
    remark: str = ""


SOPI_SOURCE = _SOPI_1
SOPI_TABLE = (
    PerDegreeOfFreedom("Initial", (6.40, 3.77), (15.08, 8.56), 95.2),
    PerDegreeOfFreedom("Opt-NCCL", (3.68, 3.18), (5.79, 5.18), 38.2, 19.16),
    PerDegreeOfFreedom("Opt-NGI", (3.84, 3.32), (5.92, 5.40), 50.6, 30.25, "mutual information of gradients, in the code"),
    PerDegreeOfFreedom("Opt-GC", (3.73, 3.18), (7.80, 7.25), 43.6, 18.74),
    PerDegreeOfFreedom("Deep-reg", (5.54, 3.83), (13.21, 8.55), 74.0, 20.09),
    PerDegreeOfFreedom(
        "SOPI", (1.89, 1.57), (4.53, 3.54), 22.4, 4.64, "of each degree of freedom, the code keeps the better of two by the truth"
    ),
)
