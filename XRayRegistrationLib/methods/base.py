"""What a registration method is: it says what it needs, prepares a CT once, and proposes poses.

The six methods differ in how they propose; refining and verifying are shared (design sections 2
and 7).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from XRayRegistrationLib.bone.model import BoneModel
from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.images.volume import Volume
from XRayRegistrationLib.images.xray import XRay
from XRayRegistrationLib.methods.options import options_from

Array = NDArray[np.float64]
Progress = Callable[[float, str], None]
Start = str | Array
"""``"none"``, a named view (geometry.carm.NAMED_VIEWS) or ``rig_from_ct`` (4, 4)."""


@dataclass(frozen=True)
class Needs:
    """What a method cannot do without; shown before the user starts.

    Attributes:
        training_per_patient: a network is trained on each CT first.
        weights: a network trained beforehand, on other patients.
        labels: a label map of the CT, or landmarks on it.
        start_pose: a rough pose.
        packages: optional packages, by the names that they are imported by.
        training_packages: those that only its training needs, besides.
    """

    training_per_patient: bool = False
    weights: bool = False
    labels: bool = False
    start_pose: bool = False
    packages: tuple[str, ...] = ()
    training_packages: tuple[str, ...] = ()


@dataclass(frozen=True)
class Prepared:
    """A CT made ready by :meth:`Method.prepare`, to be used for many X-rays.

    Attributes:
        method: name of the method that prepared it.
        ct: as it was read.
        bone: its model.
        options: the method's options.
        data: what the method computed: templates, landmarks, weights.
    """

    method: str
    ct: Volume
    bone: BoneModel
    options: Any
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Candidate:
    """One proposed pose.

    Attributes:
        rig_from_ct: 4x4; of a single X-ray this is camera_from_ct.
        cost: the method's own, smaller is better.
        origin: a few words on where it comes from.
        diagnostics: what else the method knows about it.
    """

    rig_from_ct: Array
    cost: float
    origin: str
    diagnostics: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Proposal:
    """What a method proposes for one X-ray, or one rig.

    Attributes:
        candidates: best first, at least one.
        finished: the best candidate is the method's final pose and is to be verified as it is,
            without the shared refinement; so for ``paper_mode`` of ``diffdrr``.
        more: looks further, for when none of the candidates verifies; None when the method has
            nothing left to try.
        sure: a pose of this proposal that passes with a lower probability is compared with what ``more`` finds.
        message: a sentence on how the method ended.
        trace: for reports.
        proposed: rig_from_ct (4, 4) that the method itself proposed, where the candidates are what a search around it
            found; None where that is the first candidate.
    """

    candidates: tuple[Candidate, ...]
    finished: bool = False
    more: Callable[[], Proposal] | None = None
    sure: float = 0.0
    message: str = ""
    trace: tuple[dict[str, Any], ...] = ()
    proposed: Array | None = None


class Method(ABC):
    """A registration method; an entry of ``methods.METHODS``.

    Attributes:
        name: in the registry.
        summary: one line for a user who has to choose.
        reference: the paper.
        needs: what it cannot do without.
        options_type: a frozen dataclass, each default stated once.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    reference: ClassVar[str]
    needs: ClassVar[Needs]
    options_type: ClassVar[type]

    def options(self, values: Mapping[str, Any] | None = None) -> Any:
        """The method's options with ``values`` in place of defaults.

        Raises:
            InputError: an unknown name, with the nearest ones, or a value of the wrong type.
        """
        return options_from(self.options_type, values, f"method {self.name!r}")

    def has_option(self, name: str) -> bool:
        """Whether :meth:`options` knows this name."""
        return name in {option.name for option in fields(self.options_type)}

    @abstractmethod
    def prepare(self, ct: Volume, bone: BoneModel, options: Any, *, progress: Progress | None = None) -> Prepared:
        """Everything that depends on the CT alone, once for many X-rays."""

    @abstractmethod
    def propose(
        self,
        xrays: Sequence[XRay],
        prepared: Prepared,
        start: Start = "none",
        *,
        backend: str = "auto",
        seed: int = 0,
        progress: Progress | None = None,
    ) -> Proposal:
        """Candidate poses for X-rays that share one pose (one X-ray, or the views of a rig).

        Raises:
            InputError: what the method needs is not there.
        """

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train what the method learns.

        Raises:
            InputError: it learns nothing.
        """
        raise InputError(f"method {self.name!r} learns nothing; register with it right away")

    def describe(self) -> dict[str, Any]:
        """For lists of methods: summary, paper and needs."""
        return {
            "summary": self.summary,
            "reference": self.reference,
            "training_per_patient": self.needs.training_per_patient,
            "trained_weights": self.needs.weights,
            "labels_or_landmarks": self.needs.labels,
            "start_pose": self.needs.start_pose,
            "optional_packages": list(self.needs.packages),
        }
