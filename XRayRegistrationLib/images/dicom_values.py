"""What a DICOM header says about the meaning of its pixel values."""

from __future__ import annotations

from pydicom.dataset import Dataset

from XRayRegistrationLib.images.dicom import attribute
from XRayRegistrationLib.images.prepare import HeaderHints

_FLUOROSCOPY = ("XA", "RF")  # shown with bone dark; radiographs are shown with bone white


def value_hints(dataset: Dataset, frame: int = 0) -> HeaderHints:
    """Polarity and scale of the stored values, as far as the header tells.

    PixelIntensityRelationshipSign (0028,1041) is explicit: -1 is higher values for less X-ray. Without
    it, XA's LIN and LOG (0028,1040) grow with the X-ray by definition; else the photometric
    interpretation tells how the values are to look, and so, by the custom of the modality, where
    bone is. Custom is no law, so this is a hint (see images.polarity).
    """
    modality = str(dataset.get("Modality") or "")
    relationship = str(attribute(dataset, "PixelIntensityRelationship", frame) or "").upper()
    sign = attribute(dataset, "PixelIntensityRelationshipSign", frame)
    photometric = str(dataset.get("PhotometricInterpretation") or "")
    polarity: str | None = None
    if sign in (1, -1):
        polarity = "bone_dark" if sign == 1 else "bone_bright"
    elif modality == "CT":
        polarity = "bone_bright"
    elif modality in _FLUOROSCOPY and relationship in ("LIN", "LOG"):
        polarity = "bone_dark"
    elif photometric in ("MONOCHROME1", "MONOCHROME2"):
        white_is_high = photometric == "MONOCHROME2"
        polarity = "bone_dark" if white_is_high == (modality in _FLUOROSCOPY) else "bone_bright"
    return HeaderHints(polarity=polarity, logarithmic=relationship == "LOG" or modality == "CT")
