"""From pixel values to bright-bone line integrals with a mask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.images.camera_file import check_camera_size
from XRayRegistrationLib.images.field_choice import choose_fields, painted_over
from XRayRegistrationLib.images.masks import Field, fill_masked, saturated
from XRayRegistrationLib.images.picture_reading import PictureReading, read_picture
from XRayRegistrationLib.images.polarity import check_polarity, decide_polarity
from XRayRegistrationLib.images.xray import XRay

_OPEN_BEAM_PERCENTILE = 99.5
_LEAST_LIGHT = 1e-4  # of the open beam: a logarithm's argument stays above it
_LEAST_VALID = 0.02  # of the image
_LEAST_SIDE, _LONGEST = 8, 8  # pixels; times the other side: the search begins at 24 pixels, of which a gradient needs three


@dataclass(frozen=True)
class HeaderHints:
    """What a file's header says about its pixel values.

    Attributes:
        polarity: ``"bone_bright"`` or ``"bone_dark"``, asked when the pixels leave it open; None when
            the header is silent.
        logarithmic: the values are logarithms of intensity already.
        open_field: (height, width) bool, False where collimator, shutter or padding leave no image.
    """

    polarity: str | None = None
    logarithmic: bool = False
    open_field: NDArray[np.bool_] | None = None


def prepare_xray(
    values: ArrayLike,
    camera: Camera,
    *,
    polarity: str = "auto",
    mask: NDArray[np.bool_] | str | None = "auto",
    header: HeaderHints | None = None,
    provenance: dict[str, str] | None = None,
    source: str = "",
    metadata: dict[str, Any] | None = None,
) -> XRay:
    """Make an X-ray ready to register.

    With bone dark the values are taken as intensities: -log(I / I0), I0 the open beam; or, where the
    header says that they are logarithms already, as log I0 - log I. With bone bright they are taken
    as line integrals, up to offset and scale. A display's window bends either; the registration fits
    that curve (solvers.tone).

    Args:
        values: (height, width), any scale, either polarity.
        camera: of this image.
        polarity: ``"auto"`` (decided from the pixels), ``"bone_bright"`` or ``"bone_dark"``.
        mask: ``"auto"`` (field of view and saturation are looked for), None for every pixel, or
            (height, width) bool, True where valid.
        header: what the file's header says about its values.
        provenance, source, metadata: carried into the X-ray; the decisions made here are added.

    Raises:
        InputError: no image, NaN, constant, too little of it valid, or a camera or mask of another size.
    """
    check_polarity(polarity)
    header = header or HeaderHints()
    what = f"the X-ray {source}".rstrip()
    image = np.asarray(values, dtype=np.float32)
    if image.ndim != 2 or min(image.shape) < _LEAST_SIDE or max(image.shape) > _LONGEST * min(image.shape):
        raise InputError(
            f"{what} has the shape {image.shape}; allowed is (height, width), at least {_LEAST_SIDE} x {_LEAST_SIDE} pixels, "
            f"and one side at most {_LONGEST} times the other"
        )
    bad = int(np.count_nonzero(~np.isfinite(image)))
    if bad:
        raise InputError(f"{what} has {bad} pixels that are NaN or infinite; allowed are numbers, export it again")
    if image.max() <= image.min():
        raise InputError(f"{what} has the same value {image.min():g} everywhere; give an image that shows something")
    check_camera_size(camera, (image.shape[1], image.shape[0]), "the camera")
    reading = read_picture(image) if isinstance(mask, str) or polarity == "auto" else None
    fields = [] if reading is None else choose_fields(image, reading)

    def prepared(polarity: str, said: str, alternative: XRay | None = None) -> XRay:
        origin = {**(provenance or {}), "polarity": said}
        valid = _mask(image, mask, fields, reading, polarity, header.open_field, origin, what)
        if polarity == "bone_dark" and header.logarithmic:
            lines = np.float32(np.percentile(image[valid], _OPEN_BEAM_PERCENTILE)) - image
        elif polarity == "bone_dark":
            lines = _line_integrals_of_intensity(image, valid)
        else:
            lines = image - np.float32(np.percentile(image[valid], 100 - _OPEN_BEAM_PERCENTILE))
        if float(np.ptp(lines[valid])) <= 0:
            raise InputError(f"{what} is constant where it is valid; give another mask (--mask none uses every pixel)")
        filled = fill_masked(lines.astype(np.float32), valid)
        return XRay(filled, valid, camera, origin, source, dict(metadata or {}), alternative)

    if polarity != "auto":
        return prepared(polarity, f"given: {polarity.replace('_', ' ')}")
    assert reading is not None
    polarity, why, certain = decide_polarity(fields, reading.bone_bright, header.polarity)
    if certain:
        return prepared(polarity, f"found: {polarity.replace('_', ' ')}, {why}")
    other = "bone_bright" if polarity == "bone_dark" else "bone_dark"
    alternative = prepared(other, f"assumed: {other.replace('_', ' ')}, the other one failed")
    return prepared(polarity, f"assumed: {polarity.replace('_', ' ')}, {why}", alternative)


def _mask(
    image: NDArray[np.float32],
    mask: NDArray[np.bool_] | str | None,
    fields: list[Field],
    reading: PictureReading | None,
    polarity: str,
    open_field: NDArray[np.bool_] | None,
    provenance: dict[str, str],
    what: str,
) -> NDArray[np.bool_]:
    if mask is None:
        provenance["mask"] = "given: every pixel"
        return np.ones(image.shape, bool)
    if isinstance(mask, str):
        if mask != "auto":
            raise InputError(f"mask {mask!r} is unknown; allowed are 'auto', None or an array of the image's size")
        # blades let the least light through: where bone is dark they are dark, and what lies at the other end is open
        # air; a painted shutter may be either
        dense_end = "dark" if polarity == "bone_dark" else "bright"
        field = next((f for f in fields if f.painted or f.outside in (dense_end, "")), None)
        valid = np.ones(image.shape, bool) if field is None else field.mask.copy()
        clipped = saturated(image, valid, dense_end)
        assert reading is not None
        valid &= ~clipped
        covered = painted_over(image, reading, valid, dense_end)
        valid &= ~covered
        seen = "whole image" if field is None else "field of view inside a collimator or image intensifier"
        provenance["mask"] = f"found: {seen}" + (f", {np.count_nonzero(clipped)} saturated pixels" if clipped.any() else "")
        provenance["mask"] += f", {100 * covered.mean():.0f} % painted over" if covered.any() else ""
        if open_field is not None and (valid & open_field).mean() >= _LEAST_VALID:
            valid &= open_field
            provenance["mask"] += ", and the header's collimator, shutter or padding"
    else:
        valid = np.asarray(mask)
        if valid.shape != image.shape:
            raise InputError(
                f"the mask has {valid.shape[1]} x {valid.shape[0]} pixels, {what} has {image.shape[1]} x "
                f"{image.shape[0]} (width x height); give a mask of the same size"
            )
        valid = valid.astype(bool)
        provenance["mask"] = "given"
    if valid.mean() < _LEAST_VALID:
        raise InputError(
            f"only {100 * valid.mean():.1f} % of {what} is valid; allowed is at least {100 * _LEAST_VALID:.0f} %, "
            "give another mask (--mask none uses every pixel)"
        )
    return valid


def _line_integrals_of_intensity(image: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
    dark = min(0.0, float(image[valid].min()))
    light = image - np.float32(dark)
    open_beam = float(np.percentile(light[valid], _OPEN_BEAM_PERCENTILE))
    if open_beam <= 0:
        open_beam = float(light[valid].max())
    return -np.log(np.maximum(light / np.float32(open_beam), np.float32(_LEAST_LIGHT)))
