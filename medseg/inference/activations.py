"""How much memory a network takes for one batch, found out without computing it."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["MemoryMeter", "activation_bytes", "generous_bytes"]

logger = logging.getLogger(__name__)

_GUESSED_MAPS = 6 * 64  # float32 maps of the window's size: six layers of 64 channels at once


def activation_bytes(network: nn.Module, n_channels: int, window: tuple[int, int, int], per_batch: int) -> int:
    """Bytes that a network's intermediate results take at their peak, the result included.

    The network runs on tensors that have a shape and no content; what each operator allocates is counted until nothing
    refers to it any more. Scratch memory inside an operator is not seen.

    Parameters
    ----------
    network
        From (B, n_channels, I, J, K) float32; on any device, left as it is.
    n_channels, window, per_batch
        Shape of its input.

    Returns
    -------
    Bytes; a generous guess where the network does not run on such tensors.
    """
    was_training = network.training
    meter = MemoryMeter()
    try:
        device = next(iter(network.parameters()), torch.empty(0)).device
        with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True), meter:
            network.eval()(torch.empty((per_batch, n_channels, *window), device=device))
    except Exception as error:  # a network of anybody's; tracing it may fail in any way
        logger.debug("the network's memory is guessed, for it cannot be traced: %s", error)
        return max(generous_bytes(window, per_batch), meter.peak)
    finally:
        network.train(was_training)
    return meter.peak


def generous_bytes(window: tuple[int, int, int], per_batch: int) -> int:
    """More bytes than networks commonly take for a batch of windows."""
    return _GUESSED_MAPS * prod(window) * per_batch * 4


class MemoryMeter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of storages from the operator that makes them until nothing refers to them."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = self._now = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operator and count what it made."""
        before = {leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if _is_tensor(leaf)}
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if _is_tensor(leaf) and leaf.untyped_storage()._cdata not in before | self._known:
                self._count(leaf.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, n_bytes = storage._cdata, storage.nbytes()
        self._known.add(key)
        self._now += n_bytes
        self.peak = max(self.peak, self._now)
        weakref.finalize(storage, self._forget, key, n_bytes)

    def _forget(self, key: int, n_bytes: int) -> None:
        self._known.discard(key)
        self._now -= n_bytes


def _is_tensor(leaf: object) -> bool:
    return isinstance(leaf, torch.Tensor)
