"""nnU-Net's labels: what the network's outputs mean, and how they become class numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from medseg.core.labels import LabelScheme
from medseg.errors import InvalidBundle

__all__ = ["NnunetLabels", "labels_of"]


@dataclass(frozen=True)
class NnunetLabels:
    """What dataset.json says about classes.

    Parameters
    ----------
    scheme
        Classes of the semantic map.
    decision
        "argmax" over all classes, or "threshold" for regions that may overlap.
    paint
        Class number of each output; regions are painted one over another in this order.
    foreground
        All class numbers but background, as the second stage of a cascade sees them.
    """

    scheme: LabelScheme
    decision: Literal["argmax", "threshold"]
    paint: tuple[int, ...]
    foreground: tuple[int, ...]

    @property
    def n_outputs(self) -> int:
        """Outputs of the network."""
        return len(self.paint)


def labels_of(dataset: Mapping[str, Any], source: Path) -> NnunetLabels:
    """Read `labels` and `regions_class_order`; the ignore label has no output and is left out.

    Raises
    ------
    InvalidBundle
        If there are no labels but background, numbers are missing between them, or regions have no order.
    """
    labels = dataset.get("labels")
    if not isinstance(labels, Mapping) or labels.get("background") not in (0, "0"):
        raise InvalidBundle(f"{source}: labels must name background as 0; got {labels!r}")
    named = {name: _numbers(value) for name, value in labels.items() if name != "ignore"}
    numbers = sorted({number for united in named.values() for number in united})
    foreground = tuple(number for number in numbers if number != 0)
    if not foreground:
        raise InvalidBundle(f"{source}: no label but background, so there is nothing to segment")
    if any(len(united) > 1 for united in named.values()):
        return _regions(named, dataset.get("regions_class_order"), foreground, source)
    if numbers != list(range(len(numbers))):
        raise InvalidBundle(
            f"{source}: labels must be consecutive numbers from 0, as nnU-Net wants them; got {numbers}"
        )
    classes = {united[0]: name for name, united in named.items() if united[0] != 0}
    return NnunetLabels(LabelScheme(classes=classes), "argmax", tuple(numbers), foreground)


def _regions(
    named: Mapping[str, tuple[int, ...]], order: Any, foreground: tuple[int, ...], source: Path
) -> NnunetLabels:
    regions = {name: united for name, united in named.items() if set(united) != {0}}
    if not isinstance(order, list) or len(order) != len(regions):
        raise InvalidBundle(
            f"{source}: regions_class_order must name a class for each of the {len(regions)} regions "
            f"({', '.join(regions)}); got {order!r}"
        )
    paint = tuple(int(number) for number in order)
    painter = dict(zip(paint, regions, strict=True))
    alone = {united[0]: name for name, united in regions.items() if len(united) == 1}
    classes = {
        number: alone.get(number) or (f"{painter[number]} only" if number in painter else f"label {number}")
        for number in sorted({*foreground, *paint})
    }
    united = {name: tuple(number for number in numbers if number) for name, numbers in regions.items()}
    return NnunetLabels(LabelScheme(classes=classes, regions=united), "threshold", paint, foreground)


def _numbers(value: Any) -> tuple[int, ...]:
    return tuple(int(number) for number in value) if isinstance(value, list) else (int(value),)
