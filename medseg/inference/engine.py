"""Engine: what runs a network on a batch of windows. One call, whatever is behind it."""

from __future__ import annotations

from typing import Literal, Protocol

import torch
from torch import nn

from medseg.inference.device import Precision, autocast, place, place_input

__all__ = ["Engine", "EngineName", "Heads", "TorchEngine", "as_heads"]

EngineName = Literal["auto", "torch", "compiled", "openvino"]

Heads = dict[str, torch.Tensor]
"""Name of a head to its values (B, N, I, J, K) float32: "semantic" (logits), and what else a network gives."""


class Engine(Protocol):
    """A network that is ready to run."""

    name: EngineName
    precision: Precision
    device: torch.device

    def __call__(self, windows: torch.Tensor) -> Heads:
        """Run the network.

        Parameters
        ----------
        windows
            (B, C, I, J, K) float32 on the CPU, or on `device`.

        Returns
        -------
        One entry a head, (B, N, I, J, K) float32 on `device`.
        """
        ...


class TorchEngine:
    """The network as it is, with autocast and channels-last memory.

    Parameters
    ----------
    network
        From (B, C, I, J, K) to logits (B, N, I, J, K), or to a dictionary of heads; moved to the device.
    device, precision
        Where and how it runs.
    """

    name: EngineName = "torch"

    def __init__(self, network: nn.Module, device: torch.device, precision: Precision) -> None:
        self.device = device
        self.precision = precision
        self._network = place(network, device).eval()

    def __call__(self, windows: torch.Tensor) -> Heads:
        """Run the network on (B, C, I, J, K)."""
        with torch.inference_mode(), autocast(self.device, self.precision):
            return as_heads(self._network(place_input(windows, self.device)))


def as_heads(output: torch.Tensor | dict[str, torch.Tensor]) -> Heads:
    """A network's output, a tensor of logits or a dictionary, as float32 heads."""
    heads = {"semantic": output} if isinstance(output, torch.Tensor) else output
    return {name: values.float() for name, values in heads.items()}
