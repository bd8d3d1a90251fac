"""Files and folders in, scores of all cases and of the cohort out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from medseg.core.geometry import Geometry
from medseg.core.lesions import LesionMap
from medseg.core.monitor import Monitor
from medseg.core.provenance import installed_versions
from medseg.evaluation.case import TOLERANCE_MM, evaluate_case
from medseg.evaluation.cohort import CohortScores, summarize_cases
from medseg.evaluation.pairs import CaseFiles, Groups, grid_of, pair_files, read_groups, read_probability, read_sides
from medseg.evaluation.scores import CaseScores
from medseg.io.label_files import read_lesions
from medseg.metrics.presets import CORE_EDGE_CASES, Convention, EdgeCase, InputKind, get_convention

__all__ = ["Evaluation", "evaluate_cohort"]


class Evaluation(BaseModel):
    """What `scores.json` holds.

    Parameters
    ----------
    preset, convention
        The name, and all that it stands for.
    input
        What the maps were read as.
    edge_cases
        What medseg's own figures are where there is nothing to compare; those of the published figures are in the
        convention.
    cases
        One entry a case and region.
    cohort
        Of all cases; of the first region where the convention has regions.
    regions
        Of each region.
    strata
        Of each value of each stratum.
    versions
        Of the packages that can change a number.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    preset: str
    convention: Convention
    input: InputKind
    edge_cases: EdgeCase
    cases: tuple[CaseScores, ...]
    cohort: CohortScores
    regions: Mapping[str, CohortScores]
    strata: Mapping[str, Mapping[str, CohortScores]]
    versions: Mapping[str, str]


def evaluate_cohort(
    predictions: str | PathLike[str],
    references: str | PathLike[str],
    preset: str | Convention = "default",
    *,
    input_kind: InputKind | None = None,
    probabilities: str | PathLike[str] | None = None,
    excluded: str | PathLike[str] | None = None,
    like: str | PathLike[str] | None = None,
    groups: str | PathLike[str] | None = None,
    case_id: str | None = None,
    tolerance_mm: float = TOLERANCE_MM,
    overlap_only: bool = False,
    resamples: int = 10_000,
    seed: int = 0,
    monitor: Monitor | None = None,
) -> Evaluation:
    """Score predictions against references, all cases of two folders or one case of two files.

    Parameters
    ----------
    predictions, references
        Two files, or two folders whose files are paired by their path below the folder, without the suffix.
    preset
        Name of a convention, or a convention of one's own.
    input_kind
        "lesions": maps of lesion numbers; "semantic": maps of classes, separated by the preset's own rule;
        "detection-map": confidences of candidates; None: what the preset expects.
    probabilities
        Probability maps, a file or a folder as the predictions: they score the lesions.
    excluded
        Lesion maps of findings that count neither way, a file or a folder.
    like
        The scan that the maps lie in, for DICOM SEG and RTSTRUCT where no other map tells the grid; for folders, a
        folder with a scan for each case, by its name.
    groups
        A CSV table with `case_id`, and optionally `patient_id` and one column a stratum.
    case_id
        Name of the case, for two files.
    tolerance_mm
        Of the normalized surface Dice (NSD).
    overlap_only
        True: no surface distances, no diameters.
    resamples, seed
        Of the bootstrap over patients.
    monitor
        Told of each case.

    Returns
    -------
    Scores of every case, of the cohort, of regions and strata.

    Raises
    ------
    GridMismatch, InvalidLabelMap, ScanNotFound, UnreadableImage
        If a map cannot be read, or the maps of a case do not lie on one grid.
    UsageError
        If a pair is incomplete, or an option makes no sense.
    """
    convention = get_convention(preset)
    kind = input_kind or convention.input
    sides = [side for side in (predictions, references, probabilities, excluded) if side is not None]
    cases = pair_files(*sides, case_id=case_id) if len(sides) == 2 else _paired(sides, case_id)
    table = read_groups(groups, [case.case_id for case in cases]) if groups is not None else None
    reader = _Reader(convention, kind, probabilities is not None, excluded is not None, tolerance_mm, overlap_only)
    monitor = monitor or Monitor()
    monitor.expect(len(cases))
    scores: list[CaseScores] = []
    for case in cases:
        scores += reader.scores(case, grid_of(case, like))
        monitor.advance()
    return summarize(scores, convention, kind, table, resamples=resamples, seed=seed)


def _paired(sides: Sequence[str | PathLike[str]], case_id: str | None) -> list[CaseFiles]:
    """Pairs of more than two sides; a case is named by the reference, the second side."""
    order = [0, *range(2, len(sides)), 1]
    cases = pair_files(*(sides[n] for n in order), case_id=case_id)
    back = [order.index(n) for n in range(len(sides))]
    return [replace(case, files=tuple(case.files[n] for n in back)) for case in cases]


def summarize(
    scores: Sequence[CaseScores],
    convention: Convention,
    kind: InputKind,
    groups: Groups | None,
    *,
    resamples: int = 10_000,
    seed: int = 0,
) -> Evaluation:
    """The evaluation of cases that were scored one by one; parameters as `evaluate_cohort`."""
    patients = groups.patients if groups else None
    regions: dict[str, list[CaseScores]] = {}
    for case in scores:
        regions.setdefault(case.region or "", []).append(case)
    first = next(iter(regions.values()))

    def summary(cases: Sequence[CaseScores]) -> CohortScores:
        return summarize_cases(cases, patients, resamples=resamples, seed=seed)

    return Evaluation(
        preset=convention.name,
        convention=convention,
        input=kind,
        edge_cases=CORE_EDGE_CASES,
        cases=tuple(scores),
        cohort=summary(first),
        regions={name: summary(cases) for name, cases in regions.items() if name},
        strata={
            column: {
                value: summary([case for case in first if of[case.case_id] == value])
                for value in sorted(set(of.values()))
            }
            for column, of in (groups.strata if groups else {}).items()
        },
        versions=installed_versions(),
    )


class _Reader:
    """Reads and scores one case after the other."""

    def __init__(
        self,
        convention: Convention,
        kind: InputKind,
        has_probability: bool,
        has_excluded: bool,
        tolerance_mm: float,
        overlap_only: bool,
    ) -> None:
        self._convention, self._kind = convention, kind
        self._has_probability, self._has_excluded = has_probability, has_excluded
        self._tolerance_mm, self._overlap_only = tolerance_mm, overlap_only

    def scores(self, case: CaseFiles, grid: Geometry | None) -> list[CaseScores]:
        """One entry, or one a region; DICOM objects on the grid, if one is given."""
        prediction, reference = read_sides(case.files[:2], (self._kind, self._kind), grid)
        further: list[Path] = list(case.files[2:])
        probability = None
        if self._has_probability or self._kind == "detection-map":
            path = further.pop(0) if self._has_probability else case.files[0]
            probability = read_probability(path, prediction, case.case_id)
        excluded: LesionMap | None = read_lesions(further.pop(0), reference.geometry) if self._has_excluded else None
        regions: list[str | None] = list(self._convention.regions) if self._kind != "lesions" else []
        return [
            evaluate_case(
                prediction,
                reference,
                self._convention,
                case_id=case.case_id,
                region=region,
                probability=probability,
                excluded=excluded,
                tolerance_mm=self._tolerance_mm,
                overlap_only=self._overlap_only,
            )
            for region in (regions or [None])
        ]
