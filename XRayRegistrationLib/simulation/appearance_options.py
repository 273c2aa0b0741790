"""From what the looks of X-rays are drawn: ranges and probabilities.

The randomisations are the union of what the papers use: DeepDRR's physics, ProST's and SOPI's inversion,
noise, gamma, box corruption, renormalisation and sine fields, RayEmb's one of sharpness, contrast,
equalisation, inversion and solarisation, xvr's erasing and local contrast, SCR's jitter and erasing.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from XRayRegistrationLib.errors import InputError

Range = tuple[float, float]
SHAPES = ("rectangle", "octagon", "circle", "shutters")


@dataclass(frozen=True)
class AppearanceOptions:
    """From what appearances are drawn; the defaults are domain randomisation.

    ``p_...`` are probabilities; a range (low, high) is drawn from uniformly, or log-uniformly where said.

    Attributes:
        soft_scale, bone_scale, metal_scale: densities, times the CT's.
        p_linear: no physics: the weighted sum of the path lengths at 70 keV, as DRRs have it. Scatter,
            glare, noise of photons, saturation and bad lines do not occur in it.
        linear_soft, linear_bone: contrasts in it (bone log-uniform), for a multiplier such as RayEmb's.
        kvp: voltages (of ``physics.KVP``, the first and last).
        p_tissue, tissue_mm: soft tissue added in a smooth bulge, of this thickness in the middle.
        photons: counts behind the image's mean line integral, log-uniform: an exposure control keeps
            them. 0 for no noise.
        electronic_noise: standard deviation in photons.
        p_scatter, scatter_ratio, scatter_width: scattered over primary light behind the patient, and the
            Gaussian sigma of its spread over the image's width.
        p_glare, glare, glare_width: share of all light that is spread so.
        blur_px: Gaussian sigma of focal spot and detector.
        p_saturation, saturation: the detector's brightest signal over the geometric mean's, log-uniform.
        p_heel, heel: the light falls off by up to this (in line integrals) towards some side, and bends.
        p_wave, wave: amplitude (in line integrals) of a sine across the image.
        p_bad_lines: one to three rows or columns of the detector that read wrong.
        p_collimator, collimator_shapes, collimator_open: blades; half-widths of what is open, over the image's.
        p_raw_border: what the blades cover stays as the detector reads it; otherwise it is filled, as
            ``images.prepare`` does.
        p_flatten, flatten: this share of the image's low frequencies taken out (local contrast).
        p_window, window_low, window_high: grey values cut at these parts of the image's range.
        p_gamma, gamma: exponent of the grey values.
        p_equalise, p_solarise: the histogram made even, in part; or the brightest folded over.
        p_filter, smooth_px, sharpen: half of them smoothed (Gaussian sigma), half sharpened by unsharp masking.
        p_noise, noise: Gaussian noise of the picture, over its range, log-uniform.
        p_specks: salt and pepper, in up to 1 % of the pixels.
        p_boxes: one to five boxes with noise of 0.2 of the range.
        p_erase: a box is blank.
        p_quantise: 256 grey values.
        p_invert: bone is dark.
        p_instruments, most_instruments: metal in the beam.
    """

    soft_scale: Range = (0.8, 1.2)
    bone_scale: Range = (0.8, 1.8)
    metal_scale: Range = (0.7, 1.3)
    p_linear: float = 0.35
    linear_soft: Range = (0.1, 1.2)
    linear_bone: Range = (1.0, 6.0)
    kvp: tuple[int, int] = (60, 120)
    p_tissue: float = 0.25
    tissue_mm: Range = (20.0, 200.0)
    photons: Range = (150.0, 8000.0)
    electronic_noise: Range = (0.0, 3.0)
    p_scatter: float = 0.5
    scatter_ratio: Range = (0.2, 1.5)
    scatter_width: Range = (0.05, 0.15)
    p_glare: float = 0.3
    glare: Range = (0.02, 0.12)
    glare_width: Range = (0.05, 0.25)
    blur_px: Range = (0.0, 1.1)
    p_saturation: float = 0.3
    saturation: Range = (4.0, 40.0)
    p_heel: float = 0.4
    heel: Range = (0.0, 0.5)
    p_wave: float = 0.2
    wave: Range = (0.05, 0.4)
    p_bad_lines: float = 0.1
    p_collimator: float = 0.4
    collimator_shapes: tuple[str, ...] = SHAPES
    collimator_open: Range = (0.6, 1.0)
    p_raw_border: float = 0.3
    p_flatten: float = 0.3
    flatten: Range = (0.2, 0.8)
    p_window: float = 0.4
    window_low: Range = (-0.04, 0.15)
    window_high: Range = (0.8, 1.05)
    p_gamma: float = 0.5
    gamma: Range = (0.6, 1.6)
    p_equalise: float = 0.15
    p_solarise: float = 0.05
    p_filter: float = 0.4
    smooth_px: Range = (0.5, 1.5)
    sharpen: Range = (0.2, 1.2)
    p_noise: float = 0.4
    noise: Range = (0.004, 0.06)
    p_specks: float = 0.1
    p_boxes: float = 0.3
    p_erase: float = 0.3
    p_quantise: float = 0.4
    p_invert: float = 0.3
    p_instruments: float = 0.3
    most_instruments: int = 4

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if f.name.startswith("p_") and not 0.0 <= value <= 1.0:
                raise InputError(f"appearance option {f.name} is {value!r}; allowed is a probability, 0 to 1")
            if isinstance(value, tuple) and f.name != "collimator_shapes" and not (len(value) == 2 and value[0] <= value[1]):
                raise InputError(f"appearance option {f.name} is {value!r}; allowed is a range (low, high)")
        unknown = [shape for shape in self.collimator_shapes if shape not in SHAPES]
        if unknown or not self.collimator_shapes:
            raise InputError(f"collimator_shapes are {self.collimator_shapes!r}; allowed are {', '.join(SHAPES)}")

    @classmethod
    def domain_randomisation(cls) -> AppearanceOptions:
        """Everything, to train with."""
        return cls()

    @classmethod
    def realistic(cls) -> AppearanceOptions:
        """What a fluoroscope in an operating room delivers once it is prepared: physics, blades, now and then metal."""
        return replace(
            cls.clean(),
            soft_scale=(0.95, 1.05), bone_scale=(0.9, 1.15), p_linear=0.0, kvp=(70, 110),
            photons=(400.0, 6000.0), electronic_noise=(0.0, 2.0), p_scatter=1.0, scatter_ratio=(0.2, 1.0),
            p_glare=1.0, glare=(0.01, 0.06), blur_px=(0.3, 0.8), p_saturation=0.3, p_heel=1.0, heel=(0.0, 0.2),
            p_collimator=0.6, p_gamma=0.3, gamma=(0.85, 1.2), p_quantise=0.5, p_instruments=0.15,
        )  # fmt: skip

    @classmethod
    def clean(cls) -> AppearanceOptions:
        """The line integrals at 70 keV and nothing else."""
        chances = {f.name: 0.0 for f in fields(cls) if f.name.startswith("p_")}
        return replace(
            cls(**chances),  # type: ignore[arg-type]
            p_linear=1.0, soft_scale=(1.0, 1.0), bone_scale=(1.0, 1.0), metal_scale=(1.0, 1.0),
            linear_soft=(1.0, 1.0), linear_bone=(1.0, 1.0), photons=(0.0, 0.0), electronic_noise=(0.0, 0.0),
            blur_px=(0.0, 0.0),
        )  # fmt: skip


PRESETS = ("randomised", "realistic", "clean")


def preset(name: str) -> AppearanceOptions:
    """Options by the name that the command line uses, of :data:`PRESETS`.

    Raises:
        InputError: another name.
    """
    made = {
        "randomised": AppearanceOptions.domain_randomisation,
        "realistic": AppearanceOptions.realistic,
        "clean": AppearanceOptions.clean,
    }
    if name not in made:
        raise InputError(f"appearance {name!r} is unknown; allowed are {', '.join(made)}")
    return made[name]()
