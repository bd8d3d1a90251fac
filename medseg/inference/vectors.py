"""Vector instructions for code that numba compiles: what its own loops are not sure to become.

For the code of numba's intrinsics, which write LLVM's instructions by a builder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir

__all__ = ["VECTOR", "VECTOR_TYPE", "data_of", "everywhere", "load", "store", "whole"]

VECTOR = 16 if llvm.get_host_cpu_features().get("avx512f", False) else 8
"""Float32 numbers in one of the processor's vectors (where they are shorter, LLVM takes two)."""

VECTOR_TYPE = ir.VectorType(ir.FloatType(), VECTOR)


def whole(number: int) -> Any:
    """A constant of 64 bits."""
    return ir.Constant(ir.IntType(64), number)


def everywhere(builder: Any, value: Any) -> Any:
    """A vector of one number."""
    one = builder.insert_element(ir.Constant(VECTOR_TYPE, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    chosen = ir.Constant(ir.VectorType(ir.IntType(32), VECTOR), [0] * VECTOR)
    return builder.shuffle_vector(one, ir.Constant(VECTOR_TYPE, ir.Undefined), chosen)


def data_of(context: Any, builder: Any, signature: Any, arguments: Any, number: int) -> Any:
    """Where the numbers of an argument, an array, begin."""
    return context.make_array(signature.args[number])(context, builder, arguments[number]).data


def load(builder: Any, pointer: Any, start: Any, steps: Sequence[Any] = (), places: Sequence[int] = ()) -> Any:
    """The vector at `start`, so many steps of each kind on, in float32 numbers."""
    loaded = builder.load(_at(builder, pointer, start, steps, places))
    loaded.align = 4
    return loaded


def store(
    builder: Any, value: Any, pointer: Any, start: Any, steps: Sequence[Any] = (), places: Sequence[int] = ()
) -> None:
    """Put a vector where `load` would find it."""
    stored = builder.store(value, _at(builder, pointer, start, steps, places))
    stored.align = 4


def _at(builder: Any, pointer: Any, start: Any, steps: Sequence[Any], places: Sequence[int]) -> Any:
    for step, place in zip(steps, places, strict=True):
        start = builder.add(start, builder.mul(step, whole(place)))
    return builder.bitcast(builder.gep(pointer, [start]), VECTOR_TYPE.as_pointer())
