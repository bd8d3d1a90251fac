"""Two systems on the same scans: what the second adds, figure by figure, with paired intervals and a verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from medseg.core.lesions import LesionMap
from medseg.core.monitor import Monitor
from medseg.core.provenance import installed_versions
from medseg.core.semantic import SemanticMap
from medseg.errors import UsageError
from medseg.evaluation.bootstrap import Estimate, Resampler
from medseg.evaluation.case import TOLERANCE_MM, evaluate_case
from medseg.evaluation.cohort import CohortScores, summarize_cases
from medseg.evaluation.pairs import grid_of, pair_files, read_groups, read_sides
from medseg.evaluation.scores import CaseScores, LesionScore
from medseg.evaluation.verdict import verdict_of
from medseg.metrics.presets import Convention, InputKind, get_convention

__all__ = ["Comparison", "FigureDifference", "MEASURABLE_MM", "compare_cases", "compare_systems"]

MEASURABLE_MM = 10.0
"""Longest diameter from which a lesion is measurable by RECIST 1.1."""

Part = tuple[float | None, float]
"""What a case adds to numerator and denominator of a figure; None: the case does not define it."""


class FigureDifference(BaseModel):
    """One figure of both systems over the cases that define it for both.

    Parameters
    ----------
    topic
        "masks", "detection", "counts", "volumes", "diameters" or "measurable lesions".
    title
        What it is, with its unit.
    better
        Whether higher or lower is better.
    a, b
        The figure of each system.
    difference
        B minus A with its paired bootstrap interval over patients.
    verdict
        "a" or "b" if the interval leaves out 0 in favor of one, "equal" if every case has the same value, else
        "not shown".
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    topic: str
    title: str
    better: Literal["higher", "lower"]
    a: float | None
    b: float | None
    difference: Estimate
    verdict: Literal["a", "b", "equal", "not shown"]


