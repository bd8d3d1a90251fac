"""What a sweep counts for a setting is what segmenting, separating and evaluating with that setting gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from medseg.core.evidence import InstanceEvidence
from medseg.core.geometry import Geometry
from medseg.core.labels import LabelScheme
from medseg.core.lesions import LesionMap
from medseg.core.plan import Plan, SeparationPlan, with_changes
from medseg.core.semantic import SemanticMap
from medseg.core.volume import Volume
from medseg.errors import TrainingError, UsageError
from medseg.evaluation.case import evaluate_case
from medseg.inference.peaks import without_faint
from medseg.lesions.separate import separate_lesions
from medseg.training.held_out import LEAST_PROBABILITY, HeldOut, keep, read_held_out, read_summary
from medseg.training.settings import Settings, Space, space_of
from medseg.training.sweep import count_case
from tests.plans import tiny_plan

GEOMETRY = Geometry((30, 26, 22), np.diag([-3.0, 3.0, 4.0, 1.0]))


def smooth(seed: int, sigma: float = 2.5) -> NDArray[np.float32]:
    """Noise without small detail, 0..1."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).random(GEOMETRY.shape), sigma)
    scaled: NDArray[np.float32] = ((noise - noise.min()) / np.ptp(noise)).astype(np.float32)
    return scaled


def classes_of(plan: Plan, seed: int = 0) -> NDArray[np.uint8]:
    """The class that each voxel would have."""
    two = (smooth(seed + 1) > 0.5) & (plan.labels.highest > 1)
    return (1 + two).astype(np.uint8)


def reference_of(plan: Plan, seed: int = 0) -> LesionMap:
    """Lesions beside those that the network finds."""
    array = np.where(np.roll(smooth(seed), 1, 0) > 0.66, classes_of(plan, seed), 0)
    return separate_lesions(SemanticMap(array, GEOMETRY, plan.labels), SeparationPlan(method="components"))


def made(folder: Path, plan: Plan, *, seed: int = 0, with_heads: bool = False) -> tuple[HeldOut, SemanticMap, Volume]:
    """A case that a network half finds, kept and read back; and its semantic map and scan as they were."""
    probability = np.clip(2.2 * smooth(seed) - 0.9, 0, 1).astype(np.float32)
    evidence = None
    if with_heads:
        offsets = np.random.default_rng(seed).normal(0, 1, (3, *GEOMETRY.shape)).astype(np.float16)
        evidence = InstanceEvidence(smooth(seed), offsets, GEOMETRY)
    classes = classes_of(plan, seed)
    marked = np.where(probability > 0.5, classes, 0)
    decided = SemanticMap(marked, GEOMETRY, plan.labels, probability=probability, evidence=evidence)
    volume = Volume(5 * smooth(seed + 3)[None], GEOMETRY, ("PET",))
    likeliest = np.where(probability > LEAST_PROBABILITY, classes, 0)
    keep(folder, f"case {seed}", 0, plan.sha256, volume, decided, likeliest, reference_of(plan, seed))
    whole = SemanticMap(likeliest, GEOMETRY, plan.labels, probability=probability, evidence=evidence)
    return read_held_out(folder, f"case {seed}"), whole, volume


def by_hand(
    settings: Settings, plan: Plan, whole: SemanticMap, volume: Volume, reference: LesionMap
) -> tuple[int, int, int, float | None]:
    """The same by the whole way: threshold, faint regions, separation with a least volume, evaluation."""
    at = settings.applied(plan)
    threshold = 0.5 if at.inference.foreground_threshold is None else at.inference.foreground_threshold
    marked = np.where(whole.probability > threshold, whole.array, 0).astype(np.uint8)
    semantic = SemanticMap(marked, GEOMETRY, whole.scheme, probability=whole.probability, evidence=whole.evidence)
    if at.inference.least_peak is not None:
        semantic, _ = without_faint(semantic, volume, at.inference.least_peak)
    scores = evaluate_case(separate_lesions(semantic, at.separation), reference, overlap_only=True)
    assert scores.count_error == scores.fp - scores.fn
    return scores.tp, scores.fp, scores.fn, scores.dice


