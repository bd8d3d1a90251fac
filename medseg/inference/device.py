"""Where the network runs and in which precision."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Literal

import torch
from torch import nn

from medseg.errors import UsageError

__all__ = [
    "Precision",
    "autocast",
    "multiplies_bfloat16",
    "place",
    "place_input",
    "resolve_device",
    "resolve_precision",
]

Precision = Literal["auto", "exact", "float32", "bfloat16", "float16"]

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def resolve_device(device: str) -> torch.device:
    """The device behind "auto" (CUDA where there is one, else CPU), "cpu", "cuda" or "cuda:N".

    Raises
    ------
    UsageError
        If the name is unknown or the device is not there.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise UsageError(f"device {device!r} is unknown; use auto, cpu, cuda or cuda:N") from error
    if resolved.type not in {"cpu", "cuda"}:
        raise UsageError(f"device {device!r} is not supported; use auto, cpu, cuda or cuda:N")
    if resolved.type == "cuda" and (resolved.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"device {device!r} is not there: this machine shows {torch.cuda.device_count()} CUDA devices")
    return resolved


def multiplies_bfloat16() -> bool:
    """Whether this machine's processor multiplies bfloat16 itself (AVX-512 BF16 or AMX); others are slowed by it."""
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def resolve_precision(precision: Precision, device: torch.device) -> Precision:
    """What "auto" means on a device: float32 on CPU; on CUDA bfloat16 where the card has it, else float16."""
    if precision != "auto":
        return precision
    if device.type == "cpu":
        return "float32"
    return "bfloat16" if torch.cuda.is_bf16_supported() else "float16"


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[None]:
    """The autocast context of a precision; does nothing for float32 and exact."""
    return torch.autocast(device.type, dtype=_DTYPES.get(precision, torch.bfloat16), enabled=precision in _DTYPES)


def place(network: nn.Module, device: torch.device) -> nn.Module:
    """Move a network to its device, channels last: 3-D convolutions are faster that way, on CUDA and on CPU."""
    placed = network.to(device)
    if any(parameter.ndim == 4 for parameter in placed.parameters()):  # a 2-D network: that order has five axes
        return placed
    return placed.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload, no-any-return]


def place_input(windows: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Move windows (B, C, I, J, K) to a device in the memory format of `place`; asynchronous from pinned memory."""
    return windows.to(device, non_blocking=True).contiguous(memory_format=torch.channels_last_3d)
