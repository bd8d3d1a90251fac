"""The sliding window: MONAI's and nnU-Net's sums, slabs that join without a seam, trouble that ends a case."""

from __future__ import annotations

import threading
from itertools import combinations, pairwise

import pytest
import torch
from monai.inferers import sliding_window_inference
from torch import nn

from medseg.core.monitor import Monitor
from medseg.core.recipe import WindowPlan
from medseg.errors import Cancelled, ModelError, NetworkFailed
from medseg.inference.engine import Engine, TorchEngine
from medseg.inference.linear_head import split_linear_head
from medseg.inference.slab import SEMANTIC, Slab
from medseg.inference.stitch import Stitching, stitched_slabs
from medseg.inference.window_reader import tensor_reader
from medseg.inference.windows import lay_windows, padded_image, window_weights
from tests.inference.engines import CPU, FailingEngine, Mixer, TwoHeads, Voxelwise, engine

PATCH = (16, 12, 10)


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def slabs_of(
    image: torch.Tensor, plan: WindowPlan, how: Stitching, engines: list[Engine], **kwargs: object
) -> list[Slab]:
    layout = lay_windows(tuple(image.shape[1:]), plan)
    kwargs.setdefault("monitor", Monitor())
    read = tensor_reader(padded_image(image, layout, plan), layout)
    return list(stitched_slabs(engines, read, layout, plan, how, **kwargs))


def joined(slabs: list[Slab], head: str = SEMANTIC) -> torch.Tensor:
    """(N, i, j, k) of slabs that follow each other without gap."""
    assert slabs[0].start == 0
    assert all(one.stop == other.start for one, other in pairwise(slabs))
    rows = torch.cat([slab.heads[head] for slab in slabs])
    return rows.movedim(-1, 0).movedim(1, slabs[0].axis + 1)


def monai(network: nn.Module, image: torch.Tensor, plan: WindowPlan) -> torch.Tensor:
    with torch.inference_mode():
        return sliding_window_inference(
            image[None],
            plan.patch_size,
            plan.per_batch,
            network,
            overlap=plan.overlap,
            mode=plan.blend,
            sigma_scale=plan.sigma_scale,
            padding_mode=plan.padding,
            cval=plan.padding_value,
        )[0]


@pytest.mark.parametrize("shape", [(40, 25, 33), (16, 12, 10), (5, 30, 7)])
@pytest.mark.parametrize("blend", ["gaussian", "constant"])
@pytest.mark.parametrize("per_batch", [1, 3])
def test_along_the_first_axis_every_bit_is_that_of_monai(shape: tuple[int, ...], blend: str, per_batch: int) -> None:
    plan = WindowPlan(patch_size=PATCH, overlap=0.4, blend=blend, per_batch=per_batch, padding_value=0.3)
    image = noise(1, *shape)
    exact = TorchEngine(Mixer(), CPU, "exact")  # channels first, as MONAI runs it: other memory has other kernels
    ours = joined(slabs_of(image, plan, Stitching(axis=0, per_batch=per_batch), [exact]))
    torch.testing.assert_close(ours, monai(Mixer().eval(), image, plan), rtol=0, atol=0)


@pytest.mark.parametrize("axis", [1, 2])
def test_another_axis_changes_rounding_only(axis: int) -> None:
    plan = WindowPlan(patch_size=PATCH, overlap=0.4, blend="gaussian")
    image = noise(1, 40, 25, 33)
    ours = joined(slabs_of(image, plan, Stitching(axis=axis), [engine(Mixer())]))
    torch.testing.assert_close(ours, monai(Mixer().eval(), image, plan), rtol=1e-5, atol=1e-5)


def nnunet(networks: list[nn.Module], image: torch.Tensor, plan: WindowPlan, mirror: tuple[int, ...]) -> torch.Tensor:
    """nnU-Net's prediction, written anew from its description: float16 sums, one fold after the other."""
    total = None
    layout = lay_windows(tuple(image.shape[1:]), plan)
    gaussian = window_weights(layout.window, plan).half()
    for network in networks:
        logits = count = None
        for i in layout.starts[0]:
            for j in layout.starts[1]:
                for k in layout.starts[2]:
                    at = (slice(i, i + 16), slice(j, j + 12), slice(k, k + 10))
                    window = image[None][(slice(None), slice(None), *at)]
                    said = network(window)
                    flips = [c for n in range(len(mirror)) for c in combinations([m + 2 for m in mirror], n + 1)]
                    for dims in flips:
                        said += torch.flip(network(torch.flip(window, dims)), dims)
                    said /= len(flips) + 1
                    said = said[0] * gaussian
                    if logits is None:
                        logits = torch.zeros((len(said), *image.shape[1:]), dtype=torch.half)
                        count = torch.zeros(image.shape[1:], dtype=torch.half)
                    logits[(slice(None), *at)] += said
                    count[at] += gaussian
        logits /= count
        total = logits if total is None else total + logits
    return total / len(networks) if len(networks) > 1 else total


