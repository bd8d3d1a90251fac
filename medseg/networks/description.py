"""A network as a value: its class by name and its arguments, as plain JSON; and what it may name.

A description is data from a model's folder. Classes come from a closed list, so that reading one runs no code but that
of torch, MONAI and medseg.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from math import prod
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from torch import nn

from medseg.errors import InvalidBundle, UnsupportedModel
from medseg.networks.ensemble import MeanOfNetworks
from medseg.networks.nnunet import NnunetArchitecture, NnunetNetwork, SliceBySlice
from medseg.networks.outputs import AskedForClasses, FirstOutput, WithEmptyChannels
from medseg.networks.without_monai import build_without_monai, parameters_of

__all__ = [
    "ASKED_FOR_CLASSES",
    "BUILDERS",
    "MONAI_NETWORKS",
    "NetworkDescription",
    "build_described",
    "canonical_name",
    "completed",
    "describe_nnunet",
    "divisor_of",
    "unknown_arguments",
]

# name in MONAI to the numbers that its grid must be divisible by, from its arguments
_Divisor = Callable[[Mapping[str, Any]], Sequence[int]]


class NetworkDescription(BaseModel):
    """A network without weights.

    Parameters
    ----------
    family
        "monai" for a class of `monai.networks.nets`, "medseg" for a module of medseg's own around others, or a family
        in `BUILDERS`.
    name
        Of the class.
    arguments
        Plain JSON values; {"tensor": nested lists, "dtype": name} stands for a tensor, "array" for numpy's, {"network":
        description} for another network.
    n_empty_channels
        Channels of zeros that are added to the image: guidance that nobody gives.
    asked_classes
        Numbers of the classes that a network of `ASKED_FOR_CLASSES` is asked for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: str = "monai"
    name: str
    arguments: dict[str, Any] = {}
    n_empty_channels: int = 0
    asked_classes: tuple[int, ...] = ()


def _powers(argument: str, default: int) -> _Divisor:
    def divisor(arguments: Mapping[str, Any]) -> Sequence[int]:
        levels = arguments.get(argument)
        return [2 ** (default if levels is None else len(levels) - 1)] * 3

    return divisor


def _strides(arguments: Mapping[str, Any]) -> Sequence[int]:
    each = [s if isinstance(s, (list, tuple)) else [s] * 3 for s in arguments.get("strides", ())]
    return [prod(int(s[axis]) for s in each) for axis in range(3)]


def _fixed(number: int) -> _Divisor:
    return lambda _arguments: [number] * 3


def _dints(arguments: Mapping[str, Any]) -> Sequence[int]:
    space = arguments.get("dints_space", {}).get("network", {}).get("arguments", {})
    return [2 ** (int(space.get("num_depths", 3)) + int(bool(arguments.get("use_downsample", True))))] * 3


MONAI_NETWORKS: dict[str, _Divisor] = {
    "AttentionUnet": _strides,
    "BasicUNet": _fixed(16),
    "BasicUNetPlusPlus": _fixed(16),
    "DiNTS": _dints,
    "DynUNet": _strides,
    "HighResNet": _fixed(1),
    "MedNeXt": _powers("blocks_down", 4),
    "SegResNet": _powers("blocks_down", 3),
    "SegResNetDS": _powers("blocks_down", 3),
    "SegResNetDS2": _powers("blocks_down", 3),
    "SwinUNETR": _fixed(32),
    "UNETR": _fixed(16),
    "UNet": _strides,
    "VNet": _fixed(16),
    "vista3d132": _fixed(16),
}
ASKED_FOR_CLASSES = {"vista3d132"}  # networks that mark the classes whose numbers they are given
_PARTS = {"TopologyInstance"}  # what a network is built of
_WITH_HEADS = {"SegResNetWithHeads", "UNetWithHeads"}  # of medseg.networks.instance_heads
_SPELLINGS = {name.casefold(): name for name in MONAI_NETWORKS}

BUILDERS: dict[str, Callable[[NetworkDescription], nn.Module]] = {}


def canonical_name(name: str) -> str:
    """The name of a network's class behind MONAI's other spellings of it ("Unet", "BasicunetPlusPlus")."""
    return _SPELLINGS.get(name.casefold(), name)