class Comparison(BaseModel):
    """What `medseg compare` writes.

    Parameters
    ----------
    name_a, name_b
        The systems.
    preset, convention
        By which both were scored.
    n_cases, n_patients
        Scans and patients.
    same_foreground
        True if both systems mark the same voxels in every case, so that they differ only in how these are separated.
    figures
        By name.
    verdict
        Sentences: what B adds over A on these scans.
    a, b
        Figures of each cohort.
    cases_a, cases_b
        Scores of each case.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name_a: str
    name_b: str
    preset: str
    convention: Convention
    n_cases: int
    n_patients: int
    same_foreground: bool
    figures: Mapping[str, FigureDifference]
    verdict: tuple[str, ...]
    a: CohortScores
    b: CohortScores
    cases_a: tuple[CaseScores, ...]
    cases_b: tuple[CaseScores, ...]
    versions: Mapping[str, str]


def compare_systems(
    predictions_a: str | PathLike[str],
    predictions_b: str | PathLike[str],
    references: str | PathLike[str],
    preset: str | Convention = "default",
    *,
    names: tuple[str, str] = ("A", "B"),
    input_kinds: tuple[InputKind | None, InputKind | None, InputKind | None] = (None, None, None),
    like: str | PathLike[str] | None = None,
    groups: str | PathLike[str] | None = None,
    tolerance_mm: float = TOLERANCE_MM,
    resamples: int = 10_000,
    seed: int = 0,
    monitor: Monitor | None = None,
) -> Comparison:
    """Compare two systems, or components against another separation of one model, on the same scans.

    Parameters
    ----------
    predictions_a, predictions_b, references
        Three files, or three folders whose files are paired by their path below the folder, without the suffix.
    preset
        Name of a convention, or a convention of one's own.
    names
        What to call the systems, for example ("semantic", "instance").
    input_kinds
        What the maps of A, of B and of the reference hold ("lesions", "semantic"); None: what the preset expects. A
        semantic map is separated by the preset's own rule: to see what instance segmentation adds, give the semantic
        map of a model as A and its lesion map as B.
    like
        As `evaluate_cohort`.
    groups
        A CSV table with `case_id` and `patient_id`.
    tolerance_mm
        Of the normalized surface Dice (NSD).
    resamples, seed
        Of the paired bootstrap over patients.
    monitor
        Told of each case.

    Raises
    ------
    GridMismatch, InvalidLabelMap, ScanNotFound, UnreadableImage
        If a map cannot be read, or the maps of a case do not lie on one grid.
    UsageError
        If a case is missing on a side, the names are equal, or an option makes no sense.
    """
    convention = get_convention(preset)
    if names[0] == names[1]:
        raise UsageError(f"two systems need two names; both are called {names[0]!r}")
    kinds = [kind or convention.input for kind in input_kinds]
    cases = pair_files(predictions_a, predictions_b, references)
    monitor = monitor or Monitor()
    monitor.expect(len(cases))
    scores: tuple[list[CaseScores], list[CaseScores]] = ([], [])
    same_foreground = True
    for case in cases:
        maps = read_sides(case.files, kinds, grid_of(case, like))
        for prediction, column in zip(maps[:2], scores, strict=True):
            column.append(
                evaluate_case(prediction, maps[2], convention, case_id=case.case_id, tolerance_mm=tolerance_mm)
            )
        same_foreground = same_foreground and _marks_the_same(maps[0], maps[1])
        monitor.advance()
    patients = read_groups(groups, [case.case_id for case in cases]).patients if groups is not None else None
    return compare_cases(
        scores[0],
        scores[1],
        convention,
        names=names,
        patients=patients,
        same_foreground=same_foreground,
        resamples=resamples,
        seed=seed,
    )


def _marks_the_same(first: LesionMap | SemanticMap, second: LesionMap | SemanticMap) -> bool:
    return np.array_equal(first.array > 0, second.array > 0)


def compare_cases(
    cases_a: Sequence[CaseScores],
    cases_b: Sequence[CaseScores],
    convention: Convention,
    *,
    names: tuple[str, str] = ("A", "B"),
    patients: Mapping[str, str] | None = None,
    same_foreground: bool = False,
    resamples: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Compare the scores of two systems that were computed before; parameters as `compare_systems`.

    Raises
    ------
    UsageError
        If the two are not of the same cases in the same order, or there is none.
    """
    ids = [case.case_id for case in cases_a]
    if ids != [case.case_id for case in cases_b] or not ids:
        raise UsageError("two systems are compared on the same cases, in the same order, at least one")
    of = [(patients or {}).get(name, name) for name in ids]
    resampler = Resampler(of, resamples=resamples, seed=seed)
    figures = {
        figure.name: _difference(figure, cases_a, cases_b, resampler)
        for figure in _FIGURES
        if any(figure.part(case)[0] is not None for case in (*cases_a, *cases_b))
    }
    return Comparison(
        name_a=names[0],
        name_b=names[1],
        preset=convention.name,
        convention=convention,
        n_cases=len(ids),
        n_patients=resampler.n_patients,
        same_foreground=same_foreground,
        figures=figures,
        verdict=verdict_of(figures, names, len(ids), resampler.n_patients, same_foreground),
        a=summarize_cases(cases_a, patients, resamples=resamples, seed=seed),
        b=summarize_cases(cases_b, patients, resamples=resamples, seed=seed),
        cases_a=tuple(cases_a),
        cases_b=tuple(cases_b),
        versions=installed_versions(),
    )


