"""Muon: steps along orthogonalised momentum, which learn more from an image than AdamW's do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

# Of the odd polynomial a s + b s^3 + c s^5 that draws all singular values s in (0, 1] near 1 in five steps.
_POLYNOMIAL = (3.4445, -4.7750, 2.0315)
_STEPS = 5
_MOMENTUM = 0.95
_BETAS, _EPSILON = (0.9, 0.999), 1e-8
_LIKE_ADAM = 0.2  # root mean square of AdamW's steps, in units of the learning rate
_LEAST_SIDE = 4  # of a matrix worth orthogonalising; depthwise filters are none


class Muon(torch.optim.Optimizer):
    """Muon for matrices and filters, AdamW for all else: biases, norms, embeddings, filters a channel.

    A weight's momentum G = U S V' becomes U V' (Jordan et al., "Muon", 2024), at the size of AdamW's steps (Liu et al.,
    "Muon is scalable for LLM training", 2025), so that learning rate and decay mean what they do there. A filter (out,
    in, ...) is the matrix (out, in x ...). PyTorch's own takes matrices alone.

    Args:
        network: all of its parameters. lr: learning rate. weight_decay: decoupled.
    """

    def __init__(self, network: nn.Module, lr: float, weight_decay: float) -> None:
        parameters = list(network.parameters())
        groups = [
            {"params": [p for p in parameters if _is_matrix(p)], "orthogonal": True},
            {"params": [p for p in parameters if not _is_matrix(p)], "orthogonal": False},
        ]
        super().__init__([g for g in groups if g["params"]], {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            move = self._along_momentum if group["orthogonal"] else self._as_adam
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.mul_(1.0 - group["lr"] * group["weight_decay"])
                    parameter.sub_(group["lr"] * move(self.state[parameter], parameter.grad))
        return loss

    @staticmethod
    def _along_momentum(state: dict[str, Tensor], gradient: Tensor) -> Tensor:
        momentum = state.setdefault("momentum", torch.zeros_like(gradient))
        momentum.lerp_(gradient, 1.0 - _MOMENTUM)
        matrix = gradient.lerp(momentum, _MOMENTUM).flatten(1)  # Nesterov's
        return _LIKE_ADAM * max(matrix.shape) ** 0.5 * orthogonal(matrix).view(gradient.shape)

    @staticmethod
    def _as_adam(state: dict[str, Tensor], gradient: Tensor) -> Tensor:
        if not state:
            state["step"] = torch.zeros(())
            state["mean"], state["square"] = torch.zeros_like(gradient), torch.zeros_like(gradient)
        state["step"] += 1
        n = int(state["step"])
        mean = state["mean"].lerp_(gradient, 1.0 - _BETAS[0]) / (1.0 - _BETAS[0] ** n)
        square = state["square"].lerp_(gradient.square(), 1.0 - _BETAS[1]) / (1.0 - _BETAS[1] ** n)
        return mean / (square.sqrt() + _EPSILON)


def orthogonal(matrix: Tensor) -> Tensor:
    """About U V' of a matrix U S V' (m, n), by Newton and Schulz; singular values end between 0.7 and 1.2.

    Its powers are taken of the shorter side's Gram matrix, a quarter of the work for filters.
    """
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    wide = wide / (wide.norm() + 1e-7)
    gram = wide @ wide.T
    whole = identity = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    a, b, c = _POLYNOMIAL
    for _ in range(_STEPS):
        step = a * identity + (b * identity + c * gram) @ gram
        whole = step @ whole
        gram = step @ gram @ step
    near = whole @ wide
    return near if matrix.shape[0] <= matrix.shape[1] else near.T


def _is_matrix(parameter: Tensor) -> bool:
    return parameter.ndim >= 2 and min(parameter.shape[0], parameter[0].numel()) >= _LEAST_SIDE and (
        parameter.ndim == 2 or parameter.shape[1] > 1
    )
