"""An operating point in words: a section of the model card, a part of the page, lines on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from medseg.training.operating_point import Figures, OperatingPoint, Tried
from medseg.training.settings import Settings

__all__ = ["TITLE", "as_html", "as_lines", "as_markdown", "changes_in_words", "warnings_of"]

TITLE = "Operating point"

_HEAD = ("settings", "found", "false a scan", "lesion F1", "count error", "Dice")


def as_markdown(point: OperatingPoint) -> str:
    """The section of the model card, without its heading."""
    rows = "\n".join("| " + " | ".join(cells) + " |" for cells in _rows(point))
    return "\n\n".join(
        [
            _what(point),
            *(f"**{warning}**" for warning in warnings_of(point)),
            f"| {' | '.join(_HEAD)} |\n|{'---|' * len(_HEAD)}\n{rows}",
            _how(point),
            _stability(point),
            "All other figures of this card are at the settings that the plan had while it was trained.",
        ]
    )


def as_html(point: OperatingPoint) -> list[str]:
    """The part of the page of a cross-validation."""
    head = "".join(f'<th scope="col">{escape(word)}</th>' for word in _HEAD)
    rows = "".join(
        f"<tr><th>{escape(cells[0])}</th>{''.join(f'<td>{escape(cell)}</td>' for cell in cells[1:])}</tr>"
        for cells in _rows(point)
    )
    table = f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    return [
        f"<h2>{TITLE}</h2>",
        f"<p>{escape(_what(point))}</p>",
        *(f'<p class="notice">{escape(warning)}</p>' for warning in warnings_of(point)),
        table,
        f'<p class="quiet">{escape(_how(point))}</p>',
        f'<p class="quiet">{escape(_stability(point))}</p>',
    ]


def as_lines(point: OperatingPoint) -> list[str]:
    """What a terminal shows: the choice, then the table."""
    rows = [_HEAD, *_rows(point)]
    widths = [max(len(row[n]) for row in rows) for n in range(len(_HEAD))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [_what(point), "", *lines, "", _how(point), _stability(point)]


def warnings_of(point: OperatingPoint) -> list[str]:
    """What a user must know before relying on the point."""
    warnings = []
    if not point.is_met:
        warnings.append(
            f"None of the {point.n_settings} settings that were tried meets the aim {point.aim} on these cases; the "
            "nearest ones were chosen"
        )
    if not point.chosen.figures.tp:
        warnings.append("No lesion is found at this point: the network is not fit for use")
    return warnings


def changes_in_words(settings: Settings, before: Settings) -> str:
    """The settings that are not as they were."""
    changes = settings.changes(before)
    if not changes:
        return "as planned"
    return ", ".join(f"{name} {_value(value)}" for name, value in changes.items())


def _value(value: object) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _what(point: OperatingPoint) -> str:
    figures, changed = point.chosen.figures, changes_in_words(point.chosen.settings, point.before.settings)
    meaning = "the plan's own settings" if changed == "as planned" else changed
    return (
        f"Aim: {point.aim}. Chosen among {point.n_settings} settings, on {figures.n_cases} held-out cases with "
        f"{figures.tp + figures.fn} lesions from {point.n_folds} fold(s): {meaning}."
    )


def _rows(point: OperatingPoint) -> list[tuple[str, ...]]:
    """As planned, chosen, chosen without the own fold; then what else was to be had."""
    before = point.before.settings
    rows = [_row("as planned", point.before.figures)]
    rows.append(_row("chosen (optimistic: chosen on these cases)", point.chosen.figures))
    if point.without_own_fold is not None:
        rows.append(_row("chosen without each case's own fold (honest)", point.without_own_fold))
    others: Sequence[Tried] = [one for one in point.table if one.settings not in (before, point.chosen.settings)]
    return [*rows, *(_row(changes_in_words(one.settings, before), one.figures) for one in others)]


def _row(name: str, figures: Figures) -> tuple[str, ...]:
    n_reference = figures.tp + figures.fn
    return (
        name,
        f"{figures.tp} of {n_reference}",
        f"{figures.false_positives_per_scan:.2f}",
        *("-" if value is None else f"{value:.3f}" for value in (figures.lesion_f1,)),
        f"{figures.count_error:.2f}",
        "-" if figures.dice is None else f"{figures.dice:.3f}",
    )


def _how(point: OperatingPoint) -> str:
    return (
        "Each case was segmented by a network that was not trained on it. A lesion is found if a predicted one matches "
        f'it (convention "{point.preset}" of medseg evaluate: one to one, IoU above 0.5); count error is the mean '
        "difference between predicted and reference number of lesions. The figures of the chosen settings are "
        "optimistic, because they were chosen on the same cases; those without the own fold are not: each fold's cases "
        "are scored at settings chosen on the others. The further rows are the settings that no other one exceeds in "
        "lesions found without more false ones. The final network is trained on all cases, and the settings are "
        "carried over to it."
    )


def _stability(point: OperatingPoint) -> str:
    if not point.by_fold:
        return "With a single fold there are no figures that are not optimistic."
    before = point.before.settings
    parts = [
        f"without fold {one.fold} {changes_in_words(one.settings, before)}{'' if one.is_met else ' (aim not met)'}"
        for one in point.by_fold
    ]
    return f"Chosen on the other folds: {'; '.join(parts)}."
