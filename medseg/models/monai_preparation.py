"""What was read of a bundle's preprocessing."""

from __future__ import annotations

from dataclasses import dataclass, field

from medseg.core.steps import CropForeground, Orient, PreparationStep, Resize, Respace

__all__ = ["Preparation"]

_SPATIAL = (Orient, Respace, Resize, CropForeground)


@dataclass
class Preparation:
    """What was read of a bundle's preprocessing.

    Parameters
    ----------
    steps
        In order.
    image_keys
        Keys of the files that make up a case; several are joined as channels.
    n_guidance
        Channels that clicks would fill; None where no click is asked for, else whether the network has such channels.
    repairs
        Notes.
    """

    steps: list[PreparationStep] = field(default_factory=list)
    image_keys: list[str] = field(default_factory=list)
    takes_guidance: bool = False
    repairs: list[str] = field(default_factory=list)
    joined: str = ""

    @property
    def is_spatial(self) -> bool:
        """Whether a step moves voxels, so that the result has to be brought back."""
        return any(isinstance(step, _SPATIAL) for step in self.steps)
