"""From slabs of network outputs to a semantic map on the scan's own grid.

Interpolation, activation, decision and painting are fused: each slab of the network's grid becomes the rows of the scan
that lie in it, and class numbers are written straight into the scan's array. No array of all classes at the scan's
resolution exists, not even for one row: all channels are interpolated only where the winner is open (see `decide`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

import numpy as np
import torch

from medseg.core.geometry import Geometry
from medseg.core.labels import LabelScheme
from medseg.core.recipe import OutputPlan
from medseg.core.semantic import SemanticMap
from medseg.inference.axis_map import Rounding, axis_maps
from medseg.inference.canvas import Canvas, LabelPainter, RowPainter
from medseg.inference.decide import Decision
from medseg.inference.largest import keep_largest
from medseg.inference.resized_axis import area_matrix
from medseg.inference.slab import INTERPOLATED, Slab
from medseg.io.resample import resampled_slabs

__all__ = ["Beyond", "painted"]

Beyond = Literal["nearest", "background", "fading"]
"""What lies beyond the network's grid: its outermost voxels go on; background; or channels fade to 0 within a voxel."""


def painted(
    slabs: Iterable[Slab],
    network_grid: Geometry,
    scan_grid: Geometry,
    output: OutputPlan,
    scheme: LabelScheme,
    *,
    beyond: Beyond = "nearest",
    apart_axis: int | None = None,
    is_exact: bool = False,
    keeps_probability: bool = True,
) -> SemanticMap:
    """Paint slabs onto the scan's grid.

    Parameters
    ----------
    slabs
        Of the "semantic" head, in order, together the network's grid.
    network_grid, scan_grid
        Where the network saw the scan, and the scan's own grid.
    output
        Activation, decision, interpolation.
    scheme
        Names of the classes.
    beyond
        What lies beyond the network's grid.
    apart_axis
        Axis of the network's grid that is interpolated apart, with the plan's `order_z`; None for none.
    is_exact
        Whether the family's own arithmetic is followed: interpolation in float64, float16 rounding where the plan says.
    keeps_probability
        Whether the map also holds the probability of anything but background: four bytes a voxel.

    Returns
    -------
    SemanticMap on `scan_grid`.
    """
    decision = Decision(output, is_exact=is_exact)
    if output.resizes_back == "area" and output.interpolates != "labels":
        slabs, network_grid = _averaged(slabs, network_grid, scan_grid, decision)
    margin = 1 if beyond == "fading" else 0
    maps = axis_maps(network_grid, scan_grid, _roundings(output, apart_axis), margin)
    if maps is None:
        slabs, network_grid, margin = _turned(slabs, network_grid, scan_grid, decision), scan_grid, 0
        maps = axis_maps(scan_grid, scan_grid, ("linear", "linear", "linear"))
    if maps is None:
        raise AssertionError("a grid is parallel to itself")
    canvas = Canvas(scan_grid.shape, scheme.highest, keeps_probability, beyond == "background")
    painter: RowPainter | LabelPainter
    if output.interpolates == "labels":
        painter = LabelPainter(canvas, network_grid.shape, maps, decision, margin)
    else:
        painter = RowPainter(canvas, network_grid.shape, maps, decision, margin, np.float64 if is_exact else np.float32)
    for slab in slabs:
        painter.add(slab)
    painter.finish()
    if output.interpolates != "labels":
        keep_largest(canvas.classes, output.keep_largest, output.keep_largest_connectivity)
    return SemanticMap(canvas.classes, scan_grid, scheme, probability=canvas.probability)


def _roundings(output: OutputPlan, apart_axis: int | None) -> tuple[Rounding, Rounding, Rounding]:
    if output.resizes_back is not None:
        rule: Rounding = "floor" if output.interpolates == "labels" else output.resizes_back
        return (rule, rule, rule)
    if output.interpolates == "labels":
        return ("half_even", "half_even", "half_even")
    orders = [output.order_z if axis == apart_axis else output.interpolation_order for axis in range(3)]
    i, j, k = ("linear" if order == 1 else "half_up" for order in orders)
    return (i, j, k)  # type: ignore[return-value]


def _averaged(
    slabs: Iterable[Slab], network_grid: Geometry, scan_grid: Geometry, decision: Decision
) -> tuple[Iterable[Slab], Geometry]:
    """Slabs averaged along the axes on which the scan has fewer voxels than the network's grid, and their grid.

    Where there are such axes all channels are in memory at once: a resized image is a small one.
    """
    to_source = np.linalg.inv(network_grid.affine) @ scan_grid.affine
    scales = np.abs(to_source[:3, :3]).max(axis=1)
    sides = [max(round(n / scale), 1) for n, scale in zip(network_grid.shape, scales, strict=True)]
    shape = [min(side, n) for side, n in zip(sides, network_grid.shape, strict=True)]
    if shape == list(network_grid.shape):
        return slabs, network_grid
    parts, axis = [], 0
    for slab in slabs:
        parts.append(decision.before_interpolation(slab.logits(decision.background_logits)))
        axis = slab.axis
    values = torch.cat(parts).movedim(0, axis)
    affine = network_grid.affine.copy()
    for number, (n, n_new) in enumerate(zip(network_grid.shape, shape, strict=True)):
        if n != n_new:
            matrix = torch.from_numpy(area_matrix(n, n_new))
            values = torch.tensordot(matrix, values, dims=([1], [number])).movedim(0, number)
            affine[:3, 3] += affine[:3, number] * (n / n_new - 1) / 2
            affine[:3, number] *= n / n_new
    i, j, k = shape
    whole = Slab(0, 0, i, {INTERPOLATED: values.contiguous()})
    return [whole], Geometry((i, j, k), affine)


def _turned(slabs: Iterable[Slab], network_grid: Geometry, scan_grid: Geometry, decision: Decision) -> Iterator[Slab]:
    """Slabs of the scan's own grid, for grids that are turned against each other: linear interpolation of a volume.

    Here all channels are in memory at once. No preparation step turns a grid, so only grids that come from elsewhere
    take this way.
    """
    parts, axis = [], 0
    for slab in slabs:
        values = decision.before_interpolation(slab.logits(decision.background_logits))
        parts.append(values.movedim(-1, 0).movedim(1, slab.axis + 1).numpy())
        axis = slab.axis
    whole = np.concatenate(parts, axis=axis + 1)
    for part, interpolated in resampled_slabs(whole, network_grid, scan_grid):  # turned grids: along the first axis
        channels_last = np.ascontiguousarray(np.moveaxis(interpolated, 0, -1))
        yield Slab(0, part[0].start, part[0].stop, {INTERPOLATED: torch.from_numpy(channels_last)})
