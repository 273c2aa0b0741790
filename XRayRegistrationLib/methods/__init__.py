"""Registration methods, one file each, behind one protocol (methods.base)."""

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.methods.base import Candidate, Method, Needs, PlannedMethod, Prepared, Proposal
from XRayRegistrationLib.methods.diffdrr import DiffDrr
from XRayRegistrationLib.methods.options import nearest_names

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        DiffDrr(),
        PlannedMethod(
            "rayemb",
            "finds any bone point in the X-ray by the embeddings of its rays; one network for all patients",
            "Shrestha et al., ACCV 2024",
            Needs(weights=True, packages=("torch",)),
        ),
        PlannedMethod(
            "scene_coordinates",
            "a network gives each pixel its points on the bone; trained on each patient's CT",
            "Shrestha et al., MICCAI 2023",
            Needs(training_per_patient=True, weights=True, packages=("torch",)),
        ),
        PlannedMethod(
            "prost",
            "walks from a rough start along the gradient of a learned similarity",
            "Gao et al., IEEE TMI 2024",
            Needs(weights=True, labels=True, start_pose=True, packages=("torch", "cma")),
        ),
        PlannedMethod(
            "sopi",
            "regresses a pose from CT and X-ray, then refines it by a learned similarity",
            "Chen et al., ICASSP 2024",
            Needs(weights=True, labels=True, packages=("torch",)),
        ),
        PlannedMethod(
            "fixed_landmarks",
            "finds named anatomical landmarks in the X-ray and solves for the pose",
            "Grupp et al., IPCAI 2020",
            Needs(weights=True, labels=True, packages=("torch",)),
        ),
    )
}


def get_method(name: str) -> Method:
    """The method of that name, planned ones included.

    Raises:
        InputError: no method has that name; the nearest ones are named.
    """
    if not isinstance(name, str) or name not in METHODS:
        raise InputError(f"method {name!r} is unknown; allowed are {', '.join(METHODS)}{nearest_names(name, METHODS)}")
    return METHODS[name]


__all__ = ["METHODS", "Candidate", "Method", "Needs", "PlannedMethod", "Prepared", "Proposal", "get_method"]
