"""Charts as SVG text: points, whiskers, curves on linear or logarithmic axes. Equal input gives equal text.

Colors come from the page's style sheet (classes `s0`, `s1` for the series), so that charts follow light and dark.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape

__all__ = ["Chart", "Series", "bland_altman", "draw"]

_WIDTH, _HEIGHT = 460, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 14, 14, 48


@dataclass(frozen=True)
class Series:
    """What is drawn in one color.

    Parameters
    ----------
    name
        For the legend.
    points
        (x, y) each; `whiskers` gives (low, high) of y for each, or is empty.
    hints
        What a point says when it is pointed at; empty for nothing.
    is_curve
        True: a line through the points instead of dots.
    """

    name: str
    points: tuple[tuple[float, float], ...]
    whiskers: tuple[tuple[float, float], ...] = ()
    hints: tuple[str, ...] = ()
    is_curve: bool = False


@dataclass(frozen=True)
class Chart:
    """Axes and what is on them.

    Parameters
    ----------
    title, x_label, y_label
        Words; the units are in the labels.
    series
        At least one with a point.
    x_log
        Logarithmic x axis; every x is above 0.
    x_ticks, y_ticks
        Values and their words; empty for round numbers.
    x_range, y_range
        Ends of the axes; None follows from the points.
    lines
        Horizontal lines: y, word.
    """

    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    x_log: bool = False
    x_ticks: tuple[tuple[float, str], ...] = ()
    y_ticks: tuple[tuple[float, str], ...] = ()
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None
    lines: tuple[tuple[float, str], ...] = field(default=())


def draw(chart: Chart) -> str:
    """A chart as one `<svg>` element."""
    points = [point for series in chart.series for point in series.points]
    ends = [(y,) for series in chart.series for pair in series.whiskers for y in pair] + [(y,) for y, _ in chart.lines]
    x_range = chart.x_range or _range([x for x, _ in points], chart.x_log)
    y_range = chart.y_range or _range([y for _, y in points] + [y for (y,) in ends], False)
    to_x = _scale(x_range, (_LEFT, _WIDTH - _RIGHT), chart.x_log)
    to_y = _scale(y_range, (_HEIGHT - _BOTTOM, _TOP), False)
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(chart.title, quote=True)}">',
        *_axes(chart, x_range, y_range, to_x, to_y),
        *(
            f'<line class="level" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" {_at(y1=to_y(y), y2=to_y(y))}/>'
            f'<text class="word" text-anchor="end" {_at(x=_WIDTH - _RIGHT - 2, y=to_y(y) - 3)}>{escape(word)}</text>'
            for y, word in chart.lines
        ),
    ]
    for number, series in enumerate(chart.series):
        parts.append(f'<g class="s{number}">{_series(series, to_x, to_y)}</g>')
    if len(chart.series) > 1:
        parts += _legend(chart.series)
    return "\n".join([*parts, "</svg>"])


def bland_altman(
    title: str, unit: str, named_pairs: Sequence[tuple[str, Sequence[tuple[float, float, str]]]], *, log: bool = True
) -> Chart | None:
    """Difference against mean of prediction and reference, with mean difference and limits of agreement.

    Parameters
    ----------
    title
        Of the chart.
    unit
        Of both values.
    named_pairs
        For each series its name and (prediction, reference, hint) of each lesion.
    log
        Logarithmic axis of the mean.

    Returns
    -------
    None without a pair. The lines are those of the last series; the limits are the mean difference and 1.96 standard
    deviations to both sides, None of them for fewer than 2 pairs.

    References
    ----------
    Bland JM, Altman DG. Statistical methods for assessing agreement between two methods of clinical measurement.
    Lancet 327:307 (1986).
    """
    series = [
        Series(
            name,
            tuple(((p + r) / 2, p - r) for p, r, _ in pairs),
            hints=tuple(hint for _, _, hint in pairs),
        )
        for name, pairs in named_pairs
    ]
    if not any(one.points for one in series):
        return None
    differences = [y for _, y in series[-1].points]
    lines: tuple[tuple[float, str], ...] = ()
    if len(differences) > 1:
        mean = sum(differences) / len(differences)
        spread = math.sqrt(sum((d - mean) ** 2 for d in differences) / (len(differences) - 1))
        lines = tuple(
            (mean + 1.96 * side * spread, f"{word} {mean + 1.96 * side * spread:+.3g} {unit}")
            for side, word in ((-1, "-1.96 SD"), (0, "mean"), (1, "+1.96 SD"))
        )
    return Chart(
        title,
        f"mean of prediction and reference ({unit})",
        f"prediction minus reference ({unit})",
        tuple(series),
        x_log=log,
        lines=lines,
    )


def _range(values: Sequence[float], log: bool) -> tuple[float, float]:
    """Ends that hold all values with a margin."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    if log:
        return low / 1.3, high * 1.3
    margin = 0.06 * (high - low) or 0.5 * abs(high) or 1.0
    return low - margin, high + margin


