"""Reading CTs and X-rays, and making X-rays ready to register: bone bright, masked, with their camera.

The types are here; the readers are in modules of their own, ``ct.read_ct``, ``ct.read_labels``,
``xray_file.read_xray``, ``prepare.prepare_xray``, ``camera_file.read_camera``, ``camera_file.write_camera``,
``resize.resize_xray``, ``resize.crop_xray``, ``sample.load_sample_ct``, so that a renderer that needs
only a type does not load DICOM.
"""

from XRayRegistrationLib.images.volume import Volume
from XRayRegistrationLib.images.xray import XRay

__all__ = ["Volume", "XRay"]
