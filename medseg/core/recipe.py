"""Recipe: what any model does to a scan, from loading to the semantic map, as one value with a hash.

A `Plan` says how a medseg model is trained; a recipe says how a model of any family is run: medseg's own, a MONAI
bundle, an nnU-Net folder. Weights and network are not in it.
"""

from __future__ import annotations

import hashlib
import json
from math import prod
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from medseg.core.labels import LabelScheme
from medseg.core.plan import NetworkPlan, Plan, SeparationPlan
from medseg.core.steps import MapIntensities, Orient, PreparationStep, Respace
from medseg.core.volume import Units

__all__ = ["ChannelSpec", "Family", "OutputPlan", "Recipe", "WindowPlan", "recipe_of", "smallest_divisor"]

Family = Literal["medseg", "monai", "nnunet"]
PositiveInt = Annotated[int, Field(ge=1)]
Triple = tuple[PositiveInt, PositiveInt, PositiveInt]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ChannelSpec(_Part):
    """One input channel: its name, DICOM modality ("" where unknown), and the voxel unit that it must be in."""

    name: str
    modality: str = ""
    units: Units = "stored"


class WindowPlan(_Part):
    """How windows are laid over the prepared image and blended.

    Parameters
    ----------
    patch_size
        (3,) voxels of a window; of a typical image where the network sees whole ones.
    overlap
        0..1, share of a window that the next one covers too.
    rule
        Where windows start. "monai": steps of int(side x (1 - overlap)), the last one moved inward; "nnunet": as
        many as steps of that size need, spread evenly.
    shrinks
        Whether the window shrinks to a smaller image, rounded up to `divisor`, but to two voxels at the network's
        coarsest level at least; else the image is padded to the window.
    divisor
        (3,) what each side of a window must be divisible by.
    blend, sigma_scale
        Weight of a voxel within its window; the Gaussian's sigma is `sigma_scale` times the side.
    padding, padding_value
        What an image smaller than the window is padded with, equally on both sides.
    per_batch
        Windows a batch.
    mirror_axes
        Axes mirrored at test time, every combination of them; logits are averaged.
    accumulates_half
        Whether nnU-Net's float16 sums are reproduced in exact runs.
    is_whole_image
        No windows: the network sees the whole image at once.
    """

    patch_size: Triple
    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.25
    rule: Literal["monai", "nnunet"] = "monai"
    shrinks: bool = False
    divisor: Triple = (1, 1, 1)
    blend: Literal["gaussian", "constant"] = "constant"
    sigma_scale: Annotated[float, Field(gt=0)] = 0.125
    padding: Literal["constant", "replicate", "reflect", "circular"] = "constant"
    padding_value: float = 0.0
    per_batch: PositiveInt = 1
    mirror_axes: tuple[Literal[0, 1, 2], ...] = ()
    accumulates_half: bool = False
    is_whole_image: bool = False


