"""What expressions and components of a bundle's configuration stand for: looked at, never built or called here."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Component", "Lambda", "Symbol"]


@dataclass(frozen=True)
class Symbol:
    """A name within a module that an expression mentions, such as `torch.float32`: only its dotted name."""

    name: str

    @property
    def last(self) -> str:
        """The part after the last dot."""
        return self.name.rpartition(".")[2]


@dataclass(frozen=True, eq=False)
class Component:
    """What the configuration would build: the name of a class or function, and its arguments, resolved when asked.

    Parameters
    ----------
    target
        As written: "UNet", "monai.networks.nets.UNet", "scripts.networks.unest.UNesT".
    key
        Where it stands in the configuration.
    arguments
        Name to a function that gives the resolved value.
    positional
        Arguments without a name, of a call within an expression.
    """

    target: str
    key: str
    arguments: Mapping[str, Callable[[], Any]]
    positional: tuple[Any, ...] = ()

    @property
    def name(self) -> str:
        """The class or function without its module."""
        return self.target.rpartition(".")[2]

    def get(self, argument: str, default: Any = None) -> Any:
        """The value of an argument."""
        return self.arguments[argument]() if argument in self.arguments else default

    def values(self) -> dict[str, Any]:
        """All named arguments, resolved."""
        return {name: value() for name, value in self.arguments.items()}


@dataclass(frozen=True, eq=False)
class Lambda:
    """A function that an expression would define; it is looked at, not called."""

    source: str
    key: str
    node: ast.Lambda