def build_described(description: NetworkDescription) -> nn.Module:
    """The network that a description names, with fresh weights.

    Raises
    ------
    UnsupportedModel
        If its class is unknown.
    InvalidBundle
        If its arguments do not make one.
    """
    builder = BUILDERS.get(description.family)
    if builder is None:
        raise UnsupportedModel(f"networks of family {description.family!r} are unknown to this version of medseg")
    return completed(builder(description), description)


def completed(network: nn.Module, description: NetworkDescription) -> nn.Module:
    """A bare network of a description with what stands around it: empty channels, the classes that it is asked for."""
    if description.asked_classes:
        return AskedForClasses(network, description.asked_classes)
    return WithEmptyChannels(network, description.n_empty_channels) if description.n_empty_channels else network


def unknown_arguments(description: NetworkDescription) -> list[str]:
    """Arguments that the class does not take in the MONAI that is installed."""
    return sorted(set(description.arguments) - set(parameters_of(description.name)))


def divisor_of(description: NetworkDescription) -> tuple[int, int, int]:
    """What each side of the network's input must be divisible by; (1, 1, 1) where nothing is known."""
    rule = MONAI_NETWORKS.get(description.name)
    i, j, k = rule(description.arguments) if description.family == "monai" and rule is not None else (1, 1, 1)
    return (int(i), int(j), int(k))


def _build_monai(description: NetworkDescription) -> nn.Module:
    if description.name not in MONAI_NETWORKS and description.name not in _PARTS:
        raise UnsupportedModel(
            f"network {description.name} is not one that medseg builds: {', '.join(sorted(MONAI_NETWORKS))}"
        )
    arguments = {name: _argument(value) for name, value in description.arguments.items()}
    own = build_without_monai(description.name, arguments)
    if own is not None:
        return own
    from monai.networks import nets  # takes three seconds, which the common networks do without

    try:
        network: nn.Module = getattr(nets, description.name)(**arguments)
    except (TypeError, ValueError, KeyError, RuntimeError, NotImplementedError, AttributeError) as error:
        raise InvalidBundle(f"network {description.name} cannot be built from its arguments: {error}") from error
    # in evaluation they still give a list: the finest output comes first, BasicUNetPlusPlus has one
    return FirstOutput(network) if description.name == "BasicUNetPlusPlus" else network


def _build_own(description: NetworkDescription) -> nn.Module:
    if description.name in _WITH_HEADS:
        from medseg.networks import instance_heads

        try:
            network: nn.Module = getattr(instance_heads, description.name)(**description.arguments)
        except (TypeError, ValueError, KeyError) as error:
            raise InvalidBundle(f"network {description.name} cannot be built from its arguments: {error}") from error
        return network
    if description.name != "MeanOfNetworks":
        raise UnsupportedModel(f"medseg has no network {description.name!r}")
    members = [NetworkDescription.model_validate(member) for member in description.arguments["members"]]
    return MeanOfNetworks([build_described(member) for member in members])


def _argument(value: Any) -> Any:
    if isinstance(value, Mapping):
        if set(value) == {"network"}:
            return build_described(NetworkDescription.model_validate(value["network"]))
        if set(value) == {"tensor", "dtype"}:
            return torch.tensor(value["tensor"], dtype=getattr(torch, str(value["dtype"])))
        if set(value) == {"array", "dtype"}:
            return np.array(value["array"], dtype=str(value["dtype"]))
        return {name: _argument(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_argument(item) for item in value]
    return value


def describe_nnunet(network: nn.Module) -> NetworkDescription:
    """The description of a network of an nnU-Net model, as `nnunet` builds them.

    Raises
    ------
    UnsupportedModel
        If it is another module.
    """
    inner = network.network if isinstance(network, SliceBySlice) else network
    if not isinstance(inner, NnunetNetwork):
        raise UnsupportedModel(f"{type(network).__name__} is no network of nnU-Net's")
    plain = json.loads(json.dumps(asdict(inner.architecture)))
    return NetworkDescription(family="nnunet", name=type(network).__name__, arguments=plain)


def _build_nnunet(description: NetworkDescription) -> nn.Module:
    try:
        network = NnunetNetwork(TypeAdapter(NnunetArchitecture).validate_python(description.arguments))
    except (ValidationError, TypeError, ValueError, KeyError, IndexError) as error:
        raise InvalidBundle(f"an nnU-Net network cannot be built from its description: {error}") from error
    return SliceBySlice(network) if description.name == "SliceBySlice" else network


BUILDERS["monai"] = _build_monai
BUILDERS["medseg"] = _build_own
BUILDERS["nnunet"] = _build_nnunet
