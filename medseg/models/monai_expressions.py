"""The `$` expressions of MONAI's bundle language, read without running Python.

MONAI hands an expression to `eval`. Here its syntax tree is walked: literals, arithmetic, comparisons, containers,
references and a short list of functions have a meaning; everything else is `UntrustedCode`, with the expression in the
message. Nothing is imported and no attribute of a Python object is ever looked up.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from medseg.errors import InvalidBundle, ModelError, UntrustedCode
from medseg.models.monai_functions import BUILTINS, FUNCTIONS, METHODS, enum_value
from medseg.models.monai_values import Component, Lambda, Symbol

__all__ = ["Scope", "evaluate", "untrusted"]

_REFERENCE = re.compile(r"@(\w*(?:(?:::|#)\w*)*)")
_MOST_ITEMS = 1_000_000
_MOST_STEPS = 2_000_000
_LARGEST_INTEGER = 2**63

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
}
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Not: operator.not_,
}
_ARITHMETIC_TYPES = (int, float, str, list, tuple, set)


@dataclass
class Scope:
    """What an expression can see.

    Parameters
    ----------
    resolve
        From an identifier ("a::b::0") to its value.
    modules
        Names that the bundle imports, to the modules behind them.
    load
        Reads a weights file without running code: from its path to plain values.
    bundle
        For messages.
    """

    resolve: Callable[[str], Any]
    modules: Mapping[str, str]
    load: Callable[[str], Any]
    bundle: str
    steps: int = field(default=0)


def evaluate(source: str, key: str, scope: Scope) -> Any:
    """The value of an expression.

    Parameters
    ----------
    source
        Without the leading `$`.
    key
        Where it stands, for messages.
    scope
        What it can see.

    Raises
    ------
    UntrustedCode
        If it does anything that has no meaning here.
    InvalidBundle
        If it is no Python, or fails.
    """
    names: dict[str, str] = {}

    def placeholder(match: re.Match[str]) -> str:
        name = f"_reference_{len(names)}_"
        names[name] = match.group(1).replace("#", "::")
        return name

    text = _REFERENCE.sub(placeholder, source.strip())
    try:
        tree = ast.parse(text, mode="eval")
        return _Reader(source, key, scope, names).value(tree.body, {})
    except ModelError:
        raise
    except (SyntaxError, RecursionError, MemoryError) as error:
        if isinstance(error, SyntaxError) and _is_statement(text):
            raise untrusted(scope.bundle, key, "$" + source) from error
        raise InvalidBundle(f"{scope.bundle}: {key}: not an expression: {source[:200]!r} ({error})") from error
    except (TypeError, ValueError, KeyError, IndexError, ArithmeticError, AttributeError) as error:
        raise InvalidBundle(f"{scope.bundle}: {key}: {source[:200]!r} fails: {error}") from error


def untrusted(bundle: str, key: str, code: str) -> UntrustedCode:
    """The refusal to run an expression."""
    return UntrustedCode(
        f"{bundle}: {key} would run code of the bundle: {code[:300]!r}. medseg reads standard classes and simple "
        "expressions only; --trust runs the bundle's own code, if you know where it comes from"
    )


def _is_statement(text: str) -> bool:
    try:
        ast.parse(text)
    except (SyntaxError, RecursionError, MemoryError):
        return False
    return True


class _Reader:
    """One expression, walked from the root."""

    def __init__(self, source: str, key: str, scope: Scope, references: Mapping[str, str]) -> None:
        self.source, self.key, self.scope, self.references = source, key, scope, references

    def refuse(self) -> UntrustedCode:
        return untrusted(self.scope.bundle, self.key, "$" + self.source)

    def value(self, node: ast.AST, local: Mapping[str, Any]) -> Any:
        self.scope.steps += 1
        if self.scope.steps > _MOST_STEPS:
            raise ValueError("the configuration takes more than 2 million steps to read")
        reader = _READERS.get(type(node))
        if reader is None:
            raise self.refuse()
        return reader(self, node, local)

    def constant(self, node: ast.Constant, _local: Mapping[str, Any]) -> Any:
        return node.value

    def name(self, node: ast.Name, local: Mapping[str, Any]) -> Any:
        if node.id in local:
            return local[node.id]
        if node.id in self.references:
            return self.scope.resolve(self.references[node.id])
        if node.id in self.scope.modules:
            return Symbol(self.scope.modules[node.id])
        if node.id in BUILTINS:
            return Symbol(node.id)
        raise self.refuse()

    def attribute(self, node: ast.Attribute, local: Mapping[str, Any]) -> Any:
        owner = self.value(node.value, local)
        if not isinstance(owner, Symbol) or node.attr.startswith("_"):
            raise self.refuse()
        symbol = Symbol(f"{owner.name}.{node.attr}")
        constant = enum_value(symbol.name)
        return symbol if constant is None else constant

    def call(self, node: ast.Call, local: Mapping[str, Any]) -> Any:
        if isinstance(node.func, ast.Attribute):
            try:
                owner = self.value(node.func.value, local)
            except UntrustedCode:
                raise self.refuse() from None
            if not isinstance(owner, Symbol):
                return self.method(owner, node, local)
        function = self.value(node.func, local)
        if not isinstance(function, Symbol):
            raise self.refuse()
        positional, named = self.call_arguments(node, local)
        if function.name == "torch.load" and positional:
            return self.scope.load(str(positional[0]))
        known = BUILTINS.get(function.name) or FUNCTIONS.get(function.name)
        if known is not None:
            if any(isinstance(given, (Component, Lambda)) for given in (*positional, *named.values())) and (
                function.name in BUILTINS
            ):
                raise self.refuse()
            return self.bounded(known(*positional, **named))
        if function.name.startswith("monai."):
            return Component(function.name, self.key, {n: _giving(v) for n, v in named.items()}, tuple(positional))
        raise self.refuse()

    def method(self, owner: Any, node: ast.Call, local: Mapping[str, Any]) -> Any:
        name = node.func.attr  # type: ignore[attr-defined]
        if isinstance(owner, Component) and name in {"to", "eval", "cpu", "cuda", "float"}:
            return owner
        allowed = METHODS.get(type(owner), {}).get(name)
        if allowed is None:
            raise self.refuse()
        positional, named = self.call_arguments(node, local)
        return self.bounded(allowed(owner, *positional, **named))

    def call_arguments(self, node: ast.Call, local: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        if any(isinstance(argument, ast.Starred) for argument in node.args) or any(
            k.arg is None for k in node.keywords
        ):
            raise self.refuse()
        positional = [self.value(argument, local) for argument in node.args]
        return positional, {str(k.arg): self.value(k.value, local) for k in node.keywords}

    def binary(self, node: ast.BinOp, local: Mapping[str, Any]) -> Any:
        left, right = self.value(node.left, local), self.value(node.right, local)
        if type(node.op) not in _BINARY or not all(isinstance(v, _ARITHMETIC_TYPES) for v in (left, right)):
            raise self.refuse()
        self.check_size(node.op, left, right)
        return self.bounded(_BINARY[type(node.op)](left, right))

    def check_size(self, op: ast.operator, left: Any, right: Any) -> None:
        """Refuse what would take memory or time without bound, before it is computed."""
        if isinstance(op, ast.Pow) and (not isinstance(right, (int, float)) or abs(right) > 64):
            raise ValueError("an exponent above 64")
        if isinstance(op, ast.Mod) and isinstance(left, str):
            raise self.refuse()
        if isinstance(op, ast.Mult):
            for sequence, times in ((left, right), (right, left)):
                if isinstance(sequence, (str, list, tuple)) and len(sequence) * int(times) > _MOST_ITEMS:
                    raise ValueError(f"a sequence of more than {_MOST_ITEMS} items")

    def bounded(self, value: Any) -> Any:
        if isinstance(value, int) and abs(value) > _LARGEST_INTEGER:
            raise ValueError("an integer beyond 64 bits")
        if isinstance(value, (str, list, tuple, set, dict, range)) and len(value) > _MOST_ITEMS:
            raise ValueError(f"a sequence of more than {_MOST_ITEMS} items")
        if isinstance(value, (str, list, tuple, set, dict)):
            self.scope.steps += len(value)
        return value

    def unary(self, node: ast.UnaryOp, local: Mapping[str, Any]) -> Any:
        if type(node.op) not in _UNARY:
            raise self.refuse()
        return _UNARY[type(node.op)](self.value(node.operand, local))

    def boolean(self, node: ast.BoolOp, local: Mapping[str, Any]) -> Any:
        stops = (lambda v: not v) if isinstance(node.op, ast.And) else bool
        value = None
        for operand in node.values:
            value = self.value(operand, local)
            if stops(value):
                break
        return value

    def compare(self, node: ast.Compare, local: Mapping[str, Any]) -> Any:
        left = self.value(node.left, local)
        for op, operand in zip(node.ops, node.comparators, strict=True):
            right = self.value(operand, local)
            if not _COMPARE[type(op)](left, right):
                return False
            left = right
        return True

    def conditional(self, node: ast.IfExp, local: Mapping[str, Any]) -> Any:
        return self.value(node.body if self.value(node.test, local) else node.orelse, local)

    def subscript(self, node: ast.Subscript, local: Mapping[str, Any]) -> Any:
        owner = self.value(node.value, local)
        if not isinstance(owner, (list, tuple, dict, str)):
            raise self.refuse()
        if isinstance(node.slice, ast.Slice):
            parts = (node.slice.lower, node.slice.upper, node.slice.step)
            return owner[slice(*(None if part is None else self.value(part, local) for part in parts))]
        return owner[self.value(node.slice, local)]

    def items(self, node: ast.List | ast.Tuple | ast.Set, local: Mapping[str, Any]) -> list[Any]:
        each = (
            [*self.value(e.value, local)] if isinstance(e, ast.Starred) else [self.value(e, local)] for e in node.elts
        )
        return list(chain.from_iterable(each))

    def mapping(self, node: ast.Dict, local: Mapping[str, Any]) -> dict[Any, Any]:
        made: dict[Any, Any] = {}
        for key, value in zip(node.keys, node.values, strict=True):
            if key is None:
                made.update(self.value(value, local))
            else:
                made[self.value(key, local)] = self.value(value, local)
        return made

    def comprehension(self, node: Any, local: Mapping[str, Any]) -> Any:
        scopes = self.loops(list(node.generators), local)
        if isinstance(node, ast.DictComp):
            return {self.value(node.key, scope): self.value(node.value, scope) for scope in scopes}
        made = [self.value(node.elt, scope) for scope in scopes]
        return set(made) if isinstance(node, ast.SetComp) else made

    def loops(self, generators: list[ast.comprehension], local: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        if not generators:
            yield local
            return
        first, *others = generators
        for item in self.value(first.iter, local):
            inner = {**local, **self.bind(first.target, item)}
            if all(self.value(test, inner) for test in first.ifs):
                yield from self.loops(others, inner)

    def bind(self, target: ast.expr, item: Any) -> dict[str, Any]:
        if isinstance(target, ast.Name):
            return {target.id: item}
        if isinstance(target, ast.Tuple):
            pairs = zip(target.elts, item, strict=True)
            return dict(chain.from_iterable(self.bind(part, value).items() for part, value in pairs))
        raise self.refuse()

    def function(self, node: ast.Lambda, _local: Mapping[str, Any]) -> Lambda:
        return Lambda("$" + self.source, self.key, node)


def _giving(value: Any) -> Callable[[], Any]:
    return lambda: value


_READERS: dict[type[ast.AST], Callable[[_Reader, Any, Mapping[str, Any]], Any]] = {
    ast.Constant: _Reader.constant,
    ast.Name: _Reader.name,
    ast.Attribute: _Reader.attribute,
    ast.Call: _Reader.call,
    ast.BinOp: _Reader.binary,
    ast.UnaryOp: _Reader.unary,
    ast.BoolOp: _Reader.boolean,
    ast.Compare: _Reader.compare,
    ast.IfExp: _Reader.conditional,
    ast.Subscript: _Reader.subscript,
    ast.List: _Reader.items,
    ast.Tuple: lambda reader, node, local: tuple(reader.items(node, local)),
    ast.Set: lambda reader, node, local: set(reader.items(node, local)),
    ast.Dict: _Reader.mapping,
    ast.ListComp: _Reader.comprehension,
    ast.GeneratorExp: _Reader.comprehension,
    ast.SetComp: _Reader.comprehension,
    ast.DictComp: _Reader.comprehension,
    ast.Lambda: _Reader.function,
}
