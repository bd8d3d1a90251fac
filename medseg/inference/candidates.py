"""Candidates: the ways in which a network can be run here, of which a warm-up takes one."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict
from torch import nn

from medseg.errors import UsageError
from medseg.inference.device import Precision, multiplies_bfloat16, resolve_precision
from medseg.inference.engine import Engine, EngineName, TorchEngine
from medseg.inference.engine_openvino import OpenVinoEngine, has_openvino
from medseg.inference.engine_torch import CompiledEngine, FastTorchEngine
from medseg.inference.winograd import has_numba

__all__ = ["Candidate", "build", "candidates_for"]


class Candidate(BaseModel):
    """One way to run a network.

    Parameters
    ----------
    engine
        Whose kernels.
    precision
        Of the network.
    layers
        For "torch" on a CPU: "own" for the network as it is, "fast" for the copy that `fast_layers` makes, "winograd"
        for that copy with Winograd convolutions, in float32 where numba is installed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: Literal["torch", "compiled", "openvino"]
    precision: Literal["exact", "float32", "bfloat16", "float16"]
    layers: Literal["own", "fast", "winograd"] = "own"

    def __str__(self) -> str:
        return f"{self.engine} {self.precision}" + ("" if self.layers == "own" else f" with {self.layers} layers")


def candidates_for(
    device: torch.device, engine: EngineName, precision: Precision, *, is_single: bool = False
) -> tuple[Candidate, ...]:
    """What stands to choose from, the simplest first; "own" layers only stand in for faster ones that fail.

    "auto" leaves torch.compile out: on a CPU it compiles longer than a scan takes. For a model that sees the whole
    image in one window (`is_single`) it also leaves OpenVINO out: its start takes about what it saves there, and more
    memory.

    Raises
    ------
    UsageError
        If engine, device and precision do not go together.
    """
    if precision == "exact":
        if engine not in ("auto", "torch"):
            raise UsageError(
                f"--precision exact is the model family's own arithmetic, which runs on torch, not {engine}"
            )
        return (Candidate(engine="torch", precision="exact"),)
    if device.type != "cpu":
        return (_on_gpu(device, engine, precision),)
    if precision == "float16":
        if engine not in ("auto", "torch"):
            raise UsageError(f"engine {engine} does not run in float16 on a CPU; use float32 or bfloat16")
        return (Candidate(engine="torch", precision="float16"),)
    named: tuple[Literal["torch", "compiled", "openvino"], ...] = (
        ("torch", *(("openvino",) if has_openvino() and not is_single else ())) if engine == "auto" else (engine,)
    )
    precisions: tuple[Literal["float32", "bfloat16"], ...] = (
        (("float32", "bfloat16") if multiplies_bfloat16() else ("float32",)) if precision == "auto" else (precision,)
    )
    return tuple(
        Candidate(engine=name, precision=kind, layers=layers)
        for name in named
        for kind in precisions
        for layers in (_layers_for(kind) if name == "torch" else ("own",))
    )


def build(network: nn.Module, candidate: Candidate, device: torch.device) -> Engine:
    """The engine that a candidate stands for.

    Raises
    ------
    UsageError
        If its package is not installed.
    """
    if candidate.engine == "openvino":
        return OpenVinoEngine(network, candidate.precision)
    if candidate.engine == "compiled":
        return CompiledEngine(network, device, candidate.precision)
    if candidate.layers != "own":
        return FastTorchEngine(network, candidate.precision, is_winograd=candidate.layers == "winograd")
    return TorchEngine(network, device, candidate.precision)


def _layers_for(precision: str) -> tuple[Literal["own", "fast", "winograd"], ...]:
    return ("fast", "winograd", "own") if precision == "float32" and has_numba() else ("fast", "own")


def _on_gpu(device: torch.device, engine: EngineName, precision: Precision) -> Candidate:
    if engine == "openvino":
        raise UsageError(f"engine openvino runs on a CPU, not on {device}; use --device cpu, or --engine torch")
    resolved = resolve_precision(precision, device)
    return Candidate.model_validate({"engine": "torch" if engine == "auto" else engine, "precision": resolved})
