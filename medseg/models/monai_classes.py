"""Which classes a network that is asked for classes (VISTA3D) is asked for, by number or by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from medseg.errors import InvalidBundle, UsageError
from medseg.models.monai_config import BundleConfig
from medseg.models.monai_steps import base_name, listed
from medseg.models.monai_values import Component

__all__ = ["asked_classes"]

_EVERYTHING = ("evaluator::hyper_kwargs::everything_labels", "everything_labels")
_SHOWN = 12
_NOT_TRAINED = {16, 18, 129, 130, 131}  # named by VISTA3D's bundle, refused by its evaluator without clicks


def asked_classes(
    wanted: Sequence[int | str] | None,
    config: BundleConfig,
    transforms: Sequence[Component],
    names: Mapping[int, str],
) -> tuple[int, ...]:
    """Numbers of the classes to ask for, each once, in order.

    Parameters
    ----------
    wanted
        Numbers or names; None for all that the bundle lists as everything.
    config
        Of the bundle.
    transforms
        Its preprocessing, in which `VistaPreTransformd` says which classes are made up of others (lung of its lobes).
    names
        Number to name of all classes, as the metadata gives them; 0 is background.

    Raises
    ------
    UsageError
        If a class is unknown to the bundle.
    InvalidBundle
        If none is wanted, and the bundle lists none.
    """
    parts = _parts(transforms)
    numbers = _everything(config, names) if wanted is None else [_number(one, config.name, names) for one in wanted]
    each = [part for number in numbers for part in parts.get(number, [number])]
    if not each:
        raise InvalidBundle(f"{config.name}: its network is asked for classes, and the bundle lists none")
    return tuple(dict.fromkeys(each))


def _everything(config: BundleConfig, names: Mapping[int, str]) -> list[int]:
    for key in _EVERYTHING:
        if key in config:
            return sorted(int(number) for number in listed(config.resolve(key)))
    return sorted(number for number in names if number > 0)


def _parts(transforms: Sequence[Component]) -> dict[int, list[int]]:
    for transform in transforms:
        if base_name(transform) == "VistaPreTransform":
            given: Any = transform.get("subclass") or {}
            return {int(number): [int(part) for part in parts] for number, parts in given.items()}
    return {}


def _number(one: int | str, bundle: str, names: Mapping[int, str]) -> int:
    text = str(one).strip()
    by_name = {name.casefold(): number for number, name in names.items()}
    number = int(text) if text.isdigit() else by_name.get(text.casefold(), 0)
    if number < 1 or (names and number not in names):
        known = [f"{number} {name}" for number, name in sorted(names.items()) if number > 0]
        close = set(get_close_matches(text.casefold(), [name.casefold() for name in names.values()]))
        alike = [entry for entry in known if text.casefold() in entry.casefold()]
        alike = alike or [entry for entry in known if entry.split(" ", 1)[1].casefold() in close] or known
        more = f" and {len(alike) - _SHOWN} more" if len(alike) > _SHOWN else ""
        raise UsageError(
            f"{bundle}: it has no class {text!r}; it knows {len(known)}, such as {', '.join(alike[:_SHOWN])}{more}"
        )
    if number in _NOT_TRAINED:
        raise UsageError(
            f"{bundle}: class {number} ({names.get(number, '')}) is only had with clicks, which medseg has not"
        )
    return number
