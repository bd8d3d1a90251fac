"""RunOptions: what a user may choose about a run that the recipe does not say."""

from __future__ import annotations

from dataclasses import dataclass

from medseg.core.recipe import Recipe
from medseg.inference.device import Precision

__all__ = ["RunOptions"]


@dataclass(frozen=True)
class RunOptions:
    """Choices of one run.

    Parameters
    ----------
    mirror
        Whether axes are mirrored at test time, where the recipe names some. None: yes on a GPU, for medseg's own models
        (their published figures include it) and in exact runs; no on a CPU, where it takes up to eight times as long.
    skip_air
        Whether windows in which the scan holds nothing but air around the body are left out; they count as background.
    check_skipped
        How many of the skipped windows are run all the same, to see how much foreground is lost.
    max_memory_mib
        What the process may use, MiB; None for what the machine has.
    keeps_probability
        Whether the semantic map holds the probability of anything but background: four bytes a voxel.
    """

    mirror: bool | None = None
    skip_air: bool = False
    check_skipped: int = 0
    max_memory_mib: float | None = None
    keeps_probability: bool = True

    def mirror_axes(self, recipe: Recipe, device_type: str, precision: Precision) -> tuple[int, ...]:
        """The axes that are mirrored in a run."""
        is_wanted = self.mirror
        if is_wanted is None:
            is_wanted = device_type != "cpu" or recipe.family == "medseg" or precision == "exact"
        return recipe.windows.mirror_axes if is_wanted else ()
