"""Registration methods, one file each, behind one protocol (methods.base)."""

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.methods.base import Candidate, Method, Needs, Prepared, Proposal
from XRayRegistrationLib.methods.dflnet import DflNetBaseline
from XRayRegistrationLib.methods.diffdrr import DiffDrr
from XRayRegistrationLib.methods.fixed_landmarks import FixedLandmarks
from XRayRegistrationLib.methods.options import nearest_names
from XRayRegistrationLib.methods.posenet import PoseNet
from XRayRegistrationLib.methods.prost import Prost
from XRayRegistrationLib.methods.rayemb import RayEmb
from XRayRegistrationLib.methods.relative_pose import DeepImBaseline, DmwBaseline
from XRayRegistrationLib.methods.scene_coordinates import SceneCoordinates
from XRayRegistrationLib.methods.sopi import Sopi

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        DiffDrr(),
        RayEmb(),
        SceneCoordinates(),
        Prost(),
        Sopi(),
        FixedLandmarks(),
        DflNetBaseline(),
        PoseNet(),
        DeepImBaseline(),
        DmwBaseline(),
    )
}


def get_method(name: str) -> Method:
    """The method of that name.

    Raises:
        InputError: no method has that name; the nearest ones are named.
    """
    if not isinstance(name, str) or name not in METHODS:
        raise InputError(f"method {name!r} is unknown; allowed are {', '.join(METHODS)}{nearest_names(name, METHODS)}")
    return METHODS[name]


__all__ = ["METHODS", "Candidate", "Method", "Needs", "Prepared", "Proposal", "get_method"]
