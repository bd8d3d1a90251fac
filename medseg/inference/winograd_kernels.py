# ruff: noqa: ARG001 (numba counts the arguments of an intrinsic)
"""Kernels of the Winograd convolution, compiled by numba: tiles of one vector of channels, held in registers.

A convolution with 3 taps along an axis computes two outputs from four inputs with four products instead of six:
`y = A((G g) * (B d))` with B and A of zeros and ones. Along three axes that is 64 products for 8 outputs, not 216.
The transforms B and A are written as vector instructions over channels, which lie next to each other in memory.

Compiled code is kept on disk by numba, so only a machine's first run waits for the compiler (about 15 s).

References
----------
Winograd, Arithmetic complexity of computations, SIAM 1980; Lavin and Gray, Fast algorithms for convolutional neural
networks, CVPR 2016 (F(2, 3), equations 5 to 9).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import product
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from medseg.inference.pointwise_kernels import finish_into
from medseg.inference.vectors import VECTOR, VECTOR_TYPE, data_of, everywhere, load, store, whole

__all__ = ["add_products", "forward", "inverse", "multiply", "pack", "spread"]

_HAS_FMA = bool(llvm.get_host_cpu_features().get("fma", False))
_N_ROWS = 6  # of a matrix that are multiplied at once: with two vectors a row 12 sums, which the registers hold
_N_COLUMNS = 4  # of a transposed matrix, whose columns are a multiple of a vector's numbers
_SQUARE_4, _CUBE_2 = list(product(range(4), repeat=2)), list(product(range(2), repeat=3))
_Values = Mapping[tuple[int, ...], Any]


@njit(nogil=True, boundscheck=False, cache=True)
def pack(x: Any, start: Any, rows: Any, row: int, first: int, scale: Any, shift: Any, slope: Any) -> None:
    """Copy rows of x (I, J, K, C), with a border of zeros, into the channels from `first` on of `rows` (i, j, k, ...).

    Those from `row` on along i are meant: what is before them is there.

    They are finished on the way (see `pending`), unless `scale` is empty.
    """
    n_k, last = x.shape[2], first + x.shape[3]
    for a in range(row, rows.shape[0]):
        i = start[0] + a - 1
        for b in range(rows.shape[1]):
            j = start[1] + b - 1
            line = rows[a, b, :, first:last]
            if i < 0 or i >= x.shape[0] or j < 0 or j >= x.shape[1]:
                line[:] = np.float32(0)
                continue
            line[:1] = np.float32(0)
            line[1 + n_k :] = np.float32(0)
            if len(scale):
                finish_into(x[i, j], scale, shift, slope, line[1 : 1 + n_k])
            else:
                line[1 : 1 + n_k] = x[i, j]


@intrinsic
def _forward_tile(
    context: Any,
    rows: Any,
    at: Any,
    step_i: Any,
    step_j: Any,
    step_k: Any,
    products: Any,
    to: Any,
    stride: Any,
) -> Any:
    """For compiled code: one tile of one vector of channels, from rows to products."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, target = (data_of(context, builder, signature, arguments, n) for n in (0, 5))
        start, steps, out, point = arguments[1], arguments[2:5], arguments[6], arguments[7]
        for number in range(4):  # one plane at a time, which the registers hold
            values: _Values = {
                place: _to_product(builder, number, partial(_load_at, builder, source, start, steps, place))
                for place in _SQUARE_4
            }
            for axis in (1, 0):
                values = _along(builder, values, axis, _to_products)
            for at, place in enumerate(_SQUARE_4):
                store(builder, values[place], target, out, [point], [16 * number + at])
        return context.get_dummy_value()

    signature = types.void(rows, *(types.intp,) * 4, products, types.intp, types.intp)
    return signature, generate


