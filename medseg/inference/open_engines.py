"""One door to the engines: networks in, engines out, by name or by what is fastest here."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from medseg.inference.candidates import Candidate, build, candidates_for
from medseg.inference.device import Precision
from medseg.inference.engine import Engine, EngineName
from medseg.inference.engine_memory import Choice, choice_key, recall, remember
from medseg.inference.warm_up import WINDOWS_A_SCAN, choose

__all__ = ["OpenedEngines", "open_engine", "open_engines"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class OpenedEngines:
    """Engines of one kind, one a network, and notes for the provenance on engines that were left out."""

    engines: list[Engine]
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> EngineName:
        """What runs the networks; never "auto"."""
        return self.engines[0].name

    @property
    def precision(self) -> Precision:
        """Of the networks; never "auto"."""
        return self.engines[0].precision


def open_engines(
    networks: Sequence[nn.Module],
    *,
    device: torch.device,
    engine: EngineName = "auto",
    precision: Precision = "auto",
    window: tuple[int, int, int, int],
    is_single: bool = False,
) -> OpenedEngines:
    """Make networks ready to run.

    Where several ways to run them stand to choose from, the first network is run in each of them on one window, ways
    that disagree with plain torch in float32 are left out, and the fastest of the others is taken, now and, on this
    machine, from now on (`engine_memory`).

    Parameters
    ----------
    networks
        Of one shape (folds), from (B, C, I, J, K) to logits or heads.
    device
        Where they run.
    engine
        "auto" for what is fastest, "torch", "compiled" or "openvino".
    precision
        "auto" for bfloat16 where the processor multiplies it and the network keeps its answer, else float32 (on a GPU
        half precision); or by name.
    window
        (C, I, J, K) of the windows that will come; others may come too.
    is_single
        Whether a scan is one window, and not the many that an engine's start is else worth.

    Raises
    ------
    UsageError
        If engine, precision and device do not go together, or a package is missing.
    UnsupportedOperator
        If the engine that was asked for cannot run the network.
    """
    candidates = candidates_for(device, engine, precision, is_single=is_single)
    if len(candidates) == 1:
        return OpenedEngines([build(network, candidates[0], device) for network in networks])
    choice = _choice(networks[0], candidates, window, is_single)
    engines = [build(network, choice.candidate, device) for network in networks]
    for opened in engines:
        opened.seconds_per_window = choice.seconds_per_window
    return OpenedEngines(engines, choice.notes)


def open_engine(
    network: nn.Module,
    *,
    device: torch.device,
    engine: EngineName = "auto",
    precision: Precision = "auto",
    window: tuple[int, int, int, int],
) -> Engine:
    """One network ready to run; see `open_engines`."""
    return open_engines([network], device=device, engine=engine, precision=precision, window=window).engines[0]


def _choice(
    network: nn.Module, candidates: Sequence[Candidate], window: tuple[int, int, int, int], is_single: bool
) -> Choice:
    key = choice_key(network, window, " | ".join([*map(str, candidates), *(["one window"] if is_single else [])]))
    choice = recall(key) or remember(key, choose(network, candidates, window, 1 if is_single else WINDOWS_A_SCAN))
    logger.info("engine %s, %.3g s a window", choice.candidate, choice.seconds_per_window)
    return choice
