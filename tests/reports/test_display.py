"""Gray windows and square pixels."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.reports.display import GrayWindow, gray_window, pixel_shape, resize_gray, resize_labels


def test_pet_is_inverted_from_zero_to_the_high_percentile() -> None:
    values = np.linspace(0.0, 20.0, 1000, dtype=np.float32).reshape(10, 10, 10)
    window = gray_window(values, "PT")
    assert (window.low, window.inverted, window.background) == (0.0, True, 255)
    assert window.high == pytest.approx(19.98, abs=0.01)
    assert window.to_gray(np.array([-1.0, 0.0, window.high, 99.0])).tolist() == [255, 255, 0, 0]


def test_pet_without_uptake_is_shown_up_to_5() -> None:
    assert gray_window(np.full((4, 4, 4), 0.3, dtype=np.float32), "PT") == GrayWindow(0.0, 5.0, inverted=True)


def test_ct_has_the_soft_tissue_window_whatever_its_voxels() -> None:
    window = gray_window(np.full((4, 4, 4), 3000.0, dtype=np.float32), "CT")
    assert window == GrayWindow(-160.0, 240.0)
    assert window.to_gray(np.array([-1000.0, -160.0, 40.0, 240.0, 900.0])).tolist() == [0, 0, 128, 255, 255]


def test_a_projection_of_ct_shows_bone_in_shades() -> None:
    window = gray_window(np.zeros((4, 4, 4), dtype=np.float32), "CT", projection=True)
    assert window.to_gray(np.array([-160.0, 420.0, 1000.0])).tolist() == [0, 128, 255]


@pytest.mark.parametrize("modality", [None, "MR"])
def test_other_scans_are_shown_between_percentiles(modality: str | None) -> None:
    values = np.arange(1001, dtype=np.float32).reshape(7, 11, 13)
    window = gray_window(values, modality)
    assert (window.low, window.high, window.inverted) == (10.0, 990.0, False)


def test_a_constant_scan_has_a_window_too() -> None:
    window = gray_window(np.full((4, 4, 4), 7.0, dtype=np.float32), "MR")
    assert window.to_gray(np.array([7.0])).tolist() == [0]


def test_percentiles_of_a_large_scan_are_those_of_a_thinned_one() -> None:
    values = np.random.default_rng(0).random((200, 200, 160), dtype=np.float32)
    window = gray_window(values, "MR")
    assert (window.low, window.high) == pytest.approx((0.01, 0.99), abs=1e-3)


def test_pixels_are_square_in_millimeters() -> None:
    assert pixel_shape((100, 50), (1.0, 4.0), 0.5) == (200, 400)
    assert pixel_shape((1, 1), (0.1, 0.1), 10.0) == (1, 1)


def test_labels_keep_their_numbers_and_their_place() -> None:
    labels = np.array([[0, 70000], [3, 0]], dtype=np.uint32)
    np.testing.assert_array_equal(resize_labels(labels, (4, 6)), labels.repeat(2, axis=0).repeat(3, axis=1))
    np.testing.assert_array_equal(resize_labels(labels.repeat(3, axis=0), (2, 2)), labels)


def test_gray_and_labels_stay_on_top_of_each_other() -> None:
    labels = np.zeros((20, 30), dtype=np.uint16)
    labels[5:9, 10:20] = 1
    gray = resize_gray((labels * 200).astype(np.uint8), (77, 101))
    large = resize_labels(labels, (77, 101))
    np.testing.assert_array_equal(gray[27] > 100, large[27] > 0)
    np.testing.assert_array_equal(gray[:, 50] > 100, large[:, 50] > 0)
