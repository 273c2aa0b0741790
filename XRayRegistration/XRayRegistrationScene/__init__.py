"""The MRML side of XRayRegistration: the only place, with the module beside it, that knows a Slicer scene."""
