"""Aims are read in words, and what is none is answered with those that there are."""

from __future__ import annotations

import pytest

from medseg.errors import UsageError
from medseg.training.aim import AIMS, parse_aim


@pytest.mark.parametrize(
    ("text", "goal", "limit"),
    [
        ("false positives <= 0.5", "false positives", 0.5),
        ("  False_Positives<=2 ", "false positives", 2.0),
        ("sensitivity >= .95", "sensitivity", 0.95),
        ("count error", "count error", None),
        ("count-error <= 1e-1", "count error", 0.1),
        ("Lesion F1", "lesion f1", None),
        ("dice", "dice", None),
    ],
)
def test_an_aim_is_a_goal_and_perhaps_a_limit(text: str, goal: str, limit: float | None) -> None:
    aim = parse_aim(text)
    assert (aim.goal, aim.limit) == (goal, limit)
    assert parse_aim(str(aim)) == aim


@pytest.mark.parametrize("aim", AIMS)
def test_every_aim_that_is_named_can_be_given(aim: str) -> None:
    assert str(parse_aim(aim.replace(" N", " 1").replace(" S", " 1"))) == aim.replace(" N", " 1").replace(" S", " 1")


@pytest.mark.parametrize(
    "text",
    ["", "false positives", "false positives >= 1", "sensitivity <= 0.5", "dice >= 0.8", "f2", "recall >= 1", "<= 3"],
)
def test_other_aims_are_answered_with_those_that_there_are(text: str) -> None:
    with pytest.raises(UsageError, match=r"no such aim.*false positives <= N.*lesion f1"):
        parse_aim(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sensitivity >= 1.5", "between 0 and 1"),
        ("false positives <= -1", "0 or above"),
        ("count error <= 1e999", "finite"),
        ("count error <= 1.2.3", "no number"),
    ],
)
def test_limits_that_make_no_sense_are_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_aim(text)
