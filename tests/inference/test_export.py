"""From slabs on the network's grid to class numbers on the scan's: as whole-volume interpolation says, never more."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from skimage.transform import resize

from medseg.core.geometry import Geometry
from medseg.core.labels import LabelScheme
from medseg.core.recipe import OutputPlan
from medseg.core.semantic import SemanticMap
from medseg.errors import ModelError
from medseg.inference.export import painted
from medseg.inference.slab import SEMANTIC, Slab
from medseg.io.resample import resampled_slabs

SCHEME = LabelScheme(classes={number: f"class {number}" for number in range(1, 12)})


def smooth(shape: tuple[int, ...], seed: int = 0) -> NDArray[np.float32]:
    """Logits (N, i, j, k) with regions of some voxels."""
    coarse = torch.randn((1, shape[0], 4, 5, 4), generator=torch.Generator().manual_seed(seed))
    fine = torch.nn.functional.interpolate(4 * coarse, shape[1:], mode="trilinear")[0]
    return (fine + 0.1 * torch.randn(shape, generator=torch.Generator().manual_seed(seed + 1))).numpy()


def slabs_of(
    logits: NDArray[np.floating], axis: int, rows: int, covered: NDArray[np.bool_] | None = None
) -> Iterator[Slab]:
    channels_last = torch.from_numpy(np.moveaxis(np.moveaxis(logits, axis + 1, 1), 0, -1).copy())
    for start in range(0, logits.shape[axis + 1], rows):
        stop = min(start + rows, logits.shape[axis + 1])
        where = None if covered is None else torch.from_numpy(np.moveaxis(covered, axis, 0)[start:stop].copy())
        yield Slab(axis, start, stop, {SEMANTIC: channels_last[start:stop].clone()}, where)


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    return torch.from_numpy(logits).softmax(0).numpy()


def whole(values: NDArray[np.float32], source: Geometry, target: Geometry) -> NDArray[np.float32]:
    """All channels interpolated on the whole scan's grid: what painting must agree with."""
    return np.concatenate([slab for _, slab in resampled_slabs(values, source, target)], axis=1)


def lead(values: NDArray[np.floating]) -> NDArray[np.floating]:
    best_two = np.sort(values, axis=0)[-2:]
    return best_two[1] - best_two[0]


def grids(order: tuple[int, int, int] = (0, 1, 2), flips: tuple[int, ...] = ()) -> tuple[Geometry, Geometry]:
    """A network grid, and a scan's with axes in another order and direction, finer along some and coarser along one."""
    network = Geometry((18, 21, 16), np.diag([3.0, 3.0, 3.0, 1.0]))
    linear = np.zeros((3, 3))
    shape = [0, 0, 0]
    origin = np.zeros(3)
    for axis, (world, spacing, n) in enumerate(zip(order, (1.7, 4.1, 2.0), (33, 17, 26), strict=True)):
        linear[world, axis] = -spacing if axis in flips else spacing
        origin[world] = spacing * (n - 1) if axis in flips else 0.4 * spacing
        shape[axis] = n
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = linear, origin
    return network, Geometry((shape[0], shape[1], shape[2]), affine)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
@pytest.mark.parametrize("flips", [(), (0,), (1, 2)])
@pytest.mark.parametrize(("axis", "rows"), [(0, 1), (1, 5), (2, 100)])
def test_labels_and_probability_are_those_of_the_whole_volume(
    order: tuple[int, int, int], flips: tuple[int, ...], axis: int, rows: int
) -> None:
    network, scan = grids(order, flips)
    logits = smooth((4, *network.shape))
    output = OutputPlan(paint=(0, 1, 2, 3))
    semantic = painted(slabs_of(logits, axis, rows), network, scan, output, SCHEME)
    expected = whole(softmax(logits), network, scan)
    assert isinstance(semantic, SemanticMap)
    assert semantic.array.dtype == np.uint8
    differs = semantic.array != expected.argmax(axis=0)
    assert lead(expected)[differs].max(initial=0.0) < 1e-6
    assert differs.mean() < 1e-4
    assert len(np.unique(semantic.array)) == 4
    np.testing.assert_allclose(semantic.probability, np.clip(1 - expected[0], 0, 1), atol=1e-6)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize(("axis", "rows", "order"), [(0, 3, (0, 1, 2)), (1, 5, (2, 0, 1)), (2, 100, (1, 0, 2))])
