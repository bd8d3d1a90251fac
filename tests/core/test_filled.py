"""What is not 0, found word by word."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.core import filled
from medseg.core.filled import filled_places, memory_order

LAYOUTS = ("contiguous", "odd start", "strided", "mirrored")


def laid(array: np.ndarray, layout: str) -> np.ndarray:
    """The same values, C-contiguous or not, on a word's boundary or not."""
    if layout == "odd start":
        memory = np.zeros(array.size + 1, dtype=array.dtype)
        memory[1:] = array.ravel()
        return memory[1:].reshape(array.shape)
    if layout == "strided":
        memory = np.ones((array.shape[0], 2 * array.shape[1], array.shape[2] + 3), dtype=array.dtype)
        memory[:, ::2, 2:-1] = array
        return memory[:, ::2, 2:-1]
    return np.ascontiguousarray(array[::-1, :, ::-1])[::-1, :, ::-1] if layout == "mirrored" else array


@pytest.mark.parametrize("block_bytes", [8, 64, 1 << 21])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.uint16, np.int32, np.uint64, ">u2"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 7), (2, 4, 8)])
def test_every_place_that_is_not_0_is_found(monkeypatch, shape, dtype, layout, block_bytes):
    monkeypatch.setattr(filled, "_BLOCK_BYTES", block_bytes)
    values = np.random.default_rng(0).integers(0, 3, size=shape).astype(dtype)
    array = laid(values, layout)
    np.testing.assert_array_equal(array, values)
    assert filled_places(array).tolist() == np.flatnonzero(values.ravel()).tolist()


def test_an_empty_map_has_no_place():
    assert filled_places(np.zeros((3, 4, 5), dtype=np.uint16)).size == 0


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (2, 0, 1)])
def test_memory_order_undoes_a_transposition(axes):
    array = np.zeros((2, 3, 4), dtype=np.uint8).transpose(axes)
    assert array.transpose(memory_order(array)).flags.c_contiguous
