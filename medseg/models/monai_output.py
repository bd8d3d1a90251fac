"""The postprocessing of a bundle as an `OutputPlan`: what is done to the network's output, in whatever order.

Bundles interpolate probabilities and then decide, or decide and then interpolate labels, or never come back to the
scan's grid. Each of these becomes one of the plan's rules; where medseg does it differently, a note says so.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from medseg.core.recipe import OutputPlan
from medseg.core.steps import CropForeground, Resize, Respace
from medseg.errors import UnsupportedModel, UntrustedCode
from medseg.models.monai_code import known_class, own_code
from medseg.models.monai_config import BundleConfig
from medseg.models.monai_preparation import Preparation
from medseg.models.monai_steps import base_name, listed
from medseg.models.monai_values import Component, Lambda
from medseg.models.nested_regions import painted_regions

__all__ = ["Output", "read_output"]

_IGNORED = {
    "CastToType",
    "CopyItems",
    "DeleteItems",
    "EnsureType",
    "FromMetaTensor",
    "Identity",
    "SelectItems",
    "ToDevice",
}
_IGNORED |= {"ToNumpy", "ToTensor"}
_INVERT_DEFAULT_NEAREST = True


@dataclass
class Output:
    """What was read of a bundle's postprocessing so far; `plan` is the whole."""

    n_channels: int
    has_background: bool = True
    activation: Literal["softmax", "sigmoid", "none"] = "none"
    decision: Literal["argmax", "threshold", ""] = ""
    threshold: float = 0.5
    interpolates: Literal["probabilities", "logits", "labels", ""] = ""
    order: Literal[0, 1] = 1
    resizes_back: Literal["area", "floor", "corners"] | None = None
    paint: tuple[int, ...] = ()
    paint_order: tuple[int, ...] = ()
    keep_largest: tuple[int, ...] = ()
    connectivity: Literal[6, 18, 26] = 26
    is_one_hot: bool = False
    repairs: list[str] = field(default_factory=list)

    def plan(self) -> OutputPlan:
        """The plan, with what the bundle left open filled in."""
        first = 1 if self.decision == "threshold" and not self.has_background else 0
        paint = self.paint or tuple(range(first, self.n_channels + first))
        return OutputPlan(
            activation=self.activation,
            decision=self.decision or "argmax",
            paint=paint,
            paint_order=self.paint_order,
            threshold=self.threshold,
            interpolates=self.interpolates or "labels",
            interpolation_order=self.order,
            resizes_back=self.resizes_back,
            keep_largest=self.keep_largest,
            keep_largest_connectivity=self.connectivity,
        )


def read_output(
    transforms: Sequence[Component],
    config: BundleConfig,
    preparation: Preparation,
    n_channels: int,
    *,
    has_background: bool = True,
    paint: tuple[int, ...] = (),
) -> Output:
    """What a list of transforms does to the network's output.

    Parameters
    ----------
    transforms
        In order; those on other keys than the prediction are passed over.
    config
        For messages and for the bundle's own code.
    preparation
        What has to be undone.
    n_channels
        Of the network's output.
    has_background
        Whether channel 0 is background, where channels are thresholded.
    paint
        Class number of each channel, for a network that is asked for classes.

    Raises
    ------
    UntrustedCode
        If a transform is the bundle's own.
    UnsupportedModel
        If it is beyond an `OutputPlan`.
    """
    output = Output(n_channels, has_background, paint=paint)
    resamples_when_saved = False
    for transform in transforms:
        name = base_name(transform)
        if name.startswith("Save"):
            resamples_when_saved |= "pred" in listed(transform.get("keys")) and bool(transform.get("resample", True))
        elif name not in _IGNORED and set(map(str, listed(transform.get("keys", "pred")))) & {"pred"}:
            _follow(name, transform, config, output)
    if not output.decision:
        output.decision = "argmax"
        output.repairs.append("the bundle writes its output undecided; the highest channel is taken")
    if preparation.is_spatial and not output.interpolates:
        how = "when it saves them" if resamples_when_saved else "nowhere"
        output.repairs.append(f"the bundle brings labels back to the scan {how}; here by nearest neighbor")
    if not output.interpolates:
        output.interpolates = "labels" if preparation.is_spatial else "probabilities"
    _resize_back(preparation, output)
    return output


def _resize_back(preparation: Preparation, output: Output) -> None:
    """How the last `Resize` is undone: nearest neighbor where `Invertd` says so, else as it was done."""
    steps = [step for step in preparation.steps if isinstance(step, Resize)]
    if not steps:
        return
    if any(isinstance(step, (Respace, CropForeground)) for step in preparation.steps):
        output.repairs.append("resizing is undone in one step with what came before it")
    mode = "nearest" if output.order == 0 or output.interpolates == "labels" else steps[-1].mode
    if mode == "area":
        output.resizes_back = "area"
    elif mode == "nearest":
        output.resizes_back = "floor"
    elif mode == "nearest-exact":
        output.order = 0
    elif steps[-1].align_corners:
        output.resizes_back = "corners"


def _follow(name: str, transform: Component, config: BundleConfig, output: Output) -> None:
    if "." in transform.target and not transform.target.startswith("monai."):
        if name != "MergeClasses" or not known_class(config, transform):
            raise own_code(config, transform.key, transform.target)
        _merge_lowest(output)
        return
    rule = _RULES.get(name)
    if rule is None:
        raise UnsupportedModel(
            f"{config.name}: transform {transform.target} ({transform.key}) is not one that medseg follows; "
            "--trust runs the bundle's own postprocessing through MONAI"
        )
    rule(transform, config, output)


