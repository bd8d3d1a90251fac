"""Random crops and deformations for training; every sample is a function of one seed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from monai.transforms import (
    Compose,
    RandAffined,
    RandCropByPosNegLabeld,
    RandFlipd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandScaleIntensityd,
    SpatialPadd,
)

from medseg.core.plan import Plan
from medseg.transforms.keys import IMAGE, LABEL

__all__ = ["draw_patch", "training_augmentation"]

_MARGIN = 1.1  # the crop before rotation over the patch after it, so that corners hold voxels and not padding
_ROTATION = (0.35, 0.35, 0.8)  # radians about each axis; patients are rolled more than they are tipped
_SCALING = (0.25, 0.25, 0.25)
_SHIFT_VOXELS = (4, 4, 4)
_SMOOTHING = (0.4, 1.0)  # voxels


def training_augmentation(plan: Plan) -> Compose:
    """The Compose from a case on the network's grid to one patch of the plan's size.

    Takes and gives {"image": (C, I, J, K) float32, "label": (1, I, J, K) float32 class numbers}; flips, small
    rotations and scalings, intensity factor, noise and blur. Voxels beyond the scan are 0 in network intensity, the
    same that inference pads with.
    """
    keys = [IMAGE, LABEL]
    patch = plan.inference.patch_size
    crop = [round(side * _MARGIN) for side in patch]
    share = plan.training.foreground_share
    return Compose(
        [
            SpatialPadd(keys, crop),
            RandCropByPosNegLabeld(keys, label_key=LABEL, spatial_size=crop, pos=share, neg=1 - share),
            RandAffined(
                keys,
                prob=0.8,
                spatial_size=patch,
                rotate_range=_ROTATION,
                scale_range=_SCALING,
                translate_range=_SHIFT_VOXELS,
                mode=("bilinear", "nearest"),
                padding_mode="zeros",
            ),
            *(RandFlipd(keys, prob=0.5, spatial_axis=axis) for axis in range(3)),
            RandScaleIntensityd(IMAGE, factors=0.3, prob=0.5),
            RandGaussianNoised(IMAGE, prob=0.2, std=0.1),
            RandGaussianSmoothd(IMAGE, prob=0.15, sigma_x=_SMOOTHING, sigma_y=_SMOOTHING, sigma_z=_SMOOTHING),
        ]
    )


def draw_patch(augmentation: Compose, case: Mapping[str, torch.Tensor], seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """One patch of a case: image (C, *patch) float32 and label (1, *patch) float32, the same for the same seed."""
    augmentation.set_random_state(seed=seed)
    drawn: Any = augmentation(dict(case))
    patch = drawn[0] if isinstance(drawn, list) else drawn
    return patch[IMAGE].as_tensor(), patch[LABEL].as_tensor()
