"""Help, version and the start of the program."""

from __future__ import annotations

import subprocess
import sys

import pytest
from typer.main import get_command

from medseg import __version__
from medseg.cli.main import app
from tests.cli.commands import run, run_well

COMMANDS = sorted(name for name, command in get_command(app).commands.items() if not hasattr(command, "commands"))
MODEL_COMMANDS = get_command(app).commands["model"].commands  # type: ignore[attr-defined]
HEAVY = ("torch", "monai", "numpy", "pydantic", "nibabel", "pydicom", "pandas", "scipy", "rich", "PIL")


def _python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)


def test_the_commands_are_those_of_the_contract() -> None:
    assert {"demo", "measure", "phantom", "segment", "separate", "train"} <= set(COMMANDS)


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom medseg.cli.main import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit:\n    pass\n"
        f"print('LOADED', sorted(set({HEAVY!r}) & set(sys.modules)))"
    )
    assert "LOADED []" in _python("-c", code).stdout


@pytest.mark.parametrize("command", sorted(MODEL_COMMANDS))
def test_every_command_on_models_has_an_example_and_help_for_each_option(command: str) -> None:
    assert f"  Example:\n    medseg model {command} " in run_well("model", command, "--help").stdout
    parameters = MODEL_COMMANDS[command].params
    assert all(parameter.help for parameter in parameters)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_summary_an_example_and_help_for_each_option(command: str) -> None:
    shown = run_well(command, "--help").stdout
    assert f"  Example:\n    medseg {command} " in shown
    parameters = get_command(app).commands[command].params  # type: ignore[attr-defined]
    assert all(parameter.help for parameter in parameters)
    assert {"--json", "--quiet"} <= {name for parameter in parameters for name in parameter.opts}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_summary_of_a_command_fits_its_line(command: str) -> None:
    line = next(line for line in run_well("--help").stdout.splitlines() if line.startswith(f"  {command} "))
    assert line.endswith(".")
    assert not line.endswith("...")


def test_python_m_medseg_is_the_same_program() -> None:
    done = _python("-m", "medseg", "--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"medseg {__version__}\n", "")


def test_no_command_shows_the_help_and_is_wrong_usage() -> None:
    result = run()
    assert result.exit_code == 2
    assert "Usage: medseg" in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("segment",),
        ("segment", "scan.nii.gz", "--model", "m"),
        ("segment", "scan.nii.gz", "--model", "m", "-o", "out", "--method", "magic"),
        ("segment", "scan.nii.gz", "--model", "m", "-o", "out", "--connectivity", "8"),
        ("separate", "map.nii.gz", "-o", "out.nii.gz", "--minimum-volume-ml", "-1"),
        ("phantom", "-o", "out", "--kind", "mri"),
    ],
)
def test_wrong_usage_exits_with_2(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Error:" in result.stderr
    assert result.stdout == ""
