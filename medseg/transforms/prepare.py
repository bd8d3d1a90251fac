"""From a scan in memory to what a network sees: the steps of a recipe, carried out in order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from medseg.core.steps import MapIntensities, PreparationStep, Resize, ScaleRange
from medseg.core.volume import Volume
from medseg.errors import InvalidPlan
from medseg.transforms.intensity import map_intensity
from medseg.transforms.prepare_nnunet import NNUNET_STEPS
from medseg.transforms.prepared import Prepared

__all__ = ["Prepared", "prepare"]


def prepare(
    volume: Volume,
    steps: Sequence[PreparationStep],
    *,
    is_exact: bool = False,
    previous: NDArray[np.integer[Any]] | None = None,
    may_be_pending: bool = False,
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
    may_be_pending
        The last step's mapping of intensities may be left to whoever reads the image (`Prepared.pending`), where the
        image is the scan's own voxels: a second one of its size is not made then.

    Returns
    -------
    The network's input, with the grid that it lies on.

    Raises
    ------
    InvalidPlan
        If a step has another number of channels than the volume.
    """
    state = Prepared(volume.array, volume.geometry, is_exact=is_exact, previous=previous)
    before: PreparationStep | None = None
    for step in steps:
        if not (isinstance(step, Resize) and isinstance(before, ScaleRange)):  # which is done to what is resized
            state = state.finished()
        state = _function_of(type(step))(state, step)
        before = step
    if may_be_pending and state.pending is not None and not state.image.flags.writeable:
        return state
    state = state.finished()
    return replace(state, image=np.require(state.image, np.float32, "C"))  # steps may leave a view


def _map_intensities(state: Prepared, step: MapIntensities) -> Prepared:
    if len(step.channels) != len(state.image):
        raise InvalidPlan(
            f"the intensities of {len(step.channels)} channel(s) are given; the scan has {len(state.image)}"
        )
    channels = [
        map_intensity(torch.from_numpy(np.array(channel, order="C")), plan)
        for channel, plan in zip(state.image, step.channels, strict=True)
    ]
    return replace(state, image=torch.stack(channels).numpy())


_STEPS: dict[type, Callable[[Prepared, Any], Prepared]] = {MapIntensities: _map_intensities, **NNUNET_STEPS}


def _function_of(kind: type) -> Callable[[Prepared, Any], Prepared]:
    if kind in _STEPS:
        return _STEPS[kind]
    from medseg.transforms.prepare_monai import MONAI_STEPS

    return MONAI_STEPS[kind]
