"""Which floating-point type a device computes in fastest."""

import torch

__all__ = ["fastest_dtype", "has_bf16"]


def has_bf16(device: torch.device | str) -> bool:
    """Whether `device` has instructions for bfloat16. Without, torch emulates them, ten times slower than fp32.

    A CUDA device that is not here counts as one that has: settings may be resolved on another machine.
    """
    kind = str(device).partition(":")[0]  # one that there is not is refused elsewhere, in one line
    if kind == "cuda":
        return not torch.cuda.is_available() or torch.cuda.is_bf16_supported(including_emulation=False)
    return kind == "cpu" and any(torch.cpu.get_capabilities().get(name) for name in _INSTRUCTIONS)


_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")  # as torch names them on x86 and on ARM


def fastest_dtype(device: torch.device | str) -> torch.dtype:
    """bfloat16 where `device` has instructions for it, else float32."""
    return torch.bfloat16 if has_bf16(device) else torch.float32
