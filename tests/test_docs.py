"""The documentation says what is true: its code runs, its links lead somewhere, every command is in it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from medseg.cli.main import app
from medseg.core.table import COLUMNS

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "bundles").rglob("*.md")])
COMMANDS = sorted(get_command(app).commands)


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of one language in a page."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=named)
def test_python_in_the_page_runs_from_top_to_bottom(page: Path, tmp_path: Path) -> None:
    code = "\n".join(blocks(page, "python"))
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "console")], ids=named)
def test_medseg_commands_in_the_page_run_in_order(page: Path, tmp_path: Path) -> None:
    """Lines of a console block that start with `$ medseg` work in an empty folder, one after the other."""
    lines = [line[2:] for block in blocks(page, "console") for line in block.splitlines() if line.startswith("$ ")]
    assert lines
    for line in lines:
        command = [sys.executable, "-m", *line.split()]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{line}\n{done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_within_the_project_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{named(page)} links to {target}"


def test_every_page_is_in_the_index_and_decisions_are_numbered_once() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    linked = set(re.findall(r"\]\(([^)#]+)", index))
    pages = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")} - {"README.md"}
    assert pages <= linked, sorted(pages - linked)
    numbers = [path.name[:4] for path in sorted((ROOT / "docs" / "decisions").glob("*.md"))]
    assert numbers == [f"{n:04d}" for n in range(1, len(numbers) + 1)]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example_and_is_documented(command: str) -> None:
    help_text = get_command(app).commands[command].help
    assert help_text
    assert f"medseg {command}" in help_text.partition("Example:")[2]
    assert f"## medseg {command}" in (ROOT / "docs" / "reference" / "commands.md").read_text(encoding="utf-8")
    assert f"medseg {command}" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("command", sorted(get_command(app).commands["model"].commands))
def test_every_command_on_models_has_help_with_an_example_and_is_documented(command: str) -> None:
    help_text = get_command(app).commands["model"].commands[command].help
    assert help_text
    assert f"medseg model {command}" in help_text.partition("Example:")[2]
    assert f"## medseg model {command}" in (ROOT / "docs" / "reference" / "commands.md").read_text(encoding="utf-8")


def test_every_column_is_documented() -> None:
    page = (ROOT / "docs" / "reference" / "columns.md").read_text(encoding="utf-8")
    assert [c.name for c in COLUMNS if f"| `{c.name}` |" not in page] == []


def test_generated_pages_are_up_to_date() -> None:
    check = [sys.executable, str(ROOT / "docs" / "generate.py"), "--check"]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_research_use_is_stated_where_people_look() -> None:
    for page in (ROOT / "README.md", ROOT / "bundles" / "sarcoma_pet" / "docs" / "README.md"):
        assert "research use only" in page.read_text(encoding="utf-8").lower(), named(page)
