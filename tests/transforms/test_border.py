"""The crossing between medseg's values and MetaTensor."""

from __future__ import annotations

import numpy as np
from monai.transforms import Orientationd, Spacingd

from medseg.core.geometry import Geometry
from medseg.core.labels import BINARY_LESION
from medseg.core.semantic import SemanticMap
from medseg.core.volume import Volume
from medseg.transforms.border import geometry_of, semantic_to_tensor, tensor_to_volume, volume_to_tensor
from medseg.transforms.preprocess import RAS_LABELS


def oblique() -> Geometry:
    turn = np.deg2rad(25.0)
    affine = np.array(
        [
            [-2.0 * np.cos(turn), 3.0 * np.sin(turn), 0.0, 40.0],
            [2.0 * np.sin(turn), 3.0 * np.cos(turn), 0.0, -30.0],
            [0.0, 0.0, 4.0, 7.0],
            [0.0, 0.0, 0.0, 1.0],
        ]
    )
    return Geometry((5, 6, 7), affine)


def volume(geometry: Geometry) -> Volume:
    array = np.random.default_rng(0).normal(size=(2, *geometry.shape)).astype(np.float32)
    return Volume(array, geometry, ("a", "b"))


def test_volume_comes_back_as_it_went() -> None:
    original = volume(oblique())
    back = tensor_to_volume(volume_to_tensor(original), original.channels)
    np.testing.assert_array_equal(back.array, original.array)
    np.testing.assert_array_equal(back.geometry.affine, original.geometry.affine)


def test_tensor_is_a_copy() -> None:
    original = volume(oblique())
    volume_to_tensor(original)[:] = 0
    assert original.array.any()


def test_monai_turns_and_resamples_by_our_affine() -> None:
    """A voxel's world position survives MONAI's own transforms."""
    geometry = oblique()
    ramp = geometry.to_world(np.moveaxis(np.indices(geometry.shape), 0, -1)).astype(np.float32)
    tensor = volume_to_tensor(Volume(np.moveaxis(ramp, -1, 0), geometry, ("x", "y", "z")))
    turned = Orientationd("image", axcodes="SAR", labels=RAS_LABELS)({"image": tensor})["image"]
    finer = Spacingd("image", pixdim=(2.0, 1.5, 1.0), padding_mode="border", dtype=np.float64)({"image": turned})[
        "image"
    ]
    grid = geometry_of(finer)
    assert grid.axcodes == "SAR"
    inner = tuple(slice(2, n - 2) for n in grid.shape)
    expected = grid.to_world(np.moveaxis(np.indices(grid.shape), 0, -1))
    found = np.moveaxis(np.asarray(finer.as_tensor()), 0, -1)
    np.testing.assert_allclose(found[inner], expected[inner], atol=1e-3)


def test_semantic_map_becomes_one_channel_of_class_numbers() -> None:
    array = np.zeros(oblique().shape, dtype=np.uint8)
    array[1, 2, 3] = 1
    tensor = semantic_to_tensor(SemanticMap(array, oblique(), BINARY_LESION))
    assert tuple(tensor.shape) == (1, 5, 6, 7)
    np.testing.assert_array_equal(np.asarray(tensor.as_tensor())[0], array)
    np.testing.assert_array_equal(geometry_of(tensor).affine, oblique().affine)
