"""The network through OpenVINO: static shapes, fused layers, one window at a time, on a CPU."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from medseg.errors import UnsupportedOperator, UsageError
from medseg.inference.device import Precision
from medseg.inference.engine import EngineName, Heads, as_heads, joined_heads
from medseg.inference.fast_layers import LayerwiseNorm, replace_modules

__all__ = ["OpenVinoEngine", "has_openvino"]

_HINTS = {"float32": "f32", "bfloat16": "bf16"}
_MOST_SHAPES = 3  # compiled networks kept, the last used ones: each holds a copy of the weights


def has_openvino() -> bool:
    """Whether the package is installed."""
    return find_spec("openvino") is not None


class OpenVinoEngine:
    """The network, converted and compiled for each shape of window when it first comes.

    The network is traced by torch.export on tensors without values, so that nothing is computed for it.

    Parameters
    ----------
    network
        From (B, C, I, J, K) to logits (B, N, I, J, K), or to a dictionary of heads; on the CPU, copied.
    precision
        "float32" or "bfloat16".

    Raises
    ------
    UsageError
        If the package openvino is not installed, or the precision is another.
    UnsupportedOperator
        At the first window, if the network holds what OpenVINO cannot run.
    """

    name: EngineName = "openvino"

    def __init__(self, network: nn.Module, precision: Precision) -> None:
        if not has_openvino():
            raise UsageError(
                "engine openvino needs the package openvino, which is not installed: pip install 'medseg[openvino]', "
                "or use --engine torch"
            )
        if precision not in _HINTS:
            raise UsageError(f"engine openvino runs in float32 or bfloat16, not in {precision}")
        self.device = torch.device("cpu")
        self.precision = precision
        self.seconds_per_window: float | None = None
        self.takes_batches = True
        self._network = network.to(self.device).eval()
        self._requests: dict[tuple[int, ...], tuple[Any, list[str]]] = {}

    def __call__(self, windows: torch.Tensor) -> Heads:
        """Run the network on (B, C, I, J, K)."""
        return joined_heads([self._one(window[None].contiguous()) for window in windows])

    def _one(self, window: torch.Tensor) -> Heads:
        request, names = self._request(tuple(window.shape))
        request.infer({0: window.numpy()}, share_inputs=True)
        outputs = [torch.from_numpy(request.get_output_tensor(n).data.copy()) for n in range(len(names))]
        return as_heads(dict(zip(names, outputs, strict=True)))

    def _request(self, shape: tuple[int, ...]) -> tuple[Any, list[str]]:
        """The network compiled for a shape; the last used shapes are kept."""
        found = self._requests.pop(shape, None) or self._compiled(shape)
        self._requests[shape] = found
        while len(self._requests) > _MOST_SHAPES:
            self._requests.pop(next(iter(self._requests)))
        return found

    def _compiled(self, shape: tuple[int, ...]) -> tuple[Any, list[str]]:
        level = logging.root.level
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # the converter would report its use
        import openvino

        settings = {
            "INFERENCE_PRECISION_HINT": _HINTS[self.precision],
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
        }
        names: list[str] = []
        flat = _InTheOrderOfHeads(replace_modules(self._network, {nn.InstanceNorm3d: _for_openvino}), names.append)
        try:
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of the exporter, about its own future
                exported = torch.export.export(flat, (torch.zeros(shape),), strict=False)
                model = openvino.convert_model(exported, input=[openvino.PartialShape(list(shape))])
            compiled = openvino.Core().compile_model(model, "CPU", settings)
        except Exception as error:  # the exporter and the converter raise whatever they meet
            raise UnsupportedOperator(
                f"engine openvino cannot run {type(self._network).__name__} on windows of {shape[2:]} "
                f"({_first_line(error)}); use --engine torch"
            ) from error
        finally:
            logging.root.setLevel(level)  # the converter silences everybody's warnings
        return compiled.create_infer_request(), names[-len(compiled.outputs) :]


class _InTheOrderOfHeads(nn.Module):
    """A network whose heads come as a tuple; their names are told aside."""

    def __init__(self, network: nn.Module, tell: Callable[[str], None]) -> None:
        super().__init__()
        self._network, self._tell = network, tell

    def forward(self, windows: torch.Tensor) -> tuple[torch.Tensor, ...]:
        heads = as_heads(self._network(windows))
        for name in heads:
            self._tell(name)
        return tuple(heads.values())


def _for_openvino(layer: nn.InstanceNorm3d) -> nn.Module:
    return layer if layer.track_running_stats else LayerwiseNorm(layer)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
