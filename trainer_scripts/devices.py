"""What the device at hand is good at."""

from pathlib import Path

import torch


def bf16_gains(cpu_only: bool = False) -> bool:
    """Whether bf16 is faster than float32 here: a GPU that computes in it, or a CPU with bf16 instructions."""
    if torch.cuda.is_available() and not cpu_only:
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return "amx_bf16" in _cpu_flags() or "avx512_bf16" in _cpu_flags()


def _cpu_flags() -> frozenset[str]:
    """Return the CPU's feature flags; empty where the system does not list them."""
    information = Path("/proc/cpuinfo")
    if not information.is_file():
        return frozenset()
    for line in information.read_text().splitlines():
        if line.startswith("flags"):
            return frozenset(line.split(":", 1)[1].split())
    return frozenset()
