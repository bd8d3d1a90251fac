"""The DICOM series in a folder: found by content, split into stacks, one of them chosen.

Only headers are read. A damaged file does not keep the others from being listed; it does keep a series that it may
belong to from being read.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike
from pathlib import Path

from medseg.errors import AmbiguousSeries, InvalidGeometry, ScanNotFound, UnreadableImage
from medseg.io.dicom_frames import Frame, ImageFile, NoImage, read_frames
from medseg.io.dicom_headers import lenient_parsing
from medseg.io.dicom_stacks import Stack, missing_place, split_into_stacks
from medseg.io.file_tree import MAY_HIDE_SCANS, walk_files

__all__ = [
    "DamagedFile",
    "FolderListing",
    "Series",
    "StackChoice",
    "check_whole",
    "choose_stack",
    "list_file",
    "list_series",
]

logger = logging.getLogger(__name__)

_N_THREADS = 2
_FILES_A_TASK = 64
_MOST_SHOWN = 40


@dataclass(frozen=True, eq=False)
class Series:
    """The frames of one series, in no order yet."""

    frames: tuple[Frame, ...]

    @property
    def first(self) -> ImageFile:
        """The file that speaks for the series: what its files share."""
        return self.frames[0].file

    @property
    def uid(self) -> str:
        """Its SeriesInstanceUID."""
        return self.first.series_uid

    @cached_property
    def stacks(self) -> tuple[Stack, ...]:
        """Its stacks, one for each volume that it holds."""
        return tuple(split_into_stacks(self.frames))


@dataclass(frozen=True, eq=False)
class StackChoice:
    """One stack of one series; `number` counts the stacks of the series from 1, `series_name` chooses the series."""

    series: Series
    number: int
    series_name: str

    @property
    def stack(self) -> Stack:
        """The frames."""
        return self.series.stacks[self.number - 1]

    @property
    def name(self) -> str:
        """What chooses it: the series' number or UID, with the stack's number where the series holds several."""
        return self.series_name if len(self.series.stacks) == 1 else f"{self.series_name}:{self.number}"

    def __str__(self) -> str:
        first = self.series.first
        description = f" {first.series_description!r}" if first.series_description else ""
        details = [detail for detail in (self.stack.label, self.stack.aside) if detail]
        more = f" ({'; '.join(details)})" if details else ""
        return f"number {self.name}: {first.modality}{description}, {len(self.stack.frames)} slice(s){more}"


@dataclass(frozen=True)
class DamagedFile:
    """A DICOM file that cannot be read, and why."""

    path: Path
    reason: str


@dataclass(frozen=True, eq=False)
class FolderListing:
    """What a folder holds: its series, its DICOM objects that are no gray images, its damaged and its other files."""

    folder: Path
    series: tuple[Series, ...]
    damaged: tuple[DamagedFile, ...] = ()
    no_images: tuple[NoImage, ...] = ()
    other_files: tuple[Path, ...] = field(default=(), repr=False)

    @cached_property
    def choices(self) -> tuple[StackChoice, ...]:
        """Every stack of every series, which goes by its number where no other series has the same."""
        numbers = Counter(series.first.series_number for series in self.series)
        return tuple(
            StackChoice(series, stack, number if number and numbers[number] == 1 else series.uid)
            for series in self.series
            for number in (series.first.series_number,)
            for stack in range(1, len(series.stacks) + 1)
        )


def list_series(folder: str | PathLike[str]) -> FolderListing:
    """Every DICOM image series under a folder, told by content, sorted by number and UID.

    Raises
    ------
    ScanNotFound
        If there is no such folder.
    """
    root = Path(folder)
    if not root.is_dir():
        raise ScanNotFound(f"{root} is no folder; expected one with DICOM files")
    passed_over: Counter[str] = Counter()
    listing = _listing(root, list(walk_files(root, passed_over)))
    lost = [f"{passed_over[reason]} {reason}" for reason in MAY_HIDE_SCANS if passed_over[reason]]
    if lost:
        logger.warning("%s: passed over: %s", root, "; ".join(lost))
    return listing


def list_file(path: Path) -> FolderListing:
    """The series of one DICOM file, with the frames of that file only."""
    return _listing(path, [path])


def choose_stack(listing: FolderListing, series: str | int | None = None) -> StackChoice:
    """The stack asked for by the UID, number or description of its series, or "number:stack"; else the only one.

    Localizers, derived images and secondary captures are chosen only by name, or where nothing else is there.

    Raises
    ------
    ScanNotFound
        If the folder holds no series, or none by that name.
    AmbiguousSeries
        If several fit; the message lists them.
    UnreadableImage
        If a damaged file may belong to the series.
    InvalidGeometry
        If a slice of the series does not say where it lies.
    """
    choices = listing.choices
    if not choices:
        _refuse_damaged(listing.damaged)
        raise ScanNotFound(
            f"{listing.folder} holds no DICOM image ({len(listing.other_files)} other files, "
            f"{len(listing.no_images)} DICOM objects that are no images)"
        )
    fitting = [choice for choice in choices if series is None or _is_named(choice, str(series))]
    if not fitting:
        raise ScanNotFound(f"{listing.folder} holds no series {series!r}; it holds\n{_listed(choices)}")
    primary = [choice for choice in fitting if choice.stack.aside is None] or fitting
    primary = [choice for choice in primary if choice.stack.is_placed] or primary
    if len(primary) > 1:
        what = "series" if len({choice.series.uid for choice in primary}) > 1 else "stacks of one series"
        raise AmbiguousSeries(
            f"{listing.folder} holds {len(primary)} {what}; choose one by number, description or UID (--series)\n"
            f"{_listed(fitting)}"
        )
    check_whole(listing, primary[0], is_named=series is not None)
    return primary[0]


def check_whole(listing: FolderListing, choice: StackChoice, *, is_named: bool = True) -> None:
    """Refuse a stack of which a damaged file, or a slice without a place, may be a part.

    Raises
    ------
    UnreadableImage
        If a damaged file may belong to the series; where the series was not named, any damaged file may.
    InvalidGeometry
        If a slice of the series does not say where it lies.
    """
    _check_undamaged(listing, choice, is_named=is_named)
    _check_placed(choice)


def _listing(root: Path, files: Sequence[Path]) -> FolderListing:
    chunks = [files[start : start + _FILES_A_TASK] for start in range(0, len(files), _FILES_A_TASK)]
    groups: dict[tuple[str, str], list[Frame]] = {}
    damaged: list[DamagedFile] = []
    no_images: list[NoImage] = []
    others: list[Path] = []
    with lenient_parsing(), ThreadPoolExecutor(_N_THREADS) as pool:
        for chunk, found in zip(chunks, pool.map(_read_files, chunks), strict=True):
            for path, content in zip(chunk, found, strict=True):
                if content is None:
                    others.append(path)
                elif isinstance(content, DamagedFile):
                    damaged.append(content)
                elif isinstance(content, NoImage):
                    no_images.append(content)
                else:
                    file = content[0].file
                    groups.setdefault((file.study_uid, file.series_uid), []).extend(content)
    series = sorted((Series(tuple(frames)) for frames in groups.values()), key=_listing_order)
    logger.info(
        "%d series; skipped %d other files, %d DICOM objects without image, %d damaged files",
        *(len(series), len(others), len(no_images), len(damaged)),
    )
    return FolderListing(root, tuple(series), tuple(damaged), tuple(no_images), tuple(others))


_Content = tuple[Frame, ...] | NoImage | DamagedFile | None


def _read_files(paths: Sequence[Path]) -> list[_Content]:
    return [_read_file(path) for path in paths]


def _read_file(path: Path) -> _Content:
    """The frames of a file, or what it is instead; None if it is not DICOM."""
    try:
        return read_frames(path)
    except UnreadableImage as error:
        return DamagedFile(path, str(error))
    except OSError as error:
        return DamagedFile(path, f"{path} cannot be read: {error.strerror or error}")


def _listing_order(series: Series) -> tuple[int, str, str]:
    number = series.first.series_number
    return (int(number) if number.isdecimal() else -1, series.first.study_uid, series.uid)


def _is_named(choice: StackChoice, name: str) -> bool:
    """Whether a series, or a stack of it, goes by a name."""
    first = choice.series.first
    if name in (first.series_uid, first.series_number) or name.lower() == first.series_description.lower():
        return True
    series_name, colon, stack_number = name.rpartition(":")
    return bool(colon) and stack_number == str(choice.number) and _is_named(choice, series_name)


def _listed(choices: Sequence[StackChoice]) -> str:
    lines = [f"  {choice}" for choice in choices[:_MOST_SHOWN]]
    more = [f"  ... and {len(choices) - _MOST_SHOWN} more"] if len(choices) > _MOST_SHOWN else []
    return "\n".join([*lines, *more])


def _check_undamaged(listing: FolderListing, choice: StackChoice, *, is_named: bool) -> None:
    """Refuse a series that a damaged file may belong to: without it a volume could be short and nobody would notice.

    A damaged file does not say its series. It is taken to belong to the one in its folder; where no series was named,
    to the one that would be chosen.
    """
    folders = {frame.file.path.parent for frame in choice.series.frames}
    _refuse_damaged([file for file in listing.damaged if not is_named or file.path.parent in folders])


def _check_placed(choice: StackChoice) -> None:
    """Refuse a stack whose series holds slices of the same size that do not say where they lie: they may be its own."""
    size = (choice.stack.frames[0].rows, choice.stack.frames[0].columns)
    for stack in choice.series.stacks:
        lost = stack.frames[0]
        if not stack.is_placed and stack.aside is None and (lost.rows, lost.columns) == size:
            raise InvalidGeometry(f"{lost.file.path} does not say where it lies: {missing_place(lost)} is missing")


def _refuse_damaged(damaged: Sequence[DamagedFile]) -> None:
    if damaged:
        more = f" ({len(damaged)} damaged files in all)" if len(damaged) > 1 else ""
        raise UnreadableImage(f"{damaged[0].reason}{more}")