def _scale(values: tuple[float, float], pixels: tuple[float, float], log: bool) -> Callable[[float], float]:
    bend: Callable[[float], float] = math.log if log else float
    low, high = bend(values[0]), bend(values[1])
    step = (pixels[1] - pixels[0]) / ((high - low) or 1.0)
    return lambda value: pixels[0] + (bend(value) - low) * step


def _axes(
    chart: Chart,
    x_range: tuple[float, float],
    y_range: tuple[float, float],
    to_x: Callable[[float], float],
    to_y: Callable[[float], float],
) -> list[str]:
    bottom = _HEIGHT - _BOTTOM
    parts = [f'<path class="axis" d="M{_LEFT} {_TOP}V{bottom}H{_WIDTH - _RIGHT}"/>']
    for value, word in chart.x_ticks or _ticks(x_range, chart.x_log):
        x = to_x(value)
        parts.append(f'<line class="axis" {_at(x1=x, x2=x, y1=bottom, y2=bottom + 4)}/>')
        parts.append(f'<text class="word" text-anchor="middle" {_at(x=x, y=bottom + 17)}>{escape(word)}</text>')
    for value, word in chart.y_ticks or _ticks(y_range, False):
        y = to_y(value)
        parts.append(f'<line class="axis" {_at(x1=_LEFT - 4, x2=_LEFT, y1=y, y2=y)}/>')
        parts.append(f'<text class="word" text-anchor="end" {_at(x=_LEFT - 7, y=y + 4)}>{escape(word)}</text>')
    middle_x, middle_y = (_LEFT + _WIDTH - _RIGHT) / 2, (_TOP + bottom) / 2
    parts.append(
        f'<text class="name" text-anchor="middle" {_at(x=middle_x, y=_HEIGHT - 10)}>{escape(chart.x_label)}</text>'
    )
    parts.append(
        f'<text class="name" text-anchor="middle" transform="translate(15 {middle_y:.1f}) rotate(-90)">'
        f"{escape(chart.y_label)}</text>"
    )
    return parts


def _ticks(ends: tuple[float, float], log: bool) -> list[tuple[float, str]]:
    """Four to eight round values within the ends."""
    low, high = ends
    if log:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        factors = (1,) if len(powers) > 5 else ((1, 3) if len(powers) > 2 else (1, 2, 5))
        values = [factor * 10.0**power for power in powers for factor in factors]
    else:
        rough = (high - low) / 5 or 1.0
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
        values = [step * n for n in range(math.ceil(low / step), math.floor(high / step) + 1)]
    return [(value, f"{value:.6g}") for value in values if low <= value <= high]


def _series(series: Series, to_x: Callable[[float], float], to_y: Callable[[float], float]) -> str:
    places = [(to_x(x), to_y(y)) for x, y in series.points]
    if series.is_curve:
        return f'<path class="curve" d="M{"L".join(f"{x:.1f} {y:.1f}" for x, y in places)}"/>'
    parts = [
        f'<line class="whisker" {_at(x1=x, x2=x, y1=to_y(low), y2=to_y(high))}/>'
        for (x, _), (low, high) in zip(places, series.whiskers, strict=False)
    ]
    for number, (x, y) in enumerate(places):
        hint = f"<title>{escape(series.hints[number])}</title>" if series.hints else ""
        parts.append(f'<circle r="3.2" {_at(cx=x, cy=y)}>{hint}</circle>')
    return "".join(parts)


def _legend(series: Sequence[Series]) -> list[str]:
    return [
        f'<g class="s{number}"><circle r="4" {_at(cx=_LEFT + 12, cy=_TOP + 8 + 16 * number)}/></g>'
        f'<text class="word" {_at(x=_LEFT + 21, y=_TOP + 12 + 16 * number)}>{escape(one.name)}</text>'
        for number, one in enumerate(series)
    ]


def _at(**places: float) -> str:
    return " ".join(f'{name}="{value:.1f}"' for name, value in places.items())
