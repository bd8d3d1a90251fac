"""`medseg demo`: a phantom through the shipped model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medseg.cli.console import print_json, show_progress
from medseg.cli.options import Device, Json, Quiet
from medseg.cli.segment import case_as_json, print_case

__all__ = ["demo"]

_Output = Annotated[Path, typer.Option("--output", "-o", help="Output folder; an older demo there is replaced.")]
_Seed = Annotated[int, typer.Option("--seed", min=0, help="The same seed gives the same phantom.")]
_Model = Annotated[str, typer.Option("--model", "-m", help="Name of a shipped PET model, or a bundle folder.")]


def demo(
    output: _Output = Path("medseg-demo"),
    seed: _Seed = 0,
    model: _Model = "sarcoma_pet",
    device: Device = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Segment a synthetic scan and count its lesions found.

    Writes the phantom (scan.nii.gz, truth.nii.gz, phantom.json) and what `medseg segment` writes.

    \b
    Example:
      medseg demo -o medseg-demo
    """  # noqa: D301
    from medseg.demo import DEMO_FILES, FOUND_RULE, run_demo

    with show_progress(quiet=quiet) as progress:
        outcome = run_demo(output, seed, model=model, device=device, progress=progress)
    files = list(DEMO_FILES)
    if as_json:
        found = {"n_known": outcome.n_known, "n_found": outcome.n_found, "found_rule": FOUND_RULE}
        print_json({**case_as_json(outcome.result, output, files), **found})
        return
    print_case(outcome.result, output, files)
    typer.echo(f"Found {outcome.n_found} of {outcome.n_known} known lesions ({FOUND_RULE}).")
    typer.echo(f"Pictures: {output / 'report.html'}")
