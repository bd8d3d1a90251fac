"""The list of lesion voxels."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.core.lesions import Lesion, LesionMap
from medseg.lesions.bodies import list_voxels

from .scenes import make_grid


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32])
@pytest.mark.parametrize("shape", [(8, 12, 10), (5, 7, 3), (1, 1, 1), (96, 120, 100)])
@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_the_list_holds_every_voxel_of_every_lesion(dtype, shape, axes):
    array = (np.random.default_rng(1).random(shape) < 0.3).astype(dtype)
    array[1::2] *= 2
    array[0, 0, 0] = 1
    array = array.transpose(axes)
    n_lesions = int(array.max())
    voxels = list_voxels(LesionMap(array, make_grid(array.shape), (Lesion("lesion"),) * n_lesions))
    for number in range(1, n_lesions + 1):
        own = np.stack(voxels.of(number), axis=-1)
        assert own.dtype == np.int32
        assert sorted(map(tuple, own.tolist())) == sorted(map(tuple, np.argwhere(array == number).tolist()))
        if len(own) > 1:
            expected = np.cov(own.T, bias=True) * len(own)
            np.testing.assert_allclose(voxels.scatter[number - 1], expected, rtol=1e-9, atol=1e-6)
