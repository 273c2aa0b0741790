"""What the methods with a network share: finding their weights, and the search for when the network fails."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from XRayRegistrationLib.bone.model import BoneModel
from XRayRegistrationLib.errors import InputError, XRayRegistrationError
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.carm import named_view
from XRayRegistrationLib.geometry.rigid import inverse, transform_points
from XRayRegistrationLib.images.volume import Volume, fingerprint
from XRayRegistrationLib.images.xray import XRay
from XRayRegistrationLib.methods.base import Array, Candidate, Method, Prepared, Progress, Proposal, Start
from XRayRegistrationLib.methods.diffdrr import search_ranges, search_stages
from XRayRegistrationLib.solvers.search_range import NOMINAL_DEPTH, SearchRange, plausible_depths, start_range

if TYPE_CHECKING:
    from torch import nn

    from XRayRegistrationLib.simulation.subject import Subject
    from XRayRegistrationLib.training.loop import TrainingResult
    from XRayRegistrationLib.training.options import TrainingOptions
    from XRayRegistrationLib.training.task import Task


#: What every network needs; those whose points give a pose by PnP; those whose slope is walked down; what training needs besides.
PACKAGES = ("torch", "safetensors")
POINTS_PACKAGES, SLOPE_PACKAGES, TRAINING_PACKAGES = (*PACKAGES, "poselib"), (*PACKAGES, "numba"), ("lightning_fabric", "numba")


# A network's poses are few: below, a neighbour that they led past may be the right one (22 mm in depth passed with 0.85).
_SURE = 0.95
_AROUND_DEG = 24.0  # three times a network's median error of direction, which is 5 to 8 degrees


class NothingProposedError(XRayRegistrationError):
    """A network saw nothing in the X-ray that a pose could be made of; the message says why."""


class LearnedMethod(Method):
    """A method whose proposal comes from a network.

    Its options have ``weights`` (a path, or None to look for them) and ``search_on_failure``. ``paper_mode`` is of the
    network, its training and how a pose is made of what it says; that pose is refined, verified and searched around as
    any other, and an evaluation has it in the rows "proposed".
    """

    #: whether a network serves only the CTs that it was trained on
    patient_specific = True

    @abstractmethod
    def task(
        self,
        subjects: Sequence[Subject],
        held_out: Sequence[Subject],
        options: Any,
        training: TrainingOptions,
        camera: Camera | None,
    ) -> Task:
        """The training of this method."""

    def only_subject(self, subjects: Sequence[Subject], held_out: Sequence[Subject]) -> Subject:
        """The one CT of a method that learns it by heart.

        Raises:
            InputError: more than one, or one held out.
        """
        if len(subjects) != 1 or held_out:
            raise InputError(
                f"method {self.name!r} learns one CT by heart and was given {len(subjects) + len(held_out)}; "
                "give one --ct and no --hold-out"
            )
        return subjects[0]

    def some_subjects(self, subjects: Sequence[Subject]) -> Sequence[Subject]:
        """The CTs of a method that learns from any number of them.

        Raises:
            InputError: none.
        """
        if not subjects:
            raise InputError(f"method {self.name!r} is trained on at least one CT; give --ct")
        return subjects

    @abstractmethod
    def network(self, header: dict[str, Any]) -> nn.Module:
        """The network that a weights file is of, without its weights."""

    @abstractmethod
    def propose_view(
        self, xray: XRay, prepared: Prepared, seed: int, start: Array | None = None
    ) -> list[tuple[Array, float, str]]:
        """camera_from_ct, cost and origin of the poses that one X-ray suggests, best first.

        Args:
            start: camera_from_ct of a rough start, for networks that want one; None where none is known.

        Raises:
            NothingProposedError: none.
        """

    def train(
        self,
        subjects: Sequence[Subject],
        out: Path,
        options: Any,
        training: TrainingOptions,
        *,
        held_out: Sequence[Subject] = (),
        camera: Camera | None = None,
        resume: bool = False,
        progress: Progress | None = None,
    ) -> TrainingResult:
        """Train the network on these CTs; see training.loop.fit.

        Args:
            held_out: CTs to validate on; where there are none, poses that were not trained on are.
            camera: that the network looks through; None is a C-arm's, as the method has it.

        Raises:
            InputError: what the method needs is not there, or see ``fit``.
        """
        from XRayRegistrationLib.training.loop import fit

        return fit(self.task(subjects, held_out, options, training, camera), out, training, resume=resume, progress=progress)

    def prepare(self, ct: Volume, bone: BoneModel, options: Any, *, progress: Progress | None = None) -> Prepared:
        """Find and load the weights.

        Raises:
            InputError: there are none for this CT, or they are of another method or another CT.
            MissingDependencyError: torch or safetensors is not installed.
        """
        from XRayRegistrationLib.networks.weights_file import read_weights
        from XRayRegistrationLib.networks.weights_store import fingerprints

        _require_torch()
        specific = self.serves_its_own_cts_only(options)
        path = self.weights_for(ct, options)
        tensors, header = read_weights(path)
        if header.get("method") != self.name:
            raise InputError(
                f"the weights {path} are of method {header.get('method')!r}; give weights of {self.name!r}, or choose that method"
            )
        if not self._suits(header, options):
            raise InputError(
                f"the weights {path} are not of the published network that paper_mode asks for; leave paper_mode away, or give "
                "weights that were trained with it"
            )
        if specific and fingerprint(ct) not in fingerprints(header):
            names = ", ".join(str(c.get("name")) for c in header.get("cts", [])) or "another CT"
            raise InputError(
                f"the weights {path} were trained on {names}, not on this CT; train on this one, or use method 'diffdrr'"
            )
        try:
            network = self.network(header)
            network.load_state_dict(tensors)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            first = str(error).splitlines()[0]
            raise InputError(f"the weights {path} do not fit their own header ({first}); train them anew") from error
        data = {"network": network.eval().requires_grad_(False), "header": header, "weights": str(path)}
        return Prepared(self.name, ct, bone, options, {**data, **self.prepare_ct(ct, bone, options, data, progress)})

    def weights_for(self, ct: Volume, options: Any) -> Path:
        """The weights that :meth:`prepare` takes: those that are asked for, else those that suit the CT best.

        Raises:
            InputError: there are none.
        """
        from XRayRegistrationLib.networks.weights_store import find_weights

        specific = self.serves_its_own_cts_only(options)
        found = options.weights or find_weights(self.name, fingerprint(ct), specific, lambda header: self._suits(header, options))
        if found is None:
            what = "this CT" if specific else "any CT"
            way = f"in Slicer's panel under Training, in a shell with xrayreg train {self.name} --ct CT"
            if options.paper_mode:
                what += " of the published network (paper_mode)"
                way = f"in a shell with xrayreg train {self.name} --paper-mode --ct CT"
            raise InputError(
                f"method {self.name!r} has no weights for {what}; train it ({way}), "
                "or use method 'diffdrr', which needs no training"
            )
        return Path(found)

    def _suits(self, header: dict[str, Any], options: Any) -> bool:
        return not options.paper_mode or self.published(header.get("architecture", {}), options)

    def finish(
        self,
        candidates: Sequence[Candidate],
        xrays: Sequence[XRay],
        prepared: Prepared,
        backend: str,
        seed: int,
        progress: Progress | None,
    ) -> Proposal:
        """The proposal that is made of what the network suggests, best first; what follows it is none of its business."""
        return Proposal(tuple(candidates), sure=_SURE, message=f"{len(candidates)} poses from the network")

    def published(self, architecture: dict[str, Any], options: Any) -> bool:
        """Whether weights with such an architecture are of the network that these options have in paper_mode."""
        return bool(architecture.get("paper_mode", architecture.get("published")))

    def serves_its_own_cts_only(self, options: Any) -> bool:
        """Whether weights are for the CTs that they were trained on, and for no other."""
        return self.patient_specific

    def prepare_ct(
        self, ct: Volume, bone: BoneModel, options: Any, data: dict[str, Any], progress: Progress | None
    ) -> dict[str, Any]:
        """What else depends on the CT: templates, landmarks."""
        return {}

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
        """Poses that the network suggests, from each view of a rig.

        Where none of them verifies, the poses around the best one come next, as around a rough start; then, unless the
        option ``search_on_failure`` is off, the whole search of method ``diffdrr``, to which the network says nothing.

        Raises:
            NothingProposedError: the network saw nothing and there is to be no search.
        """
        if progress is not None:
            progress(0.0, "asking the network")
        candidates, reasons = [], []
        centre_ct = prepared.bone.centroid
        for xray in xrays:
            camera_from_rig = xray.camera.camera_from_rig
            rig_from_camera = np.eye(4) if camera_from_rig is None else inverse(camera_from_rig)
            try:
                for pose, cost, origin in self.propose_view(xray, prepared, seed, _start_of(xray, prepared, start)):
                    if transform_points(pose, centre_ct)[2] > 0.0:
                        candidates.append(Candidate(rig_from_camera @ pose, cost, origin))
                    else:
                        reasons.append("a pose of the network has the bone behind the source")
            except NothingProposedError as error:
                reasons.append(str(error))
        candidates.sort(key=lambda c: c.cost)

        def search(ranges: Sequence[SearchRange]) -> Proposal:
            return search_stages(xrays, prepared.bone, ranges, backend, progress)

        more = (lambda: search(search_ranges(xrays, centre_ct, start))) if prepared.options.search_on_failure else None
        if candidates:
            near = candidates[0].rig_from_ct
            first = self.finish(candidates, xrays, prepared, backend, seed, progress)
            if first.finished:  # the method's own ending: nothing is looked for around it
                return replace(first, more=None if more is None else lambda: _followed(more(), None, near))
            return replace(first, more=lambda: _followed(search([_around(xrays, near, centre_ct)]), more, near))
        if more is None:
            raise NothingProposedError(f"method {self.name!r} found no pose: {'; '.join(reasons)}; try method 'diffdrr'")
        return more()


def _start_of(xray: XRay, prepared: Prepared, start: Start) -> Array | None:
    """camera_from_ct (4, 4) of a start; a named view's is at the distance that C-arms have, and None without an SDD."""
    camera = xray.camera
    if not isinstance(start, str):
        return start if camera.camera_from_rig is None else camera.camera_from_rig @ start
    if start == "none" or camera.source_detector_distance_mm is None:
        return None
    return named_view(start, prepared.bone.centroid, NOMINAL_DEPTH * camera.source_detector_distance_mm)


