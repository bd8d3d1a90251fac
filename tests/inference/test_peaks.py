"""What nowhere reaches the least peak is left out, the rest is left alone."""

from __future__ import annotations

import numpy as np

from medseg.core.geometry import Geometry
from medseg.core.labels import LabelScheme
from medseg.core.semantic import SemanticMap
from medseg.core.volume import Volume
from medseg.inference.peaks import without_faint

GRID = Geometry((6, 5, 4), np.diag([2.0, 2.0, 5.0, 1.0]))
SCHEME = LabelScheme(classes={1: "tumor", 2: "core"})


def scene() -> tuple[SemanticMap, Volume]:
    """A warm region of two classes, and a faint one that no corner of it touches."""
    classes = np.zeros(GRID.shape, dtype=np.uint8)
    classes[0:2, 0:2, 0] = 1
    classes[0, 0, 0] = 2
    classes[4:6, 3:5, 3] = 1
    uptake = np.zeros((1, *GRID.shape), dtype=np.float32)
    uptake[0, 1, 1, 0] = 1.0
    uptake[0, 4:6, 3:5, 3] = 0.9
    return SemanticMap(classes, GRID, SCHEME), Volume(uptake, GRID, ("PET",))


def test_only_the_faint_region_goes_and_it_is_told() -> None:
    semantic, volume = scene()
    kept, note = without_faint(semantic, volume, 1.0)
    expected = semantic.array.copy()
    expected[4:6, 3:5, 3] = 0
    np.testing.assert_array_equal(kept.array, expected)
    assert kept.array.dtype == semantic.array.dtype
    assert note == "left out 1 region(s) of 0.08 ml in which the scan nowhere reaches 1"


def test_nothing_faint_leaves_the_map_as_it_is() -> None:
    semantic, volume = scene()
    assert without_faint(semantic, volume, 0.9) == (semantic, None)


def test_an_empty_map_stays_empty() -> None:
    _, volume = scene()
    empty = SemanticMap(np.zeros(GRID.shape, dtype=np.uint8), GRID, SCHEME)
    assert without_faint(empty, volume, 1.0) == (empty, None)


def test_a_peak_below_zero_is_a_peak_too() -> None:
    semantic, volume = scene()
    cold = Volume(volume.array - 5.0, GRID, ("CT",))
    kept, _ = without_faint(semantic, cold, -4.05)
    assert kept.array[1, 1, 0] == 1
    assert not kept.array[4:6].any()
