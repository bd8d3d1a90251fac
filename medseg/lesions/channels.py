"""Columns of a scan's channels: intensity of each, uptake of those in SUV."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from medseg.core.choice import Choice
from medseg.core.column import Column, Value
from medseg.core.columns_scan import INTENSITY, UPTAKE
from medseg.core.semantic import SemanticMap
from medseg.core.table import COLUMNS
from medseg.core.volume import Volume
from medseg.lesions.bodies import LesionVoxels
from medseg.lesions.intensity import ct_windows, intensity_columns
from medseg.lesions.organs import Hosts
from medseg.lesions.surroundings import Shell, lesion_shells, shell_columns
from medseg.lesions.uptake import uptake_columns

__all__ = ["Channel", "channel_columns", "measure_channels", "plan_channels"]

_SHELL_COLUMNS = tuple(column.name for column in INTENSITY if "_3mm_" in column.name)


@dataclass(frozen=True)
class Channel:
    """What a channel is called, and what stands in front of its columns.

    Parameters
    ----------
    index
        Place in the scan.
    name
        Small letters, digits and underscores.
    is_suv, is_ct
        What its voxels hold.
    intensity_prefix, uptake_prefix
        Empty for the columns of every table; None without uptake.
    """

    index: int
    name: str
    is_suv: bool
    is_ct: bool
    intensity_prefix: str
    uptake_prefix: str | None

    @property
    def families(self) -> list[tuple[str, tuple[Column, ...]]]:
        """Its families of columns, each with what stands in front."""
        uptake = [] if self.uptake_prefix is None else [(self.uptake_prefix, UPTAKE)]
        return [(self.intensity_prefix, INTENSITY), *uptake]

    def plain_names(self, names: Collection[str]) -> set[str]:
        """Those of the names that are columns of this channel, without what stands in front."""
        return {
            column.name for prefix, family in self.families for column in family if f"{prefix}{column.name}" in names
        }


def plan_channels(volume: Volume | None) -> list[Channel]:
    """The channels of a scan; the first one, and the first one in SUV, have the columns of every table."""
    if volume is None:
        return []
    channels: list[Channel] = []
    names = _channel_names(volume.channels)
    for index, (name, unit) in enumerate(zip(names, volume.units, strict=True)):
        is_suv = unit == "suv"
        is_first_suv = is_suv and not any(channel.is_suv for channel in channels)
        uptake = None if not is_suv else "" if is_first_suv else f"{name}_"
        is_ct = volume.channels[index].lower() == "ct" and not is_suv
        channels.append(Channel(index, name, is_suv, is_ct, f"{name}_" if index else "", uptake))
    return channels


def channel_columns(channels: Sequence[Channel]) -> tuple[Column, ...]:
    """All columns of a table with these channels, in order."""
    if not channels:
        return COLUMNS
    first_unit = "SUV" if channels[0].is_suv else "scan"
    further = [
        column.of_channel(channel.name, "SUV" if channel.is_suv else "scan")
        for channel in channels
        for prefix, family in channel.families
        if prefix
        for column in family
    ]
    intensities = {column.name for column in INTENSITY}
    return (*(c.in_unit(first_unit) if c.name in intensities else c for c in COLUMNS), *further)


def measure_channels(
    voxels: LesionVoxels,
    volume: Volume | None,
    names: Collection[str],
    mesh_volume_ml: Sequence[float],
    organs: tuple[SemanticMap, Hosts] | None,
) -> dict[str, Sequence[Value]]:
    """Columns of every channel, entry n - 1 for lesion n.

    Parameters
    ----------
    voxels
        Of lesions 1..n.
    volume
        The scan, or None.
    names
        Columns that are wanted; what none of them needs is not computed.
    mesh_volume_ml
        n numbers, for the integrated intensity if it is wanted.
    organs
        The map and the host of each lesion, if there are any.
    """
    columns: dict[str, Sequence[Value]] = {}
    shells: list[Shell] = []
    for channel in plan_channels(volume):
        choice = Choice(channel.plain_names(names))
        if volume is None or not channel.plain_names(names):
            continue
        array = volume.array[channel.index]
        own = voxels.read(array)
        found: dict[str, Any] = {}
        if choice.holds(*(column.name for column in INTENSITY)):
            found.update(intensity_columns(voxels, own, mesh_volume_ml, channel.is_suv, choice))
        if choice.holds(*_SHELL_COLUMNS):
            shells = shells or lesion_shells(voxels)
            organ_array, hosts = (organs[0].array, organs[1].numbers) if organs else (None, [0] * voxels.n_lesions)
            found.update(shell_columns(shells, array, found.get("mean", []), organ_array, hosts))
        if channel.is_ct and choice.holds("ct_window"):
            found["ct_window"] = ct_windows(found.get("median", []))
        if channel.is_suv and choice.holds(*(column.name for column in UPTAKE)):
            found.update(uptake_columns(voxels, array, own, choice))
        for prefix, family in channel.families:
            columns |= {f"{prefix}{column.name}": found[column.name] for column in family if column.name in found}
    return columns


def _channel_names(channels: Sequence[str]) -> list[str]:
    """Channel names as they stand in front of columns: small letters, digits and underscores, each one once."""
    names: list[str] = []
    for number, channel in enumerate(channels):
        name = re.sub(r"[^a-z0-9]+", "_", channel.lower()).strip("_") or f"channel_{number}"
        names.append(name if name not in names else f"{name}_{number}")
    return names
