"""Memory of a run, estimated before it starts, and how it is kept within a limit."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod

import torch

from medseg.errors import NotEnoughMemory
from medseg.inference.activations import generous_bytes
from medseg.inference.band import Storage
from medseg.inference.windows import Axis, Layout
from medseg.io.memory import available_memory_bytes, resident_bytes

__all__ = ["Demand", "Frugality", "fitted", "sums_in_files"]

_MIB = 2**20
_SLAB_BYTES = 6 * 64 * _MIB  # a slab of logits, its probabilities, the rows held, what is interpolated at once
_ENGINE_SLACK = 1.25  # scratch memory inside operators, and weights in another layout
_ENGINE_BYTES = 100 * _MIB  # kernels compiled on the first run


@dataclass(frozen=True)
class Frugality:
    """What a run does without, to need less memory.

    Parameters
    ----------
    per_batch
        Windows a batch.
    sum_dtype
        float32, or float16: half the memory, and sums of windows rounded to three digits.
    are_sums_on_disk
        Whether sums lie in a temporary file: the system writes them out where memory is short.
    """

    per_batch: int
    sum_dtype: torch.dtype = torch.float32
    are_sums_on_disk: bool = False

    def note(self, asked: Frugality) -> str | None:
        """What differs from what was asked for, for the provenance."""
        changes = []
        if self.per_batch != asked.per_batch:
            changes.append(f"{self.per_batch} window(s) a batch")
        if self.sum_dtype != asked.sum_dtype:
            changes.append("sums of windows in float16")
        if self.are_sums_on_disk:
            changes.append("sums of windows in a temporary file")
        return f"to stay within the memory limit: {', '.join(changes)}" if changes else None


@dataclass(frozen=True)
class Demand:
    """What a run asks of memory, in numbers that are known before it.

    Parameters
    ----------
    layout, axis
        The windows, and the axis along which slabs are finished.
    n_summed
        Channels whose sums are kept, all networks together; weights not counted.
    n_bands
        How many sums of weights are kept.
    scan_voxels
        Voxels of the scan.
    keeps_probability
        Whether the probability map is kept.
    activations
        Bytes of a network's intermediate results for a batch of so many windows.
    """

    layout: Layout
    axis: Axis
    n_summed: int
    n_bands: int
    scan_voxels: int
    keeps_probability: bool
    activations: Callable[[int], int]

    def n_bytes(self, frugality: Frugality, activations: int) -> int:
        """Bytes on top of what the process holds already, given those of the network's intermediate results."""
        layout = self.layout
        is_padded = layout.padded_shape != layout.shape
        padded = 4 * prod(layout.padded_shape) if is_padded else 0
        output = self.scan_voxels * (1 + 4 * self.keeps_probability)
        batch = _ENGINE_SLACK * activations + _ENGINE_BYTES
        sums = 0 if frugality.are_sums_on_disk else self._sums(frugality.sum_dtype)
        return int(padded + output + batch + sums + _SLAB_BYTES)

    def _sums(self, dtype: torch.dtype) -> int:
        rows = self.layout.window[self.axis]
        plane = prod(n for axis, n in enumerate(self.layout.padded_shape) if axis != self.axis)
        return rows * plane * (self.n_summed + self.n_bands) * dtype.itemsize


def fitted(
    demand: Demand, asked: Frugality, limit_mib: float | None, *, may_halve: bool, what: str
) -> tuple[Frugality, int]:
    """The least frugal way that stays within a limit.

    Parameters
    ----------
    demand
        What the run asks for.
    asked
        How it would run with memory enough.
    limit_mib
        What the process may hold, MiB; None for what the machine has left.
    may_halve
        Whether sums may become float16.
    what
        The model, for the message.

    Returns
    -------
    The way, and the bytes that the process is expected to hold at its peak.

    Raises
    ------
    NotEnoughMemory
        If even the most frugal way needs more.
    """
    held = resident_bytes()
    limit = held + available_memory_bytes() if limit_mib is None else int(limit_mib * _MIB)
    roughly = held + demand.n_bytes(asked, generous_bytes(demand.layout.window, asked.per_batch))
    if roughly <= limit:
        return asked, roughly
    total = roughly
    activations = {n: demand.activations(n) for n in {asked.per_batch, 1}}
    for way in _ways(asked, may_halve):
        total = held + demand.n_bytes(way, activations[way.per_batch])
        if total <= limit:
            return way, total
    raise NotEnoughMemory(
        f"{what} needs about {total // _MIB} MiB for this scan even with one window a batch and sums on disk; "
        f"{limit // _MIB} MiB are allowed. Give it more (--max-memory, or end other programs), crop or resample the "
        "scan, or use a larger machine"
    )


def _ways(asked: Frugality, may_halve: bool) -> list[Frugality]:
    """From what was asked for to the most frugal."""
    small_batch = replace(asked, per_batch=1)
    half = replace(small_batch, sum_dtype=torch.float16 if may_halve else asked.sum_dtype)
    return [asked, small_batch, half, replace(half, are_sums_on_disk=True)]


def sums_in_files(folder: str | None = None) -> Storage:
    """Tensors in temporary files, which are gone once nothing refers to the tensor.

    The file takes its place on the disk at once: a full disk is an error here, not a crash later.

    Parameters
    ----------
    folder
        Where the files lie; None for the system's folder for temporary files.
    """

    def storage(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        n_bytes = prod(shape) * dtype.itemsize
        with tempfile.NamedTemporaryFile(prefix="medseg-sums-", dir=folder) as file:
            _take_place(file.fileno(), n_bytes)
            flat = torch.from_file(file.name, shared=True, size=prod(shape), dtype=dtype)
        return flat.view(shape)

    return storage


def _take_place(descriptor: int, n_bytes: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, n_bytes)
        return
    block = bytes(_MIB)
    for start in range(0, n_bytes, _MIB):
        os.write(descriptor, block[: min(_MIB, n_bytes - start)])
