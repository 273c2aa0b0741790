"""The extension's packaging, checked without Slicer: a stand-in for its CMake configuration, and lints."""