@pytest.mark.parametrize("mirror", [(), (0, 2)])
@pytest.mark.parametrize("n_folds", [1, 2, 5])
def test_float16_sums_are_bit_for_bit_those_of_nnunet(mirror: tuple[int, ...], n_folds: int) -> None:
    plan = WindowPlan(patch_size=PATCH, overlap=0.5, blend="gaussian", rule="nnunet", mirror_axes=mirror)
    networks = [Mixer(seed=seed).eval() for seed in range(n_folds)]
    how = Stitching(axis=0, mirror_axes=mirror, sum_dtype=torch.float16, is_apart=True)
    image = noise(1, 37, 25, 21)
    ours = joined(slabs_of(image, plan, how, [engine(network) for network in networks]))
    with torch.inference_mode():
        expected = nnunet(networks, image, plan, mirror)
    assert ours.dtype == torch.float16
    torch.testing.assert_close(ours, expected, rtol=0, atol=0)


def test_sums_that_overflow_float16_are_an_error_not_a_map() -> None:
    plan = WindowPlan(patch_size=PATCH, blend="gaussian", rule="nnunet")
    how = Stitching(axis=0, sum_dtype=torch.float16)
    with pytest.raises(ModelError, match="overflow float16"):
        slabs_of(torch.full((1, 16, 12, 10), 1e5), plan, how, [engine(Voxelwise())])


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("shape", [(20, 18, 33), (16, 12, 10), (5, 30, 7), (3, 3, 3)])
def test_windows_do_not_show_in_a_voxelwise_network(axis: int, shape: tuple[int, ...]) -> None:
    image = noise(1, *shape)
    plan = WindowPlan(patch_size=PATCH, overlap=0.5, blend="gaussian", shrinks=True, divisor=(4, 4, 4))
    ours = joined(slabs_of(image, plan, Stitching(axis=axis, per_batch=2), [engine(Voxelwise())]))
    torch.testing.assert_close(ours, Voxelwise()(image[None])[0], atol=1e-5, rtol=1e-5)


