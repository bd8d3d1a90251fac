"""Segmenter: a trained network, ready on its device, that turns volumes into semantic maps."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import torch
from torch import nn

from medseg.core.monitor import Monitor
from medseg.core.plan import InferencePlan, Plan
from medseg.core.recipe import Recipe, recipe_of
from medseg.core.semantic import SemanticMap
from medseg.core.volume import Units, Volume
from medseg.errors import ChannelMismatch
from medseg.inference.device import Precision, place, resolve_device, resolve_precision
from medseg.inference.engine import EngineName
from medseg.inference.export import softmax, to_scan_grid
from medseg.inference.peaks import without_faint
from medseg.inference.sliding_window import predict_logits, predict_with_fallback
from medseg.networks.ensemble import MeanOfNetworks
from medseg.transforms.prepare import prepare

__all__ = ["Segmenter", "TakesOver"]

logger = logging.getLogger(__name__)

TakesOver = Callable[[nn.Module, torch.device, Volume, Monitor], tuple[SemanticMap, tuple[str, ...]]]
"""A model's own pipeline: (network, device, volume, monitor) to the semantic map on the volume's grid, and notes."""


class Segmenter:
    """A network with its plan, held ready: build it once, use it for every case.

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
        What runs the network: "torch".
    precision
        "auto", "float32", "bfloat16" or "float16".
    takes_over
        A model's own pipeline in place of the recipe: (network, device, volume, monitor) to the semantic map and notes.
    previous
        The first stage of a cascade, whose semantic map this one sees as further channels.

    Raises
    ------
    UsageError
        If the device is not there.
    """

    def __init__(
        self,
        networks: nn.Module | Sequence[nn.Module],
        recipe: Recipe | Plan,
        *,
        weights_sha256: str = "",
        device: str = "auto",
        engine: EngineName = "torch",
        precision: Precision = "auto",
        takes_over: TakesOver | None = None,
        previous: Segmenter | None = None,
    ) -> None:
        self._takes_over = takes_over
        self.previous = previous
        self.recipe = recipe_of(recipe) if isinstance(recipe, Plan) else recipe
        self.weights_sha256 = weights_sha256
        self.engine: EngineName = engine
        self.device = resolve_device(device)
        self.precision = resolve_precision(precision, self.device)
        several = [networks] if isinstance(networks, nn.Module) else list(networks)
        network = several[0] if len(several) == 1 else MeanOfNetworks(several)
        self._network = place(network, self.device).eval()

    def __repr__(self) -> str:
        return f"Segmenter({self.recipe.name!r}, {self.device}, {self.precision})"

    @property
    def units(self) -> tuple[Units, ...]:
        """The voxel unit that each channel must be loaded in."""
        return tuple(channel.units for channel in self.recipe.channels)

    def segment(self, volume: Volume, monitor: Monitor | None = None) -> tuple[SemanticMap, tuple[str, ...]]:
        """Classify every voxel of a volume.

        Parameters
        ----------
        volume
            (C, I, J, K), the model's channels in order and unit.
        monitor
            Told of stages and windows.

        Returns
        -------
        The semantic map on the volume's own grid, and notes on what did not go as planned.

        Raises
        ------
        ChannelMismatch
            If the volume has another number of channels than the model.
        """
        monitor = monitor or Monitor()
        self.check_channels(len(volume.channels))
        if self._takes_over is not None:
            return self._takes_over(self._network, self.device, volume, monitor)
        before = None if self.previous is None else self.previous.segment(volume, monitor)[0].array
        with monitor.stage("preprocess"):
            prepared = prepare(volume, self.recipe.preparation, previous=before)
        with monitor.stage("network"):
            logits, note = self._predict(torch.from_numpy(prepared.image), monitor)
        with monitor.stage("export"):
            probabilities = softmax(logits.numpy())
            semantic = to_scan_grid(probabilities, prepared.geometry, volume.geometry, self.recipe.labels)
            semantic, faint = self._checked_peaks(semantic, volume)
        return semantic, tuple(told for told in (note, faint) if told is not None)

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

    def _predict(self, image: torch.Tensor, monitor: Monitor) -> tuple[torch.Tensor, str | None]:
        def predict(device: torch.device, inference: InferencePlan) -> torch.Tensor:
            same = device == self.device
            network = self._network if same else place(self._network, device)
            precision = self.precision if same else resolve_precision("auto", device)
            try:
                return predict_logits(
                    network,
                    image,
                    inference,
                    divisor=self.recipe.windows.divisor,
                    device=device,
                    precision=precision,
                    monitor=monitor,
                )
            finally:
                if not same:
                    place(self._network, self.device)

        windows = self.recipe.windows
        plan = InferencePlan(
            patch_size=windows.patch_size,
            overlap=windows.overlap,
            blend=windows.blend,
            windows_per_batch=windows.per_batch,
            mirror_axes=windows.mirror_axes,
        )
        return predict_with_fallback(predict, self.device, plan)
