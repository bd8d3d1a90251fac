"""A model of any family in memory: its networks, its recipe, and what there is to say of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from medseg.core.recipe import Recipe
from medseg.inference.segmenter import TakesOver
from medseg.networks.description import NetworkDescription

__all__ = ["LoadedModel"]


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model, ready to be put into a `Segmenter`.

    Parameters
    ----------
    networks
        With their weights; several are folds.
    recipe
        What the model does to a scan.
    weights_sha256
        Of the weights file.
    source
        The folder or file that it came from.
    descriptions
        Class and arguments of each network; empty where the network is code of the bundle's own.
    takes_over
        The bundle's own pipeline in place of the recipe; only with trust.
    previous
        The first stage of a cascade, whose semantic map this one sees as further channels.
    metadata
        What the model says of itself, for `medseg model check` and `info`.
    details
        What else `medseg model info` shows.
    """

    networks: list[nn.Module]
    recipe: Recipe
    weights_sha256: str
    source: Path
    descriptions: tuple[NetworkDescription, ...] = ()
    takes_over: TakesOver | None = None
    previous: LoadedModel | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
