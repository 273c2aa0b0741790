"""An X-ray as it came, not yet prepared: pixels, camera, and how they are to be read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.images.prepare import HeaderHints, prepare_xray
from XRayRegistrationLib.images.xray import XRay


@dataclass(frozen=True)
class RawXRay:
    """What :func:`images.prepare.prepare_xray` takes.

    Attributes:
        values: (height, width), any scale, either polarity; one stored mirrored is mirrored back.
        camera: of this image.
        polarity: ``"auto"``, ``"bone_bright"`` or ``"bone_dark"``.
        mask: ``"auto"`` (look for collimator, round field and saturation), None for every pixel, or
            (height, width) bool.
        header: what the file said about its values.
        provenance, source, metadata: as in :class:`images.xray.XRay`.
    """

    values: NDArray[Any]
    camera: Camera
    polarity: str = "auto"
    mask: NDArray[np.bool_] | str | None = "auto"
    header: HeaderHints = field(default_factory=HeaderHints)
    provenance: dict[str, str] = field(default_factory=dict)
    source: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)

    def prepared(self) -> XRay:
        """The X-ray ready to register.

        Raises:
            InputError: its pixels cannot be used.
        """
        return prepare_xray(
            self.values,
            self.camera,
            polarity=self.polarity,
            mask=self.mask,
            header=self.header,
            provenance=self.provenance,
            source=self.source,
            metadata=self.metadata,
        )
