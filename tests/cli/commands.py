"""Run commands in this process and look at what they leave."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner, Result

from medseg.cli.main import app


def run(*arguments: object) -> Result:
    """Run `medseg ARGUMENTS`."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="medseg")


def run_well(*arguments: object) -> Result:
    """Run `medseg ARGUMENTS`, which must end with exit code 0."""
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result


def assert_one_clear_error(result: Result, exit_code: int, *words: str) -> None:
    """The command ended with one message on stderr that holds these words, and with nothing on stdout."""
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    assert result.exit_code == exit_code, result.stderr
    assert result.stdout == ""
    assert result.stderr.count("Error:") == 1
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr


def files_below(folder: Path) -> dict[str, bytes]:
    """Every file and folder below a folder, hidden ones too, with its bytes."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else b""
        for path in sorted(folder.rglob("*"))
    }
