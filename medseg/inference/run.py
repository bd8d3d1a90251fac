"""One model over one prepared scan: what is decided before the first window, and what is told about it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod

import torch

from medseg.core.monitor import Monitor
from medseg.core.recipe import Recipe
from medseg.core.semantic import SemanticMap
from medseg.core.volume import Volume
from medseg.errors import UsageError
from medseg.inference.air import air_levels, find_air
from medseg.inference.decide import Decision
from medseg.inference.device import Precision
from medseg.inference.engine import Engine
from medseg.inference.evidence import EvidenceCollector
from medseg.inference.export import Beyond, painted
from medseg.inference.linear_head import LinearHead
from medseg.inference.memory import Demand, Frugality, fitted, sums_in_files
from medseg.inference.options import RunOptions
from medseg.inference.pace import Pace
from medseg.inference.slab import SEMANTIC, Slab
from medseg.inference.stitch import Cancel, Stitching, stitched_slabs
from medseg.inference.turn import Turn
from medseg.inference.window_reader import window_reader
from medseg.inference.windows import Position, lay_windows
from medseg.networks.heads import N_HEAD_CHANNELS
from medseg.transforms.prepare import Prepared

__all__ = ["ReadyModel", "Run"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class ReadyModel:
    """A model on its device.

    Parameters
    ----------
    recipe
        What it does to a scan.
    engines
        Its networks, or their bodies where `linear` is given.
    linear
        A head for each engine that is applied after blending; () for none.
    precision
        "exact" follows the arithmetic of the recipe's family.
    activations
        From the shape of a window and the windows a batch to bytes of intermediate results.
    on_cpu
        Gives engines for the CPU, for a device that has no memory left; None on the CPU.
    """

    recipe: Recipe
    engines: Sequence[Engine]
    linear: tuple[LinearHead, ...]
    precision: Precision
    activations: Callable[[tuple[int, int, int], int], int]
    on_cpu: Callable[[], list[Engine]] | None = None

    @property
    def is_exact(self) -> bool:
        """Whether the family's own arithmetic is followed."""
        return self.precision == "exact"

    @property
    def sums_half(self) -> bool:
        """Whether sums are float16, one for each network, because nnU-Net's are."""
        return self.is_exact and self.recipe.windows.accumulates_half

    @property
    def n_summed(self) -> int:
        """Channels whose sums are kept, all networks together."""
        if self.linear:
            return sum(head.n_features for head in self.linear)
        n_own = N_HEAD_CHANNELS if self.recipe.output.has_instance_heads else 0
        return (len(self.recipe.output.paint) + n_own) * (len(self.engines) if self.sums_half else 1)


