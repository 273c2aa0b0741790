"""Where a training, or a network, runs."""

from __future__ import annotations

import torch

from XRayRegistrationLib.errors import InputError


def choose_device(name: str = "auto") -> torch.device:
    """The torch device of ``"auto"`` (CUDA where there is one), ``"cpu"`` or ``"cuda"``.

    Raises:
        InputError: another name, or CUDA where torch finds none.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise InputError(f"device {name!r} is unknown; allowed are auto, cpu and cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("device 'cuda' was asked for and torch finds no CUDA device; allowed here are auto and cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def fast_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is faster than float32 there: a GPU since Ampere, or a CPU with instructions for it."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    # private, but the only way that torch has to ask; without it float32 is right everywhere
    known = getattr(torch.cpu, "_is_avx512_bf16_supported", None), getattr(torch.cpu, "_is_amx_tile_supported", None)
    return any(ask is not None and bool(ask()) for ask in known)
