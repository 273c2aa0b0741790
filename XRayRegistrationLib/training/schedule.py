"""The learning rate over a training."""

from __future__ import annotations

import math

#: Part of the budget after which the learning rate falls.
FALLS_AFTER = 0.5


def learning_rate_factor(iteration: int, fraction: float, warmup: int) -> float:
    """Linear rise over ``warmup`` iterations, constant to the middle of the budget, then half a cosine down to 0.

    Args:
        iteration: since the budget began.
        fraction: of the budget that is spent, 0..1.
    """
    rise = min(1.0, (iteration + 1) / max(warmup, 1))
    spent = min(max(fraction - FALLS_AFTER, 0.0) / (1.0 - FALLS_AFTER), 1.0)
    fall = 0.5 * (1.0 + math.cos(math.pi * spent))
    return rise * fall
