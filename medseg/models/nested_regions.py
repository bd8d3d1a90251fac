"""Nested regions in the words of bundles: `torch.where(x[[2]] > 0, 4, torch.where(x[[0]] > 0, 1, ...))`, read as data.

The first condition that holds wins, so that channels are painted in the opposite order, one over another.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass

__all__ = ["PaintedRegions", "painted_regions"]


@dataclass(frozen=True)
class PaintedRegions:
    """Class number of each output channel, the order in which channels are painted, and the threshold above which."""

    paint: tuple[int, ...]
    order: tuple[int, ...]
    threshold: float


def painted_regions(body: ast.expr, n_channels: int) -> PaintedRegions | None:
    """What the body of a lambda of one argument paints, or None if it is anything but nested `torch.where`.

    Parameters
    ----------
    body
        Of the lambda.
    n_channels
        Of its argument.
    """
    rules: list[tuple[int, int, float]] = []
    node = body
    while isinstance(node, ast.Call):
        rule = _rule(node)
        if rule is None:
            return None
        rules.append(rule)
        node = node.args[2]
    if not rules or not (isinstance(node, ast.Constant) and node.value == 0):
        return None
    channels = [channel for channel, _, _ in rules]
    thresholds = {threshold for _, _, threshold in rules}
    if len(set(channels)) != len(channels) or len(thresholds) != 1 or max(channels) >= n_channels or min(channels) < 0:
        return None
    number_of = {channel: number for channel, number, _ in rules}
    unused = [channel for channel in range(n_channels) if channel not in number_of]
    order = (*unused, *reversed(channels))  # a channel that is never asked for paints background, before all others
    return PaintedRegions(tuple(number_of.get(c, 0) for c in range(n_channels)), order, thresholds.pop())


def _rule(node: ast.Call) -> tuple[int, int, float] | None:
    """(channel, number, threshold) of `torch.where(x[[channel]] > threshold, number, ...)`."""
    if ast.unparse(node.func) not in {"torch.where", "where"} or len(node.args) != 3 or node.keywords:
        return None
    condition, number, _ = node.args
    if not (isinstance(condition, ast.Compare) and len(condition.ops) == 1 and isinstance(condition.ops[0], ast.Gt)):
        return None
    channel, threshold = _channel(condition.left), condition.comparators[0]
    if channel is None or not isinstance(threshold, ast.Constant) or not isinstance(number, ast.Constant):
        return None
    if type(number.value) is not int or not isinstance(threshold.value, (int, float)) or number.value < 0:
        return None
    return channel, number.value, float(threshold.value)


def _channel(node: ast.expr) -> int | None:
    """The number in `x[[number]]`, `x[number]` or `x[number:number + 1]`."""
    if not isinstance(node, ast.Subscript) or not isinstance(node.value, ast.Name):
        return None
    index = node.slice
    if isinstance(index, ast.List) and len(index.elts) == 1:
        index = index.elts[0]
    return index.value if isinstance(index, ast.Constant) and type(index.value) is int else None
