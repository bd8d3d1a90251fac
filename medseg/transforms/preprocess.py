"""From a scan to what the network sees: orientation, spacing, intensities, all read from the plan."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import Compose, MapTransform, Orientationd, Spacingd, Transform

from medseg.core.plan import IntensityPlan, Plan
from medseg.transforms.intensity import map_intensity
from medseg.transforms.keys import IMAGE, LABEL
from medseg.transforms.load import LoadScand

__all__ = ["MapIntensityd", "network_input", "preprocessing"]

RAS_LABELS = (("L", "R"), ("P", "A"), ("I", "S"))


class MapIntensityd(MapTransform):
    """`map_intensity` for each channel of a tensor (C, I, J, K) in a dictionary.

    `plans` holds one mapping a channel, or, as in a bundle's configuration, what its JSON says.
    """

    def __init__(self, keys: KeysCollection, plans: Sequence[IntensityPlan | Mapping[str, Any]]) -> None:
        super().__init__(keys)
        self.plans = tuple(IntensityPlan.model_validate(plan) for plan in plans)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The dictionary with every key mapped."""
        mapped = dict(data)
        for key in self.key_iterator(mapped):
            channels = [map_intensity(channel, plan) for channel, plan in zip(mapped[key], self.plans, strict=True)]
            mapped[key] = torch.stack(channels)
        return mapped


def preprocessing(plan: Plan, *, with_label: bool = False) -> list[Transform]:
    """The transforms from a loaded image (and label) to the network's grid and intensities.

    Labels go the same way with nearest-neighbor interpolation.
    """
    keys = [IMAGE, LABEL] if with_label else [IMAGE]
    modes = ["bilinear", "nearest"] if with_label else ["bilinear"]
    steps: list[Transform] = [Orientationd(keys, axcodes=plan.orientation, labels=RAS_LABELS)]
    if plan.spacing_mm is not None:
        steps.append(Spacingd(keys, pixdim=plan.spacing_mm, mode=modes, padding_mode="border", dtype=np.float32))
    steps.append(MapIntensityd([IMAGE], [channel.intensity for channel in plan.channels]))
    return steps


def network_input(plan: Plan) -> Compose:
    """The Compose that takes {"image": scan, path or volume} to the network's input."""
    units = [channel.units for channel in plan.channels]
    return Compose([LoadScand(IMAGE, units=units), *preprocessing(plan)])
