from __future__ import annotations

import numpy as np
import pytest

from medseg.io.slice_memory import empty_slices, make_pages


def test_slices_are_zero_writable_and_of_the_shape():
    array = empty_slices((2, 3, 4, 5))
    assert (array.shape, array.dtype, array.flags.writeable) == ((2, 3, 4, 5), np.float32, True)
    assert not array.any()


def test_more_than_the_machine_can_address_is_a_memory_error():
    with pytest.raises(MemoryError, match=r"MiB for a volume of shape"):
        empty_slices((2**20, 2**20, 2**20))


@pytest.mark.parametrize("shape", [(512, 512), (5, 7), (0, 4)])
def test_making_pages_keeps_what_is_there(shape):
    """Also where slices share a page with their neighbors, or begin within one."""
    array = empty_slices((3, *shape)) if 0 not in shape else np.empty((3, *shape), np.float32)
    for number, part in enumerate(array):
        part[:] = number + 1
        make_pages(part)
        make_pages(part.T)
    assert (array == np.arange(1, 4)[:, None, None]).all()
