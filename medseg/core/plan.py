"""Plan: every choice that turns a scan into lesions, as one value with a hash.

A plan is what a trained model knows beside its weights: which channels it wants and in which unit, the grid and the
intensities that its network saw, the network itself, how windows are laid, how lesions are separated. It round-trips
through JSON exactly; an unknown key is an error that names the nearest known one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from medseg.core.labels import LabelScheme
from medseg.core.volume import Units
from medseg.errors import InvalidPlan

__all__ = [
    "ChannelPlan",
    "InferencePlan",
    "IntensityPlan",
    "NetworkPlan",
    "Plan",
    "SeparationPlan",
    "TrainingPlan",
    "UNCLIPPED_STD",
    "with_changes",
]

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
PositiveInt = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
InnerShare = Annotated[float, Field(gt=0, lt=1)]
Triple = tuple[PositiveInt, PositiveInt, PositiveInt]

UNCLIPPED_STD = 1000.0
"""`low` and `high` of standardized intensities that stay as they are: no voxel is so far from its scan's mean."""


class _Part(BaseModel):
    # JSON has no infinity: a plan that held one would not be read back elsewhere
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class IntensityPlan(_Part):
    """How stored intensities become network input: clip to [low, high], transform, then (x - shift) / scale.

    `transform` "sqrt" takes the square root after clipping at `low` >= 0: PET uptake spans two orders of magnitude.
    `standardize` comes before all else: the scan's own mean and standard deviation become 0 and 1, those of all voxels
    ("scan") or of those that are not 0 ("nonzero"; zeros stay 0). It is for modalities without a unit, as MR; `low`
    and `high` are then standard deviations. It stands in JSON only where it is not "none".
    """

    low: float
    high: float
    transform: Literal["none", "sqrt"] = "none"
    shift: float = 0.0
    scale: Positive = 1.0
    standardize: Literal["none", "scan", "nonzero"] = "none"

    @model_validator(mode="after")
    def _clips_to_an_interval(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low must not lie above high; got {self.low:g} and {self.high:g}")
        if self.transform == "sqrt" and self.low < 0:
            raise ValueError(f"the square root needs low of at least 0; got {self.low:g}")
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_not_asked_for(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        document: dict[str, Any] = handler(self)
        if self.standardize == "none":  # so that plans and recipes from before the field keep their hashes
            del document["standardize"]
        return document


class ChannelPlan(_Part):
    """One input channel: its name, DICOM modality, the voxel unit it must be in, and its intensity mapping."""

    name: str
    modality: str
    units: Units = "stored"
    intensity: IntensityPlan


class NetworkPlan(_Part):
    """The 3-D U-Net: filters a level, strides between levels, residual units, normalization, dropout.

    `kind` "unet" halves the grid before its first level's features, "segresnet" keeps full resolution there, and so do
    nnU-Net's "plain_conv_unet" and "residual_encoder_unet", to whose networks weights go over by name.
    `residual_units` is one number for all levels; all but "unet" also take one a level of the contracting path. With
    several `members`, as many networks are trained from different seeds and their logits averaged. With
    `instance_heads` the network also says where lesions have their centers and how far each voxel is from its own.
    Trained weights are rounded to `weights_dtype`, scored so, and written so; they compute in float32 all the same.
    For nnU-Net's kinds alone: `kernels`, sides of the convolutions at each level (() for 3 everywhere);
    `decoder_units`, convolutions a level of the expanding path, from the coarsest up; `residual_units` are those of
    the contracting path, each a convolution ("plain_conv_unet") or a residual block.
    """

    kind: Literal["unet", "segresnet", "plain_conv_unet", "residual_encoder_unet"] = "unet"
    filters: tuple[PositiveInt, ...] = (16, 32, 64, 128)
    strides: tuple[PositiveInt | Triple, ...] = (2, 2, 2)
    residual_units: PositiveInt | tuple[PositiveInt, ...] = 2
    norm: Literal["instance", "batch"] = "instance"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    members: PositiveInt = 1
    instance_heads: bool = False
    weights_dtype: Literal["float32", "float16"] = "float32"
    kernels: tuple[PositiveInt | Triple, ...] = ()
    decoder_units: PositiveInt | tuple[PositiveInt, ...] = 2

    @property
    def is_nnunet(self) -> bool:
        """Whether the network is one of nnU-Net's."""
        return self.kind in ("plain_conv_unet", "residual_encoder_unet")


class InferencePlan(_Part):
    """How windows are laid over a scan: patch in voxels, overlap 0..1, blend, windows a batch, mirrored axes.

    Where a scan is smaller than the patch, the window shrinks to it, rounded up to what the network divides by; for
    nnU-Net's networks the scan is padded. What the network marks counts only where the first channel reaches
    `least_peak`, in its stored unit, somewhere in it.
    A voxel is marked where the probability of anything but background exceeds `foreground_threshold`, and its class is
    the likeliest one; without a threshold the likeliest of all, background among them, wins.
    """

    patch_size: Triple
    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.5
    blend: Literal["gaussian", "constant"] = "gaussian"
    windows_per_batch: PositiveInt = 4
    mirror_axes: tuple[Literal[0, 1, 2], ...] = ()
    least_peak: float | None = None
    foreground_threshold: InnerShare | None = None


class SeparationPlan(_Part):
    """How a semantic map becomes lesions.

    `method` "auto" is "offsets" where the network has instance heads, else the mm-distance watershed. Lesions never
    reach over two classes, but those that a region in `merge_regions` unites count as one.
    The h-maxima depth of the watershed is the larger of `h_min_mm` and `h_fraction` times the largest inscribed
    radius of the component. With `valley_share` s the watershed's distance is
    multiplied by 1 - s + s times the foreground probability, so that a valley of low probability parts lesions too.
    For "offsets": the least `peak_heat` of a center, the share `peak_prominence` of its heat by which every way to a
    hotter one must fall, the least distance `peak_distance_mm` of two, the largest distance from a center to the mean
    vote of its voxels as a share `vote_fraction` of the lesion's radius, the distance of mean votes as a share
    `merge_fraction` of the smaller lesion's radius below which two are one, and the fewest voxels `least_votes` of a
    lesion.
    """

    method: Literal["auto", "components", "watershed", "offsets"] = "auto"
    connectivity: Literal[6, 18, 26] = 26
    minimum_volume_ml: NotNegative = 0.0
    h_min_mm: NotNegative = 0.5
    h_fraction: NotNegative = 0.10
    valley_share: Share = 0.0
    merge_regions: tuple[str, ...] = ()
    peak_heat: Positive = 0.2
    peak_prominence: Annotated[float, Field(ge=0, lt=1)] = 0.1
    peak_distance_mm: NotNegative = 2.0
    vote_fraction: Positive = 1.0
    merge_fraction: NotNegative = 0.5
    least_votes: PositiveInt = 2


class TrainingPlan(_Part):
    """How the network was or will be trained.

    Of the samples, `phantom_share` are phantoms; of the others, `crop_share` are cut to a random part of their scan.
    Windows of scans larger than the patch are centered on a lesion with the chance `foreground_share`. The share
    `variation_share` of all samples is turned, scaled and varied in intensity; the others are only mirrored, voxel on
    voxel, which suits a set that is large and varied enough as it is.
    Every `validate_every` steps (0: never) held-out scans are segmented whole, and the weights of the best mean of Dice
    and lesion F1 are kept; after `patience` validations (0: any number) without a better one, training ends.
    With `deep_supervision` outputs of lower resolutions are trained too, which the trained network has no more.
    With `lesion_loss` "blob" the map is also scored for each lesion alone, so that small and touching ones count as
    much as others: for networks with instance heads, whose cases say which voxel is of which lesion. `owner_weight`
    is, for such networks, the weight of what it costs that a voxel's vote is nearer to another lesion's center.
    """

    steps: PositiveInt = 800
    batch_size: PositiveInt = 2
    learning_rate: Positive = 2e-3
    weight_decay: NotNegative = 1e-2
    warmup_steps: Annotated[int, Field(ge=0)] = 50
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.995
    foreground_share: Share = 0.67
    crop_share: Share = 0.0
    phantom_share: Share = 0.0
    variation_share: Share = 1.0
    checkpoint_every: PositiveInt = 200
    seed: int = 0
    validate_every: Annotated[int, Field(ge=0)] = 0
    patience: Annotated[int, Field(ge=0)] = 0
    deep_supervision: bool = False
    lesion_loss: Literal["none", "blob"] = "none"
    owner_weight: NotNegative = 0.0


_ADDED = {
    "network": ("instance_heads", "kernels", "decoder_units", "weights_dtype"),
    "inference": ("foreground_threshold",),
    "separation": (
        "valley_share",
        "merge_regions",
        "peak_heat",
        "peak_prominence",
        "peak_distance_mm",
        "vote_fraction",
        "merge_fraction",
        "least_votes",
    ),
    "training": ("validate_every", "patience", "variation_share", "deep_supervision", "lesion_loss", "owner_weight"),
    "heads_training": (
        "validate_every",
        "patience",
        "variation_share",
        "deep_supervision",
        "lesion_loss",
        "owner_weight",
    ),
}


class Plan(_Part):
    """All choices of one model.

    Parameters
    ----------
    name
        Name of the model.
    channels
        Input channels in order.
    labels
        Classes of the semantic map; the network has one output more, for background.
    orientation
        Axis codes of the network's grid.
    spacing_mm
        (3,) millimeters of the network's grid, or None for the scan's own.
    network, inference, separation, training
        See the parts.
    heads_training
        How instance heads are trained that a network is given afterwards; the rest of it stays as it is.
    """

    schema_version: Literal[1] = 1
    name: str
    channels: Annotated[tuple[ChannelPlan, ...], Field(min_length=1)]
    labels: LabelScheme
    orientation: Annotated[str, Field(pattern="^[LRPAIS]{3}$")] = "RAS"
    spacing_mm: tuple[Positive, Positive, Positive] | None
    network: NetworkPlan
    inference: InferencePlan
    separation: SeparationPlan = SeparationPlan()
    training: TrainingPlan = TrainingPlan()
    heads_training: TrainingPlan | None = None

    @field_validator("orientation")
    @classmethod
    def _names_each_direction_once(cls, orientation: str) -> str:
        if sorted("RAS"["RLAPSI".index(letter) // 2] for letter in orientation) != ["A", "R", "S"]:
            raise ValueError("an orientation is one letter each of R/L, A/P and S/I")
        return orientation

    @property
    def sha256(self) -> str:
        """Hexadecimal SHA-256 of the plan's canonical JSON.

        Fields that were added to this version of the schema count only where they are not at their default, so that a
        plan keeps its hash.
        """
        document = self.model_dump(mode="json")
        for part, names in _ADDED.items():
            value = getattr(self, part)
            for name in names if value is not None else ():
                if getattr(value, name) == type(value).model_fields[name].default:
                    del document[part][name]
        if self.heads_training is None:
            del document["heads_training"]
        canonical = json.dumps(document, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def to_json(self) -> str:
        """The plan as indented JSON text with a final newline."""
        return json.dumps(self.model_dump(mode="json"), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str, source: str = "plan") -> Self:
        """Read a plan.

        Parameters
        ----------
        text
            JSON text.
        source
            Where it came from, for the error message.

        Raises
        ------
        InvalidPlan
            If the text is no JSON, a key is unknown ("did you mean ...") or missing, or a value is out of range.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise InvalidPlan(f"{source}: {_explain(error, cls)}") from error


def with_changes(plan: Plan, changes: Mapping[str, Mapping[str, Any]]) -> Plan:
    """A plan with some fields of some parts changed, checked as a plan that is read.

    Parameters
    ----------
    plan
        The plan.
    changes
        New values by part and field, such as `{"training": {"steps": 100}}`.

    Raises
    ------
    InvalidPlan
        If a value is out of range, or a field is unknown.
    """
    document = plan.model_dump(mode="json")
    for part, values in changes.items():
        document[part].update(values)
    return Plan.from_json(json.dumps(document), source=f"plan {plan.name}")


def _explain(error: ValidationError, model: type[BaseModel]) -> str:
    return "; ".join(_explain_one(e, model) for e in error.errors(include_url=False))


def _explain_one(detail: Mapping[str, Any], model: type[BaseModel]) -> str:
    path = ".".join(str(part) for part in detail["loc"]) or "the file"
    if detail["type"] == "missing":
        return f"{path} is missing"
    if detail["type"] != "extra_forbidden":
        return f"{path}: {detail['msg']}; got {detail['input']!r}"
    key = str(detail["loc"][-1])
    near = get_close_matches(key, [name for name in _field_names(model) if name != key], n=1)
    return f"unknown key {path}" + (f"; did you mean {near[0]!r}?" if near else "")


def _field_names(model: type[BaseModel]) -> list[str]:
    parts = (Plan, ChannelPlan, IntensityPlan, NetworkPlan, InferencePlan, SeparationPlan, TrainingPlan, LabelScheme)
    return sorted({name for part in (model, *parts) for name in part.model_fields})
