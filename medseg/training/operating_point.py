"""Operating point: the settings that meet an aim on held-out cases, and what they are worth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from medseg.core.plan import Plan
from medseg.errors import TrainingError
from medseg.training.aim import Aim
from medseg.training.settings import Settings, Space
from medseg.training.sweep import PRESET, Counts

__all__ = ["ChosenWithout", "Figures", "OperatingPoint", "Tried", "choose_point"]

_DIGITS = 9  # of what is compared: sums in another order must not decide
_MOST_ROWS = 12


class Figures(BaseModel):
    """What settings are worth on some cases.

    Parameters
    ----------
    tp, fp, fn
        Lesions found, false and missed, all cases together.
    false_positives_per_scan, count_error
        False lesions, and the difference between predicted and reference number of lesions, mean over cases.
    sensitivity, lesion_f1
        Over all lesions together; None where there is nothing to find (and nothing found).
    dice
        Mean over the cases in which it is defined; None if it is in none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_cases: int
    tp: int
    fp: int
    fn: int
    false_positives_per_scan: float
    count_error: float
    sensitivity: float | None
    lesion_f1: float | None
    dice: float | None


class Tried(BaseModel):
    """Settings and what they are worth on all held-out cases."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    settings: Settings
    figures: Figures


class ChosenWithout(BaseModel):
    """What is chosen without the cases of a fold."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fold: int
    settings: Settings
    is_met: bool