@pytest.mark.parametrize("kind", ["one class", "two classes", "heads"])
def test_every_setting_counts_as_the_whole_way_does(tmp_path: Path, kind: str) -> None:
    plan = with_changes(tiny_plan(), {"inference": {"least_peak": 1.0}})
    if kind == "two classes":
        plan = plan.model_copy(update={"labels": LabelScheme(classes={1: "a", 2: "b"})})
    if kind == "heads":
        plan = with_changes(plan, {"network": {"instance_heads": True}})
    case, whole, volume = made(tmp_path, plan, with_heads=kind == "heads")
    everything = space_of(plan, [case.summary])
    space = Space(
        everything.own,
        (None, 0.3, 0.8),
        (*everything.separations[:4:3], everything.separations[-1]),
        (0.0, 0.5, 3.0),
        (1.0, 2.5),
    )
    assert min(space.shape) > 1
    reference = reference_of(plan)
    counts = count_case(case, space)
    settings = space.settings()
    assert settings[0] == Settings.of(plan)
    expected = [by_hand(one, plan, whole, volume, reference) for one in settings]
    found = zip(*(array[:, 0].tolist() for array in (counts.tp, counts.fp, counts.fn, counts.dice)), strict=True)
    assert list(found) == expected
    assert len(set(expected)) > 10  # the settings differ in what they find
    assert len(set(counts.tp[:, 0].tolist())) > 2
    assert all(counts.tp[:, 0] + counts.fn[:, 0] == reference.n_lesions)


def test_an_empty_case_counts_as_one(tmp_path: Path) -> None:
    plan = tiny_plan()
    nothing = np.zeros(GEOMETRY.shape, dtype=np.uint8)
    decided = SemanticMap(nothing, GEOMETRY, plan.labels, probability=np.zeros(GEOMETRY.shape, np.float32))
    reference = separate_lesions(decided)
    keep(tmp_path, "empty", 3, "x", Volume(smooth(0)[None], GEOMETRY, ("PET",)), decided, nothing, reference)
    case = read_held_out(tmp_path, "empty")
    assert case.reference.array.shape == (1, 1, 1)
    assert (case.summary.fold, case.summary.reference_ml) == (3, ())
    counts = count_case(case, space_of(plan, [case.summary]))
    assert not counts.tp.any()
    assert not counts.fp.any()
    assert np.isnan(counts.dice).all()


def test_what_is_kept_is_the_same_bytes_and_no_name_and_damage_is_said(tmp_path: Path) -> None:
    plan = tiny_plan()
    for folder in ("a", "b"):
        made(tmp_path / folder, plan)
    (first,), (second,) = ((tmp_path / folder / "held_out").iterdir() for folder in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()
    assert "case" not in first.name
    assert read_summary(tmp_path / "a", "other") is None
    first.write_bytes(second.read_bytes()[:1000])
    for read in (read_summary, read_held_out):
        with pytest.raises(TrainingError, match=r"case 0 cannot be read; delete the file"):
            read(tmp_path / "a", "case 0")


def test_what_is_tried_follows_from_the_plan_and_the_cases(tmp_path: Path) -> None:
    plan = with_changes(tiny_plan(), {"inference": {"least_peak": 1.0}, "separation": {"h_min_mm": 4.0}})
    summary = made(tmp_path, plan)[0].summary
    space = space_of(plan, [summary])
    assert space.thresholds == (None, 0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9)
    assert {one.h_min_mm for one in space.separations} == {2.0, 4.0, 8.0, 12.0}
    assert {one.method for one in space.separations} == {"auto", "components"}
    assert space.volumes_ml[:2] == (0.0, 0.05)  # a voxel has 0.036 ml
    assert summary.reference_ml
    assert max(space.volumes_ml) <= max(summary.reference_ml)
    assert space.peaks[:3] == (1.0, 1.5, 2.0)
    assert len(set(space.settings())) == len(space.settings()) == np.prod(space.shape)
    fixed = with_changes(plan, {"separation": {"method": "components"}, "inference": {"least_peak": None}})
    assert space_of(fixed, [summary]).shape == (9, 1, len(space.volumes_ml), 1)
    heads = with_changes(plan, {"network": {"instance_heads": True}})
    assert {one.method for one in space_of(heads, [summary]).separations} == {"auto", "watershed", "components"}
    assert space.keeping(["separation", "least_peak", "minimum_volume_ml"]).shape == (9, 1, 1, 1)
    assert space.keeping(["foreground_threshold"]).thresholds == (None,)
    assert space.keeping([]) == space
    with pytest.raises(UsageError, match=r"no setting 'h_min_mm'; there are foreground_threshold, least_peak,"):
        space.keeping(["h_min_mm"])
    lower = with_changes(plan, {"inference": {"foreground_threshold": 0.35}, "separation": {"minimum_volume_ml": 0.3}})
    assert space_of(lower, [summary]).thresholds[0] == 0.35
    assert 0.5 in space_of(lower, [summary]).thresholds
    assert space_of(lower, [summary]).volumes_ml[:2] == (0.3, 0.0)
    assert Settings.of(lower).applied(plan) == lower
