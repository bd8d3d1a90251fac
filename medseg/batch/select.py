"""Selection rules: expressions over the fields of a case, such as "modality == 'PT' and slices > 40".

A rule is parsed by Python's own parser and then read node by node: names are fields, everything else is a constant, a
comparison, and, or, not. Nothing is executed.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from medseg.errors import UsageError

__all__ = ["Rule", "parse_rule", "read_rule"]

Field = str | int | float | None
Rule = Callable[[Mapping[str, Field]], bool]
"""Whether a case with these fields is selected."""

_Value = Callable[[Mapping[str, Field]], Any]
_COMPARISONS: Mapping[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda item, container: item in container,
    ast.NotIn: lambda item, container: item not in container,
}


def parse_rule(text: str, fields: Iterable[str]) -> Rule:
    """A selection rule as a function.

    Parameters
    ----------
    text
        Comparisons (== != < <= > >= in, not in) of fields and constants, joined by and, or, not and parentheses.
    fields
        The names that may stand in it.

    Returns
    -------
    The rule. An unknown value (None) equals None only; ordered against anything, or searched in, it is not selected.

    Raises
    ------
    UsageError
        If it is no expression, names something that is no field, or holds anything else; when it is called, if it
        compares text with a number.

    Examples
    --------
    >>> rule = parse_rule("modality == 'PT' and slices > 40", ["modality", "slices"])
    >>> rule({"modality": "PT", "slices": 87}), rule({"modality": None, "slices": 87})
    (True, False)
    """
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UsageError(
            f"selection {text!r} is no expression ({error}); write one such as \"modality == 'PT' and slices > 40\""
        ) from error
    value = _Reader(text, frozenset(fields)).read(tree.body)

    def rule(case: Mapping[str, Field]) -> bool:
        try:
            return bool(value(case))
        except TypeError as error:
            raise UsageError(f"selection {text!r} compares what cannot be compared: {error}") from error

    return rule


def read_rule(text: str, fields: Iterable[str]) -> Rule:
    """A selection rule as it is written on the command line: the rule itself, or a YAML file (.yaml, .yml) with a list.

    Every rule of a list must hold.

    Raises
    ------
    UsageError
        As `parse_rule`, or if the file cannot be read or holds no list of rules.
    """
    if Path(text).suffix.lower() not in (".yaml", ".yml"):
        return parse_rule(text, fields)
    try:
        lines = yaml.safe_load(Path(text).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"selection {text} cannot be read: {error}") from error
    if not isinstance(lines, list) or not lines or not all(isinstance(line, str) for line in lines):
        raise UsageError(f"selection {text} must be a list of rules, one a line: - slices > 40")
    names = tuple(fields)
    rules = [parse_rule(line, names) for line in lines]
    return lambda case: all(rule(case) for rule in rules)


class _Reader:
    """Reads one rule."""

    def __init__(self, text: str, fields: frozenset[str]) -> None:
        self._text = text
        self._fields = fields

    def read(self, node: ast.expr) -> _Value:
        if isinstance(node, ast.BoolOp):
            return self._read_join(node)
        if isinstance(node, ast.Compare):
            return self._read_comparison(node)
        if isinstance(node, ast.UnaryOp):
            return self._read_unary(node)
        if isinstance(node, ast.Name):
            return self._read_field(node.id)
        if isinstance(node, ast.Constant) and isinstance(node.value, str | int | float | None):
            constant = node.value
            return lambda _: constant
        if isinstance(node, ast.Tuple | ast.List):
            items = [self.read(item) for item in node.elts]
            return lambda case: tuple(item(case) for item in items)
        raise UsageError(
            f"selection {self._text!r} may hold fields, constants, comparisons, and, or, not; got {ast.unparse(node)!r}"
        )

    def _read_join(self, node: ast.BoolOp) -> _Value:
        parts = [self.read(part) for part in node.values]
        join = all if isinstance(node.op, ast.And) else any
        return lambda case: join(bool(part(case)) for part in parts)

    def _read_unary(self, node: ast.UnaryOp) -> _Value:
        operand = self.read(node.operand)
        if isinstance(node.op, ast.Not):
            return lambda case: not operand(case)
        if isinstance(node.op, ast.USub):
            return lambda case: -operand(case)
        raise UsageError(f"selection {self._text!r}: {ast.unparse(node)!r} is not understood")

    def _read_field(self, name: str) -> _Value:
        if name not in self._fields:
            raise UsageError(
                f"selection {self._text!r}: no field {name!r}; fields are {', '.join(sorted(self._fields))}"
            )
        return lambda case: case[name]

    def _read_comparison(self, node: ast.Compare) -> _Value:
        known = [_COMPARISONS.get(type(op)) for op in node.ops]
        values = [self.read(part) for part in (node.left, *node.comparators)]
        steps = list(zip(known, values, values[1:], strict=False))
        if any(compare is None for compare in known):
            raise UsageError(f"selection {self._text!r}: {ast.unparse(node)!r} uses is; compare with ==")
        return lambda case: all(_holds(compare, left(case), right(case)) for compare, left, right in steps)


def _holds(compare: Any, left: Any, right: Any) -> bool:
    """One comparison; what is unknown is equal to None only."""
    if compare not in (operator.eq, operator.ne) and (right is None or (left is None and not isinstance(right, tuple))):
        return False
    return bool(compare(left, right))