def test_several_heads_are_stitched_at_once() -> None:
    image = noise(1, 20, 18, 33)
    slabs = slabs_of(image, WindowPlan(patch_size=PATCH), Stitching(axis=2), [engine(TwoHeads())])
    torch.testing.assert_close(joined(slabs), torch.cat([image, -image]), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(joined(slabs, "center"), 3 * image, atol=1e-5, rtol=1e-5)


def test_mirroring_averages_over_all_combinations_of_axes() -> None:
    place = torch.arange(8.0).reshape(1, 1, 2, 2, 2)

    class Positional(nn.Module):
        calls = 0

        def forward(self, windows: torch.Tensor) -> torch.Tensor:
            Positional.calls += 1
            return windows * place

    plan = WindowPlan(patch_size=(2, 2, 2))
    how = Stitching(axis=0, mirror_axes=(2, 0, 1))
    ours = joined(slabs_of(torch.ones(1, 2, 2, 2), plan, how, [engine(Positional())]))
    torch.testing.assert_close(ours, torch.full((1, 2, 2, 2), 3.5))
    assert Positional.calls == 8


def test_the_mean_of_several_networks_counts() -> None:
    image = noise(1, 20, 18, 33)
    plan = WindowPlan(patch_size=PATCH, blend="gaussian")
    networks = [Mixer(seed=seed).eval() for seed in range(3)]
    expected = sum(monai(network, image, plan) for network in networks) / 3
    for is_apart in (False, True):
        how = Stitching(axis=0, is_apart=is_apart)
        ours = joined(slabs_of(image, plan, how, [engine(network) for network in networks]))
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("mirror", [(), (0, 1)])
def test_a_linear_head_may_come_after_blending(mirror: tuple[int, ...]) -> None:
    networks = [nn.Sequential(Mixer(4, seed=seed), nn.ReLU(), nn.Conv3d(4, 9, 1)).eval() for seed in range(2)]
    parts = [split_linear_head(network, 1, 9, (8,)) for network in networks]
    image = noise(1, 20, 18, 33)
    plan = WindowPlan(patch_size=PATCH, blend="gaussian", overlap=0.5)
    whole = slabs_of(image, plan, Stitching(axis=2, mirror_axes=mirror), [engine(network) for network in networks])
    how = Stitching(axis=2, mirror_axes=mirror, is_apart=True, linear=tuple(head for _, head in parts))
    late = slabs_of(image, plan, how, [engine(body) for body, _ in parts])
    torch.testing.assert_close(joined(late), joined(whole), atol=1e-5, rtol=1e-5)


def test_what_no_window_covers_is_told() -> None:
    image = noise(1, 48, 12, 10)
    plan = WindowPlan(patch_size=PATCH, overlap=0.5)
    skipped = frozenset({(0, 0, 0), (8, 0, 0), (32, 0, 0)})
    slabs = slabs_of(image, plan, Stitching(axis=0, skipped=skipped), [engine(Voxelwise())])
    covered = torch.cat([slab.covered for slab in slabs])
    assert [bool(row.all()) for row in covered] == [False] * 16 + [True] * 24 + [False] * 8
    assert not covered[:16].any()
    assert not covered[40:].any()
    logits = torch.cat([slab.logits(lambda: torch.tensor([7.0, -7.0]).numpy()) for slab in slabs])
    assert (logits[:16] == torch.tensor([7.0, -7.0])).all()
    torch.testing.assert_close(logits[16:40].movedim(-1, 0), Voxelwise()(image[None])[0][:, 16:40])


@pytest.mark.parametrize("shape", [(20, 18, 33), (40, 12, 17), (3, 3, 3)])
def test_progress_ends_exactly_at_the_announced_number(shape: tuple[int, ...]) -> None:
    heard: list[tuple[int, int]] = []
    monitor = Monitor(lambda _stage, done, total: heard.append((done, total)))
    plan = WindowPlan(patch_size=PATCH)
    slabs_of(torch.zeros(1, *shape), plan, Stitching(axis=2), [engine(Voxelwise())], monitor=monitor)
    n = lay_windows(shape, plan).n_windows
    assert heard == [(done, n) for done in range(n + 1)]


def test_cancelling_ends_the_run_before_the_next_window() -> None:
    event, plan = threading.Event(), WindowPlan(patch_size=PATCH)
    stopping = FailingEngine(Voxelwise(), lambda _: event.set())
    with pytest.raises(Cancelled):
        slabs_of(torch.zeros(1, 64, 12, 10), plan, Stitching(axis=0), [stopping], cancel=event)
    assert stopping.batches == [1]
    with pytest.raises(Cancelled):
        slabs_of(torch.zeros(1, 64, 12, 10), plan, Stitching(axis=0), [engine(Voxelwise())], cancel=lambda: True)


def test_an_engines_error_ends_the_run_with_its_own_text() -> None:
    def fail(_: int) -> None:
        raise RuntimeError("operator aten::strange is not there")

    broken = FailingEngine(Voxelwise(), fail)
    said = "the network failed on a window of 16 x 12 x 10 voxels: operator aten::strange is not there"
    with pytest.raises(NetworkFailed, match=said):
        slabs_of(torch.zeros(1, 64, 12, 10), WindowPlan(patch_size=PATCH), Stitching(axis=0), [broken])
    assert broken.batches == [1]


def test_out_of_memory_goes_on_with_smaller_batches_and_then_on_the_cpu() -> None:
    def fail(n_windows: int) -> None:
        if n_windows > 1 or len(tight.batches) > 3:
            raise torch.OutOfMemoryError("no room")

    tight = FailingEngine(Voxelwise(), fail)
    roomy = FailingEngine(Voxelwise(), lambda _: None)
    image, notes = noise(1, 64, 12, 10), []
    how = Stitching(axis=2, per_batch=2, without_memory=lambda: [roomy])
    plan = WindowPlan(patch_size=PATCH, overlap=0.5)
    slabs = slabs_of(image, plan, how, [tight], notes=notes)
    torch.testing.assert_close(joined(slabs), Voxelwise()(image[None])[0], atol=1e-5, rtol=1e-5)
    assert tight.batches == [2, 1, 1, 1]
    assert roomy.batches == [1] * 5
    assert notes == ["cpu ran out of memory; inference went on, on cpu, one window a batch"] * 2


def test_out_of_memory_without_a_way_out_is_an_error() -> None:
    def fail(_: int) -> None:
        raise torch.OutOfMemoryError("no room")

    with pytest.raises(torch.OutOfMemoryError, match="no room"):
        slabs_of(noise(1, 16, 12, 10), WindowPlan(patch_size=PATCH), Stitching(axis=0), [FailingEngine(Mixer(), fail)])
