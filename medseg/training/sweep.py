"""What every setting finds in every held-out case.

Voxels are marked and lesions separated once for each threshold and separation. A least volume and a least intensity
then only take lesions out again: a lesion's volume is its own, and its region, all of whose lesions go together, is
whole or not at all. So all of these are tried on the counts of voxels that lesions share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medseg.core.lesions import LesionMap
from medseg.lesions.components import label_components
from medseg.lesions.separate import separate_lesions, smallest_voxel_count
from medseg.metrics.contingency import Contingency, tabulate
from medseg.metrics.matching import Candidates, assign, overlap_candidates
from medseg.metrics.overlap import dice_of_counts
from medseg.metrics.presets import get_convention
from medseg.training.held_out import HeldOut
from medseg.training.settings import Space

__all__ = ["Counts", "PRESET", "count_case"]

PRESET = "default"
"""How lesions are matched: the convention of `medseg evaluate`."""


@dataclass(frozen=True, eq=False)
class Counts:
    """What settings find: arrays (settings, cases), found, false and missed lesions int64, Dice float64 with NaN."""

    tp: NDArray[np.int64]
    fp: NDArray[np.int64]
    fn: NDArray[np.int64]
    dice: NDArray[np.float64]

    @classmethod
    def joined(cls, columns: Sequence[Counts]) -> Counts:
        """Those of several cases, (settings, 1) each."""
        return cls(
            tp=np.concatenate([one.tp for one in columns], axis=1),
            fp=np.concatenate([one.fp for one in columns], axis=1),
            fn=np.concatenate([one.fn for one in columns], axis=1),
            dice=np.concatenate([one.dice for one in columns], axis=1),
        )

    def chosen(self, settings: NDArray[np.intp] | slice, cases: NDArray[np.intp] | slice) -> Counts:
        """Some settings on some cases."""
        return Counts(
            tp=self.tp[settings][:, cases],
            fp=self.fp[settings][:, cases],
            fn=self.fn[settings][:, cases],
            dice=self.dice[settings][:, cases],
        )


def count_case(case: HeldOut, space: Space) -> Counts:
    """What each setting of a space, in the order of `space.settings()`, finds in a case: (settings, 1)."""
    found = np.empty((*space.shape, 4))
    for first, threshold in enumerate(space.thresholds):
        semantic = case.marked(threshold)
        regions, n_regions = label_components((semantic.array > 0).astype(np.uint8), connectivity=26)
        peaks = np.full(n_regions + 1, -np.inf, dtype=np.float32)
        inside = regions > 0
        np.maximum.at(peaks, regions[inside], case.intensity[inside])
        for second, separation in enumerate(space.separations):
            lesions = separate_lesions(semantic, separation)
            region = _regions_of(lesions, regions)
            found[first, second] = _Tables.of(lesions, case.reference, peaks[region]).all_of(space)
    tp, fp, fn, dice = found.reshape(-1, 1, 4).transpose(2, 0, 1)
    return Counts(tp.astype(np.int64), fp.astype(np.int64), fn.astype(np.int64), dice)


def _regions_of(lesions: LesionMap, regions: NDArray[np.uint32]) -> NDArray[np.intp]:
    """(n,) the 26-connected region of the foreground that each lesion is part of."""
    inside = lesions.array > 0
    found = np.zeros(lesions.n_lesions + 1, dtype=np.intp)
    found[lesions.array[inside]] = regions[inside]
    return found[1:]


@dataclass(frozen=True, eq=False)
class _Tables:
    """One lesion map against the reference, and the peak of the region of each lesion."""

    table: Contingency
    candidates: Candidates
    peaks: NDArray[np.float32]
    lesions: LesionMap

    @classmethod
    def of(cls, lesions: LesionMap, reference: LesionMap, peaks: NDArray[np.float32]) -> _Tables:
        table = tabulate(lesions.array, reference.array, lesions.n_lesions, reference.n_lesions)
        return cls(table, overlap_candidates(table, get_convention(PRESET).matching), peaks, lesions)

    def all_of(self, space: Space) -> NDArray[np.float64]:
        """(volumes, peaks, 4)."""
        results = np.empty((len(space.volumes_ml), len(space.peaks), 4))
        known: dict[bytes, tuple[float, float, float, float]] = {}
        for n, volume_ml in enumerate(space.volumes_ml):
            is_large = self.table.prediction_voxels >= smallest_voxel_count(volume_ml, self.lesions.geometry)
            for m, peak in enumerate(space.peaks):
                kept = is_large if peak is None else is_large & (self.peaks >= np.float32(peak))
                key = kept.tobytes()
                if key not in known:
                    known[key] = self._with(kept)
                results[n, m] = known[key]
        return results

    def _with(self, kept: NDArray[np.bool_]) -> tuple[float, float, float, float]:
        """Counts and Dice where only these lesions are predicted."""
        table = self.table
        matching = assign(
            self.candidates.chosen(kept[self.candidates.prediction - 1]), table, get_convention(PRESET).matching
        )
        n_found = int(np.count_nonzero(matching.found))
        shared = int(table.shared_voxels[kept[table.prediction - 1]].sum())
        predicted, referenced = int(table.prediction_voxels[kept].sum()), int(table.reference_voxels.sum())
        dice = dice_of_counts(shared, predicted, referenced)
        n_false = int(np.count_nonzero(kept & ~matching.used & ~matching.spared))
        return n_found, n_false, table.n_reference - n_found, np.nan if dice is None else dice
