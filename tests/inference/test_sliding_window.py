"""Windows: counted, blended, told of, and safe when a device runs out of memory."""

from __future__ import annotations

import pytest
import torch

from medseg.core.monitor import Monitor
from medseg.core.plan import InferencePlan
from medseg.inference.augmentation import mirrored
from medseg.inference.sliding_window import count_windows, predict_logits, predict_with_fallback, window_for

CPU = torch.device("cpu")


def voxelwise(windows: torch.Tensor) -> torch.Tensor:
    """A network without neighborhood: windows and their overlap must not show in its result."""
    return torch.cat([windows, 2.0 * windows + 1.0], dim=1)


def run(image: torch.Tensor, plan: InferencePlan, monitor: Monitor | None = None) -> torch.Tensor:
    network = torch.nn.Module()
    network.forward = voxelwise  # type: ignore[method-assign]
    return predict_logits(
        network, image, plan, divisor=(4, 4, 4), device=CPU, precision="float32", monitor=monitor or Monitor()
    )


@pytest.mark.parametrize("shape", [(20, 18, 33), (16, 16, 16), (5, 30, 7), (3, 3, 3)])
@pytest.mark.parametrize("blend", ["gaussian", "constant"])
def test_windows_do_not_show_in_a_voxelwise_network(shape: tuple[int, int, int], blend: str) -> None:
    image = torch.randn((1, *shape), generator=torch.Generator().manual_seed(0))
    logits = run(image, InferencePlan(patch_size=(16, 16, 16), overlap=0.5, blend=blend))
    torch.testing.assert_close(logits, voxelwise(image[None])[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("shape", "overlap", "expected"),
    [
        ((16, 16, 16), 0.5, 1),
        ((8, 8, 8), 0.5, 1),
        ((17, 16, 16), 0.5, 2),
        ((32, 16, 16), 0.5, 3),
        ((32, 32, 16), 0.0, 4),
    ],
)
def test_number_of_windows(shape: tuple[int, int, int], overlap: float, expected: int) -> None:
    assert count_windows(shape, (16, 16, 16), overlap) == expected


@pytest.mark.parametrize("shape", [(20, 18, 33), (40, 16, 17), (3, 3, 3)])
def test_progress_ends_exactly_at_the_announced_number(shape: tuple[int, int, int]) -> None:
    heard: list[tuple[int, int]] = []
    monitor = Monitor(lambda _stage, done, total: heard.append((done, total)))
    plan = InferencePlan(patch_size=(16, 16, 16), overlap=0.25, windows_per_batch=1)
    run(torch.zeros((1, *shape)), plan, monitor)
    n = count_windows(shape, window_for(shape, plan.patch_size, (4, 4, 4)), plan.overlap)
    assert heard == [(done, n) for done in range(n + 1)]


def test_window_shrinks_to_a_scan_that_is_smaller_than_the_patch() -> None:
    assert window_for((5, 16, 40), (16, 16, 16), (4, 4, 4)) == (8, 16, 16)
    assert window_for((15, 17, 3), (16, 16, 16), (8, 8, 2)) == (16, 16, 4)
    seen: list[tuple[int, ...]] = []

    def remember(windows: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(windows.shape[2:]))
        return voxelwise(windows)

    network = torch.nn.Module()
    network.forward = remember  # type: ignore[method-assign]
    plan = InferencePlan(patch_size=(16, 16, 16))
    image = torch.zeros((1, 5, 9, 3))
    predict_logits(network, image, plan, divisor=(4, 4, 4), device=CPU, precision="float32", monitor=Monitor())
    assert set(seen) == {(8, 12, 4)}


def test_mirroring_leaves_an_equivariant_network_as_it_is() -> None:
    image = torch.randn((1, 1, 6, 7, 8), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(mirrored(voxelwise, (0, 1, 2))(image), voxelwise(image))


def test_mirroring_averages_over_all_combinations_of_axes() -> None:
    weight = torch.arange(8.0).reshape(1, 1, 2, 2, 2)
    calls = []

    def positional(windows: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return windows * weight

    ones = torch.ones((1, 1, 2, 2, 2))
    torch.testing.assert_close(mirrored(positional, (2, 0, 1))(ones), torch.full_like(ones, 3.5))
    assert len(calls) == 8
    assert mirrored(positional, ()) is positional


def test_out_of_memory_falls_back_to_smaller_batches_then_to_the_cpu() -> None:
    plan = InferencePlan(patch_size=(16, 16, 16), windows_per_batch=4)
    seen = []

    def predict(device: torch.device, attempt: InferencePlan) -> torch.Tensor:
        seen.append((device.type, attempt.windows_per_batch))
        if device.type == "cuda":
            raise torch.OutOfMemoryError("out of memory")
        return torch.zeros(1)

    _, note = predict_with_fallback(predict, torch.device("cuda"), plan)
    assert seen == [("cuda", 4), ("cuda", 1), ("cpu", 4)]
    assert note == "cuda ran out of memory; inference ran on cpu with 4 window(s) a batch"


def test_without_trouble_there_is_no_note_and_other_errors_pass_through() -> None:
    plan = InferencePlan(patch_size=(16, 16, 16))
    result, note = predict_with_fallback(lambda _d, _p: torch.ones(1), CPU, plan)
    assert (result.item(), note) == (1.0, None)

    def broken(_device: torch.device, _plan: InferencePlan) -> torch.Tensor:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        predict_with_fallback(broken, torch.device("cuda"), plan)