class OperatingPoint(BaseModel):
    """The settings that were chosen, and why.

    Parameters
    ----------
    aim, is_met
        What was to be reached, and whether any settings do on these cases; if none does, the nearest were chosen.
    preset
        How lesions were matched.
    plan_sha256
        Of the plan that the networks were trained by.
    before, chosen
        The plan's own settings and the chosen ones. `chosen` looks better than it is: it was chosen on these cases.
    without_own_fold
        The figures that are honest: each fold's cases at the settings that were chosen without them; None for one fold.
    by_fold
        Those settings.
    n_settings, table
        How many were tried, and those that no other exceeds in sensitivity without more false positives.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    aim: Aim
    is_met: bool
    preset: str
    plan_sha256: str
    n_settings: int
    n_folds: int
    before: Tried
    chosen: Tried
    without_own_fold: Figures | None
    by_fold: tuple[ChosenWithout, ...]
    table: tuple[Tried, ...]

    def applied(self, plan: Plan) -> Plan:
        """The plan at this point."""
        return self.chosen.settings.applied(plan)


def choose_point(counts: Counts, folds: Sequence[int], space: Space, aim: Aim, plan: Plan) -> OperatingPoint:
    """Choose the settings that meet an aim; of equal ones the better by lesion F1, then those nearest to the plan's.

    Parameters
    ----------
    counts
        What each setting of the space finds in each case.
    folds
        The fold of each case.
    space
        What was tried; the plan's own settings come first.
    aim
        What is to be reached.
    plan
        The plan.

    Raises
    ------
    TrainingError
        If no case has a lesion.
    """
    if not (counts.tp + counts.fn).any():
        raise TrainingError("none of the held-out cases has a lesion: no setting could be told from another")
    settings = space.settings()
    n_changes = np.array([len(one.changes(space.own)) for one in settings])
    fold_of = np.array(folds)
    everything = _Columns(counts)
    best, is_met = _best(everything, aim, n_changes)
    by_fold, honest = [], []
    numbers = sorted(set(folds))
    for fold in numbers if len(numbers) > 1 else ():
        others = counts.chosen(slice(None), np.flatnonzero(fold_of != fold))
        without, is_met_without = _best(_Columns(others), aim, n_changes)
        by_fold.append(ChosenWithout(fold=fold, settings=settings[without], is_met=is_met_without))
        honest.append(counts.chosen(slice(without, without + 1), np.flatnonzero(fold_of == fold)))
    return OperatingPoint(
        aim=aim,
        is_met=is_met,
        preset=PRESET,
        plan_sha256=plan.sha256,
        n_settings=len(settings),
        n_folds=len(numbers),
        before=Tried(settings=settings[0], figures=everything.figures(0)),
        chosen=Tried(settings=settings[best], figures=everything.figures(best)),
        without_own_fold=_Columns(Counts.joined(honest)).figures(0) if honest else None,
        by_fold=tuple(by_fold),
        table=tuple(
            Tried(settings=settings[n], figures=everything.figures(n)) for n in _front(everything, n_changes, best)
        ),
    )


_Keys = tuple[NDArray[Any], ...]


class _Columns:
    """Figures of all settings on the same cases: (settings,) arrays, NaN where undefined."""

    def __init__(self, counts: Counts) -> None:
        self.n_cases = counts.tp.shape[1]
        self.tp, self.fp, self.fn = (array.sum(axis=1) for array in (counts.tp, counts.fp, counts.fn))
        self.false_positives = self.fp / self.n_cases
        self.count_error = np.abs(counts.fp - counts.fn).sum(axis=1) / self.n_cases
        with np.errstate(invalid="ignore", divide="ignore"):
            self.sensitivity = self.tp / (self.tp + self.fn)
            self.lesion_f1 = 2 * self.tp / (2 * self.tp + self.fp + self.fn)
            known = ~np.isnan(counts.dice)
            self.dice = np.where(known, counts.dice, 0).sum(axis=1) / known.sum(axis=1)

    def figures(self, n: int) -> Figures:
        """Those of one setting."""

        def known(values: NDArray[np.float64]) -> float | None:
            return None if np.isnan(values[n]) else float(values[n])

        return Figures(
            n_cases=self.n_cases,
            tp=int(self.tp[n]),
            fp=int(self.fp[n]),
            fn=int(self.fn[n]),
            false_positives_per_scan=float(self.false_positives[n]),
            count_error=float(self.count_error[n]),
            sensitivity=known(self.sensitivity),
            lesion_f1=known(self.lesion_f1),
            dice=known(self.dice),
        )


def _best(columns: _Columns, aim: Aim, n_changes: NDArray[np.intp]) -> tuple[int, bool]:
    """The setting that meets the aim best, or comes nearest to it, and whether it meets it."""
    goal, limit = aim.goal, aim.limit
    tie = (columns.lesion_f1, columns.dice)
    wanted: _Keys
    nearest: _Keys
    if goal == "false positives":
        wanted, reached = (columns.sensitivity,), columns.false_positives <= _limit(limit)
        reached &= columns.tp > 0  # a model that marks nothing has no false positives and is no use
        nearest = (columns.tp > 0, -columns.false_positives, columns.sensitivity)
    elif goal == "sensitivity":
        wanted, reached = (-columns.false_positives,), columns.sensitivity >= _limit(limit) - 2e-9
        nearest = (columns.sensitivity, -columns.false_positives)
    elif goal == "count error" and limit is not None:
        wanted, reached = (columns.lesion_f1,), columns.count_error <= _limit(limit)
        nearest = (-columns.count_error,)
    else:
        of_goal = {"count error": -columns.count_error, "lesion f1": columns.lesion_f1, "dice": columns.dice}
        return _first((of_goal[goal], *tie), n_changes, np.ones(len(n_changes), dtype=np.bool_)), True
    if reached.any():
        return _first((*wanted, *tie), n_changes, reached), True
    return _first((*nearest, *tie), n_changes, ~reached), False


def _limit(limit: float | None) -> float:
    if limit is None:
        raise AssertionError("an aim of this kind has a limit")
    return limit + 1e-9


def _first(wanted: _Keys, n_changes: NDArray[np.intp], allowed: NDArray[np.bool_]) -> int:
    """The allowed setting of the highest figures, the first counting most; then fewest changes; then the first."""
    keys = [-np.round(np.nan_to_num(column.astype(np.float64), nan=-1.0), _DIGITS) for column in wanted]
    order = np.lexsort(np.stack([n_changes.astype(np.float64), *keys[::-1], np.logical_not(allowed)]))
    return int(order[0])


def _front(columns: _Columns, n_changes: NDArray[np.intp], always: int) -> list[int]:
    """Settings by rising false positives, each with more lesions found than all with fewer; thinned, but for one."""
    dice = np.round(-np.nan_to_num(columns.dice), _DIGITS)
    order = np.lexsort((n_changes, dice, -np.nan_to_num(columns.lesion_f1), -columns.tp, columns.fp))
    front: list[int] = []
    for n in order.tolist():
        if not front or columns.tp[n] > columns.tp[front[-1]]:
            front.append(n)
    if len(front) > _MOST_ROWS:
        front = [front[place] for place in np.linspace(0, len(front) - 1, _MOST_ROWS).round().astype(int).tolist()]
    return sorted({*front, always}, key=lambda n: (columns.fp[n], columns.tp[n], n))