class Run:
    """One scan through a model.

    Parameters
    ----------
    model, options
        What runs, and what the user chose.
    prepared
        The network's input.
    volume
        The scan itself.
    turn
        Held while the network runs.

    Raises
    ------
    NotEnoughMemory
        If the run does not fit into the memory that it may use.
    UsageError
        If air is to be skipped by a model that has no channel for background.
    """

    def __init__(self, model: ReadyModel, options: RunOptions, prepared: Prepared, volume: Volume, turn: Turn) -> None:
        self._model, self._options, self._prepared, self._turn = model, options, prepared, turn
        self._scan_grid = volume.geometry
        self.notes = list(prepared.notes)
        recipe, device = model.recipe, model.engines[0].device
        self._layout = lay_windows(prepared.geometry.shape, recipe.windows)
        self._axis = 0 if model.is_exact else self._layout.cheapest_axis()
        self._mirror_axes = options.mirror_axes(recipe, device.type, model.precision)
        if recipe.windows.mirror_axes and not self._mirror_axes:
            self.notes.append("test-time flips were left out")
        self._frugality = self._within_memory()
        self._read = window_reader(prepared, self._layout, recipe.windows)
        self._skipped = self._air(volume) if options.skip_air else frozenset()

    def semantic(self, monitor: Monitor, cancel: Cancel | None) -> SemanticMap:
        """Run the windows and paint the map; time goes to the stages "network", "export" and "wait" (for the turn)."""
        prepared, recipe = self._prepared, self._model.recipe
        clock = _Clock(self._turn)
        start, waited_s = time.perf_counter(), self._turn.waited_s
        slabs = stitched_slabs(
            self._model.engines,
            self._read,
            self._layout,
            recipe.windows,
            self._stitching(monitor),
            monitor=monitor,
            cancel=cancel,
            notes=self.notes,
        )
        beyond: Beyond = "fading" if recipe.family == "monai" else "background"
        collector = EvidenceCollector(prepared.geometry, Decision(recipe.output, is_exact=self._model.is_exact))
        semantic = painted(
            collector.watching(clock.inside(slabs)),
            prepared.geometry,
            self._scan_grid,
            recipe.output,
            recipe.labels,
            beyond=beyond if prepared.is_cropped else "nearest",
            apart_axis=prepared.apart_axis,
            is_exact=self._model.is_exact,
            keeps_probability=self._options.keeps_probability,
        )
        evidence = collector.evidence()
        waited_s = self._turn.waited_s - waited_s
        if waited_s:
            monitor.attribute("wait", waited_s)
        monitor.attribute("export", time.perf_counter() - start - clock.seconds - waited_s)
        return semantic if evidence is None else replace(semantic, evidence=evidence)

    def _stitching(self, monitor: Monitor) -> Stitching:
        model, frugality = self._model, self._frugality
        n_all = 2 ** len(model.recipe.windows.mirror_axes)
        pace = Pace(self._layout.n_windows - len(self._skipped), 2 ** len(self._mirror_axes), n_all)

        def tell(seconds: float) -> None:
            logger.info("network: %s", pace.estimate(seconds))
            monitor.remark(f"network: {pace.estimate(seconds)}")

        return Stitching(
            axis=self._axis,
            mirror_axes=self._mirror_axes,
            per_batch=frugality.per_batch,
            sum_dtype=frugality.sum_dtype,
            is_apart=model.sums_half or bool(model.linear),
            linear=model.linear,
            skipped=self._skipped,
            storage=sums_in_files() if frugality.are_sums_on_disk else None,
            without_memory=model.on_cpu,
            on_warm=tell,
        )

    def _within_memory(self) -> Frugality:
        model, layout = self._model, self._layout
        demand = Demand(
            layout,
            self._axis,
            model.n_summed,
            len(model.engines) if model.sums_half or model.linear else 1,
            prod(self._scan_grid.shape),
            self._options.keeps_probability,
            lambda per_batch: model.activations(layout.window, per_batch),
        )
        takes_batches = any(engine.takes_batches for engine in model.engines)
        asked = Frugality(
            min(model.recipe.windows.per_batch, layout.n_windows) if takes_batches else 1,
            torch.float16 if model.sums_half else torch.float32,
        )
        way, expected = fitted(
            demand,
            asked,
            self._options.max_memory_mib,
            may_halve=not model.is_exact,
            what=f"model {model.recipe.name}",
        )
        logger.info("network: at most about %d MiB of memory", expected >> 20)
        note = way.note(asked)
        if note is not None:
            self.notes.append(note)
        return way

    def _air(self, volume: Volume) -> frozenset[Position]:
        recipe = self._model.recipe
        decision = Decision(recipe.output, is_exact=self._model.is_exact)
        decision.background_logits()  # refuses a model without background
        if recipe.windows.is_whole_image:
            raise UsageError(f"model {recipe.name} sees the whole image at once: there are no windows of air to skip")
        air = find_air(volume, air_levels(volume, recipe.channels), self._prepared.geometry, self._layout)
        self.notes.append(air.note())
        chosen = air.sample(self._options.check_skipped)
        if chosen:
            highest = max(self._foreground_in(position, decision) for position in chosen)
            self.notes.append(
                f"{len(chosen)} of the skipped windows were run all the same: "
                f"highest foreground probability {highest:.3g}"
            )
        return air.positions

    def _foreground_in(self, position: Position, decision: Decision) -> float:
        """The highest foreground probability in one window, without test-time flips."""
        model = self._model
        window = self._read(position)[None].contiguous()
        outputs = [engine(window)[SEMANTIC][0].movedim(0, -1).cpu() for engine in model.engines]
        if model.linear:
            outputs = [head(features) for head, features in zip(model.linear, outputs, strict=True)]
        mean = torch.stack(outputs).mean(0)
        return float(decision.foreground(decision.before_interpolation(mean)).max())


class _Clock:
    """Seconds spent inside an iterator, which is asked while the turn is held."""

    def __init__(self, turn: Turn) -> None:
        self.seconds = 0.0
        self._turn = turn

    def inside(self, slabs: Iterable[Slab]) -> Iterator[Slab]:
        """The same slabs, timed."""
        iterator = iter(slabs)
        while True:
            with self._turn:
                start = time.perf_counter()
                slab = next(iterator, None)
                self.seconds += time.perf_counter() - start
            if slab is None:
                return
            yield slab
