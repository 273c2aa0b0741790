"""Rigid motions, cameras, C-arm angles and frame adapters. Imports NumPy and SciPy only."""

from XRayRegistrationLib.geometry.camera import Camera

__all__ = ["Camera"]