def test_a_map_of_nothing_but_borders_is_blended_axis_by_axis_and_the_same(
    n_classes: int, axis: int, rows: int, order: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    network, scan = grids(order, (1,))
    logits = np.random.default_rng(0).normal(size=(n_classes, *network.shape)).astype(np.float32)
    output = OutputPlan(paint=tuple(range(n_classes)))
    one_by_one = painted(slabs_of(logits, axis, rows), network, scan, output, SCHEME, is_exact=True)
    monkeypatch.delattr("medseg.inference.canvas.RowPainter._paint_open")
    dense = painted(slabs_of(logits, axis, rows), network, scan, output, SCHEME)
    expected = whole(softmax(logits), network, scan)
    for semantic in (one_by_one, dense):
        differs = semantic.array != expected.argmax(axis=0)
        assert lead(expected)[differs].max(initial=0.0) < 1e-6
        assert differs.mean() < 1e-4
    np.testing.assert_allclose(dense.probability, one_by_one.probability, atol=1e-6)


def test_the_scans_own_grid_gives_the_networks_voxels_back() -> None:
    grid = Geometry((9, 8, 7), np.diag([-2.0, 2.5, 3.0, 1.0]))
    logits = smooth((3, *grid.shape))
    semantic = painted(slabs_of(logits, 2, 2), grid, grid, OutputPlan(paint=(0, 1, 2)), SCHEME)
    np.testing.assert_array_equal(semantic.array, logits.argmax(axis=0))


def test_a_tie_goes_to_the_lower_channel_and_paint_names_the_class() -> None:
    grid = Geometry((1, 1, 4), np.eye(4))
    logits = np.log(
        np.array([[0.5, 0.2, 0.1, 1.0], [0.5, 0.5, 0.3, 1.0], [1e-9, 0.3, 0.6, 1.0]], dtype=np.float32)
    ).reshape(3, 1, 1, 4)
    semantic = painted(slabs_of(logits, 0, 1), grid, grid, OutputPlan(paint=(0, 7, 2)), SCHEME)
    assert semantic.array.ravel().tolist() == [0, 7, 2, 0]
    np.testing.assert_allclose(semantic.probability.ravel(), [0.5, 0.8, 0.9, 2 / 3], atol=1e-6)


def test_logits_between_voxels_are_not_probabilities_between_voxels() -> None:
    coarse = Geometry((2, 1, 1), np.diag([4.0, 1.0, 1.0, 1.0]))
    fine = Geometry((5, 1, 1), np.eye(4))
    logits = np.array([[8.0, 0.0], [0.0, 1.0]], dtype=np.float32).reshape(2, 2, 1, 1)
    by = {}
    for what in ("logits", "probabilities"):
        output = OutputPlan(paint=(0, 1), interpolates=what)
        by[what] = painted(slabs_of(logits, 0, 1), coarse, fine, output, SCHEME).array.ravel().tolist()
    assert by == {"logits": [0, 0, 0, 0, 1], "probabilities": [0, 0, 0, 1, 1]}


@pytest.mark.parametrize("interpolates", ["probabilities", "logits"])
@pytest.mark.parametrize("activation", ["sigmoid", "softmax", "none"])
def test_regions_are_painted_over_one_another_in_order(interpolates: str, activation: str) -> None:
    network, scan = grids((1, 2, 0), (1,))
    logits = smooth((3, *network.shape), seed=5)
    output = OutputPlan(
        activation=activation,
        decision="threshold",
        paint=(2, 1, 4),
        paint_order=(1, 2, 0),
        threshold=0.4,
        interpolates=interpolates,
    )
    semantic = painted(slabs_of(logits, 1, 4), network, scan, output, SCHEME)

    def act(values: NDArray[np.float32]) -> NDArray[np.float32]:
        tensor = torch.from_numpy(values)
        return {"sigmoid": tensor.sigmoid(), "softmax": tensor.softmax(0), "none": tensor}[activation].numpy()

    values = act(whole(logits, network, scan)) if interpolates == "logits" else whole(act(logits), network, scan)
    expected = np.zeros(scan.shape, dtype=np.uint8)
    for channel in (1, 2, 0):
        expected[values[channel] > 0.4] = (2, 1, 4)[channel]
    near = np.abs(values - 0.4).min(axis=0) < 1e-5
    np.testing.assert_array_equal(semantic.array[~near], expected[~near])
    assert set(np.unique(expected)) == {0, 1, 2, 4}


def nnunet_export(logits: NDArray[np.float16], shape: tuple[int, ...]) -> NDArray[np.float16]:
    """nnU-Net's resampling of logits: skimage's resize of order 1 in float64 (clip included), rounded to float16."""
    return np.stack(
        [
            resize(channel.astype(float), shape, 1, mode="edge", anti_aliasing=False).astype(np.float16)
            for channel in logits
        ]
    )


def boxed(
    network_shape: tuple[int, ...], box_shape: tuple[int, ...], first: tuple[int, ...], scan: Geometry
) -> Geometry:
    """The grid of a box that was cut out of a scan and resized: half-voxel rule."""
    scale = np.array(box_shape) / np.array(network_shape)
    to_scan = np.eye(4)
    to_scan[:3, :3] = np.diag(scale)
    to_scan[:3, 3] = np.array(first) + 0.5 * scale - 0.5
    return Geometry(tuple(network_shape), scan.affine @ to_scan)


@pytest.mark.parametrize("n_classes", [2, 11])
@pytest.mark.parametrize("network_shape", [(20, 34, 24), (40, 17, 24), (23, 19, 31)])
def test_exact_nnunet_export_is_skimage_rounded_to_float16(n_classes: int, network_shape: tuple[int, int, int]) -> None:
    scan_affine = np.array([[0.0, -1.7, 0, 30], [0.9, 0, 0, -11.3], [0, 0, 2.1, 0.123], [0, 0, 0, 1]])
    scan = Geometry((26, 40, 31), scan_affine)
    box_shape, first = (20, 34, 24), (3, 2, 5)
    # large values, few of which float16 tells apart: ties are common, and only exact arithmetic breaks them as nnU-Net
    logits = (40 + smooth((n_classes, *network_shape), seed=7)).astype(np.float16)
    output = OutputPlan(paint=tuple(range(n_classes)), interpolates="logits", rounds_to_half=True)
    grid = boxed(network_shape, box_shape, first, scan)
    semantic = painted(slabs_of(logits, 0, 3), grid, scan, output, SCHEME, beyond="background", is_exact=True)
    expected = np.zeros(scan.shape, dtype=np.uint8)
    inside = tuple(slice(start, start + n) for start, n in zip(first, box_shape, strict=True))
    expected[inside] = nnunet_export(logits, box_shape).argmax(axis=0)
    np.testing.assert_array_equal(semantic.array, expected)
    default = painted(slabs_of(logits.astype(np.float32), 2, 3), grid, scan, output, SCHEME, beyond="background")
    assert ((default.array != expected).mean() > 0) == (network_shape != box_shape)


def test_a_lead_that_float16_rounds_away_does_not_count_in_exact_runs() -> None:
    ulp = 1 / 32  # of float16 from 32 to 64
    steps = np.arange(12.0)
    logits = (40 + ulp * np.stack([steps, steps + 1])).astype(np.float16).reshape(2, 12, 1, 1)
    scan = Geometry((6, 1, 1), np.eye(4))
    output = OutputPlan(paint=(0, 1), interpolates="logits", rounds_to_half=True)
    grid = boxed((12, 1, 1), (6, 1, 1), (0, 0, 0), scan)
    exact = painted(slabs_of(logits, 0, 3), grid, scan, output, SCHEME, is_exact=True)
    np.testing.assert_array_equal(exact.array, nnunet_export(logits, (6, 1, 1)).argmax(axis=0))
    # half way between steps k and k + 1 both channels round to even: for even k to k and k + 2, for odd k to the same
    shifted = (logits.astype(np.float32) + ulp).astype(np.float16)
    ties = painted(slabs_of(shifted, 0, 3), grid, scan, output, SCHEME, is_exact=True)
    np.testing.assert_array_equal(ties.array, nnunet_export(shifted, (6, 1, 1)).argmax(axis=0))
    assert exact.array.all()
    assert not ties.array.any()


def test_exact_nnunet_regions_are_sigmoids_of_rounded_logits() -> None:
    scan = Geometry((20, 34, 24), np.eye(4))
    logits = (np.round(16 * smooth((2, 31, 17, 24), seed=9)) / 16).astype(np.float16)
    output = OutputPlan(
        activation="sigmoid", decision="threshold", paint=(1, 2), interpolates="logits", rounds_to_half=True
    )
    grid = boxed((31, 17, 24), scan.shape, (0, 0, 0), scan)
    semantic = painted(slabs_of(logits, 0, 3), grid, scan, output, SCHEME, is_exact=True)
    values = torch.from_numpy(nnunet_export(logits, scan.shape)).float().sigmoid().numpy()
    expected = np.where(values[1] > 0.5, 2, np.where(values[0] > 0.5, 1, 0))
    np.testing.assert_array_equal(semantic.array, expected)


def test_an_axis_kept_apart_takes_the_nearest_plane() -> None:
    scan = Geometry((20, 18, 12), np.eye(4))
    logits = (np.round(16 * smooth((3, 31, 17, 5), seed=3)) / 16).astype(np.float16)
    output = OutputPlan(paint=(0, 1, 2), interpolates="logits", rounds_to_half=True, order_z=0)
    grid = boxed((31, 17, 5), scan.shape, (0, 0, 0), scan)
    semantic = painted(slabs_of(logits, 0, 3), grid, scan, output, SCHEME, apart_axis=2, is_exact=True)
    planes = np.stack(
        [
            [resize(c[:, :, k].astype(float), (20, 18), 1, mode="edge", anti_aliasing=False) for k in range(5)]
            for c in logits
        ]
    )
    nearest = np.floor((np.arange(12) + 0.5) * 5 / 12 - 0.5 + 0.5).astype(int)
    expected = np.moveaxis(planes[:, nearest], 1, -1).astype(np.float16).argmax(axis=0)
    np.testing.assert_array_equal(semantic.array, expected)


def test_linear_interpolation_never_leaves_the_range_that_nnunet_clips_to() -> None:
    logits = smooth((1, 20, 17, 24), seed=2).astype(np.float16)
    clipped = nnunet_export(logits, (33, 40, 11))
    free = np.stack(
        [resize(c.astype(float), (33, 40, 11), 1, mode="edge", anti_aliasing=False, clip=False) for c in logits]
    )
    np.testing.assert_array_equal(clipped, free.astype(np.float16))


def test_labels_by_nearest_neighbor_are_decided_first() -> None:
    network, scan = grids((2, 0, 1), (2,))
    logits = smooth((4, *network.shape), seed=4)
    output = OutputPlan(paint=(0, 1, 2, 3), interpolates="labels")
    semantic = painted(slabs_of(logits, 2, 3), network, scan, output, SCHEME)
    positions = (
        np.linalg.inv(network.affine)
        @ scan.affine
        @ np.vstack([np.indices(scan.shape).reshape(3, -1), np.ones(int(np.prod(scan.shape)))])
    )
    index = np.clip(np.rint(positions[:3]).astype(int), 0, np.array(network.shape)[:, None] - 1)
    expected = logits.argmax(axis=0)[tuple(index)].reshape(scan.shape)
    np.testing.assert_array_equal(semantic.array, expected)


@pytest.mark.parametrize("interpolates", ["labels", "probabilities"])
def test_only_the_largest_component_of_a_class_is_kept(interpolates: str) -> None:
    grid = Geometry((9, 6, 5), np.eye(4))
    logits = np.zeros((3, *grid.shape), dtype=np.float32)
    logits[1, 0:2, 0:2, 0:2] = logits[1, 5:8, 2:5, 1:4] = logits[2, 8, 0, 0] = logits[2, 4, 5, 4] = 9.0
    output = OutputPlan(paint=(0, 1, 2), interpolates=interpolates, keep_largest=(1,))
    semantic = painted(slabs_of(logits, 0, 2), grid, grid, output, SCHEME)
    expected = logits.argmax(axis=0)
    expected[0:2, 0:2, 0:2] = 0
    np.testing.assert_array_equal(semantic.array, expected)


def test_beyond_a_cut_box_lies_background_and_the_rest_is_as_before() -> None:
    scan = Geometry((12, 10, 8), np.diag([1.0, 1.0, 2.0, 1.0]))
    grid = boxed((4, 6, 6), (4, 6, 3), (2, 1, 3), scan)
    logits = np.stack([np.zeros((4, 6, 6)), np.ones((4, 6, 6))]).astype(np.float32)
    output = OutputPlan(paint=(0, 1))
    cut = painted(slabs_of(logits, 1, 2), grid, scan, output, SCHEME, beyond="background")
    expected = np.zeros(scan.shape, dtype=np.uint8)
    expected[2:6, 1:7, 3:6] = 1
    np.testing.assert_array_equal(cut.array, expected)
    assert cut.probability[0, 0, 0] == 0
    going_on = painted(slabs_of(logits, 1, 2), grid, scan, output, SCHEME)
    assert (going_on.array == 1).all()


def test_fading_channels_are_those_of_a_map_padded_with_zeros() -> None:
    """MONAI's inverse of a crop pads every channel with zeros before it changes the spacing back."""
    network, scan = Geometry((5, 6, 7), np.diag([3.0, 3.0, 3.0, 1.0])), Geometry((21, 24, 27), np.eye(4))
    shifted = np.eye(4)
    shifted[:3, 3] = 6.0
    network = Geometry(network.shape, shifted @ network.affine)
    logits = smooth((2, *network.shape), seed=6)
    output = OutputPlan(paint=(1, 2), activation="sigmoid", decision="threshold")
    semantic = painted(slabs_of(logits, 2, 3), network, scan, output, SCHEME, beyond="fading")
    padded = np.pad(torch.from_numpy(logits).sigmoid().numpy(), ((0, 0), (3, 3), (3, 3), (3, 3)))
    wider = Geometry((11, 12, 13), shifted @ np.diag([3.0, 3.0, 3.0, 1.0]) @ _moved(-3.0))
    values = whole(padded, wider, scan)
    expected = np.where(values[1] > 0.5, 2, np.where(values[0] > 0.5, 1, 0))
    near = np.abs(values - 0.5).min(axis=0) < 1e-6
    np.testing.assert_array_equal(semantic.array[~near], expected[~near])
    assert expected.any()


def _moved(by: float) -> NDArray[np.float64]:
    move = np.eye(4)
    move[:3, 3] = by
    return move


def test_what_no_window_covered_is_background() -> None:
    grid = Geometry((8, 6, 5), np.eye(4))
    logits = np.stack([np.zeros(grid.shape), np.ones(grid.shape)]).astype(np.float32)
    covered = np.zeros(grid.shape, dtype=bool)
    covered[3:6, :4] = True
    for output in (
        OutputPlan(paint=(0, 1)),
        OutputPlan(paint=(2, 1), decision="threshold", activation="sigmoid", interpolates="logits"),
    ):
        semantic = painted(slabs_of(logits, 0, 2, covered), grid, grid, output, SCHEME)
        np.testing.assert_array_equal(semantic.array > 0, covered)
        assert (semantic.probability[~covered] < 1e-6).all()


def test_grids_turned_against_each_other_are_interpolated_whole() -> None:
    network, scan = grids()
    turn = np.deg2rad(12.0)
    turned = np.eye(4)
    turned[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    scan = Geometry(scan.shape, turned @ scan.affine)
    logits = smooth((3, *network.shape))
    semantic = painted(slabs_of(logits, 2, 3), network, scan, OutputPlan(paint=(0, 1, 2)), SCHEME)
    expected = whole(softmax(logits), network, scan)
    np.testing.assert_array_equal(semantic.array, expected.argmax(axis=0))
    np.testing.assert_allclose(semantic.probability, 1 - expected[0], atol=1e-6)


def test_a_network_with_other_channels_than_the_labels_is_refused() -> None:
    grid = Geometry((8, 6, 5), np.eye(4))
    for interpolates in ("probabilities", "labels"):
        output = OutputPlan(paint=(0, 1), interpolates=interpolates)
        with pytest.raises(ModelError, match="gives 3 channels; the model's labels are made from 2"):
            painted(slabs_of(smooth((3, *grid.shape)), 0, 2), grid, grid, output, SCHEME)


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.62, 0.9])
@pytest.mark.parametrize("n_classes", [2, 4])
def test_a_foreground_threshold_decides_between_voxels_as_the_whole_volume_does(
    threshold: float, n_classes: int
) -> None:
    source, target = grids()
    logits = 3 * smooth((n_classes, *source.shape))
    plan = OutputPlan(paint=tuple(range(n_classes)), foreground_threshold=threshold)
    scheme = LabelScheme(classes={n: f"c{n}" for n in range(1, n_classes)})
    made = painted(slabs_of(logits, 0, 3), source, target, plan, scheme)
    values = whole(softmax(logits), source, target)
    expected = np.where(1 - values[0] > threshold, values[1:].argmax(axis=0) + 1, 0)
    order = np.sort(values[1:], axis=0)
    is_open = np.abs(1 - values[0] - threshold) < 1e-5  # rounding may decide there
    if n_classes > 2:
        is_open |= (order[-1] - order[-2] < 1e-5) & (expected > 0)
    assert is_open.mean() < 1e-3
    np.testing.assert_array_equal(made.array[~is_open], expected[~is_open])
    assert 0 < np.count_nonzero(made.array) < made.array.size


