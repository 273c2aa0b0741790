"""Rendering of attenuation volumes, with pose Jacobian; one file a backend."""

from XRayRegistrationLib.drr.render import BACKENDS, first_last_hit, render, render_with_jacobian
from XRayRegistrationLib.drr.volume import AttenuationVolume, attenuation_from_hu

__all__ = ["BACKENDS", "AttenuationVolume", "attenuation_from_hu", "first_last_hit", "render", "render_with_jacobian"]
