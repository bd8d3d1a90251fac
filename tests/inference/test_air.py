"""Windows of air around the body are found conservatively, counted and checked."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from medseg.core.geometry import Geometry
from medseg.core.labels import LabelScheme
from medseg.core.recipe import ChannelSpec, OutputPlan, Recipe, WindowPlan
from medseg.core.steps import Orient, Respace
from medseg.core.volume import Volume
from medseg.errors import UsageError
from medseg.inference.air import air_levels, find_air
from medseg.inference.options import RunOptions
from medseg.inference.segmenter import Segmenter
from medseg.inference.windows import lay_windows

PLAN = WindowPlan(patch_size=(8, 8, 8), overlap=0.5)


def scan(shape: tuple[int, int, int] = (40, 24, 24), air: float = -1000.0) -> Volume:
    """A body of 40 HU from voxel 22 on, with a lung of air inside it, on a grid that is turned and flipped."""
    array = np.full((1, *shape), air, dtype=np.float32)
    array[0, 22:] = 40.0
    array[0, 26:38, 6:20, 6:20] = -1000.0
    return Volume(array, Geometry(shape, np.diag([-2.0, 2.0, 2.0, 1.0])), ("CT",))


def recipe(n_outputs: int = 2, **output: object) -> Recipe:
    return Recipe(
        name="ct",
        family="monai",
        channels=(ChannelSpec(name="CT", modality="CT"),),
        labels=LabelScheme(classes={1: "lesion"}),
        preparation=(Orient(axcodes="RAS"), Respace(spacing_mm=(3.0, 3.0, 3.0))),
        windows=PLAN,
        output=OutputPlan(**{"paint": tuple(range(n_outputs)), **output}),
    )


class Hallucinating(nn.Module):
    """Marks everything, most of all where there is nothing; counts its windows."""

    def __init__(self) -> None:
        super().__init__()
        self.n_windows = 0

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        self.n_windows += len(windows)
        return torch.cat([torch.zeros_like(windows), torch.full_like(windows, 3.0)], dim=1)


def test_air_is_900_hu_below_water_in_ct_and_the_minimum_elsewhere() -> None:
    array = np.stack([np.full((4, 4, 4), -1024.0), np.full((4, 4, 4), 0.25)]).astype(np.float32)
    array[1, 0, 0, 0] = 0.125
    volume = Volume(array, Geometry((4, 4, 4), np.eye(4)), ("CT", "PET"))
    channels = (ChannelSpec(name="CT", modality="CT"), ChannelSpec(name="PET", modality="PT", units="suv"))
    assert air_levels(volume, channels) == (-900.0, 0.125)


def test_only_windows_of_air_that_reach_the_scans_edge_are_skipped() -> None:
    volume = scan()
    grid = volume.geometry
    layout = lay_windows(grid.shape, PLAN)
    air = find_air(volume, (-900.0,), grid, layout)
    assert air.positions
    for i, j, k in air.positions:
        assert (volume.array[0, i : i + 8, j : j + 8, k : k + 8] <= -900).all()
    assert max(i for i, _, _ in air.positions) == 8  # 8 + 8 voxels, and a margin, before the body at 22
    inside_lung = (28, 8, 8)
    assert (volume.array[0, 28:36, 8:16, 8:16] <= -900).all()
    assert inside_lung in {(i, j, k) for i in layout.starts[0] for j in layout.starts[1] for k in layout.starts[2]}
    assert inside_lung not in air.positions


def test_a_single_voxel_above_air_keeps_all_its_windows() -> None:
    volume = scan()
    array = volume.array.copy()
    array[0, 5, 5, 5] = -899.0
    marked = Volume(array, volume.geometry, ("CT",))
    layout = lay_windows(volume.geometry.shape, PLAN)
    kept = find_air(marked, (-900.0,), volume.geometry, layout).positions
    for i, j, k in kept:
        assert not (i <= 5 < i + 8 and j <= 5 < j + 8 and k <= 5 < k + 8)
    assert len(kept) < len(find_air(volume, (-900.0,), volume.geometry, layout).positions)


def test_skipped_windows_are_background_counted_and_sampled() -> None:
    network = Hallucinating()
    options = RunOptions(skip_air=True, check_skipped=3)
    volume = scan()
    semantic, notes = Segmenter(network, recipe(), device="cpu", precision="exact", options=options).segment(volume)
    counted, sampled = notes
    skipped, total = int(counted.split()[1]), int(counted.split()[3])
    assert 0 < skipped < total
    assert "no voxel of the scan in them is above -900" in counted
    assert sampled.startswith("3 of the skipped windows were run all the same: highest foreground probability 0.95")
    assert network.n_windows == total - skipped + 3
    assert not semantic.array[:8].any()
    assert semantic.array[22:].all()


def test_where_windows_run_the_result_is_that_of_all_windows() -> None:
    volume = scan()

    class Local(nn.Module):
        def forward(self, windows: torch.Tensor) -> torch.Tensor:
            return torch.cat([torch.zeros_like(windows), windows / 100], dim=1)

    every, _ = Segmenter(Local(), recipe(), device="cpu").segment(volume)
    some, _ = Segmenter(Local(), recipe(), device="cpu", options=RunOptions(skip_air=True)).segment(volume)
    np.testing.assert_array_equal(some.array, every.array)
    assert every.array.any()


def test_a_scan_of_nothing_but_air_is_all_background() -> None:
    volume = Volume(
        np.full((1, 20, 20, 20), -1000.0, np.float32), Geometry((20, 20, 20), np.diag([2.0, 2.0, 2.0, 1.0])), ("CT",)
    )
    network = Hallucinating()
    semantic, notes = Segmenter(
        network, recipe(), device="cpu", precision="exact", options=RunOptions(skip_air=True)
    ).segment(volume)
    assert not semantic.array.any()
    assert network.n_windows == 0
    assert "skipped 27 of 27 windows" in notes[0]


def test_a_model_without_background_cannot_skip_air() -> None:
    segmenter = Segmenter(Hallucinating(), recipe(paint=(1, 1)), device="cpu", options=RunOptions(skip_air=True))
    with pytest.raises(UsageError, match="no channel for background"):
        segmenter.segment(scan())
