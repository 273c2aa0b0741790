"""Image similarities, masked, larger is better: ``similarity(moving, fixed, mask=None) -> float``.

Images are (H, W), the mask (H, W) is True where a pixel is valid; a pixel outside the mask has no
influence on the result whatever its value. Adding one is adding a file and a line here.
"""

from collections.abc import Callable

from XRayRegistrationLib.similarity.gradient_information import gradient_information
from XRayRegistrationLib.similarity.gradient_ncc import gradient_ncc
from XRayRegistrationLib.similarity.local_ncc import local_ncc
from XRayRegistrationLib.similarity.mutual_information import mutual_information
from XRayRegistrationLib.similarity.ncc import ncc
from XRayRegistrationLib.similarity.ncc_and_laplacian import ncc_and_laplacian
from XRayRegistrationLib.similarity.patch_gradient_ncc import patch_gradient_ncc

SIMILARITIES: dict[str, Callable[..., float]] = {
    "ncc": ncc,
    "local_ncc": local_ncc,
    "gradient_ncc": gradient_ncc,
    "patch_gradient_ncc": patch_gradient_ncc,
    "gradient_information": gradient_information,
    "mutual_information": mutual_information,
    "ncc_and_laplacian": ncc_and_laplacian,
}

__all__ = [
    "SIMILARITIES",
    "gradient_information",
    "gradient_ncc",
    "local_ncc",
    "mutual_information",
    "ncc",
    "ncc_and_laplacian",
    "patch_gradient_ncc",
]
