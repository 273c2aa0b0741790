"""What each paper was tested on: poses, camera, appearance, how many images, and which count.

Adding a protocol is adding its line to :data:`PROTOCOLS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.cios import BORDER_PX, cios_camera
from XRayRegistrationLib.geometry.perlove import perlove_camera
from XRayRegistrationLib.methods.options import nearest_names

#: Tags of a case; each is a group of the tables, beside "all".
PLAIN, TRUNCATED, INSTRUMENTS, INVERTED, LITTLE_BONE = "plain", "truncated", "instruments", "inverted", "little bone"
GROUPS = ("all", PLAIN, TRUNCATED, INSTRUMENTS, INVERTED, LITTLE_BONE)


@dataclass(frozen=True)
class Protocol:
    """One paper's test, as far as its sources tell.

    Attributes:
        name: in :data:`PROTOCOLS`.
        paper: whose test it is.
        summary: what is drawn or read, and where our reading goes beyond the paper's words.
        cases: images a CT when no other number is asked for; for real data None, all there are.
        paper_cases: images a CT in the paper, in words.
        sampler: of simulation.pose_samplers; None for real images.
        start_sampler: of the rough start that each case comes with; None for cases without one.
        camera: of simulated images; None where the data say.
        appearance: of simulated images: ``"clean"``, ``"realistic"`` or ``"randomised"`` (simulation.appearance_options).
        instruments_share, inverted_share: of the simulated cases, those with instruments over the
            image, and those shown with bone and air exchanged. The papers have neither: such cases
            are groups of their own, and what stands beside the paper's figures is ``paper_group``.
        least_bone: fraction of the image that the bone has to cover; a pose that shows less is drawn
            again, and counted.
        headline: the error that the paper reports.
        paper_group: the group that is comparable with the paper's figures.
    """

    name: str
    paper: str
    summary: str
    cases: int | None
    paper_cases: str
    sampler: str | None = None
    start_sampler: str | None = None
    camera: Camera | None = None
    appearance: Literal["clean", "realistic", "randomised"] = "realistic"
    instruments_share: float = 0.0
    inverted_share: float = 0.0
    least_bone: float = 0.0
    headline: Literal["mtre_landmarks_mm", "mpd_mm"] = "mtre_landmarks_mm"
    paper_group: str = PLAIN

    @property
    def simulated(self) -> bool:
        """Whether its images are made from the CT."""
        return self.sampler is not None

    def settings(self) -> dict[str, Any]:
        """Everything as plain values, for the record."""
        values = {name: value for name, value in vars(self).items() if name != "camera"}
        if self.camera is not None:
            values["camera"] = {
                "width": self.camera.width,
                "height": self.camera.height,
                "pixel_spacing_mm": list(self.camera.pixel_spacing_mm or ()),
                "source_detector_distance_mm": self.camera.source_detector_distance_mm,
            }
        return values


PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "scr",
            "Shrestha et al., MICCAI 2023 (scene coordinates)",
            "simulated CIOS images of 512 px: 45 degrees of LAO to RAO and of cranial to caudal, offsets of 90 and 30 mm "
            "(standard deviation), truncated views kept, images with less than 10 % bone drawn again (the paper's "
            "evaluator skips them)",
            cases=100,
            paper_cases="1620 a specimen, of 6; one network a specimen, tested on the CT it was trained on",
            sampler="scr",
            camera=cios_camera(512),
            instruments_share=0.2,
            inverted_share=0.1,
            least_bone=0.10,
        ),
        Protocol(
            "rayemb",
            "Shrestha et al., ACCV 2024 (RayEmb)",
            "simulated CIOS images of 512 px without the border of 50 px, from DiffPose's distribution of poses",
            cases=100,
            paper_cases="20 % of 600 images of each of 103 CTs, whose others were trained on; no figures in our sources",
            sampler="rayemb",
            camera=cios_camera(512, BORDER_PX),
            instruments_share=0.2,
            inverted_share=0.1,
        ),
        Protocol(
            "prost",
            "Gao et al., IEEE TMI 2024 (ProST)",
            "simulated CIOS images of 512 px without the border of 50 px: AP +-15 degrees and +-25 mm at 800 mm from the "
            "source, each with a start at AP +-50 degrees, +-200 mm in the plane and +-300 mm in depth; instruments stand "
            "for the paper's tools; images with less than 10 % bone drawn again",
            cases=100,
            paper_cases="50 of each of 20 CTs, none of them trained on",
            sampler="prost",
            start_sampler="prost-start",
            camera=cios_camera(512, BORDER_PX),
            instruments_share=0.2,
            least_bone=0.10,
        ),
        Protocol(
            "prost-challenging",
            "Gao et al., IEEE TMI 2024 (ProST's challenging views)",
            "as protocol prost with its starts, of poses up to 45 degrees and 150 mm off AP drawn at random, where the paper "
            "chose real X-rays by hand",
            cases=100,
            paper_cases="100 real X-rays, five starts each",
            sampler="xvr",
            start_sampler="prost-start",
            camera=cios_camera(512, BORDER_PX),
            instruments_share=0.2,
            least_bone=0.10,
        ),
        Protocol(
            "sopi",
            "Chen et al., ICASSP 2024 (SOPI)",
            "projections of 256 px of 0.8 mm, as the paper's simulated X-rays are, at 1012 mm SDD and 900 mm from the "
            "source: normal about AP, 6 degrees and (9, 4.5, 30) mm, each with a start of 3 to 6 degrees and as many mm",
            cases=100,
            paper_cases="146 spines, how many of them tested on is not said",
            sampler="sopi",
            start_sampler="sopi-start",
            camera=perlove_camera(),
            appearance="clean",
        ),
        Protocol(
            "deepfluoro",
            "Grupp et al., IJCARS 2020 (the data set), as RayEmb and SCR use it",
            "366 real fluoroscopies of 6 cadaver pelvises, border of 50 px cropped; the true poses come from an intensity "
            "registration and are good to 1 to 2 mm themselves",
            cases=None,
            paper_cases="all 366",
        ),
    )
}


def get_protocol(name: str) -> Protocol:
    """The protocol of that name.

    Raises:
        InputError: there is none.
    """
    if name not in PROTOCOLS:
        raise InputError(f"protocol {name!r} is unknown; allowed are {', '.join(PROTOCOLS)}{nearest_names(name, PROTOCOLS)}")
    return PROTOCOLS[name]
