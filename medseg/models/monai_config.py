"""The configuration of a MONAI bundle, read without executing anything.

Identifiers ("a::b::0", or "a#b#0" as older bundles write them), references (`@id`, `@::sibling`), macros (`%id`),
components (`_target_`) and expressions (`$`) are resolved one by one when asked for, so that what is not needed for
inference, such as the list of input files, is never looked at.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from medseg.errors import InvalidBundle, ModelError, UntrustedCode
from medseg.models.monai_expressions import Scope, evaluate, untrusted
from medseg.models.monai_values import Component

__all__ = ["BundleConfig", "parse_config"]

_SEPARATOR = "::"
_NOT_ARGUMENTS = {"_target_", "_disabled_", "_requires_", "_desc_", "_mode_"}
_LARGEST_TEXT = 2**24
_ALIASES = {"np": "numpy", "pd": "pandas"}


def parse_config(text: str, source: str) -> dict[str, Any]:
    """The content of a JSON or YAML configuration.

    Raises
    ------
    InvalidBundle
        If it is neither, or not a mapping.
    """
    if len(text) > _LARGEST_TEXT:
        raise InvalidBundle(f"{source}: a configuration of {len(text)} characters; at most {_LARGEST_TEXT} are read")
    try:
        content = json.loads(text) if source.endswith(".json") else yaml.safe_load(text)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        kind = "JSON" if source.endswith(".json") else "YAML"
        raise InvalidBundle(f"{source} is not {kind}: {str(error).splitlines()[0]}") from error
    if not isinstance(content, dict):
        raise InvalidBundle(f"{source}: expected a mapping; got {type(content).__name__}")
    return content


class BundleConfig:
    """A configuration whose items are resolved when asked for.

    Parameters
    ----------
    content
        As parsed.
    name
        Of the bundle's file, for messages.
    root
        Folder of the bundle: what `bundle_root` is set to.
    load
        Reads a weights file of the bundle without running code.
    """

    def __init__(
        self, content: Mapping[str, Any], name: str, root: Path, load: Callable[[str], Any] | None = None
    ) -> None:
        self.content = {**content, "bundle_root": str(root)}
        self.name = name
        self._scope = Scope(self.resolve, self._imports(), load or self._refuse_load, name)
        self._resolved: dict[str, Any] = {}
        self._underway: list[str] = []

    def __contains__(self, identifier: str) -> bool:
        try:
            self.raw(identifier)
        except InvalidBundle:
            return False
        return True

    def raw(self, identifier: str) -> Any:
        """The item as it is written.

        Raises
        ------
        InvalidBundle
            If there is none.
        """
        value: Any = self.content
        for part in _parts(identifier):
            if isinstance(value, str) and value.startswith("%"):
                value = self.raw(self._macro(value, identifier))
            try:
                value = value[int(part)] if isinstance(value, list) else value[part]
            except (KeyError, IndexError, ValueError, TypeError) as error:
                raise InvalidBundle(f"{self.name}: there is no {identifier!r} in the configuration") from error
        return value

    def resolve(self, identifier: str) -> Any:
        """The value of an item: plain values as they are, components as `Component`.

        Raises
        ------
        UntrustedCode
            If it needs code to run.
        InvalidBundle
            If there is no such item, it refers to itself, or its expression fails.
        """
        identifier = _SEPARATOR.join(_parts(identifier))
        if identifier in self._resolved:
            return self._resolved[identifier]
        if identifier in self._underway:
            raise InvalidBundle(f"{self.name}: {' -> '.join([*self._underway, identifier])} refers to itself")
        self._underway.append(identifier)
        try:
            value = self._value(self.raw(identifier), identifier)
        except RecursionError as error:
            raise InvalidBundle(f"{self.name}: {identifier} is nested too deeply") from error
        finally:
            self._underway.pop()
        self._resolved[identifier] = value
        return value

    def get(self, identifier: str, default: Any = None) -> Any:
        """`resolve`, or the default where there is no such item."""
        return self.resolve(identifier) if identifier in self else default

    def components(self, name: str) -> Iterator[Component]:
        """All components of a class that are written anywhere in the configuration and not disabled."""
        for key, raw in _mappings(self.content, ""):
            target = raw.get("_target_")
            if isinstance(target, str) and target.rpartition(".")[2] == name:
                value = self._value(raw, key)
                if isinstance(value, Component):
                    yield value

    def _value(self, raw: Any, key: str) -> Any:
        if isinstance(raw, str):
            return self._text(raw, key)
        if isinstance(raw, list):
            return [self._value(item, _join(key, n)) for n, item in enumerate(raw) if not self._is_disabled(item, key)]
        if isinstance(raw, dict):
            if "_target_" in raw:
                return self._component(raw, key)
            return {name: self._value(item, _join(key, name)) for name, item in raw.items()}
        return raw

    def _text(self, raw: str, key: str) -> Any:
        absolute = _absolute(raw, key)
        if absolute.startswith("%"):
            return self.resolve(self._macro(absolute, key))
        if absolute.startswith("$"):
            return evaluate(absolute[1:], key, self._scope)
        if re.fullmatch(r"@\w*((::|#)\w*)*", absolute):
            return self.resolve(absolute[1:])
        return raw

    def _component(self, raw: Mapping[str, Any], key: str) -> Component | None:
        if self._is_disabled(raw, key):
            return None
        target = raw["_target_"]
        if not isinstance(target, str) or target.startswith(("$", "@", "%")):
            raise untrusted(self.name, f"{key}::_target_", str(target))
        if str(raw.get("_mode_", "default")) != "default":
            raise untrusted(self.name, f"{key}::_mode_", f"{raw['_mode_']} of {target}")
        if "_requires_" in raw:
            self._value(raw["_requires_"], _join(key, "_requires_"))
        arguments = {
            name: self._later(value, _join(key, name)) for name, value in raw.items() if name not in _NOT_ARGUMENTS
        }
        return Component(target, key, arguments)

    def _later(self, raw: Any, key: str) -> Callable[[], Any]:
        return lambda: self._value(raw, key)

    def _is_disabled(self, raw: Any, key: str) -> bool:
        if not isinstance(raw, dict) or "_target_" not in raw or "_disabled_" not in raw:
            return False
        flag = self._value(raw["_disabled_"], _join(key, "_disabled_"))
        return flag.strip().lower() == "true" if isinstance(flag, str) else bool(flag)

    def _macro(self, text: str, key: str) -> str:
        identifier = text[1:]
        if re.search(r"\.(json|ya?ml)", identifier, re.IGNORECASE):
            raise InvalidBundle(f"{self.name}: {key} takes its value from another file ({text}); copy it in")
        return identifier

    def _imports(self) -> dict[str, str]:
        """Names that the bundle imports; the modules themselves are not."""
        names = {"monai": "monai", "torch": "torch", "numpy": "numpy", **_ALIASES}
        for statement in self.content.get("imports") or []:
            try:
                (node,) = ast.parse(str(statement).lstrip("$ ")).body
            except (SyntaxError, ValueError):
                continue
            if isinstance(node, ast.Import):
                # `import a.b` binds a; `import a.b as c` binds c to a.b
                names.update(
                    {a.asname or a.name.split(".")[0]: a.name if a.asname else a.name.split(".")[0] for a in node.names}
                )
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.update({a.asname or a.name: f"{node.module}.{a.name}" for a in node.names})
        return names

    def _refuse_load(self, path: str) -> Any:
        raise InvalidBundle(f"{self.name}: {path} is not there")

    def why_untrusted(self, identifier: str) -> UntrustedCode | None:
        """The reason why an item needs trust, or None where it resolves without."""
        try:
            self.resolve(identifier)
        except UntrustedCode as error:
            return error
        except ModelError:
            return None
        return None


def _parts(identifier: str) -> list[str]:
    return [part for part in identifier.replace("#", _SEPARATOR).split(_SEPARATOR) if part]


def _join(key: str, part: object) -> str:
    return f"{key}{_SEPARATOR}{part}" if key else str(part)


def _absolute(text: str, key: str) -> str:
    """References relative to where they stand (`@::sibling`) made absolute."""
    if not text.startswith(("@", "%", "$")):
        return text
    parts = key.split(_SEPARATOR)

    def replaced(match: re.Match[str]) -> str:
        level = len(match.group(2)) // 2
        return match.group(1) + "".join(f"{part}{_SEPARATOR}" for part in parts[: max(len(parts) - level, 0)])

    normal = re.sub(r"(?<=[@%])#+", lambda match: _SEPARATOR * len(match.group()), text)
    return re.sub(r"([@%])((?:::)+)", replaced, normal)


def _mappings(value: Any, key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(value, dict):
        yield key, value
        for name, item in value.items():
            yield from _mappings(item, _join(key, name))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _mappings(item, _join(key, number))
