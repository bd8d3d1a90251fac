# ruff: noqa: ARG001 (numba counts the arguments of an intrinsic)
"""Kernels of numba for the gradients of a normalization and the activation behind it, over feature maps (I, J, K, C).

`h = a x + o` is a voxel normalized, `z = w h + b` scaled and shifted, and `y = z`, or `s z` where z is negative: the
rows of `factors` (5, C) float32, contiguous, are a, o, w, b, s.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from medseg.inference.vectors import VECTOR, VECTOR_TYPE, data_of, load, store

__all__ = ["gradient_of_input", "gradient_sums"]


def _known(builder: Any, x: Any, gradient: Any, factors: Any, channel: Any, n_channels: Any) -> tuple[Any, Any, Any]:
    """For compiled code: of vectors of x and the gradient, h, z where negative (else 0), and the gradient at z."""
    a, o, w, b, s = (load(builder, factors, channel, [n_channels], [n]) for n in range(5))
    zero = ir.Constant(VECTOR_TYPE, [0.0] * VECTOR)
    h = builder.fadd(builder.fmul(x, a), o)
    z = builder.fadd(builder.fmul(h, w), b)
    is_negative = builder.fcmp_ordered("<", z, zero)
    to_z = builder.select(is_negative, builder.fmul(gradient, s), gradient)
    return h, builder.select(is_negative, z, zero), to_z


@intrinsic
def _add_sums(
    context: Any, x: Any, gradients: Any, at: Any, factors: Any, channel: Any, n_channels: Any, sums: Any
) -> Any:
    """For compiled code: add what one vector of channels of a voxel gives to the sums (3, C) of a row."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, given, known, into = (data_of(context, builder, signature, arguments, n) for n in (0, 1, 3, 6))
        at, channel, n_channels = arguments[2], arguments[4], arguments[5]
        gradient = load(builder, given, at)
        h, below, to_z = _known(builder, load(builder, source, at), gradient, known, channel, n_channels)
        for number, more in enumerate((to_z, builder.fmul(to_z, h), builder.fmul(gradient, below))):
            place = (into, channel, [n_channels], [number])
            store(builder, builder.fadd(load(builder, *place), more), *place)
        return context.get_dummy_value()

    return types.void(x, gradients, types.intp, factors, types.intp, types.intp, sums), generate


@intrinsic
def _put_gradient(
    context: Any, x: Any, gradients: Any, at: Any, factors: Any, shares: Any, channel: Any, n_channels: Any, target: Any
) -> Any:
    """For compiled code: the gradient of one vector of channels of a voxel of x."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, given, known, parts, into = (
            data_of(context, builder, signature, arguments, n) for n in (0, 1, 3, 4, 7)
        )
        at, channel, n_channels = arguments[2], arguments[5], arguments[6]
        x, gradient = load(builder, source, at), load(builder, given, at)
        h, _, to_z = _known(builder, x, gradient, known, channel, n_channels)
        of_gradient, of_h, shift = (load(builder, parts, channel, [n_channels], [n]) for n in range(3))
        found = builder.fadd(builder.fmul(to_z, of_gradient), builder.fadd(builder.fmul(h, of_h), shift))
        store(builder, found, into, at)
        return context.get_dummy_value()

    return types.void(x, gradients, types.intp, factors, shares, types.intp, types.intp, target), generate


@njit(nogil=True, boundscheck=False, cache=True)
def gradient_sums(x: Any, gradients: Any, factors: Any) -> Any:
    """Sums (3, C) float64 over voxels: of the gradient brought to z, of that times h, of the gradient times z < 0."""
    n_i, n_j, n_k, n_channels = x.shape
    total = np.zeros((3, n_channels), np.float64)
    of_row = np.empty((3, n_channels), np.float32)
    a, o, w, b, s = factors
    n_whole = n_channels - n_channels % VECTOR
    flat, flat_gradients, flat_factors, flat_row = x.ravel(), gradients.ravel(), factors.ravel(), of_row.ravel()
    for row in range(n_i * n_j):
        of_row[:] = np.float32(0)
        for at in range(row * n_k * n_channels, (row + 1) * n_k * n_channels, n_channels):
            for c in range(0, n_whole, VECTOR):
                _add_sums(flat, flat_gradients, at + c, flat_factors, c, n_channels, flat_row)
            for c in range(n_whole, n_channels):
                h = flat[at + c] * a[c] + o[c]
                z = h * w[c] + b[c]
                to_z = flat_gradients[at + c] * (s[c] if z < 0 else np.float32(1))
                of_row[0, c] += to_z
                of_row[1, c] += to_z * h
                of_row[2, c] += flat_gradients[at + c] * min(z, np.float32(0))
        total += of_row
    return total


@njit(nogil=True, boundscheck=False, cache=True)
def gradient_of_input(x: Any, gradients: Any, factors: Any, shares: Any, target: Any) -> None:
    """The gradient brought to z times the first row of `shares` (3, C), h times the second, and the third, summed."""
    n_channels = x.shape[3]
    a, o, w, b, s = factors
    of_gradient, of_h, shift = shares
    n_whole = n_channels - n_channels % VECTOR
    flat, flat_gradients, into = x.ravel(), gradients.ravel(), target.ravel()
    flat_factors, flat_shares = factors.ravel(), shares.ravel()
    for at in range(0, x.size, n_channels):
        for c in range(0, n_whole, VECTOR):
            _put_gradient(flat, flat_gradients, at + c, flat_factors, flat_shares, c, n_channels, into)
        for c in range(n_whole, n_channels):
            h = flat[at + c] * a[c] + o[c]
            z = h * w[c] + b[c]
            to_z = flat_gradients[at + c] * (s[c] if z < 0 else np.float32(1))
            into[at + c] = to_z * of_gradient[c] + h * of_h[c] + shift[c]
