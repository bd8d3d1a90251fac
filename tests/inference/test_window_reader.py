"""Windows of a scan whose intensities are mapped as they are read: those of the scan mapped as a whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medseg.core.geometry import Geometry
from medseg.core.recipe import WindowPlan
from medseg.core.steps import Normalize, Orient, PreparationStep, ScaleRange
from medseg.core.volume import Volume
from medseg.inference.window_reader import window_reader
from medseg.inference.windows import lay_windows
from medseg.transforms.prepare import prepare

NORMALIZE = Normalize(is_nonzero_only=True, is_per_channel=True)
SCALE = ScaleRange(low=-1.0, high=2.0, to_low=0.0, to_high=1.0, is_clipped=True)


def scan(order: str = "C") -> Volume:
    random = np.random.default_rng(3)
    array = np.array(random.normal(2.0, 1.0, (2, 14, 17, 12)) * (random.random((2, 14, 17, 12)) < 0.7), np.float32)
    array[1] *= 30.0
    return Volume(np.array(array, order=order), Geometry((14, 17, 12), np.diag([1.0, -1.5, 2.0, 1.0])), ("a", "b"))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(
    "steps",
    [
        [NORMALIZE],
        [Normalize(is_nonzero_only=True, is_per_channel=False)],
        [Orient(axcodes="PSL"), NORMALIZE],
        [SCALE],
        [Orient(axcodes="LPS"), SCALE],
    ],
)
@pytest.mark.parametrize("side", [8, 40])
def test_windows_are_those_of_the_scan_prepared_as_a_whole(steps: list[PreparationStep], order: str, side: int) -> None:
    source = scan(order)
    plan = WindowPlan(patch_size=(side, side, side), overlap=0.5)
    left, whole = (prepare(source, steps, may_be_pending=pending) for pending in (True, False))
    assert left.pending is not None
    assert whole.pending is None
    assert np.may_share_memory(left.image, source.array)  # no second image
    layout = lay_windows(whole.geometry.shape, plan)
    ours, theirs = window_reader(left, layout, plan), window_reader(whole, layout, plan)
    positions = [position for row in layout.starts[0] for position in layout.in_rows(0, row)]
    assert positions
    for position in positions:
        window = ours(position)
        assert window.dtype == torch.float32
        assert window.shape == (2, *layout.window)
        assert torch.equal(window, theirs(position))


def test_reading_leaves_the_scan_as_it_is() -> None:
    source = scan()
    before = source.array.copy()
    plan = WindowPlan(patch_size=(14, 17, 12))
    read = window_reader(prepare(source, [SCALE], may_be_pending=True), lay_windows((14, 17, 12), plan), plan)
    assert torch.equal(read((0, 0, 0)), read((0, 0, 0)))
    np.testing.assert_array_equal(source.array, before)


def test_an_image_of_the_preparations_own_is_mapped_as_a_whole() -> None:
    exact = prepare(scan(), [NORMALIZE], is_exact=True, may_be_pending=True)
    twice = prepare(scan(), [SCALE, NORMALIZE], may_be_pending=True)
    assert exact.pending is None
    assert twice.pending is None
    assert twice.image.flags.c_contiguous
