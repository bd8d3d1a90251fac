"""The network of a bundle as a description: its class by name and plain arguments, drift between versions repaired."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from medseg.errors import InvalidBundle, UnsupportedModel, UntrustedCode
from medseg.models.monai_config import BundleConfig
from medseg.models.monai_values import Component, Lambda, Symbol
from medseg.networks.description import MONAI_NETWORKS, NetworkDescription, canonical_name, unknown_arguments
from medseg.networks.without_monai import parameters_of

__all__ = ["FoundNetwork", "describe_network", "network_component"]

_KEYS = ("network_def", "network", "net", "model")
_WRAPPERS = {"DataParallel", "DistributedDataParallel"}
# arguments that MONAI has dropped or renamed since, which change nothing of the network
_DROPPED = {"img_size": "its windows may have any size now", "pos_embed": "replaced by proj_type"}
_RENAMED = {"dimensions": "spatial_dims"}
_DETECTORS = {"RetinaNet", "RetinaNetDetector"}


@dataclass(frozen=True)
class FoundNetwork:
    """A network's description, where it stands in the configuration, and what was repaired in it."""

    description: NetworkDescription
    key: str
    repairs: tuple[str, ...] = ()

    @property
    def n_inputs(self) -> int | None:
        """Input channels of the network, where its arguments say so."""
        number = self.description.arguments.get("in_channels")
        return number if isinstance(number, int) else None


def network_component(config: BundleConfig) -> Component:
    """The component that is the network: what the evaluator runs, else what is called network.

    Raises
    ------
    UntrustedCode
        If it is an expression beyond the safe ones.
    InvalidBundle
        If there is none.
    UnsupportedModel
        If the bundle finds boxes.
    """
    for detector in _DETECTORS:
        if next(config.components(detector), None) is not None:
            raise UnsupportedModel(
                f"{config.name}: {detector} finds boxes, not voxels; medseg runs segmentation models"
            )
    for key in _KEYS:
        if key in config:
            return _unwrapped(config.resolve(key), key, config)
    evaluator = config.get("evaluator")
    if isinstance(evaluator, Component) and "network" in evaluator.arguments:
        return _unwrapped(evaluator.get("network"), "evaluator::network", config)
    raise InvalidBundle(f"{config.name}: no network: none of {', '.join(_KEYS)} is there, nor an evaluator's")


def describe_network(component: Component, config: BundleConfig) -> FoundNetwork:
    """The description of a network of MONAI's.

    Raises
    ------
    UntrustedCode
        If its class is the bundle's own.
    UnsupportedModel
        If it is a 2-D network, or a class that medseg does not build.
    InvalidBundle
        If it has arguments that MONAI does not know.
    """
    repairs: list[str] = []
    description = _describe(component, config, repairs)
    dimensions = description.arguments.get("spatial_dims", 3)
    if dimensions != 3:
        raise UnsupportedModel(
            f"{config.name}: {component.key} is a {dimensions}-D {description.name}; medseg runs 3-D networks"
        )
    return FoundNetwork(description, component.key, tuple(dict.fromkeys(repairs)))


def _unwrapped(value: Any, key: str, config: BundleConfig) -> Component:
    while isinstance(value, Component) and value.name in _WRAPPERS:
        value = value.get("module") if "module" in value.arguments else value.positional[0]
    if not isinstance(value, Component):
        raise InvalidBundle(f"{config.name}: {key} is no network but {type(value).__name__}")
    return value


def _describe(component: Component, config: BundleConfig, repairs: list[str]) -> NetworkDescription:
    name = canonical_name(component.name)
    if name not in MONAI_NETWORKS and name != "TopologyInstance":
        raise _unknown_class(component, config)
    if "." in component.target and not component.target.startswith("monai."):
        raise _unknown_class(component, config)
    arguments = {
        _RENAMED.get(argument, argument): _plain(value, argument, config, repairs)
        for argument, value in _bound(component, name, config).items()
    }
    description = NetworkDescription(name=name, arguments=arguments)
    for argument in unknown_arguments(description):
        if argument not in _DROPPED:
            raise InvalidBundle(f"{config.name}: {component.key}: {name} of this MONAI takes no argument {argument!r}")
        repairs.append(f"{name}: argument {argument} dropped, {_DROPPED[argument]}")
        del arguments[argument]
    return NetworkDescription(name=name, arguments=arguments)


def _bound(component: Component, name: str, config: BundleConfig) -> dict[str, Any]:
    named = component.values()
    if not component.positional:
        return named
    parameters = parameters_of(name)
    if len(component.positional) > len(parameters):
        raise InvalidBundle(f"{config.name}: {component.key}: too many arguments for {name}")
    return {**dict(zip(parameters, component.positional, strict=False)), **named}


def _plain(value: Any, argument: str, config: BundleConfig, repairs: list[str]) -> Any:
    """An argument as JSON can say it."""
    if isinstance(value, Component):
        inner = _describe(value, config, repairs)
        return {"network": inner.model_dump(mode="json")}
    if isinstance(value, (np.ndarray, torch.Tensor)):
        tensor = torch.as_tensor(value)
        kind = "array" if isinstance(value, np.ndarray) else "tensor"
        repairs.append("numbers of the network's architecture are read from their file as data, without running code")
        return {kind: tensor.tolist(), "dtype": str(tensor.dtype).removeprefix("torch.")}
    if argument == "device":
        repairs.append("the device of a part of the network is medseg's to choose, not the configuration's")
        return "cpu"  # where it is built; medseg moves the network afterwards
    if isinstance(value, Mapping):
        return {str(key): _plain(item, str(key), config, repairs) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, "", config, repairs) for item in value]
    if isinstance(value, (Symbol, Lambda)):
        shown = value.name if isinstance(value, Symbol) else value.source
        raise UnsupportedModel(f"{config.name}: argument {argument} of a network is {shown}, which is no plain value")
    return value


def _unknown_class(component: Component, config: BundleConfig) -> UntrustedCode | UnsupportedModel:
    if "." in component.target and not component.target.startswith("monai."):
        return UntrustedCode(
            f"{config.name}: {component.key} is {component.target}, a network of the bundle's own: "
            f"{_file_of(component.target)} would be executed. --trust runs it, if you know where it comes from"
        )
    return UnsupportedModel(
        f"{config.name}: {component.key} is {component.target}, which medseg does not build. "
        f"It builds {', '.join(sorted(MONAI_NETWORKS))}"
    )


def _file_of(target: str) -> str:
    return "/".join(target.split(".")[:-1]) + ".py"
