"""The preprocessing of a bundle as steps of a recipe: MONAI's own transforms, one function for each."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from typing import Any

from medseg.core.steps import (
    CropForeground,
    Normalize,
    Orient,
    PreparationStep,
    Resize,
    Respace,
    ScalePercentiles,
    ScaleRange,
    ScaleToRange,
)
from medseg.errors import UnsupportedModel, UntrustedCode
from medseg.models.monai_code import known_class, own_code
from medseg.models.monai_config import BundleConfig
from medseg.models.monai_preparation import Preparation
from medseg.models.monai_values import Component, Lambda, Symbol

__all__ = ["base_name", "listed", "prepare_steps", "transforms_of"]

_IGNORED = {
    "AddChannel",
    "CastToType",
    "DeleteItems",
    "EnsureChannelFirst",
    "EnsureType",
    "FromMetaTensor",
    "Identity",
    "SelectItems",
    "ToDevice",
    "ToNumpy",
    "ToTensor",
    "VistaPreTransform",  # of the classes that are asked for, not of the image
}
_GUIDANCE = {
    "AddGuidanceFromPointsDeepEdit",
    "AddGuidanceSignalDeepEdit",
    "DiscardAddGuidance",
    "OrientationGuidanceMultipleLabelDeepEdit",
    "ResizeGuidanceMultipleLabelDeepEdit",
}


def transforms_of(value: Any, config: BundleConfig, key: str) -> list[Component]:
    """The transforms in a Compose, nested ones unfolded.

    Raises
    ------
    UntrustedCode
        If one is no component.
    """
    if isinstance(value, Component):
        if value.name != "Compose":
            return [value]
        value = value.get("transforms", value.positional[0] if value.positional else [])
    if value is None:
        return []
    if not isinstance(value, (list, tuple)):
        raise own_code(config, key, f"{type(value).__name__} in place of transforms")
    return [one for item in value for one in transforms_of(item, config, key)]


def prepare_steps(transforms: Sequence[Component], config: BundleConfig) -> Preparation:
    """The steps behind a list of transforms.

    Raises
    ------
    UntrustedCode
        If a transform is the bundle's own.
    UnsupportedModel
        If one of MONAI's is beyond medseg, or has an argument that it does not follow.
    """
    found = Preparation()
    for transform in transforms:
        name = base_name(transform)
        if name.startswith("Load"):
            _load(transform, found)
            continue
        if not _concerns_image(transform, found):
            continue
        if name in _IGNORED:
            continue
        if name in _GUIDANCE:
            _guidance(transform, config, found)
            continue
        if name in {"ConcatItems", "ConcatImages"}:
            _join(transform, config, found)
            continue
        _add(found, _step(name, transform, config, found))
    if len(found.image_keys) > 1 and not found.joined:
        raise UnsupportedModel(f"{config.name}: the images {', '.join(found.image_keys)} are never joined")
    return found


def base_name(component: Component) -> str:
    """A transform's name without the ending of its dictionary version."""
    for ending in ("Dict", "d", "D"):
        if component.name.endswith(ending) and len(component.name) > len(ending):
            return component.name.removesuffix(ending)
    return component.name


def listed(value: Any) -> list[Any]:
    """A list as it is, anything else as a list of one."""
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _keys(transform: Component) -> list[str]:
    return [str(key) for key in listed(transform.get("keys", ""))]


def _load(transform: Component, found: Preparation) -> None:
    found.image_keys = [key for key in _keys(transform) if key not in {"label", "labels", "mask", "seg"}]
    reader = transform.get("reader")
    if reader is not None:
        name = reader.last if isinstance(reader, Symbol) else str(reader)
        found.repairs.append(f"reader {name} replaced by medseg's own")


def _concerns_image(transform: Component, found: Preparation) -> bool:
    given = set(_keys(transform))
    return not given or given == {""} or bool(given & {*found.image_keys, found.joined})


def _guidance(transform: Component, config: BundleConfig, found: Preparation) -> None:
    if not transform.target.startswith("monai.") and "." in transform.target and not known_class(config, transform):
        raise own_code(config, transform.key, transform.target)
    if not found.takes_guidance:
        found.repairs.append("the channels for clicks stay empty: nobody clicks")
    found.takes_guidance = True


def _join(transform: Component, config: BundleConfig, found: Preparation) -> None:
    if base_name(transform) == "ConcatImages" and not known_class(config, transform):
        raise own_code(config, transform.key, transform.target)
    keys = [str(key) for key in listed(transform.get("keys_merge", transform.get("keys")))]
    if sorted(keys) != sorted(found.image_keys):
        raise UnsupportedModel(f"{config.name}: {transform.key} joins {keys}; read are {found.image_keys}")
    if transform.get("dim", 0) != 0:
        raise _unsupported(config, transform, "dim")
    found.image_keys = keys
    found.joined = str(transform.get("keys_out", transform.get("name")))


