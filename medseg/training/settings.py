"""Settings of an operating point: what may be changed of a plan without training anew, and which values are tried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal, TypeVar, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict

from medseg.core.plan import Plan, SeparationPlan, with_changes
from medseg.errors import UsageError
from medseg.training.held_out import HeldOutSummary

__all__ = ["Setting", "Settings", "Space", "space_of"]

T = TypeVar("T")
Setting = Literal["foreground_threshold", "least_peak", "minimum_volume_ml", "separation"]

_THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_H_FACTORS = (1.0, 0.5, 2.0, 3.0)
_H_FRACTIONS = (0.1, 0.2, 0.3)
_PEAK_HEATS = (0.1, 0.2, 0.3, 0.5)
_VOTE_FRACTIONS = (0.75, 1.0, 1.5)
_SHARE_BELOW = 0.1  # of the reference lesions
_VOLUME_SERIES = (1.0, 2.0, 5.0)
_PEAK_SERIES = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 7.0)


class Settings(BaseModel):
    """What may be changed of a plan without training anew; fields of its parts `inference` and `separation`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    foreground_threshold: float | None
    least_peak: float | None
    minimum_volume_ml: float
    method: Literal["auto", "components", "watershed", "offsets"]
    h_min_mm: float
    h_fraction: float
    peak_heat: float
    vote_fraction: float

    @classmethod
    def of(cls, plan: Plan) -> Settings:
        """Those of a plan."""
        parts = {**plan.inference.model_dump(), **plan.separation.model_dump()}
        return cls(**{name: parts[name] for name in cls.model_fields})

    def applied(self, plan: Plan) -> Plan:
        """The plan with these settings."""
        values = self.model_dump()
        of_inference = {name: values.pop(name) for name in ("foreground_threshold", "least_peak")}
        return with_changes(plan, {"inference": of_inference, "separation": values})

    def changes(self, before: Settings) -> dict[str, object]:
        """The fields that are not as they were, with their values."""
        return {name: value for name, value in self.model_dump().items() if value != getattr(before, name)}


@dataclass(frozen=True)
class Space:
    """The values that are tried, each with each; the plan's own come first.

    Parameters
    ----------
    own
        The plan's settings.
    thresholds
        Of the foreground probability; None for the likeliest class.
    separations
        With a minimum volume of 0.
    volumes_ml, peaks
        Least volumes of a lesion, and least intensities of a region (None: any).
    """

    own: Settings
    thresholds: tuple[float | None, ...]
    separations: tuple[SeparationPlan, ...]
    volumes_ml: tuple[float, ...]
    peaks: tuple[float | None, ...]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """How many values of each there are, in the order of `settings`."""
        return len(self.thresholds), len(self.separations), len(self.volumes_ml), len(self.peaks)

    def keeping(self, names: Sequence[str]) -> Space:
        """The same with some settings left as the plan has them.

        Raises
        ------
        UsageError
            If a name is none of `Setting`.
        """
        unknown = sorted(set(names) - set(get_args(Setting)))
        if unknown:
            raise UsageError(f"no setting {unknown[0]!r}; there are {', '.join(get_args(Setting))}")
        fields = {
            "foreground_threshold": "thresholds",
            "least_peak": "peaks",
            "minimum_volume_ml": "volumes_ml",
            "separation": "separations",
        }
        return replace(self, **{fields[name]: getattr(self, fields[name])[:1] for name in names})

    def settings(self) -> list[Settings]:
        """All combinations; the first is the plan's own."""
        names = ("method", "h_min_mm", "h_fraction", "peak_heat", "vote_fraction")
        return [
            Settings(
                foreground_threshold=threshold,
                least_peak=peak,
                minimum_volume_ml=volume,
                **{name: getattr(separation, name) for name in names},
            )
            for threshold, separation, volume, peak in product(
                self.thresholds, self.separations, self.volumes_ml, self.peaks
            )
        ]


def space_of(plan: Plan, cases: Sequence[HeldOutSummary]) -> Space:
    """What is tried for a plan on some cases.

    Thresholds go from 0.1 to 0.9. Least volumes are round numbers from a voxel on, least intensities, where the plan
    has one, from its own on; neither goes beyond what nine of ten reference lesions reach, for a limit that real
    lesions lie below would be the accident of a few cases. The depth of the watershed, or what parts centers, varies
    around the plan's own; a method that the plan names stays.
    """
    own = Settings.of(plan)
    is_half = own.foreground_threshold is None and len(plan.labels.classes) == 1  # the likeliest of two
    thresholds = [threshold for threshold in _THRESHOLDS if not (is_half and threshold == 0.5)]
    volumes = [volume for case in cases for volume in case.reference_ml]
    least_ml, most_ml = min(case.voxel_ml for case in cases), _reached_by_most(volumes)
    peaks: list[float | None] = []
    reference_peaks = [peak for case in cases for peak in case.reference_peaks]
    if own.least_peak is not None:
        peaks.extend(_round_numbers(own.least_peak, _reached_by_most(reference_peaks), _PEAK_SERIES))
    return Space(
        own,
        _with_own(own.foreground_threshold, thresholds),
        _separations(plan),
        _with_own(own.minimum_volume_ml, [0.0, *_round_numbers(least_ml, most_ml, _VOLUME_SERIES)]),
        _with_own(own.least_peak, peaks),
    )


def _separations(plan: Plan) -> tuple[SeparationPlan, ...]:
    own = plan.separation.model_copy(update={"minimum_volume_ml": 0.0})
    is_auto = own.method == "auto"
    has_heads = plan.network.instance_heads
    found = [own]
    if own.method == "offsets" or (is_auto and has_heads):
        for heat, fraction in product(_PEAK_HEATS, _VOTE_FRACTIONS):
            found.append(own.model_copy(update={"peak_heat": heat, "vote_fraction": fraction}))
    if own.method == "watershed" or is_auto:
        method = "watershed" if has_heads else own.method
        for factor, fraction in product(_H_FACTORS, sorted({own.h_fraction, *_H_FRACTIONS})):
            changes = {"method": method, "h_min_mm": own.h_min_mm * factor, "h_fraction": fraction}
            found.append(own.model_copy(update=changes))
    if is_auto:
        found.append(own.model_copy(update={"method": "components"}))
    return tuple(one for n, one in enumerate(found) if one not in found[:n])


def _with_own(own: T, others: Sequence[T]) -> tuple[T, ...]:
    return (own, *(other for other in dict.fromkeys(others) if other != own))


def _reached_by_most(values: Sequence[float]) -> float:
    """What nine of ten values reach; 0 for none."""
    return float(np.quantile(values, _SHARE_BELOW, method="lower")) if values else 0.0


def _round_numbers(low: float, high: float, series: Sequence[float]) -> list[float]:
    """Numbers of a series, times powers of ten, from `low` to `high`."""
    if not 0 < low <= high:
        return []
    first, last = int(np.floor(np.log10(low))), int(np.floor(np.log10(high)))
    numbers = [float(f"{step:g}e{power}") for power in range(first, last + 1) for step in series]
    return [number for number in numbers if low <= number <= high]
