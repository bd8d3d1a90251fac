"""Options that several commands share, so that one word means one thing everywhere."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Annotated, Literal

import typer

from medseg.errors import UsageError

__all__ = [
    "AllowGaps",
    "CaseId",
    "Connectivity",
    "Device",
    "Engine",
    "Json",
    "MaxMemory",
    "Mesh",
    "Method",
    "MinimumVolume",
    "NanAs",
    "OutputFolder",
    "Overwrite",
    "Precision",
    "Quiet",
    "RtStruct",
    "SegKind",
    "Series",
    "SkipAir",
    "TestTimeFlips",
    "Viewer",
    "WeightKg",
    "memory_mib",
    "separation_changes",
]

AllowGaps = Annotated[
    bool,
    typer.Option(
        "--allow-gaps",
        help="Interpolate across missing or irregular DICOM slices (gaps of up to 10 steps) and record that.",
    ),
]
CaseId = Annotated[
    str | None,
    typer.Option("--case-id", help="Name of the case [default: the file's name, or a salted hash for DICOM]."),
]
Connectivity = Annotated[
    Literal[6, 18, 26] | None,
    typer.Option(
        "--connectivity", help="Which neighbors of a voxel belong to its lesion [default: the plan's, or 26]."
    ),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
Engine = Annotated[
    Literal["auto", "torch", "compiled", "openvino"],
    typer.Option("--engine", help="What runs the network; auto is what a short warm-up finds fastest here."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
MaxMemory = Annotated[
    str | None,
    typer.Option(
        "--max-memory",
        metavar="SIZE",
        help="What may be held in memory while the network runs, as 6GiB or 800MiB [default: what is free].",
    ),
]
Mesh = Annotated[
    Literal["stl", "obj"] | None,
    typer.Option("--mesh", help="Also write the surface of each lesion, in patient millimeters."),
]
Method = Annotated[
    Literal["auto", "components", "watershed", "offsets"] | None,
    typer.Option("--method", help="How touching lesions come apart [default: the plan's, or auto]."),
]
MinimumVolume = Annotated[
    float | None,
    typer.Option(
        "--minimum-volume-ml", min=0.0, help="Leave out smaller lesions; they are counted [default: the plan's, or 0]."
    ),
]
NanAs = Annotated[
    float | None, typer.Option("--nan-as", help="Fill NaN and infinite voxels with this value and record that.")
]
OutputFolder = Annotated[
    Path, typer.Option("--output", "-o", help="Output folder; made if need be.", show_default=False)
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a result that is there already.")]
Precision = Annotated[
    Literal["auto", "exact", "float32", "bfloat16", "float16"],
    typer.Option("--precision", help="Of the network; exact: float32 and the arithmetic of the model's own family."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notes on stderr.")]
RtStruct = Annotated[bool, typer.Option("--rtstruct", help="Also write an RTSTRUCT: lesions.rtstruct.dcm.")]
SegKind = Annotated[
    Literal["binary", "labelmap"],
    typer.Option("--seg-kind", help="How a SEG is stored: binary, or labelmap (smaller; old archives refuse it)."),
]
Series = Annotated[
    str | None,
    typer.Option(
        "--series", help="Which DICOM series, if a folder holds several: UID, number, number:stack or description."
    ),
]
SkipAir = Annotated[
    bool,
    typer.Option(
        "--skip-air", help="Do not run windows in which the scan is air around the body; they are counted, and sampled."
    ),
]
TestTimeFlips = Annotated[
    bool | None,
    typer.Option(
        "--tta/--no-tta",
        help="Mirror the scan at test time as the model says, in up to eight passes instead of one [default: on a GPU, "
        "for medseg's own models, and with --precision exact].",
        show_default=False,
    ),
]
Viewer = Annotated[
    Literal["canvas", "niivue"],
    typer.Option("--viewer", help="Of report.html; niivue adds a 3-D view by NiiVue (WebGL, 1.1 MB)."),
]
WeightKg = Annotated[
    float | None,
    typer.Option("--weight-kg", help="The patient's weight for SUV, if the DICOM series lacks it."),
]


def memory_mib(size: str | None) -> float | None:
    """MiB of a size as it is written on the command line, None for none.

    Raises
    ------
    UsageError
        If it is no positive number with a unit.

    Examples
    --------
    >>> memory_mib("6GiB"), memory_mib("0.5 G"), memory_mib("800 MB")
    (6144.0, 512.0, 762.939453125)
    """
    if size is None:
        return None
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(B|K|KB|KiB|M|MB|MiB|G|GB|GiB|T|TB|TiB)\s*", size, re.IGNORECASE)
    if match is None or not float(match[1]):
        raise UsageError(f"--max-memory must be a size with its unit, such as 6GiB or 800MiB; got {size!r}")
    unit = match[2].upper()
    base = 1000 if len(unit) == 2 else 1024
    return float(match[1]) * float(base ** "BKMGT".index(unit[0])) / 2**20


def separation_changes(
    method: str | None, connectivity: int | None, minimum_volume_ml: float | None
) -> dict[str, object]:
    """The fields of a `SeparationPlan` that were given on the command line.

    Raises
    ------
    UsageError
        If the minimum volume is no finite number.
    """
    if minimum_volume_ml is not None and not math.isfinite(minimum_volume_ml):
        raise UsageError(f"--minimum-volume-ml must be a finite number; got {minimum_volume_ml}")
    given = {"method": method, "connectivity": connectivity, "minimum_volume_ml": minimum_volume_ml}
    return {name: value for name, value in given.items() if value is not None}
