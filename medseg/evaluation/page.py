"""The page of an evaluation or a comparison: one HTML file with its figures, that needs nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from os import PathLike

from medseg.evaluation.bootstrap import Estimate
from medseg.evaluation.charts import Chart, Series, bland_altman, draw
from medseg.evaluation.cohort import CohortScores
from medseg.evaluation.compare import Comparison
from medseg.evaluation.evaluate import Evaluation
from medseg.evaluation.page_style import STYLE
from medseg.evaluation.scores import CaseScores, LesionScore
from medseg.metrics.detection import CPM_RATES, SizeClass
from medseg.metrics.presets import CORE_EDGE_CASES, Convention
from medseg.pages.frame import write_page

__all__ = ["write_comparison_page", "write_evaluation_page"]

_SITUATIONS = ("both_empty", "empty_reference", "empty_prediction", "no_match")
_CASE_COLUMNS = (
    "n_reference",
    "n_prediction",
    "tp",
    "fn",
    "fp",
    "f1",
    "pq",
    "dice",
    "nsd",
    "hd95_mm",
    "volume_error_ml",
)

System = tuple[str, CohortScores, Sequence[CaseScores]]


def write_evaluation_page(evaluation: Evaluation, path: str | PathLike[str]) -> None:
    """Write the page of an evaluation.

    Parameters
    ----------
    evaluation
        What `medseg.evaluate_cohort` returned.
    path
        The file; replaced if it is there.

    Raises
    ------
    OutputNotWritable
        If the folder cannot be written.
    """
    cohort = evaluation.cohort
    system: System = ("prediction", cohort, _first_region(evaluation.cases))
    body = [
        _convention(evaluation.convention, f"Maps read as {evaluation.input}."),
        f"<p>{_counts(cohort)}</p>",
        "<h2>Figures</h2>",
        _charts([system]),
        "<h2>Means over cases</h2>",
        _estimates(cohort.macro),
        "<h2>All lesions and voxels together</h2>",
        _estimates(cohort.micro),
        "<h2>Cases</h2>",
        _cases(evaluation.cases),
        _empty_cases(evaluation.convention),
    ]
    _write("Evaluation of lesions", body, path)


def write_comparison_page(comparison: Comparison, path: str | PathLike[str]) -> None:
    """Write the page of a comparison; parameters and errors as `write_evaluation_page`."""
    names = (comparison.name_a, comparison.name_b)
    systems: list[System] = [
        (names[0], comparison.a, comparison.cases_a),
        (names[1], comparison.b, comparison.cases_b),
    ]
    first, *others = comparison.verdict
    body = [
        f'<p class="verdict">{escape(first)}</p>',
        f"<ul>{''.join(f'<li>{escape(sentence)}</li>' for sentence in others)}</ul>",
        '<p class="quiet">A difference is claimed only where its 95 % bootstrap interval over patients leaves out 0. '
        f"{len(comparison.figures)} figures were looked at; one in twenty would do so by chance.</p>",
        "<h2>Side by side</h2>",
        _differences(comparison),
        "<h2>Figures</h2>",
        _charts(systems),
        _convention(comparison.convention, ""),
        _empty_cases(comparison.convention),
    ]
    _write(f"{names[0]} and {names[1]}", body, path)


def _write(title: str, body: Sequence[str], path: str | PathLike[str]) -> None:
    write_page(path, title, "\n".join(body), style=STYLE)


def _first_region(cases: Sequence[CaseScores]) -> list[CaseScores]:
    return [case for case in cases if case.region == cases[0].region]


def _counts(cohort: CohortScores) -> str:
    text = (
        f"{cohort.n_cases} case(s) of {cohort.n_patients} patient(s): {cohort.n_reference} reference and "
        f"{cohort.n_prediction} predicted lesions, {cohort.tp} found, {cohort.fn} missed, {cohort.fp} false."
    )
    if cohort.n_both_empty:
        text += f" {cohort.n_both_empty} case(s) with neither, left out of means that they do not define."
    return text


def _convention(convention: Convention, more: str) -> str:
    rule = convention.matching
    limit = {"center": "within its radius", "dilated": f"touching it grown by {rule.dilation_voxels} voxels"}.get(
        rule.by, f"{'above' if rule.strict else 'at least'} {rule.threshold:g}"
    )
    return (
        f'<p class="quiet">Convention <b>{escape(convention.name)}</b>: {escape(convention.title)}. Assignment: '
        f"{rule.assignment}, by {rule.by}, {limit}. {escape(convention.reference)}. {escape(more)}</p>"
    )


def _charts(systems: Sequence[System]) -> str:
    limits = f"Found lesions; dashed: mean and limits of agreement of {systems[-1][0]}."
    found = [
        (_by_size(systems), "Dots: share of reference lesions found; whiskers: 95 % Wilson intervals."),
        (_size_against_detection(systems), "Each reference lesion; one row for found and one for missed."),
        (_froc(systems), "Needs scores of the predicted lesions."),
        (_agreement(systems, "volume", "ml"), limits),
        (_agreement(systems, "diameter", "mm"), limits),
    ]
    figures = [
        f"<figure><figcaption>{escape(chart.title)}</figcaption>{draw(chart)}<p>{escape(note)}</p></figure>"
        for chart, note in found
        if chart is not None
    ]
    return f'<div class="grid">{"".join(figures)}</div>' if figures else "<p>No lesion, no figure.</p>"


def _by_size(systems: Sequence[System]) -> Chart | None:
    """Sensitivity by class of the longest diameter, or of volume without diameters."""
    use_diameter = all(cohort.by_diameter_mm is not None for _, cohort, _ in systems)
    classes = [cohort.by_diameter_mm or () if use_diameter else cohort.by_volume_ml for _, cohort, _ in systems]
    series = tuple(
        _class_series(name, found, (number - (len(systems) - 1) / 2) * 0.16)
        for number, ((name, _, _), found) in enumerate(zip(systems, classes, strict=True))
    )
    if not any(one.points for one in series):
        return None
    return Chart(
        "Lesion size against detection, by class",
        "longest diameter (mm)" if use_diameter else "volume (ml)",
        "sensitivity",
        series,
        x_ticks=tuple((float(n), f"{_class_name(c)} (n={c.n})") for n, c in enumerate(classes[0])),
        x_range=(-0.5, len(classes[0]) - 0.5),
        y_range=(-0.03, 1.03),
    )


def _class_series(name: str, classes: Sequence[SizeClass], shift: float) -> Series:
    filled = [(n + shift, c) for n, c in enumerate(classes) if c.sensitivity is not None]
    return Series(
        name,
        tuple((x, c.sensitivity or 0.0) for x, c in filled),
        whiskers=tuple((c.interval_low or 0.0, c.interval_high or 0.0) for _, c in filled),
        hints=tuple(f"{c.n_found} of {c.n}" for _, c in filled),
    )


def _class_name(size: SizeClass) -> str:
    return f"{size.low:.3g} or more" if size.high is None else f"{size.low:.3g}-{size.high:.3g}"


def _size_against_detection(systems: Sequence[System]) -> Chart | None:
    series = []
    for number, (name, _, cases) in enumerate(systems):
        rows = [(case, row) for case, row in _rows(cases) if row.outcome in ("tp", "fn") and row.reference_volume_ml]
        # spread by lesion number, so that lesions of one size do not hide each other
        points = tuple(
            (row.reference_volume_ml or 0.0, float(row.outcome == "tp") + _spread(n) - 0.18 * number)
            for n, (_, row) in enumerate(rows)
        )
        series.append(Series(name, points, hints=tuple(_hint(case, row) for case, row in rows)))
    if not any(one.points for one in series):
        return None
    return Chart(
        "Lesion size against detection",
        "volume of the reference lesion (ml)",
        "",
        tuple(series),
        x_log=True,
        y_ticks=((0.0, "missed"), (1.0, "found")),
        y_range=(-0.5, 1.5),
    )


def _spread(n: int) -> float:
    """-0.12 to 0.12, neighbors far apart."""
    return 0.24 * math.modf(n * 0.6180339887)[0] - 0.12


def _froc(systems: Sequence[System]) -> Chart | None:
    series = []
    for name, cohort, _ in systems:
        if cohort.detection is None:
            continue
        curve = cohort.detection
        points = zip(curve.false_per_scan, curve.sensitivity, strict=True)
        shown = tuple((max(x, CPM_RATES[0] / 2), y) for x, y in points)
        series.append(Series(f"{name}, CPM {curve.cpm.value:.3f}", shown, is_curve=True))
    if not series:
        return None
    return Chart(
        f"FROC: {', '.join(one.name for one in series)}",
        "false positives per scan",
        "sensitivity",
        tuple(series),
        x_log=True,
        x_ticks=tuple((rate, f"{rate:g}") for rate in CPM_RATES),
        x_range=(CPM_RATES[0] / 2, max(CPM_RATES[-1], *(x for one in series for x, _ in one.points)) * 1.05),
        y_range=(0.0, 1.03),
    )


def _agreement(systems: Sequence[System], what: str, unit: str) -> Chart | None:
    """Bland-Altman chart of found lesions."""
    pairs = []
    for name, _, cases in systems:
        found = []
        for case, row in _rows(cases):
            prediction = row.prediction_volume_ml if what == "volume" else row.prediction_diameter_mm
            reference = row.reference_volume_ml if what == "volume" else row.reference_diameter_mm
            if row.outcome == "tp" and prediction is not None and reference is not None:
                found.append((prediction, reference, _hint(case, row)))
        pairs.append((name, found))
    title = f"Agreement of {'volume' if what == 'volume' else 'longest diameter'} (Bland-Altman)"
    return bland_altman(title, unit, pairs)


def _rows(cases: Sequence[CaseScores]) -> Iterable[tuple[CaseScores, LesionScore]]:
    return ((case, row) for case in cases for row in case.lesions)


def _hint(case: CaseScores, row: LesionScore) -> str:
    return f"{case.case_id}, lesion {row.reference_id}: {row.reference_volume_ml:.3g} ml"


def _estimates(estimates: object) -> str:
    rows = [
        f"<tr><th>{escape(name)}</th><td>{_number(e.value)}</td><td>{_interval(e)}</td><td>{e.n}</td></tr>"
        for name, e in dict(estimates).items()  # type: ignore[call-overload]
    ]
    return _table(("", "value", "95 % interval", "cases"), rows)


def _differences(comparison: Comparison) -> str:
    words = {"a": f"{comparison.name_a} better", "b": f"{comparison.name_b} better"}
    rows = [
        f"<tr><th>{escape(f.title)}</th><td>{_number(f.a)}</td><td>{_number(f.b)}</td>"
        f"<td>{_number(f.difference.value)}</td><td>{_interval(f.difference)}</td>"
        f'<td class="text">{escape(words.get(f.verdict, f.verdict))}</td></tr>'
        for f in comparison.figures.values()
    ]
    return _table(("", comparison.name_a, comparison.name_b, "difference", "95 % interval", "verdict"), rows)


def _cases(cases: Sequence[CaseScores]) -> str:
    rows = []
    for case in cases:
        name = case.case_id if case.region is None else f"{case.case_id}, {case.region}"
        cells = "".join(f"<td>{_number(getattr(case, column))}</td>" for column in _CASE_COLUMNS)
        rows.append(
            f'<tr><th>{escape(name)}</th>{cells}<td class="text">{(case.empty_case or "").replace("_", " ")}</td></tr>'
        )
    return _table(("case", *_CASE_COLUMNS, "empty case"), rows)


def _empty_cases(convention: Convention) -> str:
    tables = {"every preset": CORE_EDGE_CASES}
    if convention.published or convention.edge_cases != CORE_EDGE_CASES:
        tables[f"{convention.name}, published figures"] = convention.edge_cases
    rows = [
        f"<tr><th>{escape(name)}</th>"
        + "".join(f'<td class="text">{escape(getattr(edges, situation))}</td>' for situation in _SITUATIONS)
        + "</tr>"
        for name, edges in tables.items()
    ]
    heads = ("figures", *(situation.replace("_", " ") for situation in _SITUATIONS))
    return f"<h2>What the figures are in empty cases</h2>{_table(heads, rows)}"


def _table(heads: Sequence[str], rows: Sequence[str]) -> str:
    head = "".join(f'<th scope="col">{escape(word)}</th>' for word in heads)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _interval(estimate: Estimate) -> str:
    return "" if estimate.low is None else f"{_number(estimate.low)} to {_number(estimate.high)}"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.4g}"
