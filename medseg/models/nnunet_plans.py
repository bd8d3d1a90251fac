"""nnU-Net's plans.json: one configuration with what it inherits, and the architecture that it names.

Plans are read as data. Names of Python classes in them are looked up in short tables; nothing is imported by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg.errors import InvalidBundle
from medseg.networks.nnunet import NnunetArchitecture

__all__ = ["architecture_of", "configuration_of"]

_KINDS = {"PlainConvUNet": "plain", "ResidualEncoderUNet": "residual_encoder", "ResidualUNet": "residual"}
_NORMS = {
    "InstanceNorm2d": "instance",
    "InstanceNorm3d": "instance",
    "BatchNorm2d": "batch",
    "BatchNorm3d": "batch",
    "": "none",
}
_ACTIVATIONS = {"LeakyReLU", "ReLU", "ELU", "GELU", "SiLU"}


def configuration_of(plans: Mapping[str, Any], name: str, source: Path) -> dict[str, Any]:
    """A configuration with everything that it inherits; its own entries win.

    Raises
    ------
    InvalidBundle
        If there is no such configuration, or configurations inherit from each other in a circle.
    """
    known = plans.get("configurations")
    if not isinstance(known, Mapping):
        raise InvalidBundle(f"{source}: no configurations there; plans of nnU-Net version 1 are not supported")
    merged: dict[str, Any] = {}
    visited: list[str] = []
    following: str | None = name
    while following is not None:
        if following in visited:
            raise InvalidBundle(f"{source}: configurations inherit in a circle: {' -> '.join([*visited, following])}")
        if following not in known:
            raise InvalidBundle(f"{source}: no configuration {following!r}; it has {', '.join(sorted(known))}")
        visited.append(following)
        merged = {**known[following], **merged}
        following = known[following].get("inherits_from")
    return merged


def architecture_of(
    configuration: Mapping[str, Any], n_inputs: int, n_outputs: int, source: Path
) -> NnunetArchitecture:
    """The network of a configuration.

    Parameters
    ----------
    configuration
        From `configuration_of`; plans before 2024 have no `architecture` but its numbers one by one.
    n_inputs, n_outputs
        Channels in, logits out.
    source
        The plans file, for messages.

    Raises
    ------
    InvalidBundle
        If the class, or one of its operations, is none that medseg has; if a number is missing.
    """
    try:
        named = configuration.get("architecture") or _architecture_of_old_plans(configuration)
        arguments = dict(named["arch_kwargs"])
        kind = _last(named["network_class_name"])
        if kind not in _KINDS:
            raise InvalidBundle(
                f"{source}: network class {named['network_class_name']} is not supported; "
                f"supported are {', '.join(sorted(_KINDS))}"
            )
        return _architecture(_KINDS[kind], arguments, n_inputs, n_outputs, source)
    except (KeyError, TypeError, IndexError) as error:
        raise InvalidBundle(f"{source}: the network's description is incomplete or malformed ({error!r})") from error


def _architecture(
    kind: str, arguments: Mapping[str, Any], n_inputs: int, n_outputs: int, source: Path
) -> NnunetArchitecture:
    n_stages = int(arguments["n_stages"])
    n = _n_dimensions(arguments["conv_op"], source)
    blocks = arguments["n_conv_per_stage" if kind == "plain" else "n_blocks_per_stage"]
    is_bottleneck = "Bottleneck" in str(arguments.get("block") or "")
    stem = arguments.get("stem_channels")
    norm = arguments.get("norm_op_kwargs") or {}
    return NnunetArchitecture(
        kind=kind,  # type: ignore[arg-type]
        n_inputs=n_inputs,
        n_outputs=n_outputs,
        features=_each_stage(arguments["features_per_stage"], n_stages),
        kernels=tuple(_each_axis(entry, n) for entry in _listed(arguments["kernel_sizes"], n_stages)),
        strides=tuple(_each_axis(entry, n) for entry in _listed(arguments["strides"], n_stages)),
        encoder_blocks=_each_stage(blocks, n_stages),
        decoder_blocks=_each_stage(arguments["n_conv_per_stage_decoder"], n_stages - 1),
        has_bias=bool(arguments.get("conv_bias", False)),
        norm=_known(_NORMS, arguments.get("norm_op"), "norm", source),  # type: ignore[arg-type]
        norm_arguments={key: norm[key] for key in ("eps", "affine", "track_running_stats") if key in norm},
        activation=_activation(arguments.get("nonlin"), source),  # type: ignore[arg-type]
        activation_arguments=dict(arguments.get("nonlin_kwargs") or {}),
        activates_first=bool(arguments.get("nonlin_first", False)) and kind == "plain",
        bottlenecks=_each_stage(arguments["bottleneck_channels"], n_stages) if is_bottleneck else (),
        stem_features=None if stem is None else int(stem),
    )


def _architecture_of_old_plans(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """What today's plans would say of a configuration of 2023; its operations were always the same."""
    name = configuration["UNet_class_name"]
    encoder = list(configuration["n_conv_per_stage_encoder"])
    base, highest = configuration["UNet_base_num_features"], configuration["unet_max_num_features"]
    n = len(configuration["patch_size"])
    return {
        "network_class_name": name,
        "arch_kwargs": {
            "n_stages": len(encoder),
            "features_per_stage": [min(base * 2**stage, highest) for stage in range(len(encoder))],
            "conv_op": f"torch.nn.Conv{n}d",
            "kernel_sizes": configuration["conv_kernel_sizes"],
            "strides": configuration["pool_op_kernel_sizes"],
            "n_conv_per_stage" if name == "PlainConvUNet" else "n_blocks_per_stage": encoder,
            "n_conv_per_stage_decoder": configuration["n_conv_per_stage_decoder"],
            "conv_bias": True,
            "norm_op": f"torch.nn.InstanceNorm{n}d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
    }


def _n_dimensions(convolution: str, source: Path) -> int:
    return int(_known({"Conv2d": "2", "Conv3d": "3"}, convolution, "convolution", source))


def _activation(name: str | None, source: Path) -> str:
    return _known({**{known: known for known in _ACTIVATIONS}, "": "none"}, name, "activation", source)


def _known(table: Mapping[str, str], name: str | None, what: str, source: Path) -> str:
    short = _last(name or "")
    if short not in table:
        known = ", ".join(sorted(key for key in table if key))
        raise InvalidBundle(f"{source}: {what} {name} is not supported; supported are {known}")
    return table[short]


def _last(name: str) -> str:
    return str(name).rsplit(".", 1)[-1]


def _listed(value: Any, n: int) -> list[Any]:
    entries = list(value) if isinstance(value, Sequence) else [value] * n
    if len(entries) != n:
        raise IndexError(f"{n} stages, {len(entries)} entries: {entries}")
    return entries


def _each_stage(value: Any, n: int) -> tuple[int, ...]:
    return tuple(int(entry) for entry in _listed(value, n))


def _each_axis(value: Any, n: int) -> tuple[int, ...]:
    return tuple(int(side) for side in _listed(value, n))