def test_a_foreground_threshold_of_a_half_is_the_likeliest_of_two() -> None:
    source, target = grids()
    logits = smooth((2, *source.shape))
    scheme = LabelScheme(classes={1: "lesion"})
    plans = [OutputPlan(paint=(0, 1)), OutputPlan(paint=(0, 1), foreground_threshold=0.5)]
    maps = [painted(slabs_of(logits, 1, 4), source, target, plan, scheme) for plan in plans]
    np.testing.assert_array_equal(maps[0].array, maps[1].array)
    np.testing.assert_array_equal(maps[0].probability, maps[1].probability)


def test_the_probability_map_is_left_out_on_request() -> None:
    grid = Geometry((8, 6, 5), np.eye(4))
    slabs = slabs_of(smooth((2, *grid.shape)), 0, 2)
    assert painted(slabs, grid, grid, OutputPlan(paint=(0, 1)), SCHEME, keeps_probability=False).probability is None


def test_a_ball_comes_back_with_its_volume_from_another_grid() -> None:
    coarse = Geometry((20, 20, 20), np.diag([3.0, 3.0, 3.0, 1.0]))
    fine_affine = np.diag([-1.5, 2.0, 1.0, 1.0])
    fine_affine[:3, 3] = (55.0, 1.0, 2.0)
    fine = Geometry((36, 28, 54), fine_affine)
    distance = np.linalg.norm(coarse.to_world(np.moveaxis(np.indices(coarse.shape), 0, -1)) - 28.0, axis=-1)
    foreground = np.clip(0.5 + (15.0 - distance) / 6.0, 1e-6, 1 - 1e-6).astype(np.float32)
    logits = np.log(np.stack([1 - foreground, foreground]))
    scheme = LabelScheme(classes={1: "tumor"})
    semantic = painted(slabs_of(logits, 1, 7), coarse, fine, OutputPlan(paint=(0, 1)), scheme)
    volume = semantic.n_foreground_voxels * fine.voxel_volume_mm3
    # linear interpolation of the distance errs by at most h^2 / 8 * (2 / R) at spacing h, always outward: the 0.5
    # level shrinks by up to 0.15 mm, the volume by up to 3 * 0.15 / 15
    assert -0.03 < volume / (4 / 3 * np.pi * 15.0**3) - 1 < 0.005
    inside = np.argwhere(semantic.array)
    np.testing.assert_allclose(fine.to_world(inside).mean(axis=0), 28.0, atol=0.2)
