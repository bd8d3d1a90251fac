"""The only crossing between medseg's values and MONAI's MetaTensor.

A MetaTensor remembers where it was, not where it is: slicing, flipping or interpolating it leaves its affine wrong,
and only MONAI's own transforms keep it true. So it lives inside a Compose; outside, arrays travel with a Geometry.
"""

from __future__ import annotations

import numpy as np
import torch
from monai.data import MetaTensor
from monai.utils import MetaKeys, SpaceKeys
from numpy.typing import NDArray

from medseg.core.geometry import Geometry
from medseg.core.semantic import SemanticMap
from medseg.core.volume import Volume

__all__ = ["array_to_tensor", "geometry_of", "semantic_to_tensor", "tensor_to_volume", "volume_to_tensor"]


def volume_to_tensor(volume: Volume) -> MetaTensor:
    """The volume as MetaTensor (C, I, J, K) float32 with its RAS+ affine; a copy."""
    return array_to_tensor(volume.array, volume.geometry)


def array_to_tensor(array: NDArray[np.float32], geometry: Geometry) -> MetaTensor:
    """An array (C, I, J, K) float32 on a grid as MetaTensor with its RAS+ affine; a copy."""
    return _with_affine(torch.from_numpy(np.array(array, order="C")), geometry)


def semantic_to_tensor(semantic: SemanticMap) -> MetaTensor:
    """The semantic map as MetaTensor (1, I, J, K) float32 class numbers with its RAS+ affine; a copy."""
    return _with_affine(torch.from_numpy(np.array(semantic.array[None], np.float32, order="C")), semantic.geometry)


def geometry_of(tensor: MetaTensor) -> Geometry:
    """The grid (I, J, K) of a MetaTensor (C, I, J, K) that comes straight from a MONAI transform."""
    i, j, k = (int(n) for n in tensor.shape[1:])
    return Geometry((i, j, k), np.asarray(tensor.affine, dtype=np.float64))


def tensor_to_volume(tensor: MetaTensor, channels: tuple[str, ...]) -> Volume:
    """The MetaTensor (C, I, J, K), straight from a MONAI transform, as a volume."""
    return Volume(tensor.detach().cpu().numpy().astype(np.float32), geometry_of(tensor), channels)


def _with_affine(tensor: torch.Tensor, geometry: Geometry) -> MetaTensor:
    affine = torch.tensor(geometry.affine)
    meta = {MetaKeys.ORIGINAL_CHANNEL_DIM: 0, MetaKeys.SPACE: SpaceKeys.RAS, MetaKeys.ORIGINAL_AFFINE: affine.clone()}
    return MetaTensor(tensor, affine=affine, meta=meta)