class _Figure(BaseModel):
    """A figure of a cohort as a ratio of sums over cases."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    name: str
    topic: str
    title: str
    better: Literal["higher", "lower"]
    part: Callable[[CaseScores], Part]


def _difference(
    figure: _Figure, cases_a: Sequence[CaseScores], cases_b: Sequence[CaseScores], resampler: Resampler
) -> FigureDifference:
    parts = list(zip(map(figure.part, cases_a), map(figure.part, cases_b), strict=True))
    found = resampler.difference([a for a, _ in parts], [b for _, b in parts])
    is_equal = all(first == second for first, second in parts)
    verdict: Literal["a", "b", "equal", "not shown"] = "equal" if is_equal else "not shown"
    if not is_equal and found.difference.low is not None and found.difference.high is not None:
        if found.difference.low > 0:
            verdict = "b" if figure.better == "higher" else "a"
        elif found.difference.high < 0:
            verdict = "a" if figure.better == "higher" else "b"
    return FigureDifference(
        topic=figure.topic,
        title=figure.title,
        better=figure.better,
        a=found.first,
        b=found.second,
        difference=found.difference,
        verdict=verdict,
    )


def _of_case(name: str, *, absolute: bool = False) -> Callable[[CaseScores], Part]:
    """A figure of a case, averaged over cases."""

    def part(case: CaseScores) -> Part:
        value = getattr(case, name)
        return (abs(value) if absolute and value is not None else value), 1.0

    return part


def _per_lesion(error: Callable[[LesionScore], float | None]) -> Callable[[CaseScores], Part]:
    """A figure of every reference lesion, averaged over all lesions of all cases."""

    def part(case: CaseScores) -> Part:
        rows = [row for row in case.lesions if row.outcome in ("tp", "fn")]
        values = [error(row) for row in rows]
        defined = [value for value in values if value is not None]
        return (sum(defined) if defined else None), float(len(defined))

    return part


def _volume_error(row: LesionScore) -> float | None:
    """A missed lesion is off by its whole volume."""
    return abs((row.prediction_volume_ml or 0.0) - (row.reference_volume_ml or 0.0))


def _diameter_error(row: LesionScore) -> float | None:
    if row.reference_diameter_mm is None:
        return None
    return abs((row.prediction_diameter_mm or 0.0) - row.reference_diameter_mm)


def _measurable_found(row: LesionScore) -> float | None:
    if row.reference_diameter_mm is None or row.reference_diameter_mm < MEASURABLE_MM:
        return None
    return float(row.outcome == "tp")


def _measurable_count_error(case: CaseScores) -> Part:
    """Lesions that a reader of the prediction would call measurable, against those of the reference."""
    reference = [row.reference_diameter_mm for row in case.lesions if row.outcome in ("tp", "fn", "left out")]
    found = {row.prediction_ids: row.prediction_diameter_mm for row in case.lesions if row.prediction_ids}
    if any(mm is None for mm in (*reference, *found.values())):
        return None, 1.0
    n_reference = sum(mm is not None and mm >= MEASURABLE_MM for mm in reference)
    n_prediction = sum(mm is not None and mm >= MEASURABLE_MM for mm in found.values())
    return float(abs(n_prediction - n_reference)), 1.0


def _figure(
    name: str, topic: str, title: str, better: Literal["higher", "lower"], part: Callable[[CaseScores], Part]
) -> _Figure:
    return _Figure(name=name, topic=topic, title=title, better=better, part=part)


_FIGURES = (
    _figure("dice", "masks", "Dice of all lesions as one mask", "higher", _of_case("dice")),
    _figure("nsd", "masks", "surface Dice (NSD)", "higher", _of_case("nsd")),
    _figure("hd95_penalized_mm", "masks", "HD95, mm", "lower", _of_case("hd95_penalized_mm")),
    _figure("f1", "detection", "F1 of lesions", "higher", _of_case("f1")),
    _figure("pq", "detection", "panoptic quality", "higher", _of_case("pq")),
    _figure("sensitivity", "detection", "lesions found, share", "higher", _of_case("sensitivity")),
    _figure("precision", "detection", "predictions that are right, share", "higher", _of_case("precision")),
    _figure(
        "count_error",
        "counts",
        "lesions too many or too few, per case",
        "lower",
        _of_case("count_error", absolute=True),
    ),
    _figure("n_merges", "counts", "predictions that merge lesions, per case", "lower", _of_case("n_merges")),
    _figure("n_splits", "counts", "lesions that are split, per case", "lower", _of_case("n_splits")),
    _figure("lesion_volume_error_ml", "volumes", "volume error per lesion, ml", "lower", _per_lesion(_volume_error)),
    _figure(
        "total_volume_error_ml",
        "volumes",
        "error of the total volume, ml",
        "lower",
        _of_case("volume_error_ml", absolute=True),
    ),
    _figure(
        "diameter_error_mm",
        "diameters",
        "error of the longest diameter per lesion, mm",
        "lower",
        _per_lesion(_diameter_error),
    ),
    _figure(
        "measurable_sensitivity",
        "measurable lesions",
        "measurable lesions found, share",
        "higher",
        _per_lesion(_measurable_found),
    ),
    _figure(
        "measurable_count_error",
        "measurable lesions",
        "measurable lesions too many or too few, per case",
        "lower",
        _measurable_count_error,
    ),
)
