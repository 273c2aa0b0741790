"""Weights of resampling along one axis, as a sparse matrix."""

from __future__ import annotations

import numpy as np
from scipy import sparse


def resample_weights(old: int, new: int) -> sparse.csr_matrix:
    """(new, old) matrix that resamples ``old`` pixels to ``new``; every row sums to 1.

    New pixel i covers [i, i + 1) * old / new in old pixel edges. Shrinking weighs each old pixel
    by the length covered; growing interpolates linearly between old centres, constant beyond.
    """
    scale = old / new
    if scale >= 1:
        edges = np.arange(new + 1) * scale
        first = np.minimum(np.floor(edges[:-1]).astype(int), old - 1)
        reach = int(np.ceil(scale)) + 1
        index = first[:, None] + np.arange(reach)
        covered = np.minimum(edges[1:, None], index + 1) - np.maximum(edges[:-1, None], index)
        weight = np.clip(covered, 0, None) * (index < old)
    else:
        centre = np.clip((np.arange(new) + 0.5) * scale - 0.5, 0, old - 1)
        first = np.minimum(np.floor(centre).astype(int), max(old - 2, 0))
        index = first[:, None] + np.arange(2)
        along = (centre - first)[:, None]
        weight = np.concatenate([1 - along, along], axis=1) * (index < old)
    weight = weight / weight.sum(axis=1, keepdims=True)
    row = np.repeat(np.arange(new), index.shape[1])
    column = np.minimum(index, old - 1).ravel()
    return sparse.csr_matrix((weight.ravel().astype(np.float32), (row, column)), shape=(new, old))
