"""Files that the registration reads and writes: all or nothing, and in formats that 3D Slicer reads."""

from XRayRegistrationLib.files.atomic import OutputFolder
from XRayRegistrationLib.files.landmarks import Landmarks, read_landmarks, write_landmarks
from XRayRegistrationLib.files.result_file import read_result, write_result
from XRayRegistrationLib.files.start_pose import read_start_pose
from XRayRegistrationLib.files.transforms import read_slicer_transform, write_slicer_transform

__all__ = [
    "Landmarks",
    "OutputFolder",
    "read_landmarks",
    "read_result",
    "read_slicer_transform",
    "read_start_pose",
    "write_landmarks",
    "write_result",
    "write_slicer_transform",
]