@intrinsic
def _spread_tile(
    context: Any,
    rows: Any,
    at: Any,
    step_i: Any,
    step_j: Any,
    step_k: Any,
    spreads: Any,
    to: Any,
    stride: Any,
) -> Any:
    """For compiled code: one tile of one vector of channels, from gradients of outputs to spreads."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, target = (data_of(context, builder, signature, arguments, n) for n in (0, 5))
        start, steps, out, point = arguments[1], arguments[2:5], arguments[6], arguments[7]
        given = {place: load(builder, source, start, steps, place) for place in _CUBE_2}
        for number in range(4):  # one plane at a time, which the registers hold
            values: _Values = {
                (j, k): _to_spread(builder, number, given[0, j, k], given[1, j, k])
                for j, k in product(range(2), repeat=2)
            }
            for axis in (1, 0):
                values = _along(builder, values, axis, _to_spreads)
            for at, place in enumerate(_SQUARE_4):
                store(builder, values[place], target, out, [point], [16 * number + at])
        return context.get_dummy_value()

    signature = types.void(rows, *(types.intp,) * 4, spreads, types.intp, types.intp)
    return signature, generate


def _inversion(*, is_added: bool) -> Any:
    """For compiled code: one tile of one vector of channels, from products to outputs or added to them, with bias."""

    @intrinsic
    def inverted(
        context: Any,
        products: Any,
        at: Any,
        stride: Any,
        bias: Any,
        channel: Any,
        y: Any,
        to: Any,
        i: Any,
        j: Any,
        k: Any,
    ) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            source, shift, target = (data_of(context, builder, signature, arguments, n) for n in (0, 3, 5))
            start, point, first, out, steps = arguments[1], arguments[2], arguments[4], arguments[6], arguments[7:10]
            added = load(builder, shift, first, [], [])
            sums: dict[tuple[int, ...], Any] = {}
            for number in range(4):  # one plane at a time, which the registers hold
                values: _Values = {
                    place: load(builder, source, start, [point], [16 * number + at])
                    for at, place in enumerate(_SQUARE_4)
                }
                for axis in (1, 0):
                    values = _along(builder, values, axis, _from_products)
                _add_plane(builder, sums, values, number)
            for place in _CUBE_2:
                value = builder.fadd(sums[place], added)
                if is_added:
                    value = builder.fadd(value, load(builder, target, out, steps, place))
                store(builder, value, target, out, steps, place)
            return context.get_dummy_value()

        signature = types.void(products, types.intp, types.intp, bias, types.intp, y, *(types.intp,) * 4)
        return signature, generate

    return inverted


_put_tile, _add_tile = _inversion(is_added=False), _inversion(is_added=True)


def _multiplication(n_rows: int, n_vectors: int, *, is_transposed: bool = False) -> Any:
    """For compiled code: some rows times some columns, whose sums stay in registers over the whole depth.

    Of a matrix whose rows lie one behind the other; if it is transposed, its columns, and what is in `out` is added.
    """

    @intrinsic
    def multiplied(
        context: Any, rows: Any, at: Any, depth: Any, step: Any, right: Any, column: Any, n_out: Any, out: Any, to: Any
    ) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            source, factors, target = (data_of(context, builder, signature, arguments, n) for n in (0, 4, 7))
            (first, depth, step), (left, width), to = arguments[1:4], arguments[5:7], arguments[8]
            along, across_rows = (step, whole(1)) if is_transposed else (whole(1), step)
            sums = {}
            for place in product(range(n_rows), range(n_vectors)):
                start = load(builder, target, to, [width, whole(VECTOR)], place) if is_transposed else None
                sums[place] = cgutils.alloca_once(builder, VECTOR_TYPE)
                builder.store(VECTOR_TYPE(None) if start is None else start, sums[place])
            with cgutils.for_range(builder, depth) as loop:
                start = builder.add(left, builder.mul(loop.index, width))
                across = [load(builder, factors, start, [whole(VECTOR)], [n]) for n in range(n_vectors)]
                start = builder.add(first, builder.mul(loop.index, along))
                for row in range(n_rows):
                    at = builder.add(start, builder.mul(across_rows, whole(row)))
                    value = everywhere(builder, builder.load(builder.gep(source, [at])))
                    for n, weight in enumerate(across):
                        builder.store(_sum_of_product(builder, value, weight, sums[row, n]), sums[row, n])
            for place, total in sums.items():
                store(builder, builder.load(total), target, to, [width, whole(VECTOR)], place)
            return context.get_dummy_value()

        three, two = (types.intp,) * 3, (types.intp,) * 2
        return types.void(rows, *three, right, *two, out, types.intp), generate

    return multiplied


_many_by_two, _many_by_one = _multiplication(_N_ROWS, 2), _multiplication(_N_ROWS, 1)
_one_by_two, _one_by_one = _multiplication(1, 2), _multiplication(1, 1)
_columns_by_two = _multiplication(_N_COLUMNS, 2, is_transposed=True)
_columns_by_one = _multiplication(_N_COLUMNS, 1, is_transposed=True)


@njit(nogil=True, boundscheck=False, cache=True)
def multiply(products: Any, stride: int, n_tiles: int, points: Any, outputs: Any, stride_out: int) -> None:
    """For each point the matrix of products (tiles, C) times its weights (C, N), `points` (64, C, N), into outputs."""
    n_points, n_in, n_out = points.shape
    weights, many = points.ravel(), n_tiles - n_tiles % _N_ROWS
    for point in range(n_points):
        for channel in range(0, n_out, 2 * VECTOR):
            column = point * n_in * n_out + channel
            is_pair = channel + VECTOR < n_out
            for tile in range(0, many, _N_ROWS):
                at, to = point * stride + tile * n_in, point * stride_out + tile * n_out + channel
                if is_pair:
                    _many_by_two(products, at, n_in, n_in, weights, column, n_out, outputs, to)
                else:
                    _many_by_one(products, at, n_in, n_in, weights, column, n_out, outputs, to)
            for tile in range(many, n_tiles):
                at, to = point * stride + tile * n_in, point * stride_out + tile * n_out + channel
                if is_pair:
                    _one_by_two(products, at, n_in, n_in, weights, column, n_out, outputs, to)
                else:
                    _one_by_one(products, at, n_in, n_in, weights, column, n_out, outputs, to)


@njit(nogil=True, boundscheck=False, cache=True)
def add_products(products: Any, stride: int, n_tiles: int, spreads: Any, stride_out: int, sums: Any) -> None:
    """For each point the matrix of products (tiles, C), transposed, times that of spreads (tiles, N): added to sums."""
    n_points, n_in, n_out = sums.shape
    flat = sums.ravel()
    for point in range(n_points):
        for row in range(0, n_in, _N_COLUMNS):
            at = point * stride + row
            for channel in range(0, n_out, 2 * VECTOR):
                right, to = point * stride_out + channel, (point * n_in + row) * n_out + channel
                if channel + VECTOR < n_out:
                    _columns_by_two(products, at, n_tiles, n_in, spreads, right, n_out, flat, to)
                else:
                    _columns_by_one(products, at, n_tiles, n_in, spreads, right, n_out, flat, to)


@njit(nogil=True, boundscheck=False, cache=True)
def spread(rows: Any, tiles: Any, spreads: Any, stride: int) -> None:
    """The transpose of `inverse`: `rows` of gradients, with one voxel more on each side, into a matrix a point."""
    _transform(rows, tiles, spreads, stride, True)


@njit(nogil=True, boundscheck=False, cache=True)
def forward(rows: Any, tiles: Any, products: Any, stride: int) -> None:
    """Transform `rows` into `products`: for each of 64 points a matrix (tiles, C), `stride` numbers apart."""
    _transform(rows, tiles, products, stride, False)


@njit(nogil=True, boundscheck=False, cache=True)
def _transform(rows: Any, tiles: Any, out: Any, stride: int, is_spread: bool) -> None:
    """Each tile of `rows`: four voxels a side or, of gradients, the two in their middle."""
    _, n_j, n_k, n_channels = rows.shape
    flat, tile = rows.ravel(), 0
    step_i, step_j = n_j * n_k * n_channels, n_k * n_channels
    first = step_i + step_j + n_channels if is_spread else 0
    for a in range(tiles[0]):
        for b in range(tiles[1]):
            for c in range(tiles[2]):
                start = first + 2 * (a * step_i + b * step_j + c * n_channels)
                for channel in range(0, n_channels, VECTOR):
                    at, to = start + channel, tile * n_channels + channel
                    if is_spread:
                        _spread_tile(flat, at, step_i, step_j, n_channels, out, to, stride)
                    else:
                        _forward_tile(flat, at, step_i, step_j, n_channels, out, to, stride)
                tile += 1


@njit(nogil=True, boundscheck=False, cache=True)
def inverse(products: Any, stride: int, bias: Any, tiles: Any, start: Any, y: Any, is_added: bool) -> None:
    """Transform a matrix (tiles, N) for each point into a block of y (I, J, K, N) from `start` on, or add it there."""
    n_i, n_j, n_k, n_channels = y.shape
    flat, tile = y.ravel(), 0
    step_i, step_j = n_j * n_k * n_channels, n_k * n_channels
    edge = np.empty((2, 2, 2, VECTOR), np.float32)
    flat_edge = edge.ravel()
    for a in range(tiles[0]):
        for b in range(tiles[1]):
            for c in range(tiles[2]):
                i, j, k = start[0] + 2 * a, start[1] + 2 * b, 2 * c
                is_whole = i + 1 < n_i and j + 1 < n_j and k + 1 < n_k
                for channel in range(0, n_channels, VECTOR):
                    at = tile * n_channels + channel
                    to = i * step_i + j * step_j + k * n_channels + channel
                    if is_whole and is_added:
                        _add_tile(products, at, stride, bias, channel, flat, to, step_i, step_j, n_channels)
                        continue
                    if is_whole:
                        _put_tile(products, at, stride, bias, channel, flat, to, step_i, step_j, n_channels)
                        continue
                    _put_tile(products, at, stride, bias, channel, flat_edge, 0, 4 * VECTOR, 2 * VECTOR, VECTOR)
                    for d in range(min(2, n_i - i)):
                        for e in range(min(2, n_j - j)):
                            for f in range(min(2, n_k - k)):
                                target = y[i + d, j + e, k + f, channel : channel + VECTOR]
                                if is_added:
                                    target += edge[d, e, f]
                                else:
                                    target[:] = edge[d, e, f]
                tile += 1


def _to_product(builder: Any, number: int, given: Callable[[int], Any]) -> Any:
    """One of the four of B d of F(2, 3)."""
    first, second, is_sum = ((0, 2, False), (1, 2, True), (2, 1, False), (1, 3, False))[number]
    return (builder.fadd if is_sum else builder.fsub)(given(first), given(second))


def _to_products(builder: Any, x: Sequence[Any]) -> list[Any]:
    """B d of F(2, 3)."""
    return [_to_product(builder, number, lambda n: x[n]) for number in range(4)]


def _to_spread(builder: Any, number: int, first: Any, second: Any) -> Any:
    """One of the four of A transposed, times two gradients."""
    if number == 3:
        return builder.fneg(second)
    return first if number == 0 else (builder.fadd if number == 1 else builder.fsub)(first, second)


def _to_spreads(builder: Any, x: Sequence[Any]) -> list[Any]:
    """A transposed of F(2, 3), times gradients."""
    return [_to_spread(builder, number, x[0], x[1]) for number in range(4)]


def _add_plane(builder: Any, sums: dict[tuple[int, ...], Any], plane: _Values, number: int) -> None:
    """What one of the four planes adds to the sums A m of F(2, 3), along the first axis."""
    for (j, k), value in plane.items():
        if number < 3:
            sums[0, j, k] = builder.fadd(sums[0, j, k], value) if number else value
        if number == 1:
            sums[1, j, k] = value
        elif number > 1:
            sums[1, j, k] = builder.fsub(sums[1, j, k], value)


def _from_products(builder: Any, x: Sequence[Any]) -> list[Any]:
    """A m of F(2, 3)."""
    return [
        builder.fadd(x[0], builder.fadd(x[1], x[2])),
        builder.fsub(builder.fsub(x[1], x[2]), x[3]),
    ]


def _along(
    builder: Any, values: _Values, axis: int, transform: Callable[[Any, Sequence[Any]], list[Any]]
) -> dict[tuple[int, ...], Any]:
    """The transform of every line along an axis."""
    found: dict[tuple[int, ...], Any] = {}
    for line in (place for place in values if place[axis] == 0):
        places = [(*line[:axis], n, *line[axis + 1 :]) for n in range(4)]
        given = [values[place] for place in places if place in values]
        found.update(zip(places, transform(builder, given), strict=False))
    return found


def _sum_of_product(builder: Any, value: Any, weight: Any, total: Any) -> Any:
    """The product of two vectors added to what is in `total`; rounded once where the processor can."""
    if _HAS_FMA:
        kind = ir.FunctionType(VECTOR_TYPE, [VECTOR_TYPE] * 3)
        fma = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fma.v{VECTOR}f32")
        return builder.call(fma, [value, weight, builder.load(total)])
    return builder.fadd(builder.fmul(value, weight), builder.load(total))


def _load_at(builder: Any, pointer: Any, start: Any, steps: Sequence[Any], place: Sequence[int], number: int) -> Any:
    return load(builder, pointer, start, steps, (number, *place))
