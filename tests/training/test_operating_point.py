"""An operating point meets its aim on the cases at hand, and is scored on those that it was not chosen on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from medseg.core.plan import SeparationPlan
from medseg.errors import TrainingError
from medseg.training.aim import parse_aim
from medseg.training.operating_point import OperatingPoint, choose_point
from medseg.training.operating_text import as_html, as_lines, as_markdown, changes_in_words, warnings_of
from medseg.training.settings import Settings, Space
from medseg.training.sweep import Counts
from tests.plans import tiny_plan

PLAN = tiny_plan()
SPACE = Space(Settings.of(PLAN), (None, 0.2, 0.8), (SeparationPlan(),), (0.0, 0.5), (None,))
"""Settings: as planned, larger than 0.5 ml, then the same at a threshold of 0.2, and of 0.8."""

FOLDS = (0, 0, 1, 1)
COUNTS = Counts(  # (settings, cases); each case has three lesions
    tp=np.array([[2, 2, 2, 2], [2, 2, 1, 1], [3, 3, 3, 2], [3, 2, 2, 2], [1, 1, 1, 1], [1, 0, 1, 0]]),
    fp=np.array([[1, 1, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [1, 0, 2, 2], [0, 0, 0, 1], [0, 0, 0, 0]]),
    fn=np.array([[1, 1, 1, 1], [1, 1, 2, 2], [0, 0, 0, 1], [0, 1, 1, 1], [2, 2, 2, 2], [2, 3, 2, 3]]),
    dice=np.array([[0.6] * 4, [0.7] * 4, [0.5] * 4, [0.55] * 4, [0.4, 0.4, 0.4, np.nan], [0.3] * 4]),
)


def chosen(aim: str, counts: Counts = COUNTS) -> OperatingPoint:
    return choose_point(counts, FOLDS, SPACE, parse_aim(aim), PLAN)


def setting(threshold: float | None, volume_ml: float) -> Settings:
    return Settings.of(PLAN).model_copy(update={"foreground_threshold": threshold, "minimum_volume_ml": volume_ml})


@pytest.mark.parametrize(
    ("aim", "threshold", "volume_ml", "is_met"),
    [
        ("false positives <= 1", None, 0.0, True),
        ("false positives <= 1.25", 0.2, 0.5, True),
        ("false positives <= 0.3", 0.8, 0.0, True),
        ("false positives <= 9", 0.2, 0.0, True),
        ("false positives <= 0.01", 0.8, 0.5, True),
        ("sensitivity >= 0.7", 0.2, 0.5, True),
        ("sensitivity >= 0.75", 0.2, 0.5, True),
        ("sensitivity >= 0.66", None, 0.0, True),
        ("sensitivity >= 1", 0.2, 0.0, False),
        ("count error", None, 0.0, True),
        ("count error <= 1", 0.2, 0.5, True),
        ("lesion f1", 0.2, 0.5, True),
        ("dice", None, 0.5, True),
    ],
)
def test_the_settings_that_meet_an_aim_best_are_chosen(
    aim: str, threshold: float | None, volume_ml: float, is_met: bool
) -> None:
    point = chosen(aim)
    assert point.chosen.settings == setting(threshold, volume_ml)
    assert point.is_met == is_met
    assert (warnings_of(point) == []) == is_met
    assert chosen(aim).model_dump_json() == point.model_dump_json()


def test_figures_are_of_all_cases_together() -> None:
    before = chosen("lesion f1").before.figures
    assert (before.tp, before.fp, before.fn, before.n_cases) == (8, 4, 4, 4)
    assert before.sensitivity == pytest.approx(8 / 12)
    assert before.lesion_f1 == pytest.approx(16 / 24)
    assert (before.false_positives_per_scan, before.count_error) == (1.0, 0.0)
    assert chosen("false positives <= 0.3").chosen.figures.dice == pytest.approx(0.4)  # of those that have one


def test_each_fold_is_scored_at_what_is_chosen_without_it() -> None:
    point = chosen("false positives <= 0.5")
    # fold 0 alone: 1, 0, 2, 0.5, 0, 0 false a scan; fold 1 alone: 1, 1, 3, 2, 0.5, 0
    assert [(one.fold, one.settings, one.is_met) for one in point.by_fold] == [
        (0, setting(0.8, 0.0), True),
        (1, setting(0.2, 0.5), True),
    ]
    assert point.without_own_fold is not None
    assert point.without_own_fold.tp == 1 + 1 + 2 + 2
    assert point.without_own_fold.fp == 0 + 0 + 2 + 2
    assert point.without_own_fold.false_positives_per_scan == 1.0  # the aim is not met on cases that were not seen
    assert point.chosen.figures.false_positives_per_scan <= 0.5
    single = choose_point(COUNTS, (0,) * 4, SPACE, parse_aim("dice"), PLAN)
    assert single.without_own_fold is None
    assert single.by_fold == ()


def test_of_equal_settings_the_nearest_to_the_plan_is_chosen() -> None:
    same = Counts(*(np.repeat(array[:1], 6, axis=0) for array in (COUNTS.tp, COUNTS.fp, COUNTS.fn, COUNTS.dice)))
    for aim in ("false positives <= 1", "sensitivity >= 0.1", "count error", "lesion f1", "dice", "sensitivity >= 1"):
        assert chosen(aim, same).chosen.settings == Settings.of(PLAN)
    better = replace(same, dice=same.dice + np.array([0, 0, 0, 0.1, 0.1, 0])[:, None])
    assert chosen("lesion f1", better).chosen.settings == setting(0.8, 0.0)  # one change, the other has two


def test_marking_nothing_does_not_meet_an_aim() -> None:
    nothing = replace(
        COUNTS, tp=np.zeros_like(COUNTS.tp), fn=np.full_like(COUNTS.fn, 3), fp=COUNTS.fp * (COUNTS.tp > 1)
    )
    point = chosen("false positives <= 1", nothing)
    assert not point.is_met
    assert len(warnings_of(point)) == 2
    assert "not fit for use" in warnings_of(point)[1]
    without = replace(nothing, fn=np.zeros_like(COUNTS.fn))
    with pytest.raises(TrainingError, match="none of the held-out cases has a lesion"):
        chosen("dice", without)


def test_the_table_holds_what_could_be_had_and_every_text_shows_it() -> None:
    point = chosen("sensitivity >= 1")
    shown = [(one.figures.fp, one.figures.tp) for one in point.table]
    assert shown == [(0, 2), (1, 4), (2, 6), (4, 8), (5, 9), (10, 11)]
    for text in (as_markdown(point), "".join(as_html(point)), "\n".join(as_lines(point))):
        assert "11 of 12" in text
        assert "9 of 12" in text
        assert "optimistic" in text
        assert "without fold 1 " in text
        assert "4 held-out cases with 12 lesions" in text
    for text in (as_markdown(point), "".join(as_html(point))):
        assert "meets the aim sensitivity &gt;= 1" in text.replace(">=", "&gt;=")
    assert changes_in_words(setting(0.2, 0.5), setting(None, 0.0)) == "foreground_threshold 0.2, minimum_volume_ml 0.5"
    assert changes_in_words(setting(None, 0.0), setting(0.2, 0.0)) == "foreground_threshold none"
