"""Figures of a cohort: over cases (macro), over all lesions and voxels (micro), by size, by stratum, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from medseg.errors import UsageError
from medseg.evaluation.bootstrap import Estimate, Interval, Resampler, bootstrap_mean
from medseg.evaluation.scores import CaseScores, findings_of
from medseg.metrics.calibration import Calibration, calibrate
from medseg.metrics.detection import (
    CPM_RATES,
    Findings,
    SizeClass,
    area_under_roc,
    average_precision,
    froc,
    sensitivity_by_size,
)

__all__ = [
    "CohortScores",
    "DIAMETER_EDGES_MM",
    "Detection",
    "Interval",
    "MACRO",
    "bootstrap_mean",
    "summarize_cases",
]

MACRO = (
    "dice",
    "iou",
    "precision",
    "sensitivity",
    "f1",
    "sq",
    "pq",
    "hd95_penalized_mm",
    "assd_mm",
    "nsd",
    "volume_error_ml",
    "absolute_volume_error_ml",
    "relative_volume_error",
    "count_error",
    "absolute_count_error",
    "false_positive_volume_ml",
    "false_negative_volume_ml",
    "n_merges",
    "n_splits",
)
"""Figures of a case that are averaged over cases."""

DIAMETER_EDGES_MM = (10.0, 20.0)
"""RECIST 1.1: under 10 mm a lesion is not measurable."""

_ROC_RESAMPLES = 1_000  # as LUNA16 draws


class Detection(BaseModel):
    """Free-response detection; None where predictions have no scores, or there is no reference lesion.

    Parameters
    ----------
    cpm
        Mean sensitivity at 1/8, 1/4, 1/2, 1, 2, 4 and 8 false positives a scan.
    sensitivity_at
        Those sensitivities, by rate.
    ap, auroc, picai_score
        Average precision over lesions; area under the ROC over cases, whose score is that of their best prediction;
        the mean of the two.
    false_per_scan, sensitivity
        The curve.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    cpm: Estimate
    sensitivity_at: Mapping[str, float]
    ap: Estimate
    auroc: Estimate
    picai_score: Estimate
    false_per_scan: tuple[float, ...]
    sensitivity: tuple[float, ...]


