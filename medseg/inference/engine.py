"""Engine: what runs a network on a batch of windows. One call, whatever is behind it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, Protocol

import torch
from torch import nn

from medseg.errors import MedsegError, NetworkFailed
from medseg.inference.device import Precision, autocast, place, place_input

__all__ = ["Engine", "EngineName", "Heads", "TorchEngine", "as_heads", "joined_heads", "told_of_window"]

EngineName = Literal["auto", "torch", "compiled", "openvino"]

Heads = dict[str, torch.Tensor]
"""Name of a head to its values (B, N, I, J, K) float32: "semantic" (logits), and what else a network gives."""


class Engine(Protocol):
    """A network that is ready to run.

    `seconds_per_window` is what one window takes by the measured warm-up, None where there was none. `takes_batches`
    is false for an engine that runs the windows of a batch one by one: a batch then only takes memory.
    """

    name: EngineName
    precision: Precision
    device: torch.device
    seconds_per_window: float | None
    takes_batches: bool

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
    """The network as it is, by torch's own choice of kernels; autocast for half precision.

    Parameters
    ----------
    network
        From (B, C, I, J, K) to logits (B, N, I, J, K), or to a dictionary of heads; moved to the device.
    device, precision
        Where and how it runs. "exact" keeps channels first, as nnU-Net and MONAI run: another order of memory has
        other kernels, whose sums differ in the last bits.
    """

    name: EngineName = "torch"

    def __init__(self, network: nn.Module, device: torch.device, precision: Precision) -> None:
        self.device = device
        self.precision = precision
        self.seconds_per_window: float | None = None
        self.takes_batches = True
        if precision == "exact":
            self._network = network.to(device, memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
        else:
            self._network = place(network, device).eval()

    def __call__(self, windows: torch.Tensor) -> Heads:
        """Run the network on (B, C, I, J, K)."""
        windows = windows.to(self.device) if self.precision == "exact" else place_input(windows, self.device)
        with torch.inference_mode(), autocast(self.device, self.precision):
            return as_heads(self._network(windows))


@contextmanager
def told_of_window(window: Sequence[int]) -> Iterator[None]:
    """What a network raises in here, of whatever type, is raised as `NetworkFailed`, with the window that it was given.

    Lack of memory, and what medseg itself raises, stay as they are.

    Parameters
    ----------
    window
        (I, J, K) voxels.
    """
    try:
        yield
    except (MedsegError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        size = " x ".join(map(str, window))
        raise NetworkFailed(
            f"the network failed on a window of {size} voxels: {error or type(error).__name__}"
        ) from error


def as_heads(output: torch.Tensor | dict[str, torch.Tensor]) -> Heads:
    """A network's output, a tensor of logits or a dictionary, as float32 heads."""
    heads = {"semantic": output} if isinstance(output, torch.Tensor) else output
    return {name: values.float() for name, values in heads.items()}


def joined_heads(parts: Sequence[Heads]) -> Heads:
    """The heads of several batches as those of one."""
    return parts[0] if len(parts) == 1 else {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
