"""From a scan in memory to what a network sees: the steps of a recipe, carried out in order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Orientation, Spacing
from numpy.typing import NDArray

from medseg.core.steps import MapIntensities, Orient, PreparationStep, Respace
from medseg.core.volume import Volume
from medseg.errors import InvalidPlan
from medseg.transforms.border import array_to_tensor, geometry_of
from medseg.transforms.prepare_nnunet import NNUNET_STEPS
from medseg.transforms.prepared import Prepared
from medseg.transforms.preprocess import RAS_LABELS, map_intensity

__all__ = ["Prepared", "prepare"]


def prepare(
    volume: Volume,
    steps: Sequence[PreparationStep],
    *,
    is_exact: bool = False,
    previous: NDArray[np.integer[Any]] | None = None,
) -> Prepared:
    """Carry out steps on a volume.

    Parameters
    ----------
    volume
        (C, I, J, K), the model's channels in order and unit; left as it is.
    steps
        In order.
    is_exact
        Whether steps that may be faster in float32 compute as precisely as the model's family does.
    previous
        (I, J, K) class numbers of the stage before, for a cascade.

    Returns
    -------
    The network's input, with the grid that it lies on.

    Raises
    ------
    InvalidPlan
        If a step has another number of channels than the volume.
    """
    state = Prepared(volume.array, volume.geometry, is_exact=is_exact, previous=previous)
    for step in steps:
        state = _STEPS[type(step)](state, step)
    return state


def _orient(state: Prepared, step: Orient) -> Prepared:
    turned: MetaTensor = Orientation(axcodes=step.axcodes, labels=RAS_LABELS)(
        array_to_tensor(state.image, state.geometry)
    )  # type: ignore[assignment]
    previous = state.previous
    if previous is not None:
        turned_map = Orientation(axcodes=step.axcodes, labels=RAS_LABELS)(
            array_to_tensor(previous[None].astype(np.float32), state.geometry)
        )
        previous = np.asarray(turned_map)[0].astype(previous.dtype)
    return replace(state, image=np.asarray(turned.as_tensor()), geometry=geometry_of(turned), previous=previous)


def _respace(state: Prepared, step: Respace) -> Prepared:
    pairs = zip(state.geometry.spacing, step.spacing_mm, strict=True)
    spaced: MetaTensor = Spacing(
        pixdim=[own if wanted is None else wanted for own, wanted in pairs],
        mode="bilinear" if step.interpolation == "linear" else "nearest",
        padding_mode=step.padding,
        dtype=np.float64 if step.is_double else np.float32,
    )(array_to_tensor(state.image, state.geometry))  # type: ignore[assignment]
    return replace(state, image=np.asarray(spaced.as_tensor(), dtype=np.float32), geometry=geometry_of(spaced))


def _map_intensities(state: Prepared, step: MapIntensities) -> Prepared:
    if len(step.channels) != len(state.image):
        raise InvalidPlan(
            f"the intensities of {len(step.channels)} channel(s) are given; the scan has {len(state.image)}"
        )
    channels = [
        map_intensity(torch.tensor(channel), plan) for channel, plan in zip(state.image, step.channels, strict=True)
    ]
    return replace(state, image=torch.stack(channels).numpy())


_STEPS: dict[type, Callable[[Prepared, Any], Prepared]] = {
    Orient: _orient,
    Respace: _respace,
    MapIntensities: _map_intensities,
    **NNUNET_STEPS,
}
