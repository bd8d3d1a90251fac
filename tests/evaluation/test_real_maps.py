"""Real label maps: MS lesions (19 to 370 each) and human instance annotations of kidney tumors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from medseg.core.lesions import LesionMap
from medseg.evaluation.case import evaluate_case
from medseg.io.label_files import read_lesions, read_semantic
from medseg.metrics.presets import PRESETS

pytestmark = pytest.mark.real_data
MAPS = ("ms/labels_only", "kits23_instances")


def files(real_data: Path, folder: str) -> list[Path]:
    found = sorted((real_data / "volumes" / folder).rglob("*.nii.gz"))
    assert len(found) >= 7
    return found


@pytest.mark.parametrize("folder", MAPS)
def test_a_map_is_perfect_against_itself(real_data: Path, folder: str) -> None:
    for path in files(real_data, folder)[:2]:
        side = read_lesions(path) if folder.startswith("kits") else read_semantic(path)
        scores = evaluate_case(side, side, case_id=path.name)
        assert scores.n_reference > 0
        assert scores.f1 == scores.pq == scores.dice == scores.nsd == 1.0
        assert scores.hd95_mm == 0.0
        assert {row.diameter_error_mm for row in scores.lesions} == {0.0}


def test_merging_what_humans_kept_apart_is_seen_as_a_merge(real_data: Path) -> None:
    """Annotated instances that touch, separated as components: the voxels are equal, the lesions are not."""
    apart = PRESETS["default"].model_copy(update={"unite_classes": True})
    n_merges = 0
    for path in files(real_data, "kits23_instances"):
        if path.name != "instances.nii.gz":
            continue
        scores = evaluate_case(read_semantic(path), read_lesions(path), apart, case_id=path.name, overlap_only=True)
        array = read_lesions(path).array
        united, n = ndimage.label(array > 0, np.ones((3, 3, 3)))
        by_hand = sum(np.unique(array[united == number]).size > 1 for number in range(1, n + 1))
        assert (scores.dice, scores.n_prediction, scores.n_merges) == (1.0, n, by_hand)
        n_merges += by_hand
    assert n_merges > 0


def test_two_readers_agree_on_masks_more_than_on_nothing(real_data: Path) -> None:
    """Instances of a second reader of the same case, scored in both directions."""
    folder = real_data / "volumes" / "kits23_instances" / "case_00112"
    readers = [read_lesions(folder / name) for name in ("instances.nii.gz", "instances_annotator2.nii.gz")]
    there, back = (evaluate_case(*pair) for pair in (readers, readers[::-1]))
    assert 0.5 < there.dice < 1.0
    for name in ("dice", "iou", "f1", "pq", "hd95_mm", "assd_mm", "nsd"):
        assert getattr(there, name) == pytest.approx(getattr(back, name)), name
    assert (there.precision, there.volume_error_ml) == pytest.approx((back.sensitivity, -back.volume_error_ml))


def test_growing_a_map_by_a_voxel_moves_its_surface_by_a_voxel(real_data: Path) -> None:
    reference = read_semantic(files(real_data, "ms/labels_only")[0])
    grown = ndimage.binary_dilation(reference.array > 0)
    numbered, n = ndimage.label(grown, np.ones((3, 3, 3)))
    spacing = reference.geometry.spacing
    side = read_lesions(files(real_data, "ms/labels_only")[0])
    prediction = LesionMap(numbered.astype(np.uint16), side.geometry, (side.lesions[0],) * n)
    scores = evaluate_case(prediction, reference)
    assert min(spacing) <= scores.hd95_mm <= 2 * max(spacing)
    assert scores.volume_error_ml > 0
    assert scores.dice < 1.0
    assert scores.false_negative_volume_ml == 0.0