def _step(name: str, transform: Component, config: BundleConfig, found: Preparation) -> PreparationStep | None:
    own = "." in transform.target and not transform.target.startswith("monai.")
    if own:
        raise own_code(config, transform.key, transform.target)
    rule = _RULES.get(name)
    if rule is None:
        raise UnsupportedModel(
            f"{config.name}: transform {transform.target} ({transform.key}) is not one that medseg follows; "
            "--trust runs the bundle's own preprocessing through MONAI"
        )
    reader, known = rule
    unknown = sorted(set(transform.arguments) - known - {"keys", "allow_missing_keys", "dtype", "lazy"})
    if unknown:
        raise _unsupported(config, transform, ", ".join(unknown))
    _check_dtype(transform, config)
    return reader(transform, config, found)


def _check_dtype(transform: Component, config: BundleConfig) -> None:
    for dtype in listed(transform.get("dtype")):
        name = dtype.last if isinstance(dtype, Symbol) else str(dtype).rpartition(".")[2]
        if name not in {"None", "float32", "float64", "float", "double"}:
            raise _unsupported(config, transform, f"dtype={name}")


def _unsupported(config: BundleConfig, transform: Component, what: str) -> UnsupportedModel:
    return UnsupportedModel(
        f"{config.name}: {transform.name} ({transform.key}) with {what} is not within medseg's reach; "
        "--trust runs the bundle's own preprocessing through MONAI"
    )


def _add(found: Preparation, step: PreparationStep | None) -> None:
    if step is not None:
        found.steps.append(step)


def _same(transform: Component, config: BundleConfig, argument: str, default: Any) -> Any:
    """An argument that may be given once for each key, where all have to agree."""
    value = transform.get(argument, default)
    if not isinstance(value, (list, tuple)):
        return value
    if any(item != value[0] for item in value[1:]):
        raise _unsupported(config, transform, f"{argument}={value}")
    return value[0]


def _is(value: Any) -> bool:
    """Truth as Python has it, but for texts: "False" is false to people, true to Python and so to MONAI."""
    return bool(value)


def _orient(transform: Component, config: BundleConfig, _found: Preparation) -> PreparationStep:
    if transform.get("as_closest_canonical", False):
        return Orient(axcodes="RAS")
    axcodes = "".join(str(letter) for letter in transform.get("axcodes", ""))
    labels = transform.get("labels")
    if labels is not None and [list(map(str, pair)) for pair in labels] != [["L", "R"], ["P", "A"], ["I", "S"]]:
        raise _unsupported(config, transform, f"labels={labels}")
    return Orient(axcodes=axcodes)


def _respace(transform: Component, config: BundleConfig, _found: Preparation) -> PreparationStep:
    pixdim = [float(value) for value in listed(transform.get("pixdim"))]
    pixdim = [*pixdim, *[pixdim[-1]] * (3 - len(pixdim))][:3]
    mode = str(_same(transform, config, "mode", "bilinear"))
    padding = str(_same(transform, config, "padding_mode", "border"))
    if mode not in {"bilinear", "nearest"} or padding not in {"border", "zeros", "reflection"}:
        raise _unsupported(config, transform, f"mode={mode}, padding_mode={padding}")
    for argument in ("diagonal", "align_corners", "scale_extent", "recompute_affine"):
        if _is(_same(transform, config, argument, False)):
            raise _unsupported(config, transform, f"{argument}=True")
    dtype = _same(transform, config, "dtype", "float64")
    name = dtype.last if isinstance(dtype, Symbol) else str(dtype).rpartition(".")[2]
    i, j, k = (value if value > 0 else None for value in pixdim)
    return Respace(
        spacing_mm=(i, j, k),
        interpolation="linear" if mode == "bilinear" else "nearest",
        padding=padding,
        is_double=name in {"float64", "double", "float"},
    )


def _scale_range(transform: Component, _config: BundleConfig, _found: Preparation) -> PreparationStep:
    return ScaleRange(
        low=transform.get("a_min"),
        high=transform.get("a_max"),
        to_low=transform.get("b_min"),
        to_high=transform.get("b_max"),
        is_clipped=_is(transform.get("clip", False)),
    )


def _scale(transform: Component, config: BundleConfig, _found: Preparation) -> PreparationStep:
    low, high = transform.get("minv", 0.0), transform.get("maxv", 1.0)
    if low is None or high is None or transform.get("factor") is not None:
        raise _unsupported(config, transform, "no minv or maxv, or a factor")
    return ScaleToRange(low=low, high=high, is_per_channel=_is(transform.get("channel_wise", False)))


def _normalize(transform: Component, _config: BundleConfig, _found: Preparation) -> PreparationStep:
    def numbers(argument: str) -> tuple[float, ...] | None:
        value = transform.get(argument)
        return None if value is None else tuple(float(number) for number in listed(value))

    return Normalize(
        subtrahend=numbers("subtrahend"),
        divisor=numbers("divisor"),
        is_nonzero_only=_is(transform.get("nonzero", False)),
        is_per_channel=_is(transform.get("channel_wise", False)),
    )


