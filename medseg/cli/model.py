"""`medseg model`: look at a model, check it, trust it, export it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from medseg.cli.console import print_json
from medseg.cli.options import Json, Overwrite
from medseg.errors import UsageError

__all__ = ["Classes", "Trust", "model_app", "split_classes"]

model_app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="""Look at a model of any family, check it, trust its code, or export it.

    \b
    Example:
      medseg model info sarcoma_pet
    """,
)

_Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        show_default=False,
        help="Name of a shipped model; or a folder (medseg or MONAI bundle, nnU-Net model, export), zip or TorchScript "
        "bundle.",
    ),
]
Trust = Annotated[
    bool,
    typer.Option("--trust", help="Run code of the model's own where it needs that. Only if you know where it is from."),
]
Classes = Annotated[
    str | None,
    typer.Option(
        "--classes",
        metavar="A,B,...",
        help="Names or numbers of the classes to mark, for a network that is asked for classes (VISTA3D) [default: all "
        "that its bundle lists as everything].",
        show_default=False,
    ),
]


def split_classes(text: str | None) -> tuple[str, ...] | None:
    """The classes that an option names.

    Raises
    ------
    UsageError
        If it names none.
    """
    if text is None:
        return None
    classes = tuple(part.strip() for part in text.split(",") if part.strip())
    if not classes:
        raise UsageError(f"--classes {text!r} names no class; give names or numbers with commas between")
    return classes


@model_app.command()
def info(model: _Model, classes: Classes = None, trust: Trust = False, as_json: Json = False) -> None:
    """Show what a model is and does: network, channels, classes, steps, windows, hashes, and what was repaired.

    \b
    Example:
      medseg model info sarcoma_pet --json
    """  # noqa: D301
    from medseg.models.describe import describe_model

    described = describe_model(model, trust=trust or None, classes=split_classes(classes))
    if as_json:
        print_json(described)
        return
    for line in _lines(described):
        typer.echo(line)


@model_app.command()
def check(model: _Model, classes: Classes = None, trust: Trust = False, as_json: Json = False) -> None:
    """Load a model, run one small window, and compare with what the model says of itself.

    \b
    Example:
      medseg model check sarcoma_pet
    """  # noqa: D301
    from medseg.models.describe import check_model

    found = check_model(model, trust=trust or None, classes=split_classes(classes))
    if as_json:
        print_json({"is_fine": True, "found": dict(found)})
        return
    for what, result in found:
        typer.echo(f"{what}: {result}")


@model_app.command()
def trust(
    model: _Model,
    remove: Annotated[bool, typer.Option("--remove", help="Trust it no longer.")] = False,
) -> None:
    """Let a model run code of its own from now on, as long as none of its files changes.

    Its SHA-256 is kept in medseg/trusted.json in your configuration folder. Look at its code first: it will run with
    all your rights.

    \b
    Example:
      medseg model trust my_bundle
    """  # noqa: D301
    from medseg.models.shipped import find_model
    from medseg.models.trust import pin_model, trust_file, unpin_model

    path = find_model(model)
    if remove:
        typer.echo(f"{path}: {'trusted no longer' if unpin_model(path) else 'was not trusted'}")
        return
    typer.echo(f"{path}: trusted while its SHA-256 is {pin_model(path)} ({trust_file()})")


_Format = Annotated[
    Literal["data", "nnunet"],
    typer.Option(
        "--format", help="data: recipe.json, networks.json and safetensors; nnunet: an nnU-Net v2 model folder."
    ),
]


@model_app.command()
def export(
    model: _Model,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to make.", show_default=False)],
    format: _Format = "data",  # noqa: A002 (the option's name)
    classes: Classes = None,
    overwrite: Overwrite = False,
) -> None:
    """Write a model as plain data, without optimizer or doubled weights; or as an nnU-Net model folder.

    The folder is a model like any other: `medseg segment --model FOLDER`. With `--format nnunet`, which takes bundles
    whose network is one of nnU-Net's, `nnUNetv2_predict_from_modelfolder -m FOLDER` runs it too.

    \b
    Example:
      medseg model export sarcoma_pet -o sarcoma_export
      medseg model export bundles/my_lesions --format nnunet -o my_lesions_nnunet
    """  # noqa: D301
    from medseg.errors import OutputExists
    from medseg.models.exported import EXPORT_FILE
    from medseg.models.nnunet_export import NNUNET_PLANS_FILE

    if any((output / name).exists() for name in (EXPORT_FILE, NNUNET_PLANS_FILE)) and not overwrite:
        raise OutputExists(f"{output}: an exported model is there already; --overwrite replaces it")
    if classes is not None and format == "nnunet":
        raise UsageError("--classes belongs to bundles of networks that are asked for classes; nnU-Net has none")
    notes = _export_data(model, output, split_classes(classes)) if format == "data" else _export_nnunet(model, output)
    size = sum(file.stat().st_size for file in output.rglob("*") if file.is_file())
    typer.echo(f"Written to {output}: {size / 2**20:.1f} MiB")
    for note in notes:
        typer.echo(f"Note: {note}", err=True)


def _export_data(model: str, output: Path, classes: tuple[str, ...] | None) -> list[str]:
    from medseg.models.exported import export_model
    from medseg.models.load import load_model

    export_model(load_model(model, classes=classes), output)
    return []


def _export_nnunet(model: str, output: Path) -> list[str]:
    from medseg.models.bundle import read_bundle
    from medseg.models.nnunet_export import export_nnunet, notes_for_nnunet
    from medseg.models.shipped import find_model

    bundle = read_bundle(find_model(model))
    export_nnunet(bundle, output)
    return notes_for_nnunet(bundle.plan)


def _lines(described: dict[str, Any]) -> list[str]:
    if "family" not in described:
        return [f"{described['name']}: needs trust", *(f"  {line}" for line in described["needs_trust"])]
    networks = [f"{n['class']}, {n['n_parameters'] / 1e6:.2f} million parameters" for n in described["networks"]]
    channels = [" ".join(filter(None, (c["name"], c["modality"], c["units"]))) for c in described["channels"]]
    windows, output = described["windows"], described["output"]
    whole = "the whole image" if windows["is_whole_image"] else "x".join(map(str, windows["patch_size"]))
    lines = [
        f"{described['name']} ({described['family']})",
        *(f"network: {network}" for network in networks),
        f"channels: {', '.join(channels)}",
        f"classes: {_shortened(described['classes'])}",
        *(f"region {name}: classes {', '.join(map(str, n))}" for name, n in described["regions"].items()),
        f"preparation: {', '.join(_step(step) for step in described['preparation']) or 'none'}",
        f"windows: {whole}, overlap {windows['overlap']:g}, {windows['blend']}",
        f"output: {output['activation']}, {output['decision']}, {output['interpolates']} brought to the scan's grid",
        f"weights: SHA-256 {described['weights_sha256']}",
    ]
    lines += [f"repaired: {repair}" for repair in described["repairs"]]
    lines += [f"its own code runs: {reason}" for reason in described["needs_trust"]]
    return lines


def _shortened(classes: dict[str, str], most: int = 12) -> str:
    named = [f"{number} {name}" for number, name in classes.items()]
    return ", ".join(named[:most]) + (f", and {len(named) - most} more" if len(named) > most else "")


def _step(step: dict[str, Any]) -> str:
    numbers = {key: value for key, value in step.items() if key != "kind" and value not in (None, False)}
    shown = " ".join(
        f"{key}={value}" for key, value in numbers.items() if not isinstance(value, (list, dict)) or len(value) <= 3
    )
    return f"{step['kind']}({shown})" if shown else str(step["kind"])
