"""The learning rate over a training."""

from __future__ import annotations

import math


def learning_rate_factor(iteration: int, fraction: float, warmup: int) -> float:
    """Linear rise over ``warmup`` iterations, constant to the middle of the budget, then half a cosine down to 0.

    Args:
        iteration: since the budget began.
        fraction: of the budget that is spent, 0..1.
    """
    rise = min(1.0, (iteration + 1) / max(warmup, 1))
    fall = 1.0 if fraction < 0.5 else 0.5 * (1.0 + math.cos(math.pi * min(2.0 * fraction - 1.0, 1.0)))
    return rise * fall
