"""A network applied to volumes, from the scan's grid and back to it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medseg.core.geometry import Geometry
from medseg.core.monitor import Monitor
from medseg.core.plan import IntensityPlan, with_changes
from medseg.core.volume import Volume
from medseg.errors import ChannelMismatch, UsageError
from medseg.inference.segmenter import Segmenter
from tests.plans import BrighterThan, tiny_plan


def ball(geometry: Geometry, center: tuple[float, float, float], radius: float) -> Volume:
    """Intensity 10 inside, 0 outside, with a flank of 8 mm."""
    world = geometry.to_world(np.moveaxis(np.indices(geometry.shape), 0, -1))
    distance = np.linalg.norm(world - np.array(center), axis=-1)
    array = 10 * np.clip(0.5 + (radius - distance) / 8, 0, 1)
    return Volume(array[None].astype(np.float32), geometry, ("PET",))


def oblique(shape: tuple[int, int, int] = (40, 36, 30)) -> Geometry:
    turn = np.deg2rad(20.0)
    affine = np.eye(4)
    affine[:3, :3] = [[-np.cos(turn), 0, np.sin(turn)], [0, -1, 0], [np.sin(turn), 0, np.cos(turn)]]
    affine[:3, :3] *= (2.0, 2.5, 3.0)
    affine[:3, 3] = (60.0, 50.0, -70.0)
    return Geometry(shape, affine)


def test_map_lies_on_the_volumes_own_grid_and_holds_the_ball() -> None:
    geometry = oblique()
    center = tuple(geometry.to_world((20, 18, 15)))
    segmenter = Segmenter(BrighterThan(5.0), tiny_plan(spacing_mm=(2.5, 2.5, 2.5)), device="cpu")
    semantic, notes = segmenter.segment(ball(geometry, center, 18.0))
    assert semantic.geometry is geometry
    assert notes == ()
    volume = semantic.n_foreground_voxels * geometry.voxel_volume_mm3
    assert volume == pytest.approx(4 / 3 * np.pi * 18.0**3, rel=0.04)
    np.testing.assert_allclose(geometry.to_world(np.argwhere(semantic.array)).mean(axis=0), center, atol=0.3)


@pytest.mark.parametrize("precision", ["exact", "float32"])
@pytest.mark.parametrize("threshold", [0.05, 0.8])
def test_a_foreground_threshold_marks_what_the_probability_says(precision: str, threshold: float) -> None:
    geometry = oblique()
    volume = ball(geometry, tuple(geometry.to_world((20, 18, 15))), 18.0)
    plan = tiny_plan(spacing_mm=(2.5, 2.5, 2.5))
    maps = []
    for changes in ({}, {"foreground_threshold": threshold}):
        segmenter = Segmenter(
            BrighterThan(5.0), with_changes(plan, {"inference": changes}), device="cpu", precision=precision
        )
        maps.append(segmenter.segment(volume)[0])
    np.testing.assert_array_equal(maps[0].probability, maps[1].probability)
    np.testing.assert_array_equal(maps[1].array, maps[1].probability > threshold)
    assert maps[0].n_foreground_voxels != maps[1].n_foreground_voxels


@pytest.mark.parametrize("shape", [(3, 4, 5), (16, 16, 16), (17, 40, 9)])
def test_any_size_works_also_one_smaller_than_the_window(shape: tuple[int, int, int]) -> None:
    geometry = Geometry(shape, np.diag([4.0, 4.0, 4.0, 1.0]))
    array = np.zeros((1, *shape), dtype=np.float32)
    array[0, 0, :, 0] = 9
    semantic, _ = Segmenter(BrighterThan(5.0), tiny_plan(), device="cpu").segment(Volume(array, geometry, ("PET",)))
    np.testing.assert_array_equal(semantic.array, array[0] > 5)


def test_orientation_of_the_grid_does_not_matter() -> None:
    geometry = Geometry((20, 22, 24), np.diag([3.0, 3.0, 3.0, 1.0]))
    volume = ball(geometry, (30.0, 27.0, 33.0), 14.0)
    segmenter = Segmenter(BrighterThan(5.0), tiny_plan(mirror_axes=(0, 1)), device="cpu")
    straight, _ = segmenter.segment(volume)
    affine = geometry.affine[:, [2, 0, 1, 3]].copy()
    affine[:3, 3] += affine[:3, 0] * 23
    affine[:3, 0] *= -1
    turned = Volume(np.flip(volume.array.transpose(0, 3, 1, 2), 1), Geometry((24, 20, 22), affine), ("PET",))
    other, _ = segmenter.segment(turned)
    np.testing.assert_array_equal(other.array, np.flip(straight.array.transpose(2, 0, 1), 0))


def test_intensities_reach_the_network_as_planned() -> None:
    geometry = Geometry((16, 16, 16), np.diag([4.0, 4.0, 4.0, 1.0]))
    array = np.full((1, 16, 16, 16), 36.0, dtype=np.float32)
    array[0, :8] = 24.0
    plan = tiny_plan(intensity=IntensityPlan(low=0, high=100, transform="sqrt"))
    semantic, _ = Segmenter(BrighterThan(5.5), plan, device="cpu").segment(Volume(array, geometry, ("PET",)))
    assert not semantic.array[:8].any()
    assert semantic.array[8:].all()


def test_stages_are_told_and_timed_and_runs_repeat_bit_for_bit() -> None:
    geometry = Geometry((30, 20, 20), np.diag([4.0, 4.0, 4.0, 1.0]))
    volume = ball(geometry, (50.0, 40.0, 40.0), 20.0)
    segmenter = Segmenter(BrighterThan(5.0), tiny_plan(), device="cpu")
    heard: list[tuple[str, int, int]] = []
    monitor = Monitor(lambda stage, done, total: heard.append((stage, done, total)))
    first, _ = segmenter.segment(volume, monitor)
    assert list(monitor.seconds) == ["preprocess", "network", "export"]
    assert ("network", 12, 12) in heard
    again, _ = segmenter.segment(volume)
    np.testing.assert_array_equal(first.array, again.array)
    np.testing.assert_array_equal(first.probability, again.probability)


def test_wrong_number_of_channels_says_what_is_wanted() -> None:
    segmenter = Segmenter(BrighterThan(5.0), tiny_plan(n_channels=2), device="cpu")
    volume = Volume(np.zeros((1, 4, 4, 4), dtype=np.float32), Geometry((4, 4, 4), np.eye(4)), ("PET",))
    with pytest.raises(ChannelMismatch, match=r"wants 2 channel\(s\) \(PET, PET\); the scan has 1"):
        segmenter.segment(volume)


@pytest.mark.parametrize("device", ["tpu", "nonsense", "cuda:99"])
def test_device_that_is_not_there_is_refused(device: str) -> None:
    with pytest.raises(UsageError, match=device):
        Segmenter(BrighterThan(5.0), tiny_plan(), device=device)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_gives_the_cpus_map_up_to_half_precision() -> None:
    from medseg.networks.build import build_network

    torch.manual_seed(0)
    network = build_network(tiny_plan())
    geometry = Geometry((40, 36, 30), np.diag([4.0, 4.0, 4.0, 1.0]))
    volume = ball(geometry, (70.0, 60.0, 60.0), 30.0)
    on_cpu, _ = Segmenter(network, tiny_plan(), device="cpu").segment(volume)
    on_gpu, _ = Segmenter(network, tiny_plan(), device="cuda").segment(volume)
    np.testing.assert_allclose(on_gpu.probability, on_cpu.probability, atol=0.05)