def _percentiles(transform: Component, _config: BundleConfig, _found: Preparation) -> PreparationStep:
    return ScalePercentiles(
        lower=transform.get("lower"),
        upper=transform.get("upper"),
        to_low=transform.get("b_min"),
        to_high=transform.get("b_max"),
        is_clipped=_is(transform.get("clip", False)),
        is_relative=_is(transform.get("relative", False)),
        is_per_channel=_is(transform.get("channel_wise", False)),
    )


def _crop(transform: Component, config: BundleConfig, found: Preparation) -> PreparationStep:
    source = str(transform.get("source_key"))
    if source not in {*found.image_keys, found.joined}:
        raise _unsupported(config, transform, f"source_key={source}")
    if transform.get("channel_indices") is not None:
        raise _unsupported(config, transform, "channel_indices")
    margin, divisible = _triple(transform.get("margin", 0)), _triple(transform.get("k_divisible", 1))
    allows_smaller = _is(transform.get("allow_smaller", False))
    mode = str(_same(transform, config, "mode", "constant"))
    may_pad = divisible != (1, 1, 1) or (margin != (0, 0, 0) and not allows_smaller)
    if mode != "constant" and may_pad:
        raise _unsupported(config, transform, f"mode={mode}")
    return CropForeground(
        threshold=_threshold(transform, config),
        margin=margin,
        divisible_by=divisible,
        allows_smaller=allows_smaller,
    )


def _threshold(transform: Component, config: BundleConfig) -> float:
    """The number t of a `select_fn` that reads `lambda x: x > t`."""
    function = transform.get("select_fn")
    if function is None:
        return 0.0
    if isinstance(function, Lambda) and isinstance(function.node.body, ast.Compare):
        body = function.node.body
        if isinstance(body.left, ast.Name) and len(body.ops) == 1 and isinstance(body.ops[0], ast.Gt):
            try:
                return float(ast.literal_eval(body.comparators[0]))
            except (ValueError, TypeError):
                pass
    shown = function.source if isinstance(function, Lambda) else str(function)
    raise UntrustedCode(
        f"{config.name}: {transform.key}::select_fn would run code of the bundle: {shown!r}. medseg reads "
        "`lambda x: x > number`; --trust runs it, if you know where it comes from"
    )


def _resize(transform: Component, config: BundleConfig, _found: Preparation) -> PreparationStep:
    i, j, k = _triple(transform.get("spatial_size"))
    if str(transform.get("size_mode", "all")) != "all" or min(i, j, k) < 1:
        raise _unsupported(config, transform, f"size_mode={transform.get('size_mode')}, spatial_size={(i, j, k)}")
    mode = str(_same(transform, config, "mode", "area"))
    if mode not in {"area", "linear", "trilinear", "bilinear", "nearest", "nearest-exact"}:
        raise _unsupported(config, transform, f"mode={mode}")
    return Resize(
        shape=(i, j, k),
        mode=mode,
        align_corners=_same(transform, config, "align_corners", None),
        is_anti_aliased=_is(_same(transform, config, "anti_aliasing", False)),
    )


def _triple(value: Any) -> tuple[int, int, int]:
    numbers = [int(number) for number in listed(value)]
    i, j, k = numbers * 3 if len(numbers) == 1 else numbers
    return (i, j, k)


def _function(transform: Component, config: BundleConfig, _found: Preparation) -> PreparationStep | None:
    function = transform.get("func")
    if function is None:
        return None
    shown = function.source if isinstance(function, Lambda) else str(function)
    raise UntrustedCode(
        f"{config.name}: {transform.key}::func would run code of the bundle: {shown!r}. --trust runs it, if you know "
        "where it comes from"
    )


_Rule = Callable[[Component, BundleConfig, Preparation], PreparationStep | None]
_RULES: dict[str, tuple[_Rule, set[str]]] = {
    "CropForeground": (
        _crop,
        {
            "source_key",
            "select_fn",
            "channel_indices",
            "margin",
            "allow_smaller",
            "k_divisible",
            "mode",
            "start_coord_key",
            "end_coord_key",
        },
    ),
    "Lambda": (_function, {"func", "overwrite", "inv_func", "track_meta"}),
    "NormalizeIntensity": (_normalize, {"subtrahend", "divisor", "nonzero", "channel_wise"}),
    "Orientation": (_orient, {"axcodes", "as_closest_canonical", "labels"}),
    "Resize": (_resize, {"spatial_size", "size_mode", "mode", "align_corners", "anti_aliasing"}),
    "ScaleIntensity": (_scale, {"minv", "maxv", "factor", "channel_wise"}),
    "ScaleIntensityRange": (_scale_range, {"a_min", "a_max", "b_min", "b_max", "clip"}),
    "ScaleIntensityRangePercentiles": (
        _percentiles,
        {"lower", "upper", "b_min", "b_max", "clip", "relative", "channel_wise"},
    ),
    "Spacing": (
        _respace,
        {
            "pixdim",
            "diagonal",
            "mode",
            "padding_mode",
            "align_corners",
            "scale_extent",
            "recompute_affine",
            "ensure_same_shape",
        },
    ),
}