def _around(xrays: Sequence[XRay], rig_from_ct: Array, centre_ct: Array) -> SearchRange:
    """Poses around a network's. It knows the direction better than the depth, so all of a C-arm's depths are looked at."""
    camera = xrays[0].camera
    camera_from_ct = rig_from_ct if camera.camera_from_rig is None else camera.camera_from_rig @ rig_from_ct
    depths = plausible_depths(camera, xrays[0].metadata.get("source_object_distance_mm")) if len(xrays) == 1 else None
    return start_range(camera_from_ct, centre_ct, _AROUND_DEG, more_depths_mm=depths, name="around the network's pose")


def _followed(proposal: Proposal, more: Callable[[], Proposal] | None, proposed: Array) -> Proposal:
    """The proposal of a search after a network's, with ``more`` after the last of its own."""
    own = proposal.more
    if own is not None:
        return replace(proposal, more=lambda: _followed(own(), more, proposed), proposed=proposed)
    last = None if more is None else lambda: _followed(more(), None, proposed)
    return replace(proposal, more=last, proposed=proposed)


def square_camera(camera: Camera, multiple: int) -> Camera:
    """The camera of a network that sees squares, with sides that are multiples of so many pixels.

    Raises:
        InputError: it has others.
    """
    if camera.width != camera.height or camera.width % multiple:
        raise InputError(
            f"the camera has {camera.width} x {camera.height} pixels; this network learns from squares whose sides are "
            f"multiples of {multiple}"
        )
    return camera


def _require_torch() -> None:
    from XRayRegistrationLib.drr.backend_torch import default_device

    default_device()  # says it in one line where torch is not installed
