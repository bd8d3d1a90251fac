"""The answer in words: what one system adds over another, on these scans."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medseg.evaluation.compare import FigureDifference

__all__ = ["TOPICS", "verdict_of"]

TOPICS = ("masks", "detection", "counts", "volumes", "diameters", "measurable lesions")


def verdict_of(
    figures: Mapping[str, FigureDifference],
    names: tuple[str, str],
    n_cases: int,
    n_patients: int,
    same_foreground: bool,
) -> tuple[str, ...]:
    """Sentences, the sum of it first, then one a topic.

    A difference is claimed only where its 95 % interval leaves out 0; many figures are looked at, so that one in twenty
    would do so by chance.

    Parameters
    ----------
    figures
        By name.
    names
        Of the systems.
    n_cases, n_patients
        What was compared.
    same_foreground
        Whether both mark the same voxels.
    """
    topics = {topic: [f for f in figures.values() if f.topic == topic] for topic in TOPICS}
    topics = {topic: found for topic, found in topics.items() if found}
    sentences = [_summary(topics, names, n_cases, n_patients)]
    if same_foreground:
        sentences.append(
            f"{names[0]} and {names[1]} mark the same voxels in every case: they differ only in how lesions are parted."
        )
    return (*sentences, *(_sentence(topic, found, names) for topic, found in topics.items()))


def _summary(
    topics: Mapping[str, list[FigureDifference]], names: tuple[str, str], n_cases: int, n_patients: int
) -> str:
    where = f"On these {n_cases} scans of {n_patients} patients" if n_cases > 1 else "On this scan"
    if n_patients < 2:
        return f"{where}, nothing can be concluded: an interval needs at least two patients. The figures are below."
    gains = [topic for topic, found in topics.items() if _sides(found) == {"b"}]
    losses = [topic for topic, found in topics.items() if _sides(found) == {"a"}]
    mixed = [topic for topic, found in topics.items() if _sides(found) == {"a", "b"}]
    unclear = [topic for topic, found in topics.items() if not _sides(found)]
    parts = [f"{names[1]} is better than {names[0]} in {_listed(gains)}"] if gains else []
    parts += [f"{names[0]} is better than {names[1]} in {_listed(losses)}"] if losses else []
    parts += [f"figures disagree in {_listed(mixed)}"] if mixed else []
    parts += [f"no difference is shown in {_listed(unclear)}"] if unclear else []
    return f"{where}: {'; '.join(parts)}."


def _sides(figures: list[FigureDifference]) -> set[str]:
    """Who is better in some figure of a topic."""
    return {str(figure.verdict) for figure in figures} & {"a", "b"}


def _sentence(topic: str, figures: list[FigureDifference], names: tuple[str, str]) -> str:
    parts = [_figure(figure, names) for figure in figures]
    return f"{topic.capitalize()}: {'; '.join(parts)}."


def _figure(figure: FigureDifference, names: tuple[str, str]) -> str:
    if figure.a is None or figure.b is None:
        return f"{figure.title}: not defined"
    text = f"{figure.title}: {names[0]} {figure.a:.3g}, {names[1]} {figure.b:.3g}"
    if figure.verdict == "equal":
        return f"{text} (equal in every case)"
    difference = figure.difference
    if difference.low is not None:
        text += f" (difference {difference.value:+.3g} [{difference.low:+.3g}, {difference.high:+.3g}])"
    winner = {"a": names[0], "b": names[1]}.get(figure.verdict)
    return f"{text}, {winner} better" if winner else f"{text}, no difference shown"


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
