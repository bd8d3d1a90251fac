"""`medseg report`."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.commands import assert_one_clear_error, run, run_well


def test_the_index_of_a_run_links_to_its_page(segmented: Path) -> None:
    shown = run_well("report", segmented.parent)
    assert "1 case(s), 0 without result" in shown.stdout
    index = (segmented.parent / "index.html").read_text("utf-8")
    assert 'href="out/report.html"' in index
    told = json.loads(run_well("report", segmented.parent, "--json").stdout)
    assert [case["n_lesions"] for case in told["cases"]] == [2]


def test_what_is_unreadable_makes_exit_code_1_and_what_is_no_folder_2(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text("{}")
    assert run("report", tmp_path).exit_code == 1
    assert (tmp_path / "index.html").is_file()
    assert_one_clear_error(run("report", tmp_path / "none"), 2, "no case")