class CohortScores(BaseModel):
    """Figures of several cases.

    Parameters
    ----------
    n_cases, n_patients, n_both_empty
        Cases, patients, and cases with neither a prediction nor a reference lesion (left out of most means).
    macro
        Mean over cases of each figure that a case defines, published ones under their own names.
    micro
        Ratios of sums over all cases.
    by_diameter, by_volume
        Sensitivity by longest diameter in mm (None without diameters), and by volume in ml, at the quartiles.
    detection
        FROC and what follows; None where predictions have no scores.
    calibration_of_lesions
        Scores of predicted lesions against whether they found a lesion; None without scores in 0..1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_cases: int
    n_patients: int
    n_both_empty: int
    n_reference: int
    n_prediction: int
    tp: int
    fp: int
    fn: int
    macro: Mapping[str, Estimate]
    micro: Mapping[str, Estimate]
    by_diameter_mm: tuple[SizeClass, ...] | None
    by_volume_ml: tuple[SizeClass, ...]
    detection: Detection | None
    calibration_of_lesions: Calibration | None


def summarize_cases(
    cases: Sequence[CaseScores], patients: Mapping[str, str] | None = None, *, resamples: int = 10_000, seed: int = 0
) -> CohortScores:
    """Summarize cases.

    Parameters
    ----------
    cases
        At least one, each case once.
    patients
        The patient of each case id; a case that is not in it is a patient of its own. Intervals are over patients.
    resamples
        Bootstrap samples.
    seed
        Of the resampling.

    Raises
    ------
    UsageError
        If there is no case.
    """
    if not cases:
        raise UsageError("a cohort needs at least one case")
    of = [(patients or {}).get(case.case_id, case.case_id) for case in cases]
    resampler = Resampler(of, resamples=resamples, seed=seed)
    return CohortScores(
        n_cases=len(cases),
        n_patients=resampler.n_patients,
        n_both_empty=sum(case.empty_case == "both_empty" for case in cases),
        **{
            name: sum(getattr(case, name) for case in cases)
            for name in ("n_reference", "n_prediction", "tp", "fp", "fn")
        },
        macro=_macro(cases, resampler),
        micro=_micro(cases, resampler),
        by_diameter_mm=_by_diameter(cases),
        by_volume_ml=_by_volume(cases),
        detection=_detection(cases, of, seed),
        calibration_of_lesions=_calibration(cases),
    )


def macro_values(case: CaseScores) -> dict[str, float | None]:
    """The figures of a case that are averaged: those of `MACRO` and the published ones."""
    absolute = {
        "absolute_volume_error_ml": abs(case.volume_error_ml),
        "absolute_count_error": float(abs(case.count_error)),
    }
    own = {name: absolute[name] if name in absolute else getattr(case, name) for name in MACRO}
    return {**own, **{name: value for name, value in case.values.items() if name not in own}}


def _macro(cases: Sequence[CaseScores], resampler: Resampler) -> dict[str, Estimate]:
    columns = [macro_values(case) for case in cases]
    names = dict.fromkeys(name for column in columns for name in column)
    return {name: resampler.mean([column.get(name) for column in columns]) for name in names}


def micro_parts(case: CaseScores) -> dict[str, tuple[float, float]]:
    """Numerator and denominator that a case adds to each pooled figure."""
    iou = sum(row.iou or 0.0 for row in case.lesions if row.outcome == "tp")
    return {
        "precision": (case.tp, case.tp + case.fp),
        "sensitivity": (case.tp, case.tp + case.fn),
        "f1": (2 * case.tp, 2 * case.tp + case.fp + case.fn),
        "sq": (iou, case.tp),
        "pq": (2 * iou, 2 * case.tp + case.fp + case.fn),
        "dice": (2 * case.shared_volume_ml, case.prediction_volume_ml + case.reference_volume_ml),
        "relative_volume_error": (case.volume_error_ml, case.reference_volume_ml),
        "false_positives_per_case": (case.fp, 1),
    }


def _micro(cases: Sequence[CaseScores], resampler: Resampler) -> dict[str, Estimate]:
    parts = [micro_parts(case) for case in cases]
    return {
        name: resampler.ratio([part[name][0] for part in parts], [part[name][1] for part in parts]) for name in parts[0]
    }


def _by_diameter(cases: Sequence[CaseScores]) -> tuple[SizeClass, ...] | None:
    rows = [row for case in cases for row in case.lesions if row.outcome in ("tp", "fn")]
    sizes = [row.reference_diameter_mm for row in rows if row.reference_diameter_mm is not None]
    if len(sizes) < len(rows):
        return None
    found = np.array([row.outcome == "tp" for row in rows], dtype=np.bool_)
    return tuple(sensitivity_by_size(np.array(sizes), found, DIAMETER_EDGES_MM))


def _by_volume(cases: Sequence[CaseScores]) -> tuple[SizeClass, ...]:
    rows = [row for case in cases for row in case.lesions if row.outcome in ("tp", "fn")]
    volumes = np.array([row.reference_volume_ml for row in rows], dtype=np.float64)
    found = np.array([row.outcome == "tp" for row in rows], dtype=np.bool_)
    edges = np.unique(np.quantile(volumes, (0.25, 0.5, 0.75))) if volumes.size else np.empty(0)
    return tuple(sensitivity_by_size(volumes, found, edges.tolist()))


def _detection(cases: Sequence[CaseScores], patients: Sequence[str], seed: int) -> Detection | None:
    parts = [findings_of(case) for case in cases]
    known = [part for part in parts if part is not None]
    curve = froc(Findings.joined(known))
    if len(known) < len(parts) or curve is None:
        return None
    confidence = np.array([_confidence(case) for case in cases])
    positive = np.array([case.n_reference > 0 for case in cases], dtype=np.bool_)

    def figures(which: Sequence[int]) -> tuple[float | None, ...]:
        findings = Findings.joined([known[n] for n in which])
        drawn = froc(findings)
        chosen = np.asarray(which, dtype=np.intp)
        auroc = area_under_roc(confidence[chosen[positive[chosen]]], confidence[chosen[~positive[chosen]]])
        ap = average_precision(findings)
        score = None if auroc is None or ap is None else (auroc + ap) / 2
        return drawn.cpm if drawn else None, ap, auroc, score

    names, index = np.unique(np.asarray(patients, dtype=object).astype(str), return_inverse=True)
    members = [np.flatnonzero(index == n) for n in range(names.size)]
    rng = np.random.default_rng(seed)
    drawn = [
        figures(np.concatenate([members[n] for n in rng.integers(0, names.size, names.size)]).tolist())
        for _ in range(_ROC_RESAMPLES if names.size > 1 else 0)
    ]
    estimates = [
        _estimate(value, [sample[n] for sample in drawn], len(cases))
        for n, value in enumerate(figures(range(len(cases))))
    ]
    return Detection(
        cpm=estimates[0],
        sensitivity_at={f"{rate:g}": value for rate, value in zip(CPM_RATES, curve.at(CPM_RATES), strict=True)},
        ap=estimates[1],
        auroc=estimates[2],
        picai_score=estimates[3],
        false_per_scan=tuple(curve.false_per_scan.tolist()),
        sensitivity=tuple(curve.sensitivity.tolist()),
    )


def _estimate(value: float | None, samples: list[float | None], n: int) -> Estimate:
    defined = [sample for sample in samples if sample is not None]
    if value is None or not defined:
        return Estimate(value=value, low=None, high=None, n=n)
    low, high = np.quantile(defined, (0.025, 0.975))
    return Estimate(value=value, low=float(low), high=float(high), n=n)


def _confidence(case: CaseScores) -> float:
    """The score of a case: that of its best prediction, 0 without one."""
    return max((row.score for row in case.lesions if row.score is not None), default=0.0)


def _calibration(cases: Sequence[CaseScores]) -> Calibration | None:
    rows = [row for case in cases for row in case.lesions if row.outcome in ("tp", "fp")]
    scores = [row.score for row in rows if row.score is not None]
    if not scores or len(scores) < len(rows) or max(scores) > 1 or min(scores) < 0:
        return None
    return calibrate(np.array(scores), np.array([row.outcome == "tp" for row in rows], dtype=np.bool_))
