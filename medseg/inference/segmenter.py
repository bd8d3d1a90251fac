"""Segmenter: a trained network, ready on its device, that turns volumes into semantic maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from medseg.core.monitor import Monitor
from medseg.core.plan import Plan
from medseg.core.recipe import Recipe, recipe_of
from medseg.core.semantic import SemanticMap
from medseg.core.volume import Units, Volume
from medseg.errors import ChannelMismatch
from medseg.inference.activations import activation_bytes
from medseg.inference.device import Precision, place, resolve_device, resolve_precision
from medseg.inference.engine import Engine, EngineName, TorchEngine
from medseg.inference.linear_head import LinearHead, split_linear_head
from medseg.inference.margin import MarginEngine, margin_output
from medseg.inference.open_engines import open_engines
from medseg.inference.options import RunOptions
from medseg.inference.peaks import without_faint
from medseg.inference.run import ReadyModel, Run
from medseg.inference.stitch import Cancel
from medseg.inference.turn import Turn
from medseg.networks.ensemble import MeanOfNetworks
from medseg.transforms.prepare import prepare

__all__ = ["Segmenter", "TakesOver"]

TakesOver = Callable[[torch.device, Volume, Monitor], tuple[SemanticMap, tuple[str, ...]]]
"""A model's own pipeline: (device, volume, monitor) to the semantic map on the volume's grid, and notes."""


class Segmenter:
    """A network with its plan, held ready: build it once, use it for every case.

    Several threads may segment with it: they take turns at the network, window by window, and do all else at once.

    `medseg.load_segmenter` makes one from a model on disk.

    Parameters
    ----------
    networks
        One torch module from (B, C, I, J, K) to logits (B, N, I, J, K), or several whose logits are averaged (folds);
        moved to the device, evaluation mode.
    recipe
        What the model does to a scan; a medseg model's plan stands for the recipe that follows from it.
    weights_sha256
        Hash of the weights file, for the provenance; empty for weights that never were a file.
    device
        "auto", "cpu", "cuda" or "cuda:N".
    engine
        What runs the network: "auto" for what is fastest here, "torch", "compiled" or "openvino".
    precision
        "auto" (see `open_engines`), "exact", "float32", "bfloat16" or "float16"; "exact" is float32 and the arithmetic
        of the model's own family.
    options
        Test-time flips, air, memory.
    previous
        The first stage of a cascade, whose semantic map this one sees as further channels.
    takes_over
        A model's own pipeline in place of the recipe: (device, volume, monitor) to the semantic map and notes.

    Raises
    ------
    UsageError
        If the device is not there, or engine, precision and device do not go together.
    """

    def __init__(
        self,
        networks: nn.Module | Sequence[nn.Module],
        recipe: Recipe | Plan,
        *,
        weights_sha256: str = "",
        device: str = "auto",
        engine: EngineName = "auto",
        precision: Precision = "auto",
        options: RunOptions | None = None,
        previous: Segmenter | None = None,
        takes_over: TakesOver | None = None,
    ) -> None:
        self.previous = previous
        self._takes_over = takes_over
        self.recipe = recipe_of(recipe) if isinstance(recipe, Plan) else recipe
        self.weights_sha256 = weights_sha256
        self.device = resolve_device(device)
        self.options = options or RunOptions()
        if takes_over is not None:
            engine, precision = "torch", "float32" if precision == "auto" else precision  # its network is all it takes
        self._bodies, linear = self._taken_apart(_members(networks), precision)
        self._is_away = False
        self._turn: Turn = Turn() if previous is None else previous._turn  # the stages of a cascade share it
        window = (self._n_inputs, *self.recipe.windows.patch_size)
        opened = open_engines(
            self._bodies,
            device=self.device,
            engine=engine,
            precision=precision,
            window=window,
            is_single=self.recipe.windows.is_whole_image,
        )
        self.engine, self.precision, self._notes = opened.name, opened.precision, opened.notes
        self._model = self._ready(opened.engines, linear)

    def __repr__(self) -> str:
        return f"Segmenter({self.recipe.name!r}, {self.device}, {self.precision})"

    @property
    def _n_inputs(self) -> int:
        """Channels of the networks' input: the scan's, and in a cascade one for each class of the first stage."""
        return len(self.recipe.channels) + (0 if self.previous is None else len(self.previous.recipe.labels.classes))

    @property
    def units(self) -> tuple[Units, ...]:
        """The voxel unit that each channel must be loaded in."""
        return tuple(channel.units for channel in self.recipe.channels)

    def segment(
        self, volume: Volume, monitor: Monitor | None = None, cancel: Cancel | None = None
    ) -> tuple[SemanticMap, tuple[str, ...]]:
        """Classify every voxel of a volume.

        Parameters
        ----------
        volume
            (C, I, J, K), the model's channels in order and unit.
        monitor
            Told of stages and windows.
        cancel
            An event or a function; once set or true, the case ends with `Cancelled` before the next window.

        Returns
        -------
        The semantic map on the volume's own grid, and notes on what did not go as planned.

        Raises
        ------
        ChannelMismatch
            If the volume has another number of channels than the model.
        Cancelled
            If `cancel` says so.
        NotEnoughMemory
            If the run does not fit into the memory that it may use.
        """
        monitor = monitor or Monitor()
        self.check_channels(len(volume.channels))
        with self._turn.case(monitor.wait):
            if self._takes_over is not None:
                with self._turn:
                    return self._takes_over(self.device, volume, monitor)
            before, earlier = self._first_stage(volume, monitor, cancel)
            with monitor.stage("preprocess"):
                is_exact = self.precision == "exact"
                prepared = prepare(
                    volume, self.recipe.preparation, is_exact=is_exact, previous=before, may_be_pending=True
                )
            with monitor.stage("network"):
                waited_s = self._turn.waited_s
                with self._turn:  # a look at the air runs the network
                    run = Run(self._model, self.options, prepared, volume, self._turn)
                if self._turn.waited_s > waited_s:
                    monitor.attribute("wait", self._turn.waited_s - waited_s)
                try:
                    semantic = run.semantic(monitor, cancel)
                finally:
                    self._back_on_device()
            with monitor.stage("export"):
                semantic, faint = self._checked_peaks(semantic, volume)
        return semantic, (*self._notes, *earlier, *run.notes, *([] if faint is None else [faint]))

    def _first_stage(
        self, volume: Volume, monitor: Monitor, cancel: Cancel | None
    ) -> tuple[NDArray[np.unsignedinteger] | None, tuple[str, ...]]:
        """The class map that a cascade's second stage sees, and what did not go as planned on the way."""
        if self.previous is None:
            return None, ()
        semantic, notes = self.previous.segment(volume, monitor, cancel)
        return semantic.array, notes

    def _checked_peaks(self, semantic: SemanticMap, volume: Volume) -> tuple[SemanticMap, str | None]:
        least_peak = self.recipe.output.least_peak
        return (semantic, None) if least_peak is None else without_faint(semantic, volume, least_peak)

    def check_channels(self, n_channels: int) -> None:
        """Refuse another number of channels than the model has: ChannelMismatch."""
        wanted = [channel.name for channel in self.recipe.channels]
        if n_channels != len(wanted):
            raise ChannelMismatch(
                f"model {self.recipe.name} wants {len(wanted)} channel(s) ({', '.join(wanted)}); the scan has "
                f"{n_channels}. Give one file or folder for each, in that order."
            )

    def _ready(self, engines: Sequence[Engine], linear: tuple[LinearHead, ...]) -> ReadyModel:
        recipe, wrapped = self.recipe, list(engines)
        margin = None if self.precision == "exact" or linear else margin_output(recipe.output)
        if margin is not None:
            recipe = recipe.model_copy(update={"output": margin})
            wrapped = [MarginEngine(engine) for engine in engines]

        def on_cpu() -> list[Engine]:
            return [engine if margin is None else MarginEngine(engine) for engine in self._on_cpu()]

        return ReadyModel(
            recipe,
            wrapped,
            linear,
            self.precision,
            activations=lambda window, per_batch: max(
                activation_bytes(body, self._n_inputs, window, per_batch) for body in self._bodies
            ),
            on_cpu=None if self.device.type == "cpu" else on_cpu,
        )

    def _taken_apart(
        self, networks: Sequence[nn.Module], precision: Precision
    ) -> tuple[Sequence[nn.Module], tuple[LinearHead, ...]]:
        """Bodies and linear heads, where blending features takes less memory than blending logits."""
        if precision == "exact" or self._takes_over is not None:
            return networks, ()
        sides = (32, 64, max(self.recipe.windows.patch_size))
        n_outputs = len(self.recipe.output.paint)
        parts = [split_linear_head(network, self._n_inputs, n_outputs, sides) for network in networks]
        found = [part for part in parts if part is not None]
        if len(found) < len(networks) or sum(head.n_features for _, head in found) >= found[0][1].n_outputs:
            return networks, ()
        return [body for body, _ in found], tuple(head for _, head in found)

    def _on_cpu(self) -> list[Engine]:
        """The networks moved to the CPU, for the rest of a case."""
        cpu = torch.device("cpu")
        if not self._is_away:
            self._turn.acquire()  # to the end of this case: no other one may find the networks moved
        self._is_away = True
        return [TorchEngine(body, cpu, resolve_precision("auto", cpu)) for body in self._bodies]

    def _back_on_device(self) -> None:
        if self._is_away and self._turn.is_mine:
            for body in self._bodies:
                place(body, self.device)
            self._is_away = False
            self._turn.release()


def _members(networks: nn.Module | Sequence[nn.Module]) -> list[nn.Module]:
    """The networks one by one; they run in lockstep, window by window."""
    several = [networks] if isinstance(networks, nn.Module) else list(networks)
    return [member for network in several for member in (network if isinstance(network, MeanOfNetworks) else [network])]