class OutputPlan(_Part):
    """How network outputs become class numbers on the scan's grid.

    Parameters
    ----------
    activation
        Of the logits, before or after interpolation as `interpolates` says.
    decision
        "argmax": the highest channel wins, ties to the lower; "threshold": channels above `threshold`, painted one
        over another in order.
    paint
        Class number of each output channel (0 is background); for "threshold" in the order of painting.
    paint_order
        For "threshold": output channels in the order in which they are painted; () for 0, 1, 2, ...
    threshold
        Above which a channel counts, after the activation.
    interpolates
        What is brought to the scan's grid: "probabilities" or "logits" linearly, or "labels" by nearest neighbor.
    interpolation_order
        0 or 1 (spline order of "probabilities" and "logits"); `order_z` for the axis that a preparation kept apart.
    resizes_back
        For a preparation that ends in a `Resize`: how that is undone, as `torch.nn.functional.interpolate` does it:
        "area", "floor" (its "nearest"), "corners" (linear with aligned corners); None for linear by voxel centers.
    rounds_to_half
        Whether interpolated logits are rounded to float16 before the decision, as nnU-Net does.
    keep_largest
        Class numbers of which only the largest component is kept, before interpolation for "labels", else after.
    keep_largest_connectivity
        6, 18 or 26.
    least_peak
        What is marked counts only where the first channel of the scan reaches this, in its own unit; None for all.
    foreground_threshold
        For "argmax" of "probabilities": a voxel is marked where anything but background is likelier than this, and its
        class is the likeliest of the others; None: the likeliest of all wins.
    has_instance_heads
        Whether the network also says where lesions have their centers.
    """

    activation: Literal["softmax", "sigmoid", "none"] = "softmax"
    decision: Literal["argmax", "threshold"] = "argmax"
    paint: tuple[Annotated[int, Field(ge=0, le=65535)], ...]
    paint_order: tuple[int, ...] = ()
    threshold: float = 0.5
    interpolates: Literal["probabilities", "logits", "labels"] = "probabilities"
    interpolation_order: Literal[0, 1] = 1
    order_z: Literal[0, 1] = 1
    resizes_back: Literal["area", "floor", "corners"] | None = None
    rounds_to_half: bool = False
    keep_largest: tuple[int, ...] = ()
    keep_largest_connectivity: Literal[6, 18, 26] = 26
    least_peak: float | None = None
    foreground_threshold: Annotated[float, Field(gt=0, lt=1)] | None = None
    has_instance_heads: bool = False

    @model_validator(mode="after")
    def _order_names_each_channel_once(self) -> Self:
        if self.paint_order and sorted(self.paint_order) != list(range(len(self.paint))):
            raise ValueError(f"paint_order must name each of {len(self.paint)} channels once; got {self.paint_order}")
        return self

    @model_validator(mode="after")
    def _threshold_is_of_probabilities(self) -> Self:
        if self.foreground_threshold is not None and (self.decision, self.interpolates, 0 in self.paint) != (
            "argmax",
            "probabilities",
            True,
        ):
            raise ValueError(
                "foreground_threshold needs the decision argmax, the interpolation of probabilities and a channel for "
                f"background; got {self.decision}, {self.interpolates}, channels of the classes {self.paint}"
            )
        return self


class Recipe(_Part):
    """Everything that a model does to a scan, in order.

    Parameters
    ----------
    name
        Name of the model.
    family
        Whose rules it follows; "exact" precision means the numbers of that family.
    channels
        Input channels in order.
    labels
        Classes of the semantic map.
    preparation
        Steps from the loaded scan to the network's input.
    windows, output, separation
        See the parts.
    repairs
        What had to be changed in the model's own files to run it, in words; goes into the provenance.
    """

    name: str
    family: Family
    channels: Annotated[tuple[ChannelSpec, ...], Field(min_length=1)]
    labels: LabelScheme
    preparation: tuple[PreparationStep, ...]
    windows: WindowPlan
    output: OutputPlan
    separation: SeparationPlan = SeparationPlan()
    repairs: tuple[str, ...] = ()

    @property
    def sha256(self) -> str:
        """Hexadecimal SHA-256 of the recipe's canonical JSON; a foreground threshold counts only where there is one."""
        document = self.model_dump(mode="json")
        if self.output.foreground_threshold is None:
            del document["output"]["foreground_threshold"]
        canonical = json.dumps(document, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()


def recipe_of(plan: Plan) -> Recipe:
    """How a model that was trained with a plan is run."""
    spacing = () if plan.spacing_mm is None else (Respace(spacing_mm=plan.spacing_mm),)
    inference = plan.inference
    return Recipe(
        name=plan.name,
        family="medseg",
        channels=tuple(ChannelSpec(name=c.name, modality=c.modality, units=c.units) for c in plan.channels),
        labels=plan.labels,
        preparation=(
            Orient(axcodes=plan.orientation),
            *spacing,
            MapIntensities(channels=tuple(channel.intensity for channel in plan.channels)),
        ),
        windows=WindowPlan(
            patch_size=inference.patch_size,
            overlap=inference.overlap,
            shrinks=not plan.network.is_nnunet,  # its instance norms need several voxels at the coarsest level
            divisor=smallest_divisor(plan.network),
            blend=inference.blend,
            per_batch=inference.windows_per_batch,
            mirror_axes=inference.mirror_axes,
        ),
        output=OutputPlan(
            paint=tuple(range(plan.labels.highest + 1)),
            least_peak=inference.least_peak,
            foreground_threshold=inference.foreground_threshold,
            has_instance_heads=plan.network.instance_heads,
        ),
        separation=plan.separation,
    )


def smallest_divisor(network: NetworkPlan) -> Triple:
    """The smallest numbers that each side of a window must be divisible by."""
    per_axis = [[s[axis] if isinstance(s, tuple) else s for s in network.strides] for axis in range(3)]
    return (prod(per_axis[0]), prod(per_axis[1]), prod(per_axis[2]))
