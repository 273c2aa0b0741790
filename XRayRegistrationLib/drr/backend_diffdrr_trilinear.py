"""DiffDRR's trilinear renderer as a backend; see backend_diffdrr."""

from __future__ import annotations

from functools import partial

from XRayRegistrationLib.drr import backend_diffdrr

render_rays = partial(backend_diffdrr.render_rays, renderer="trilinear")
render_rays_with_jacobian = partial(backend_diffdrr.render_rays_with_jacobian, renderer="trilinear")
