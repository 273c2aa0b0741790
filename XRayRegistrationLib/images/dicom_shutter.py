"""The part of a DICOM X-ray that its collimator and display shutter leave open, where the header states it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.images.dicom import attribute, name_of, numbers


def open_field(dataset: Dataset, height: int, width: int, frame: int = 0) -> NDArray[np.bool_] | None:
    """(height, width) bool, True inside every stated collimator and shutter shape; None when none is stated.

    DICOM PS3.3 C.8.7.3 (collimator) and C.7.6.11 (display shutter): rectangle, circle and polygon,
    rows and columns counted from 1.

    Raises:
        InputError: a stated shape has values that are no numbers.
    """
    found: NDArray[np.bool_] | None = None
    for kind in ("Collimator", "Shutter"):
        stated = attribute(dataset, f"{kind}Shape", frame)
        for shape in [stated] if isinstance(stated, str) else list(stated or []):
            inside = _inside(dataset, kind, str(shape).upper(), height, width, frame)
            if inside is not None:
                found = inside if found is None else found & inside
    return found


def _inside(dataset: Dataset, kind: str, shape: str, height: int, width: int, frame: int) -> NDArray[np.bool_] | None:
    rows, columns = np.mgrid[1 : height + 1, 1 : width + 1]
    if shape == "RECTANGULAR":
        names = ("LeftVerticalEdge", "RightVerticalEdge", "UpperHorizontalEdge", "LowerHorizontalEdge")
        edges = [numbers(dataset, kind + name, 1, frame) for name in names]
        if any(edge is None for edge in edges):
            return None
        left, right, top, bottom = (float(edge[0]) for edge in edges if edge is not None)
        return (columns >= left) & (columns <= right) & (rows >= top) & (rows <= bottom)
    if shape == "CIRCULAR":
        centre = numbers(dataset, f"CenterOfCircular{kind}", 2, frame)
        radius = numbers(dataset, f"RadiusOfCircular{kind}", 1, frame)
        if centre is None or radius is None:
            return None
        return np.hypot(rows - centre[0], columns - centre[1]) <= radius[0]
    if shape == "POLYGONAL":
        keyword = f"VerticesOfThePolygonal{kind}"
        value = attribute(dataset, keyword, frame)
        if value is None:
            return None
        if len(value) < 6 or len(value) % 2:
            raise InputError(f"DICOM {name_of(keyword)} has {len(value)} values; allowed are at least 3 row, column pairs")
        vertices = numbers(dataset, keyword, len(value), frame)
        assert vertices is not None
        return _in_polygon(rows, columns, vertices.reshape(-1, 2))
    return None


def _in_polygon(rows: NDArray[np.int_], columns: NDArray[np.int_], vertices: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Even-odd rule: a ray to the right crosses the outline an odd number of times."""
    inside = np.zeros(rows.shape, bool)
    for (r0, c0), (r1, c1) in zip(vertices, np.roll(vertices, -1, axis=0), strict=True):
        if r0 != r1:
            spans = (rows >= min(r0, r1)) & (rows < max(r0, r1))
            inside ^= spans & (columns < c0 + (rows - r0) * (c1 - c0) / (r1 - r0))
    return inside
