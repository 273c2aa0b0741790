"""Bone in a CT: segmentation, surface points and the model that is registered."""

from XRayRegistrationLib.bone.model import BoneModel, build_bone_model
from XRayRegistrationLib.bone.sampling import surface_points
from XRayRegistrationLib.bone.segmentation import SegmentationOptions, segment_bone

__all__ = ["BoneModel", "SegmentationOptions", "build_bone_model", "segment_bone", "surface_points"]