def _unsupported(config: BundleConfig, transform: Component, what: str) -> UnsupportedModel:
    return UnsupportedModel(
        f"{config.name}: {transform.name} ({transform.key}) {what} is not within medseg's reach; "
        "--trust runs the bundle's own postprocessing through MONAI"
    )


def _for_prediction(transform: Component, argument: str, default: Any) -> Any:
    """An argument that may be given once for each key: the one for the prediction."""
    value = transform.get(argument, default)
    keys = [str(key) for key in listed(transform.get("keys", "pred"))]
    return value[keys.index("pred")] if isinstance(value, (list, tuple)) and len(value) == len(keys) else value


def _activate(transform: Component, config: BundleConfig, output: Output) -> None:
    if _for_prediction(transform, "other", None) is not None:
        other = _for_prediction(transform, "other", None)
        raise _code(config, f"{transform.key}::other", other)
    if output.decision:
        raise _unsupported(config, transform, "after the decision")
    if _for_prediction(transform, "softmax", False):
        output.activation = "softmax"
    elif _for_prediction(transform, "sigmoid", False):
        output.activation = "sigmoid"
    if output.interpolates and output.activation == "softmax":
        output.interpolates = "logits"


def _invert(transform: Component, config: BundleConfig, output: Output) -> None:
    if transform.get("post_func") is not None:
        raise _code(config, f"{transform.key}::post_func", transform.get("post_func"))
    is_nearest = bool(_for_prediction(transform, "nearest_interp", _INVERT_DEFAULT_NEAREST))
    if not output.decision:
        output.interpolates = "logits" if output.activation == "none" else "probabilities"
        output.order = 0 if is_nearest else 1
        return
    output.interpolates = "labels"
    if not is_nearest:
        output.repairs.append(
            "the bundle interpolates class numbers linearly, which makes numbers of no class; here the nearest is taken"
        )


def _decide(transform: Component, config: BundleConfig, output: Output) -> None:
    if _for_prediction(transform, "rounding", None) is not None:
        raise _unsupported(config, transform, "with rounding")
    if _for_prediction(transform, "argmax", False):
        output.decision = "argmax"
    threshold = _for_prediction(transform, "threshold", None)
    if threshold is not None and not isinstance(threshold, bool):
        if output.decision == "argmax":
            raise _unsupported(config, transform, "with a threshold after argmax")
        # MONAI counts what reaches the threshold, a plan what lies above it: the next lower float32 says the same
        lower = float(np.nextafter(np.float32(threshold), np.float32(-np.inf)))
        output.decision, output.threshold = "threshold", lower
    output.is_one_hot = _for_prediction(transform, "to_onehot", None) is not None


def _keep_largest(transform: Component, config: BundleConfig, output: Output) -> None:
    if not transform.get("independent", True) or transform.get("num_components", 1) != 1:
        raise _unsupported(config, transform, "for several classes or components at once")
    if not output.decision:
        raise _unsupported(config, transform, "before the decision")
    connectivity = transform.get("connectivity")
    output.connectivity = {None: 26, 1: 6, 2: 18, 3: 26}[connectivity]  # type: ignore[assignment]
    labels = transform.get("applied_labels")
    channels = range(output.n_channels) if labels is None else [int(label) for label in listed(labels)]
    shift = 1 if output.decision == "threshold" and output.n_channels > 1 and not output.has_background else 0
    output.keep_largest = tuple(channel + shift for channel in channels if channel + shift > 0)
    if output.interpolates == "labels":
        output.repairs.append("the largest component is kept before labels are brought back to the scan, not after")


def _function(transform: Component, config: BundleConfig, output: Output) -> None:
    functions = [function for function in listed(transform.get("func")) if function is not None]
    for function in functions:
        body = function.node.body if isinstance(function, Lambda) else None
        if body is not None and _only_fills_nan(body):
            continue
        regions = None if body is None else painted_regions(body, output.n_channels)
        if regions is None or output.decision == "argmax":
            raise _code(config, f"{transform.key}::func", function)
        if output.decision != "threshold":
            output.decision, output.threshold = "threshold", regions.threshold
        output.paint, output.paint_order = regions.paint, regions.order


def _only_fills_nan(body: ast.expr) -> bool:
    return (
        isinstance(body, ast.Call)
        and ast.unparse(body.func) == "torch.nan_to_num"
        and isinstance(body.args[0], ast.Name)
    )


def _code(config: BundleConfig, key: str, function: Any) -> UntrustedCode:
    shown = function.source if isinstance(function, Lambda) else str(getattr(function, "target", function))
    return UntrustedCode(
        f"{config.name}: {key} would run code of the bundle: {shown!r}. medseg knows painting of nested regions by "
        "torch.where; --trust runs it, if you know where it comes from"
    )


def _take_asked(transform: Component, config: BundleConfig, output: Output) -> None:
    """The likeliest of the classes that were asked for, background where none has a positive logit."""
    if not output.paint or output.activation != "none":
        raise _unsupported(config, transform, "behind a network that is not asked for classes")
    output.decision = "argmax"


def _merge_lowest(output: Output) -> None:
    """Of the channels above the threshold the lowest number but 0: painted from the highest down."""
    output.paint = tuple(range(output.n_channels))
    output.paint_order = (0, *range(output.n_channels - 1, 0, -1))


_RULES: dict[str, Callable[[Component, BundleConfig, Output], None]] = {
    "Activations": _activate,
    "AsDiscrete": _decide,
    "Invert": _invert,
    "KeepLargestConnectedComponent": _keep_largest,
    "Lambda": _function,
    "VistaPostTransform": _take_asked,
}
