"""RayEmb's geometry of embeddings: a point of the CT is the subspace of the rays through it.

F (d, T) holds the embeddings of the rays that see the point in T templates. How near a ray with embedding e is to the
point is the cosine of e with its projection on span(F),

    sim = e' P e / (|e| |P e|) = |U' e| / |e|,   P = F F^+ = U U',

with U an orthonormal basis; the right side is exact for every P that is a projection, and U' commutes with linear
upsampling, so only T numbers a cell are upsampled, and one norm for all points. (Shrestha et al., ACCV 2024)
"""

from __future__ import annotations

import torch
from torch import Tensor


def sample_field(field: Tensor, pixels: Tensor, width: int, height: int) -> Tensor:
    """A field at pixels, bilinearly between its cells' centres.

    Args:
        field: (N, d, h, w) of images of ``width`` x ``height`` pixels.
        pixels: (N, m, 2) = (u, v), integer = pixel centre.

    Returns:
        (N, m, d); beyond the outermost cells' centres, their values.
    """
    size = torch.tensor([width, height], dtype=pixels.dtype, device=pixels.device)
    grid = (2.0 * (pixels + 0.5) / size - 1.0).to(field.dtype)
    values = torch.nn.functional.grid_sample(field, grid[:, None], mode="bilinear", padding_mode="border", align_corners=False)
    return values[:, :, 0].transpose(1, 2)


def soft_basis(features: Tensor, seen: Tensor, ridge: float) -> Tensor:
    """Rows (..., T, d) of a basis in which directions that templates hardly share count less; differentiable everywhere.

    U' = L^-1 F' with L L' = F'F + r I, so |U'e|^2 = sum of s_k^2 / (s_k^2 + r) (u_k'e)^2 over the singular values of F: the
    projection for r = 0. r is ``ridge`` times the mean squared norm of the features. No eigenvectors, whose derivative
    has poles where singular values meet.

    Args:
        features: (..., T, d). seen: (..., T) bool; where False the template is left out.
    """
    f = features * seen[..., None]
    gram = f @ f.transpose(-1, -2)
    squares = gram.diagonal(dim1=-2, dim2=-1)
    mean = squares.sum(-1) / seen.sum(-1).clamp(min=1)
    r = ridge * mean.clamp(min=1e-12)
    eye = torch.eye(f.shape[-2], dtype=f.dtype, device=f.device)
    factor = torch.linalg.cholesky(gram + r[..., None, None] * eye)
    return torch.linalg.solve_triangular(factor, f, upper=False)


def hard_basis(features: Tensor, seen: Tensor, rank: int, least: float = 0.05) -> Tensor:
    """Orthonormal rows (..., rank, d) of the templates' strongest shared directions, 0 where there are fewer.

    Args:
        features: (..., T, d). seen: (..., T) bool; where False the template is left out.
        rank: the most directions.
        least: singular values below this part of the largest are cut.
    """
    f = features * seen[..., None]
    _, s, vh = torch.linalg.svd(f, full_matrices=False)
    kept = (s >= least * s[..., :1]) & (s > 1e-8)
    rank = min(rank, s.shape[-1])
    return vh[..., :rank, :] * kept[..., :rank, None]


def similarity(basis: Tensor, field: Tensor, size: tuple[int, int] | None = None) -> Tensor:
    """sim of every point with every cell, 0 to 1.

    Args:
        basis: (n, k, d) of the points, or (N, n, k, d) of each image's.
        field: (d, h, w), or (N, d, h, w).
        size: (h', w') to upsample to, bilinearly; None leaves the field's cells.

    Returns:
        (n, h, w) or (N, n, h, w); float32.
    """
    single = field.ndim == 3
    if single:
        basis, field = basis[None], field[None]
    images, n, k, d = basis.shape
    e = field.float().flatten(2)
    coefficients = torch.bmm(basis.float().reshape(images, n * k, d), e).reshape(images, n * k, *field.shape[2:])
    if size is not None:
        coefficients, field = (_upsampled(x, size) for x in (coefficients, field.float()))
    strength = coefficients.reshape(images, n, k, *coefficients.shape[2:]).square().sum(2)
    norm = field.float().square().sum(1, keepdim=True)
    sim = (strength / norm.clamp(min=1e-12) + 1e-8).sqrt()
    return sim[0] if single else sim


def _upsampled(x: Tensor, size: tuple[int, int]) -> Tensor:
    return torch.nn.functional.interpolate(x, size, mode="bilinear", align_corners=False)
