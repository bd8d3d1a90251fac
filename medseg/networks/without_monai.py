"""Networks of MONAI's that medseg builds itself, where their arguments ask for nothing out of the common."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from medseg.networks.monai_dynunet import DynUNet
from medseg.networks.monai_segresnet import SegResNet
from medseg.networks.monai_unet import UNet

__all__ = ["build_without_monai", "parameters_of"]

_CLASSES: dict[str, type[nn.Module]] = {"DynUNet": DynUNet, "SegResNet": SegResNet, "UNet": UNet}


def build_without_monai(name: str, arguments: Mapping[str, Any]) -> nn.Module | None:
    """The network with fresh weights.

    Parameters
    ----------
    name
        Of a class of `monai.networks.nets`.
    arguments
        Its arguments.

    Returns
    -------
    A network with the same parameters by the same names, which gives the same numbers; None where only MONAI's own
    class can build it, or tell what is wrong with the arguments.
    """
    if name not in _CLASSES:
        return None
    try:
        return _CLASSES[name](**arguments)
    except (NotImplementedError, TypeError, ValueError, LookupError, AttributeError, RuntimeError, ArithmeticError):
        return None


def parameters_of(name: str) -> list[str]:
    """Names of the arguments of a class of `monai.networks.nets`, in order.

    Raises
    ------
    AttributeError
        If MONAI has no such class.
    """
    if name in _CLASSES:
        return list(inspect.signature(_CLASSES[name]).parameters)
    from monai.networks import nets

    return list(inspect.signature(getattr(nets, name)).parameters)
