"""Own sliding window: networks over windows, their outputs blended, finished slab by slab.

No array of all classes over the whole image exists. Windows run in raster order with one axis outermost; what no
later window reaches is yielded and forgotten. Test-time flips and ensembles run in lockstep, window by window, within
the same bound.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import prod
from threading import Event

import torch

from medseg.core.monitor import Monitor
from medseg.core.recipe import WindowPlan
from medseg.errors import Cancelled, ModelError
from medseg.inference.band import Band, Rows, Storage
from medseg.inference.engine import Engine, Heads, told_of_window
from medseg.inference.linear_head import LinearHead
from medseg.inference.slab import SEMANTIC, Slab
from medseg.inference.window_reader import WindowReader
from medseg.inference.windows import Axis, Layout, Position, window_weights
from medseg.networks.heads import flip_heads

__all__ = ["Cancel", "Stitching", "is_cancelled", "stitched_slabs"]

logger = logging.getLogger(__name__)

Cancel = Event | Callable[[], bool]
"""Set, or true, once the case is to end."""

_SLAB_BYTES = 64 << 20
_MANY_CHANNELS = 128  # as long as no network has said how many it gives


@dataclass(frozen=True, eq=False)
class Stitching:
    """How windows are run and blended, beside what the recipe says.

    Parameters
    ----------
    axis
        Along which slabs are finished.
    mirror_axes
        Axes mirrored at test time.
    per_batch
        Windows a batch.
    sum_dtype
        float32, or float16 as nnU-Net sums.
    is_apart
        Whether each network has its own sums, and their means are averaged; else each window's mean over the networks
        is summed.
    linear
        For each network the head that is applied to blended features; () if networks give logits.
    skipped
        Windows that are not run: their input is air.
    storage
        Where sums are kept; None for the device of the first engine.
    without_memory
        Gives engines for the CPU, once the device has no memory left even for one window; None for no such way out.
    on_warm
        Called once, with the seconds that one window took through all networks and flips: after the first batch, on a
        GPU after the second (the first pays for its start).
    """

    axis: Axis
    mirror_axes: tuple[int, ...] = ()
    per_batch: int = 1
    sum_dtype: torch.dtype = torch.float32
    is_apart: bool = False
    linear: tuple[LinearHead, ...] = ()
    skipped: frozenset[Position] = frozenset()
    storage: Storage | None = None
    without_memory: Callable[[], list[Engine]] | None = None
    on_warm: Callable[[float], None] | None = None


def stitched_slabs(
    engines: Sequence[Engine],
    read: WindowReader,
    layout: Layout,
    plan: WindowPlan,
    how: Stitching,
    *,
    monitor: Monitor,
    cancel: Cancel | None = None,
    notes: list[str] | None = None,
) -> Iterator[Slab]:
    """Run networks over an image.

    Parameters
    ----------
    engines
        The networks; with several, the mean of their logits counts.
    read
        Gives the network's input at a position.
    layout, plan
        Windows, from `lay_windows`, and the plan that they were laid by.
    how
        See `Stitching`.
    monitor
        Told of each window.
    cancel
        Looked at before each batch.
    notes
        Takes what did not go as planned, for the provenance.

    Yields
    ------
    Slabs in order of rows, without gap or overlap, together the whole image without its padding.

    Raises
    ------
    Cancelled
        If `cancel` says so.
    ModelError
        If float16 sums overflow.
    """
    runner = _Runner(list(engines), how, [] if notes is None else notes)
    blend = _Blend(layout, plan, how, runner)
    monitor.expect(layout.n_windows - len(how.skipped))
    starts = layout.starts[how.axis]
    for row, next_row in zip(starts, (*starts[1:], layout.padded_shape[how.axis]), strict=True):
        todo = [position for position in layout.in_rows(how.axis, row) if position not in how.skipped]
        for positions, outputs in runner.run(read, todo, layout.window, cancel):
            blend.add(positions, outputs)
            monitor.advance(len(positions))
        yield from blend.finished(next_row)


def is_cancelled(cancel: Cancel | None) -> bool:
    """Whether the case is to end."""
    return cancel is not None and (cancel.is_set() if isinstance(cancel, Event) else cancel())


class _Blend:
    """One band, or one for each network, and how their means become slabs of the image."""

    def __init__(self, layout: Layout, plan: WindowPlan, how: Stitching, runner: _Runner) -> None:
        self._layout, self._how, self._runner = layout, how, runner
        weights = window_weights(layout.window, plan)
        storages = [how.storage] if how.storage else [_zeros_on(runner.device), _zeros_on(torch.device("cpu"))]
        self._bands = [
            Band(layout, how.axis, weights, dtype=how.sum_dtype, storages=storages)
            for _ in range(len(runner.engines) if how.is_apart else 1)
        ]

    def add(self, positions: Sequence[Position], outputs: list[Heads]) -> None:
        parts = outputs if self._how.is_apart else [_mean(outputs)]
        for band, heads in zip(self._bands, parts, strict=True):
            for number, position in enumerate(positions):
                band.add(position, {name: values[number] for name, values in heads.items()})

    def finished(self, stop: int) -> Iterator[Slab]:
        """Slabs of the rows before `stop`, cut to the image."""
        has_gaps = bool(self._how.skipped)
        at_once = self._rows_at_once()
        for parts in zip(*(band.finish(stop, at_once, may_have_gaps=has_gaps) for band in self._bands), strict=True):
            slab = self._slab(parts)
            if slab is not None:
                yield slab

    def _rows_at_once(self) -> int:
        widest = max([head.n_outputs for head in self._how.linear] + [band.n_channels for band in self._bands])
        plane = prod(n for axis, n in enumerate(self._layout.padded_shape) if axis != self._how.axis)
        return max(1, _SLAB_BYTES // (4 * plane * (widest or _MANY_CHANNELS)))

    def _slab(self, parts: Sequence[Rows]) -> Slab | None:
        axis, layout = self._how.axis, self._layout
        first, last, _, covered = parts[0]
        before = layout.pad_before[axis]
        start, stop = max(first - before, 0), min(last - before, layout.shape[axis])
        if start >= stop:
            return None
        cut = [slice(start + before - first, stop + before - first)]
        for other in range(3):
            if other != axis:
                cut.append(slice(layout.pad_before[other], layout.pad_before[other] + layout.shape[other]))
        means = [{name: values[tuple(cut)] for name, values in part[2].items()} for part in parts]
        return Slab(axis, start, stop, self._joined(means), None if covered is None else covered[tuple(cut)].cpu())

    def _joined(self, means: list[Heads]) -> Heads:
        """Heads of one slab: linear heads applied, networks averaged."""
        for number, head in enumerate(self._how.linear):
            if SEMANTIC in means[number]:
                means[number] = {**means[number], SEMANTIC: head(means[number][SEMANTIC])}
        if self._how.sum_dtype == torch.float16 and any(bool(v.isinf().any()) for m in means for v in m.values()):
            raise ModelError(
                "the sums of windows overflow float16, as nnU-Net's own would; a precision other than exact keeps them "
                "in float32"
            )
        return {name: values.cpu() for name, values in _mean(means).items()}


class _Runner:
    """Batches through the networks; smaller ones, then on the CPU, when a device has no memory left."""

    def __init__(self, engines: list[Engine], how: Stitching, notes: list[str]) -> None:
        self.engines = engines
        self._how, self._notes = how, notes
        self._per_batch, self._way_out = how.per_batch, how.without_memory
        self._n_run = 0
        self._buffers = _PinnedBuffers(self.device) if self.device.type == "cuda" else None

    @property
    def device(self) -> torch.device:
        return self.engines[0].device

    def run(
        self, read: WindowReader, positions: list[Position], window: Position, cancel: Cancel | None
    ) -> Iterator[tuple[tuple[Position, ...], list[Heads]]]:
        """Windows at positions, with one dictionary of heads a network."""
        waiting = list(positions)
        while waiting:
            if is_cancelled(cancel):
                raise Cancelled("the case was cancelled; nothing of it was kept")
            now = tuple(waiting[: self._per_batch])
            outputs = self._with_way_out(read, now, window)
            if outputs is not None:
                yield now, outputs
                del waiting[: len(now)]

    def _with_way_out(
        self, read: WindowReader, positions: tuple[Position, ...], window: Position
    ) -> list[Heads] | None:
        """The outputs, or None after something was changed to need less memory."""
        start = time.perf_counter()
        try:
            batch = self._batch(read, positions)
            with told_of_window(window):
                outputs = [_mirrored(engine, batch, self._how.mirror_axes) for engine in self.engines]
            if self.device.type == "cuda" and self._n_run < 2:
                torch.cuda.synchronize(self.device)
        except torch.OutOfMemoryError as error:
            self._need_less(error)
            return None
        self._tell_when_warm((time.perf_counter() - start) / len(positions))
        return outputs

    def _need_less(self, error: torch.OutOfMemoryError) -> None:
        device = self.device
        if self._per_batch == 1 and self._way_out is None:
            raise error
        logger.warning("%s ran out of memory with %d windows a batch", device, self._per_batch)
        if self._per_batch == 1 and self._way_out is not None:
            self.engines = self._way_out()
            self._way_out = self._buffers = None
        self._per_batch = 1
        if device.type == "cuda":
            torch.cuda.empty_cache()
        self._notes.append(f"{device} ran out of memory; inference went on, on {self.device}, one window a batch")

    def _batch(self, read: WindowReader, positions: tuple[Position, ...]) -> torch.Tensor:
        parts = [read(position) for position in positions]
        return torch.stack(parts) if self._buffers is None else self._buffers.on_device(parts)

    def _tell_when_warm(self, seconds: float) -> None:
        self._n_run += 1
        if self._n_run == (1 if self.device.type == "cpu" else 2) and self._how.on_warm is not None:
            self._how.on_warm(seconds)


class _PinnedBuffers:
    """Two page-locked buffers in turn: one is filled while the other is still being copied to the GPU."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._buffers: dict[int, torch.Tensor] = {}
        self._copied = (torch.cuda.Event(), torch.cuda.Event())  # type: ignore[no-untyped-call]
        self._turn = 0

    def on_device(self, parts: list[torch.Tensor]) -> torch.Tensor:
        """The parts stacked, on the device; the copy may still be under way."""
        self._turn = 1 - self._turn
        self._copied[self._turn].synchronize()
        buffer = self._buffers.get(self._turn)
        if buffer is None or len(buffer) < len(parts):
            buffer = torch.empty((len(parts), *parts[0].shape), pin_memory=True)
            self._buffers[self._turn] = buffer
        stacked = torch.stack(parts, out=buffer[: len(parts)])
        moved = stacked.to(self._device, non_blocking=True)
        self._copied[self._turn].record()
        return moved


def _mirrored(engine: Engine, windows: torch.Tensor, axes: Sequence[int]) -> Heads:
    """The mean of an engine's heads over all combinations of mirrored axes, in nnU-Net's order."""
    total = engine(windows)
    n_flips = 1
    for n in range(1, len(axes) + 1):
        for chosen in combinations(sorted(axes), n):
            dims = [axis + 2 for axis in chosen]
            flipped = flip_heads(engine(torch.flip(windows, dims)), chosen)
            total = {name: values + flipped[name] for name, values in total.items()}
            n_flips += 1
    return total if n_flips == 1 else {name: values / n_flips for name, values in total.items()}


def _mean(several: list[Heads]) -> Heads:
    """The mean of several networks' heads, summed in order and in their own precision."""
    if len(several) == 1:
        return several[0]
    total = several[0]
    for other in several[1:]:
        total = {name: values + other[name] for name, values in total.items()}
    return {name: values / len(several) for name, values in total.items()}


def _zeros_on(device: torch.device) -> Storage:
    def zeros(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        return torch.zeros(shape, dtype=dtype, device=device)

    return zeros
