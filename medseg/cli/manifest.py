"""`medseg manifest`: which cases a model is trained on, checked and written down."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from medseg.cli.console import print_json, show_notes, show_progress
from medseg.cli.options import Json, Overwrite, Quiet
from medseg.errors import UsageError

if TYPE_CHECKING:
    from medseg.io.manifest import DataManifest, ManifestChannel

__all__ = ["manifest"]

_Folder = Annotated[Path, typer.Argument(metavar="FOLDER", show_default=False, help="Scans with their label maps.")]
_Output = Annotated[Path, typer.Option("--output", "-o", help="Manifest to write, JSON.", show_default=False)]
_Layout = Annotated[
    Literal["nnunet", "msd", "bids", "pattern"] | None,
    typer.Option("--layout", help="How the folder is laid out [default: what it says itself].", show_default=False),
]
_Images = Annotated[
    list[str] | None,
    typer.Option("--image", metavar="PATTERN", help="Where images lie, as {case}/ct.nii.gz; once a channel."),
]
_Label = Annotated[
    str | None, typer.Option("--label", metavar="PATTERN", help="Where label maps lie; {patient} may be in it too.")
]
_Instances = Annotated[
    str | None, typer.Option("--instances", metavar="PATTERN", help="Where maps of lesion numbers lie beside them.")
]
_Numbered = Annotated[bool, typer.Option("--numbered", help="The label maps hold lesion numbers, all of one class.")]
_Channels = Annotated[
    list[str] | None,
    typer.Option(
        "--channel",
        metavar="NAME[:MODALITY[:UNITS]]",
        help="A channel, in order: PET:PT:suv, CT; for BIDS the suffix of its images.",
    ),
]
_Classes = Annotated[
    list[str] | None, typer.Option("--class", metavar="N=NAME", help="What a number in the label maps means.")
]
_Patient = Annotated[
    str | None,
    typer.Option("--patient", metavar="REGEX", help="Finds the patient in a case's name, as '^(p[0-9]+)'."),
]
_Folds = Annotated[int, typer.Option("--folds", min=0, help="Folds to deal patients into; 0 for none.")]
_Name = Annotated[str | None, typer.Option("--name", help="Name of the set and of models trained on it.")]
_Description = Annotated[str | None, typer.Option("--description", help="What the cases are.")]
_Source = Annotated[str | None, typer.Option("--source", help="Where they come from.")]
_Licence = Annotated[str | None, typer.Option("--licence", help="On which terms they may be used.")]
_LicenceUrl = Annotated[str | None, typer.Option("--licence-url", help="Where the terms are.")]
_Attribution = Annotated[str | None, typer.Option("--attribution", help="Whom to cite.")]


def manifest(
    folder: _Folder,
    output: _Output,
    layout: _Layout = None,
    images: _Images = None,
    label: _Label = None,
    instances: _Instances = None,
    numbered: _Numbered = False,
    channels: _Channels = None,
    classes: _Classes = None,
    patient: _Patient = None,
    folds: _Folds = 5,
    name: _Name = None,
    description: _Description = None,
    source: _Source = None,
    licence: _Licence = None,
    licence_url: _LicenceUrl = None,
    attribution: _Attribution = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write the data manifest of a folder.

    The folder is nnU-Net's or the Decathlon's (dataset.json), one after BIDS with label maps among its derivatives,
    or any other whose files --image and --label find. Every case is read and checked first.

    \b
    Example:
      medseg manifest Dataset001_Liver -o liver.json
    """  # noqa: D301
    about = {"name": name, "description": description, "source": source, "licence": licence}
    about |= {"licence_url": licence_url, "attribution": attribution}
    from medseg.io.manifest_make import make_manifest

    with show_progress(quiet=quiet) as progress:
        made, notes = make_manifest(
            folder,
            output,
            layout=layout,
            images=images or (),
            label=label,
            instances=instances,
            numbered=numbered,
            channels=[_channel(given) for given in channels or ()],
            labels=dict(map(_class, classes)) if classes else None,
            patient=patient,
            n_folds=folds,
            about={key: value for key, value in about.items() if value},
            overwrite=overwrite,
            progress=progress,
        )
    show_notes(notes, quiet=quiet)
    if as_json:
        print_json(_summary(made, output))
    else:
        counts = ", ".join(f"{n} to {split}" for split, n in _splits(made).items())
        typer.echo(f"{made.name}: {len(made.cases)} case(s) ({counts}), {len(made.folds)} fold(s), written to {output}")


def _channel(given: str) -> str | ManifestChannel:
    from pydantic import ValidationError

    from medseg.io.manifest import ManifestChannel

    parts = dict(zip(("name", "modality", "units"), given.split(":", 2), strict=False))
    if len(parts) == 1:
        return given
    try:
        return ManifestChannel.model_validate(parts)
    except ValidationError as error:
        raise UsageError(f"--channel is NAME[:MODALITY[:UNITS]] with units suv or stored; got {given!r}") from error


def _class(given: str) -> tuple[int, str]:
    number, _, name = given.partition("=")
    if not number.isdecimal() or not name:
        raise UsageError(f"--class is N=NAME, as 1=tumor; got {given!r}")
    return int(number), name


def _splits(made: DataManifest) -> dict[str, int]:
    words = {"train": "train on", "validation": "validate on", "test": "test on"}
    counts = {word: len([case for case in made.cases if case.split == split]) for split, word in words.items()}
    return {word: n for word, n in counts.items() if n}


def _summary(made: DataManifest, output: Path) -> dict[str, object]:
    return {
        "output": str(output),
        "name": made.name,
        "n_cases": len(made.cases),
        "n_patients": len({case.whose for case in made.cases}),
        "splits": {split: len(made.of_split(split)) for split in ("train", "validation", "test")},
        "folds": list(made.folds),
        "channels": [channel.model_dump() for channel in made.channels],
        "labels": {str(number): name for number, name in made.labels.items()},
    }
