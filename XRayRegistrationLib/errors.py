"""The errors that reach a user, each one line: what is wrong, what is allowed, the way out."""

from __future__ import annotations


class XRayRegistrationError(Exception):
    """Base of every error that this library raises on purpose."""


class InputError(XRayRegistrationError, ValueError):
    """The input cannot be used as given.

    The message is one line that names the bad value, what is allowed and the way out.
    The command line prints it and ends with exit status 2.
    """


class MissingGeometryError(InputError):
    """An X-ray's file does not state a value of its camera.

    Attributes:
        value: ``"source_detector_distance_mm"`` or ``"pixel_spacing_mm"``.
    """

    def __init__(self, message: str, value: str):
        super().__init__(message)
        self.value = value


class MissingDependencyError(XRayRegistrationError, ImportError):
    """An optional package is needed for what was asked."""

    def __init__(self, package: str, purpose: str, extra: str):
        super().__init__(
            f"{purpose} needs the package {package!r}, which is not installed; "
            f"install it with: pip install 'xrayregistration[{extra}]'"
        )
