"""Files that the registration reads and writes: all or nothing, and in formats that 3D Slicer reads."""
