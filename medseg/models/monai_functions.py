"""Functions, methods and names that an expression of a bundle may use: pure, bounded, without side effects."""

from __future__ import annotations

import os.path
from collections.abc import Callable
from enum import Enum
from typing import Any

import torch

__all__ = ["BUILTINS", "FUNCTIONS", "METHODS", "enum_value"]

_MOST_ITEMS = 1_000_000
_ENUMS = {
    "BlendMode",
    "CommonKeys",
    "GridSampleMode",
    "GridSamplePadMode",
    "InterpolateMode",
    "NumpyPadMode",
    "PytorchPadMode",
}


def enum_value(name: str) -> str | None:
    """The text behind a member of MONAI's enumerations ("monai.utils.CommonKeys.IMAGE" is "image"), or None."""
    parts = name.split(".")
    if parts[0] != "monai" or len(parts) < 3 or parts[-2] not in _ENUMS:
        return None
    from monai import utils as monai_utils

    value = getattr(getattr(monai_utils, parts[-2]), parts[-1], None)
    return str(value.value) if isinstance(value, Enum) else value if isinstance(value, str) else None


def _range(*bounds: int) -> list[int]:
    numbers = range(*bounds)
    if len(numbers) > _MOST_ITEMS:
        raise ValueError(f"a range of more than {_MOST_ITEMS} numbers")
    return list(numbers)


def _same(value: Any, *_: Any, **__: Any) -> Any:
    return value


def _device(*_: Any, **__: Any) -> str:
    return "device"  # which one is for medseg to say


BUILTINS: dict[str, Callable[..., Any]] = {
    "abs": abs,
    "all": all,
    "any": any,
    "bool": bool,
    "dict": dict,
    "enumerate": lambda values: list(enumerate(values)),
    "float": float,
    "int": int,
    "len": len,
    "list": list,
    "max": max,
    "min": min,
    "range": _range,
    "round": round,
    "set": set,
    "sorted": sorted,
    "str": str,
    "sum": sum,
    "tuple": tuple,
    "zip": lambda *values: list(zip(*values, strict=False)),
}

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "copy.copy": _same,
    "copy.deepcopy": _same,
    "numpy.array": _same,
    "numpy.asarray": _same,
    "os.path.abspath": _same,
    "os.path.basename": os.path.basename,
    "os.path.dirname": os.path.dirname,
    "os.path.exists": os.path.exists,
    "os.path.isfile": os.path.isfile,
    "os.path.join": os.path.join,
    "pathlib.Path": str,
    "torch.as_tensor": torch.as_tensor,
    "torch.cuda.device_count": torch.cuda.device_count,
    "torch.cuda.is_available": torch.cuda.is_available,
    "torch.device": _device,
    "torch.from_numpy": torch.from_numpy,
    "torch.tensor": torch.tensor,
}

METHODS: dict[type, dict[str, Callable[..., Any]]] = {
    dict: {
        "get": dict.get,
        "items": lambda mapping: list(mapping.items()),
        "keys": lambda mapping: list(mapping),
        "values": lambda mapping: list(mapping.values()),
    },
    str: {
        "endswith": str.endswith,
        "lower": str.lower,
        "lstrip": str.lstrip,
        "rstrip": str.rstrip,
        "split": str.split,
        "startswith": str.startswith,
        "strip": str.strip,
        "upper": str.upper,
    },
}
