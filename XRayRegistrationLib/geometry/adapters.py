"""Frames of other programs, in and out: each one's file says what it does differently."""

from XRayRegistrationLib.geometry.deepfluoro import (
    camera_from_ct_from_deepfluoro,
    camera_from_deepfluoro,
    deepfluoro_from_camera_from_ct,
    image_from_deepfluoro,
    pixels_from_deepfluoro,
)
from XRayRegistrationLib.geometry.diffdrr_frame import (
    camera_from_ct_from_diffdrr,
    camera_from_diffdrr,
    diffdrr_from_camera,
    diffdrr_from_camera_from_ct,
    pixels_from_diffdrr,
)
from XRayRegistrationLib.geometry.lps import (
    RAS_FROM_LPS,
    affine_ras_from_lps,
    itk_from_matrix,
    matrix_from_itk,
    points_ras_from_lps,
    pose_ras_from_lps,
    transform_ras_from_lps,
)
from XRayRegistrationLib.geometry.mayacam import camera_from_mayacam, mayacam_from_camera

__all__ = [
    "RAS_FROM_LPS",
    "affine_ras_from_lps",
    "camera_from_ct_from_deepfluoro",
    "camera_from_ct_from_diffdrr",
    "camera_from_deepfluoro",
    "camera_from_diffdrr",
    "camera_from_mayacam",
    "deepfluoro_from_camera_from_ct",
    "diffdrr_from_camera",
    "diffdrr_from_camera_from_ct",
    "image_from_deepfluoro",
    "itk_from_matrix",
    "matrix_from_itk",
    "mayacam_from_camera",
    "pixels_from_deepfluoro",
    "pixels_from_diffdrr",
    "points_ras_from_lps",
    "pose_ras_from_lps",
    "transform_ras_from_lps",
]
