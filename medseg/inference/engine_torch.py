"""Engines of torch beside the plain one: the fast layers on a CPU, and torch.compile."""

from __future__ import annotations

import torch
from torch import nn

from medseg.errors import UnsupportedOperator
from medseg.inference.device import Precision, autocast, place, place_input
from medseg.inference.engine import EngineName, Heads, as_heads, joined_heads
from medseg.inference.fast_layers import fast_copy

__all__ = ["CompiledEngine", "FastTorchEngine"]


class FastTorchEngine:
    """The network with torch's fastest CPU layers, one window at a time.

    Parameters
    ----------
    network
        From (B, C, I, J, K) to logits (B, N, I, J, K), or to a dictionary of heads; copied.
    precision
        "float32" or "bfloat16", of weights and activations.
    is_winograd
        Whether convolutions that suit it are computed by Winograd's method; float32 only.
    """

    name: EngineName = "torch"

    def __init__(self, network: nn.Module, precision: Precision, *, is_winograd: bool = False) -> None:
        self.device = torch.device("cpu")
        self.precision = precision
        self.seconds_per_window: float | None = None
        self.takes_batches = False
        self._dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        self._network = fast_copy(network, self._dtype, is_winograd=is_winograd)

    def __call__(self, windows: torch.Tensor) -> Heads:
        """Run the network on (B, C, I, J, K)."""
        with torch.inference_mode():
            return joined_heads([self._one(window[None]) for window in windows])

    def _one(self, window: torch.Tensor) -> Heads:
        return as_heads(self._network(window.to(self._dtype).contiguous(memory_format=torch.channels_last_3d)))


class CompiledEngine:
    """The network through torch.compile: fused layers, after a compilation that takes minutes on a CPU.

    Parameters
    ----------
    network
        From (B, C, I, J, K) to logits (B, N, I, J, K), or to a dictionary of heads.
    device, precision
        Where and how it runs.

    Raises
    ------
    UnsupportedOperator
        At the first window, if the network cannot be compiled here: on a CPU, that takes a C++ compiler.
    """

    name: EngineName = "compiled"

    def __init__(self, network: nn.Module, device: torch.device, precision: Precision) -> None:
        self.device = device
        self.precision = precision
        self.seconds_per_window: float | None = None
        self.takes_batches = True
        self._network = torch.compile(place(network, device).eval(), dynamic=False)

    def __call__(self, windows: torch.Tensor) -> Heads:
        """Run the network on (B, C, I, J, K)."""
        try:
            with torch.no_grad(), autocast(self.device, self.precision):
                return as_heads(self._network(place_input(windows, self.device)))
        except torch._dynamo.exc.TorchDynamoException as error:
            raise UnsupportedOperator(
                f"engine compiled: torch cannot compile {type(self._network).__name__} here "
                f"({str(error).strip().splitlines()[0]}); use --engine torch"
            ) from error
