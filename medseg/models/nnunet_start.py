"""One fold of an nnU-Net model as the start of a training: its network as a plan says it, its weights, its numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from medseg.core.plan import UNCLIPPED_STD, IntensityPlan, NetworkPlan
from medseg.core.recipe import Recipe
from medseg.core.steps import AppendPreviousStage, NnunetChannel, NormalizeAsNnunet, Orient, RespaceAsNnunet, Transpose
from medseg.errors import UnsupportedModel
from medseg.models.nnunet import fold_names, read_nnunet
from medseg.networks.nnunet import NnunetNetwork
from medseg.networks.nnunet_plan import network_plan_of

__all__ = ["NnunetStart", "read_nnunet_start"]

_LEAST_STD = 1e-8  # as nnU-Net divides
_OPPOSITE = {"L": "R", "P": "A", "I": "S"}


@dataclass(frozen=True, eq=False)
class NnunetStart:
    """What a training takes over from an nnU-Net model.

    Parameters
    ----------
    folder
        The model's.
    name
        Of the model, with its fold.
    recipe
        What nnU-Net does to a scan with it.
    network
        Its network.
    weights
        Name to tensor; without the heads of lower resolutions, which only deep supervision looks at.
    """

    folder: Path
    name: str
    recipe: Recipe
    network: NetworkPlan
    weights: dict[str, torch.Tensor]

    @property
    def spacing_mm(self) -> tuple[float, float, float] | None:
        """Of the network's grid, in the order of its axes; None for the scan's own."""
        for step in self.recipe.preparation:
            if isinstance(step, RespaceAsNnunet):
                first, second, third = step.spacing_mm
                return None if first is None else (first, second, third)
        return None

    @property
    def intensities(self) -> tuple[IntensityPlan, ...]:
        """How each channel becomes network input.

        Raises
        ------
        UnsupportedModel
            If a channel is normalized by a scheme that a plan has not.
        """
        for step in self.recipe.preparation:
            if isinstance(step, NormalizeAsNnunet):
                return tuple(self._intensity(number, channel) for number, channel in enumerate(step.channels))
        return ()

    def _intensity(self, number: int, channel: NnunetChannel) -> IntensityPlan:
        if channel.scheme == "zscore":
            how: Literal["nonzero", "scan"] = "nonzero" if channel.is_masked else "scan"
            return IntensityPlan(low=-UNCLIPPED_STD, high=UNCLIPPED_STD, standardize=how)
        if channel.scheme != "ct":
            raise UnsupportedModel(
                f"{self.name}: channel {self.recipe.channels[number].name} is normalized by nnU-Net's "
                f"{channel.scheme} scheme, which a plan cannot say; it can say CTNormalization and "
                "ZScoreNormalization"
            )
        return IntensityPlan(
            low=channel.percentile_00_5,
            high=channel.percentile_99_5,
            shift=channel.mean,
            scale=max(channel.std, _LEAST_STD),
        )

    def orientation(self, stored: str) -> str:
        """Axis codes of the network's grid.

        nnU-Net's plain readers leave a scan's axes as they are stored, slices first; some of its readers turn them to
        RAS before. A network that was trained with mirroring along an axis knows no direction there.

        Parameters
        ----------
        stored
            Axis codes of the scans as they lie on disk.
        """
        codes = list(stored)
        for step in self.recipe.preparation:
            if isinstance(step, Orient):
                codes = list(step.axcodes)
            elif isinstance(step, Transpose):
                codes = [codes[axis] for axis in step.axes]
        mirrored = self.recipe.windows.mirror_axes
        return "".join(_OPPOSITE.get(code, code) if axis in mirrored else code for axis, code in enumerate(codes))


def read_nnunet_start(folder: Path, fold: int | str | None = None) -> NnunetStart:
    """Read one fold of a model folder; nothing in it is executed.

    Parameters
    ----------
    folder
        The one with plans.json.
    fold
        Number (or "all") of the fold; None for the first that there is.

    Raises
    ------
    InvalidBundle
        If something is missing, damaged or contradictory.
    UnsupportedModel
        If the network is one that a plan cannot say: two-dimensional, the second stage of a cascade, or with other
        parts than nnU-Net's planners give it.
    UsageError
        If there is no such fold.
    """
    chosen = str(fold) if fold is not None else fold_names(folder)[0]
    (network,), recipe, _ = read_nnunet(folder, [chosen])
    name = f"{recipe.name} fold {chosen}"
    if not isinstance(network, NnunetNetwork):
        raise UnsupportedModel(f"{folder}: a two-dimensional network; medseg trains three-dimensional ones")
    if any(isinstance(step, AppendPreviousStage) for step in recipe.preparation):
        raise UnsupportedModel(
            f"{folder}: the second stage of a cascade, whose network also sees a class map; start from a model of "
            "3d_fullres or 3d_lowres"
        )
    plan = network_plan_of(network.architecture, str(folder))
    head = f"decoder.seg_layers.{len(plan.filters) - 2}."
    weights = {
        key: tensor
        for key, tensor in network.state_dict().items()
        if not key.startswith("decoder.seg_layers.") or key.startswith(head)
    }
    return NnunetStart(folder, name, recipe, plan, weights)
