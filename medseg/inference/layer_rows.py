"""Rows of layers: which layers of a network run one behind the other, each reading only what the one before it gives.

Such layers can be joined, or work in place. Torch does not say which they are: they are found where a sequence runs as
such, and where a block of medseg's own names them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeGuard

from torch import nn

__all__ = ["CONVOLUTIONS", "Step", "count_uses", "is_hooked", "rows_of"]

CONVOLUTIONS = (nn.Conv3d, nn.ConvTranspose3d)
_DOES_NOTHING = (nn.Identity, nn.Dropout, nn.Dropout3d)


@dataclass(frozen=True)
class Step:
    """A layer and its place in the module that it is a step of."""

    parent: nn.Module
    name: str
    layer: nn.Module

    def put(self, layer: nn.Module) -> None:
        """Put another layer in its place."""
        self.parent._modules[self.name] = layer


def rows_of(network: nn.Module) -> Iterator[list[Step]]:
    """Rows of layers as they stand when their turn comes, without those that do nothing in evaluation.

    They come from sequences that run as such, nested ones too, and from blocks with an attribute `rows_of_layers`: a
    tuple of rows, each a tuple of names of the block's children.

    Parameters
    ----------
    network
        In evaluation mode. Layers may be put in another's place between two rows.

    Yields
    ------
    The steps of a row in the order in which they run. A layer may be in several rows: one for each sequence around it.
    """
    uses = count_uses(network)
    for module in list(network.modules()):
        if _is_sequence(module):
            yield [step for step in _steps(module, uses) if not isinstance(step.layer, _DOES_NOTHING)]
        for names in getattr(module, "rows_of_layers", ()):
            places = [(name, module._modules.get(name)) for name in names]
            steps = [step for name, layer in places if layer is not None for step in _at(module, name, layer, uses)]
            yield [step for step in steps if not isinstance(step.layer, _DOES_NOTHING)]


def count_uses(network: nn.Module) -> Counter[int]:
    """By the `id` of each module, in how many places of a network it stands."""
    return Counter(id(child) for parent in network.modules() for child in parent._modules.values())


def is_hooked(module: nn.Module) -> bool:
    """Whether something else happens when a module runs; then it has to be left as it is."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _is_sequence(module: nn.Module) -> TypeGuard[nn.Sequential]:
    """Whether a module runs its children one behind the other, and does nothing else."""
    is_plain = isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward
    return is_plain and not is_hooked(module)


def _steps(sequence: nn.Sequential, uses: Counter[int]) -> Iterator[Step]:
    """The steps of a sequence, in the order in which they run."""
    for name, layer in sequence._modules.items():
        if layer is not None:
            yield from _at(sequence, name, layer, uses)


def _at(parent: nn.Module, name: str, layer: nn.Module, uses: Counter[int]) -> Iterator[Step]:
    """A layer in its place, or its own steps if it is a sequence that stands nowhere else."""
    if _is_sequence(layer) and uses[id(layer)] == 1:
        yield from _steps(layer, uses)
    else:
        yield Step(parent, name, layer)
