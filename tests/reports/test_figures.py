"""Key images and overviews: one picture whatever the storage order, square pixels, nothing left out."""

from __future__ import annotations

import io
import tracemalloc
from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from medseg.core.colors import lesion_color
from medseg.core.geometry import Geometry
from medseg.core.lesions import LesionMap
from medseg.core.volume import Volume
from medseg.reports.display import GrayWindow, gray_window
from medseg.reports.figures import key_image, key_slices, overview
from tests.reports.cases import ORIENTATIONS, asymmetric_case, make_lesions, stored

PET = GrayWindow(0.0, 8.0, inverted=True)


def _pixels(png: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def _outline(png: bytes, lesion_id: int) -> tuple[slice, slice]:
    """Rows and columns that the outline of a lesion takes."""
    rows, columns = np.nonzero((_pixels(png) == lesion_color(lesion_id)).all(axis=2))
    return slice(int(rows.min()), int(rows.max()) + 1), slice(int(columns.min()), int(columns.max()) + 1)


def _center(png: bytes, lesion_id: int) -> tuple[float, float]:
    """Center of a lesion's outline as fractions of height and width."""
    height, width = _pixels(png).shape[:2]
    rows, columns = _outline(png, lesion_id)
    return (rows.start + rows.stop) / 2 / height, (columns.start + columns.stop) / 2 / width


def _case(order: tuple[int, ...] = (0, 1, 2), flips: tuple[bool, ...] = (False,) * 3) -> tuple[Volume, LesionMap]:
    array, lesions, geometry = asymmetric_case()
    turned, turned_geometry = stored(array, geometry, order, flips)
    return Volume(turned[None], turned_geometry, ("pet",)), make_lesions(
        stored(lesions, geometry, order, flips)[0], turned_geometry
    )


def test_the_key_slice_is_where_the_lesion_is_largest() -> None:
    _, lesions = _case()
    assert key_slices(lesions).tolist() == [15, 15]


@pytest.mark.parametrize("order", ["C", "F"])  # NIfTI, and a DICOM series: slice after slice
def test_a_key_image_does_not_copy_the_scan(order: Literal["C", "F"]) -> None:
    shape = (256, 256, 128)
    array = np.zeros(shape, dtype=np.float32, order=order)
    labels = np.zeros(shape, dtype=np.uint16, order=order)
    labels[100:110, 100:110, 60:64] = 1
    geometry = Geometry(shape, np.eye(4))
    volume, lesions = Volume(array[None], geometry, ("ct",)), make_lesions(labels, geometry)
    tracemalloc.start()
    try:
        key_image(volume, lesions, PET, 1, 61)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < labels.nbytes / 2


@pytest.mark.parametrize(("order", "flips"), ORIENTATIONS)
def test_the_key_slice_lies_at_one_height_in_every_storage_order(
    order: tuple[int, ...], flips: tuple[bool, ...]
) -> None:
    _, lesions = _case(order, flips)
    axis = lesions.geometry.axial_axis
    index = np.zeros(3)
    index[axis] = key_slices(lesions)[0]
    assert lesions.geometry.to_world(index)[2] == pytest.approx(60.0)


def test_no_lesion_has_no_key_slice() -> None:
    geometry = Geometry((3, 3, 3), np.eye(4))
    assert key_slices(make_lesions(np.zeros((3, 3, 3)), geometry)).shape == (0,)


def test_a_lesion_at_the_right_front_appears_at_the_left_top() -> None:
    row, column = _center(key_image(*_case(), PET, 1, lossless=True), 1)
    assert row < 0.35
    assert column < 0.35


def test_in_the_overview_the_head_is_up_and_the_front_on_the_left() -> None:
    png = overview(*_case(), PET, lossless=True)
    pixels = _pixels(png)
    middle = pixels.shape[1] // 2
    is_lesion = (pixels == lesion_color(1)).all(axis=2)
    coronal, sagittal = np.nonzero(is_lesion[:, :middle]), np.nonzero(is_lesion[:, middle:])
    assert coronal[0].mean() < 0.35 * pixels.shape[0]
    assert coronal[1].mean() < 0.35 * middle
    assert sagittal[1].mean() < 0.35 * middle


@pytest.mark.parametrize(("order", "flips"), ORIENTATIONS[1::5])
def test_every_storage_order_gives_the_same_pictures(order: tuple[int, ...], flips: tuple[bool, ...]) -> None:
    assert key_image(*_case(order, flips), PET, 1, lossless=True) == key_image(*_case(), PET, 1, lossless=True)
    assert overview(*_case(order, flips), PET, lossless=True) == overview(*_case(), PET, lossless=True)


def test_pixels_are_square_in_millimeters() -> None:
    geometry = Geometry((100, 25, 3), np.diag([1.0, 4.0, 5.0, 1.0]))
    lesions = np.zeros(geometry.shape, dtype=np.uint16)
    lesions[20:60, 10:20, 1] = 1  # 40 mm x 40 mm
    volume = Volume(np.zeros((1, *geometry.shape)), geometry, ("ct",))
    rows, columns = _outline(key_image(volume, make_lesions(lesions, geometry), PET, 1, lossless=True), 1)
    assert abs((rows.stop - rows.start) - (columns.stop - columns.start)) <= 1
    assert columns.stop - columns.start == pytest.approx(0.4 * 336, abs=3)


def test_other_lesions_of_the_slice_are_outlined_thinner() -> None:
    first, second = key_image(*_case(), PET, 1, lossless=True), key_image(*_case(), PET, 2, lossless=True)
    assert _center(first, 2) == pytest.approx(_center(second, 2), abs=0.02)
    counts = [int((_pixels(png) == lesion_color(2)).all(axis=2).sum()) for png in (first, second)]
    assert counts[1] > 1.5 * counts[0] > 0


@pytest.mark.parametrize("place", [(0, 0, 0), (199, 199, 9), (100, 0, 5)])
def test_the_field_stays_inside_the_slice_and_shows_the_lesion(place: tuple[int, int, int]) -> None:
    geometry = Geometry((200, 200, 10), np.diag([2.0, 2.0, 4.0, 1.0]))
    lesions = np.zeros(geometry.shape, dtype=np.uint16)
    lesions[place] = 1
    volume = Volume(np.zeros((1, *geometry.shape)), geometry, ("pet",))
    png = key_image(volume, make_lesions(lesions, geometry), PET, 1, lossless=True)
    assert _pixels(png).shape == (336, 336, 3)
    assert (_pixels(png) == lesion_color(1)).all(axis=2).any()


def test_a_large_lesion_is_shown_whole() -> None:
    geometry = Geometry((200, 200, 3), np.diag([2.0, 2.0, 4.0, 1.0]))
    lesions = np.zeros(geometry.shape, dtype=np.uint16)
    lesions[20:170, 90:100, 1] = 1  # 300 mm long
    volume = Volume(np.zeros((1, *geometry.shape)), geometry, ("pet",))
    _, columns = _outline(key_image(volume, make_lesions(lesions, geometry), PET, 1, lossless=True), 1)
    assert columns.stop - columns.start == pytest.approx(300 / 400 * 336, abs=4)


def test_in_the_overview_the_smaller_lesion_is_in_front() -> None:
    geometry = Geometry((20, 20, 20), np.diag([4.0, 4.0, 4.0, 1.0]))
    lesions = np.zeros(geometry.shape, dtype=np.uint16)
    lesions[5:15, 10:19, 5:15] = 1
    lesions[8:11, 2:4, 8:11] = 2  # behind lesion 1, seen from the front
    volume = Volume(np.zeros((1, *geometry.shape)), geometry, ("pet",))
    pixels = _pixels(overview(volume, make_lesions(lesions, geometry), PET, lossless=True))
    assert (pixels[:, : pixels.shape[1] // 2] == lesion_color(2)).all(axis=2).any()


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 300, 1), (1, 3, 40)])
def test_odd_grids_have_pictures(shape: tuple[int, int, int]) -> None:
    geometry = Geometry(shape, np.eye(4))
    lesions = make_lesions(np.ones(shape), geometry)
    volume = Volume(np.ones((1, *shape)), geometry, ("mr",))
    window = gray_window(volume.array[0], None)
    for png in (key_image(volume, lesions, window, 1, lossless=True), overview(volume, lesions, window, lossless=True)):
        assert min(_pixels(png).shape[:2]) >= 1
