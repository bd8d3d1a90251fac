"""Memory of a run: estimated, kept within a limit, or refused with a figure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from monai.networks.nets import SegResNet
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor

from medseg.core.geometry import Geometry
from medseg.core.recipe import WindowPlan
from medseg.core.volume import Volume
from medseg.errors import NotEnoughMemory
from medseg.inference.activations import activation_bytes, generous_bytes
from medseg.inference.memory import Demand, Frugality, fitted, sums_in_files
from medseg.inference.options import RunOptions
from medseg.inference.segmenter import Segmenter
from medseg.inference.stitch import Stitching
from medseg.inference.windows import lay_windows
from medseg.io.memory import resident_bytes
from tests.inference.engines import Mixer, engine
from tests.inference.test_stitch import joined, noise, slabs_of
from tests.plans import BrighterThan, tiny_plan

MIB = 2**20


def test_activations_are_counted_until_nothing_needs_them() -> None:
    class Chain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(*(nn.Conv3d(4, 4, 3, padding=1) for _ in range(5)))

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.layers(image.expand(-1, 4, -1, -1, -1))

    one_map = 4 * 4 * 16**3
    n_bytes = activation_bytes(Chain(), 1, (16, 16, 16), 1)
    assert 2 * one_map <= n_bytes <= 3 * one_map  # five layers, but only two results at a time, and the input
    assert activation_bytes(Chain(), 1, (16, 16, 16), 3) == 3 * n_bytes


def test_a_skip_connection_is_held_while_it_is_needed() -> None:
    class Skipping(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            early = image + 1
            late = ((early * 2) * 2) * 2
            return late + early

    one_map = 4 * 16**3
    assert activation_bytes(Skipping(), 1, (16, 16, 16), 1) == pytest.approx(4 * one_map, abs=one_map)


def test_tracing_neither_computes_nor_changes_the_network() -> None:
    network = SegResNet(spatial_dims=3, init_filters=8, in_channels=1, out_channels=3).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    n_bytes = activation_bytes(network, 1, (512, 512, 512), 1)
    assert n_bytes > 8 * 512**3 * 4  # more than this machine might hold, and no time spent on it
    assert network.training
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_a_network_that_cannot_be_traced_gets_a_generous_guess() -> None:
    class Looking(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image * float(image.max())  # asks for a number that does not exist

    assert activation_bytes(Looking(), 1, (16, 16, 16), 2) == generous_bytes((16, 16, 16), 2)


def demand(n_summed: int = 100) -> Demand:
    layout = lay_windows((64, 300, 300), WindowPlan(patch_size=(64, 64, 64)))
    return Demand(layout, 0, n_summed, 1, 64 * 300 * 300, True, lambda per_batch: 200 * MIB * per_batch)


def test_what_fits_runs_as_it_was_asked_for() -> None:
    asked = Frugality(4)
    way, total = fitted(demand(), asked, 64 * 1024, may_halve=True, what="model m")
    assert way == asked
    assert way.note(asked) is None
    assert total > resident_bytes()


def needed_mib(way: Frugality) -> float:
    one = demand()
    return (resident_bytes() + one.n_bytes(way, one.activations(way.per_batch))) / MIB


@pytest.mark.parametrize(
    ("way", "note"),
    [
        (Frugality(1), "1 window(s) a batch"),
        (Frugality(1, torch.float16), "1 window(s) a batch, sums of windows in float16"),
        (
            Frugality(1, torch.float16, are_sums_on_disk=True),
            "1 window(s) a batch, sums of windows in float16, sums of windows in a temporary file",
        ),
    ],
)
def test_the_limit_makes_the_run_as_frugal_as_it_must_be_and_no_more(way: Frugality, note: str) -> None:
    asked = Frugality(4)
    fitting, total = fitted(demand(), asked, needed_mib(way) + 5, may_halve=True, what="model m")
    assert fitting == way
    assert total <= (needed_mib(way) + 5) * MIB
    assert fitting.note(asked) == f"to stay within the memory limit: {note}"


def test_an_exact_run_never_halves_its_sums() -> None:
    limit = needed_mib(Frugality(1, torch.float16)) + 5
    way, _ = fitted(demand(), Frugality(4), limit, may_halve=False, what="model m")
    assert way == Frugality(1, torch.float32, are_sums_on_disk=True)


def test_what_cannot_fit_is_refused_with_the_figure() -> None:
    with pytest.raises(NotEnoughMemory, match=r"model m needs about \d+ MiB .* 100 MiB are allowed.*--max-memory"):
        fitted(demand(), Frugality(4), 100, may_halve=True, what="model m")


def test_sums_in_files_are_the_same_sums(tmp_path: Path) -> None:
    plan = WindowPlan(patch_size=(16, 12, 10), blend="gaussian", overlap=0.5)
    image = noise(1, 40, 25, 33)
    in_memory = joined(slabs_of(image, plan, Stitching(axis=0), [engine(Mixer())]))
    how = Stitching(axis=0, storage=sums_in_files(str(tmp_path)))
    in_files = joined(slabs_of(image, plan, how, [engine(Mixer())]))
    torch.testing.assert_close(in_files, in_memory, rtol=0, atol=0)
    assert list(tmp_path.iterdir()) == []


def test_float16_sums_to_save_memory_stay_near_the_float32_ones() -> None:
    plan = WindowPlan(patch_size=(16, 12, 10), blend="gaussian", overlap=0.5)
    image = noise(1, 40, 25, 33)
    full = joined(slabs_of(image, plan, Stitching(axis=0), [engine(Mixer())]))
    half = joined(slabs_of(image, plan, Stitching(axis=0, sum_dtype=torch.float16), [engine(Mixer())]))
    torch.testing.assert_close(half.float(), full, atol=1e-2, rtol=1e-2)


def test_a_segmenter_that_may_not_use_the_memory_says_so_before_any_window_runs() -> None:
    calls = []

    class Counting(BrighterThan):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            calls.append(isinstance(image, FakeTensor))
            return super().forward(image)

    options = RunOptions(max_memory_mib=50)
    segmenter = Segmenter(Counting(5.0), tiny_plan(), device="cpu", options=options)
    calls.clear()  # building it compares body and head
    volume = Volume(
        np.zeros((1, 30, 20, 20), np.float32), Geometry((30, 20, 20), np.diag([4.0, 4.0, 4.0, 1.0])), ("PET",)
    )
    with pytest.raises(NotEnoughMemory, match="model tiny needs about"):
        segmenter.segment(volume)
    assert calls
    assert all(calls)  # traced without content, for batches of falling size
