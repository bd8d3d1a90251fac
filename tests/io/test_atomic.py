from __future__ import annotations

import errno
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from medseg.errors import OutputExists, OutputNotWritable
from medseg.io.atomic import atomic_folder, atomic_path, check_output_folder


def names_under(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def write_then_raise(output: AbstractContextManager[Path], error: BaseException, names: tuple[str, ...] = ()) -> None:
    """Write the temporary file, or these files of a temporary folder, and fail before the block ends."""
    with output as temporary:
        for path in [temporary / name for name in names] or [temporary]:
            path.write_text("new")
        raise error


def write_two_files(folder: Path) -> None:
    with atomic_folder(folder) as temporary:
        (temporary / "a.txt").write_text("new")
        (temporary / "b.txt").write_text("new")


def test_file_is_absent_until_the_block_ends(tmp_path):
    final = tmp_path / "map.nii.gz"
    with atomic_path(final) as temporary:
        temporary.write_text("whole")
        assert not final.exists()
    assert final.read_text() == "whole"
    assert names_under(tmp_path) == ["map.nii.gz"]


def test_temporary_file_lies_beside_the_final_one_and_keeps_the_full_suffix(tmp_path):
    with atomic_path(tmp_path / "map.nii.gz") as temporary:
        temporary.touch()
        assert temporary.parent == tmp_path
        assert temporary.name.startswith(".tmp-")
        assert temporary.name.endswith("-map.nii.gz")


def test_failed_block_leaves_the_old_file_as_it_was(tmp_path):
    final = tmp_path / "table.csv"
    final.write_text("old")
    with pytest.raises(RuntimeError, match="halfway"):
        write_then_raise(atomic_path(final), RuntimeError("halfway"))
    assert final.read_text() == "old"
    assert names_under(tmp_path) == ["table.csv"]


def test_interrupt_leaves_nothing_behind(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        write_then_raise(atomic_path(tmp_path / "a" / "b" / "c.txt"), KeyboardInterrupt())
    assert names_under(tmp_path) == []


def test_missing_parent_folders_are_made(tmp_path):
    with atomic_path(tmp_path / "a" / "b" / "c.txt") as temporary:
        temporary.write_text("x")
    assert (tmp_path / "a" / "b" / "c.txt").read_text() == "x"


def test_failure_keeps_a_parent_folder_that_was_there_before(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(RuntimeError):
        write_then_raise(atomic_path(tmp_path / "a" / "b" / "c.txt"), RuntimeError())
    assert names_under(tmp_path) == ["a"]


def test_file_in_place_of_the_parent_folder_is_refused(tmp_path):
    (tmp_path / "a").write_text("a file")
    for path in (tmp_path / "a" / "c.txt", tmp_path / "a" / "b" / "c.txt"):
        with pytest.raises(OutputNotWritable, match="another output folder"), atomic_path(path):
            pytest.fail("the block must not run")
    assert names_under(tmp_path) == ["a"]


def test_folder_in_place_of_the_file_is_refused(tmp_path):
    (tmp_path / "c.txt").mkdir()
    with pytest.raises(OutputNotWritable, match="is a folder"), atomic_path(tmp_path / "c.txt"):
        pytest.fail("the block must not run")


def test_full_disk_is_an_output_error_that_names_the_file(tmp_path):
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(OutputNotWritable, match=r"c\.txt cannot be written: No space"):
        write_then_raise(atomic_path(tmp_path / "c.txt"), full)
    assert names_under(tmp_path) == []


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs /proc, where even root can make no file")
def test_folder_where_no_file_can_be_made_is_refused():
    with pytest.raises(OutputNotWritable), atomic_path("/proc/self/c.txt"):
        pytest.fail("the block must not run")
    with pytest.raises(OutputNotWritable):
        check_output_folder("/proc/self/new", ["c.txt"])


def test_new_folder_appears_whole(tmp_path):
    with atomic_folder(tmp_path / "out" / "case") as temporary:
        (temporary / "a.txt").write_text("a")
        assert not (tmp_path / "out" / "case").exists()
    assert names_under(tmp_path) == ["out", "out/case", "out/case/a.txt"]


def test_files_replace_their_namesakes_and_leave_others_alone(tmp_path):
    case = tmp_path / "case"
    case.mkdir()
    (case / "a.txt").write_text("old a")
    (case / "own.txt").write_text("the user's own")
    with atomic_folder(case) as temporary:
        (temporary / "a.txt").write_text("new a")
        (temporary / "sub").mkdir()
        (temporary / "sub" / "b.txt").write_text("b")
        assert (case / "a.txt").read_text() == "old a"
    assert names_under(tmp_path) == ["case", "case/a.txt", "case/own.txt", "case/sub", "case/sub/b.txt"]
    assert (case / "a.txt").read_text() == "new a"
    assert (case / "own.txt").read_text() == "the user's own"


@pytest.mark.parametrize("exists", [False, True])
def test_failed_folder_leaves_nothing(tmp_path, exists):
    case = tmp_path / "deep" / "case"
    if exists:
        case.mkdir(parents=True)
        (case / "a.txt").write_text("old")
    before = names_under(tmp_path)
    with pytest.raises(RuntimeError):
        write_then_raise(atomic_folder(case), RuntimeError(), ("a.txt",))
    assert names_under(tmp_path) == before
    assert not exists or (case / "a.txt").read_text() == "old"


def test_folder_that_stands_where_a_file_belongs_stops_the_move_before_it_begins(tmp_path):
    case = tmp_path / "case"
    (case / "b.txt").mkdir(parents=True)
    (case / "a.txt").write_text("old")
    with pytest.raises(OutputNotWritable, match=r"b\.txt"):
        write_two_files(case)
    assert (case / "a.txt").read_text() == "old"
    assert names_under(tmp_path) == ["case", "case/a.txt", "case/b.txt"]


def test_file_in_place_of_the_output_folder_is_refused(tmp_path):
    (tmp_path / "case").write_text("a file")
    with pytest.raises(OutputNotWritable, match="is a file"), atomic_folder(tmp_path / "case"):
        pytest.fail("the block must not run")
    with pytest.raises(OutputNotWritable, match="is a file"):
        check_output_folder(tmp_path / "case", [])
    with pytest.raises(OutputNotWritable, match="is a file"):
        check_output_folder(tmp_path / "case" / "below", [])


def test_check_passes_for_a_folder_to_be_made_and_makes_nothing(tmp_path):
    check_output_folder(tmp_path / "a" / "b", ["lesions.csv"])
    assert names_under(tmp_path) == []


def test_check_refuses_older_results_unless_they_may_be_replaced(tmp_path):
    (tmp_path / "lesions.csv").write_text("old")
    with pytest.raises(OutputExists, match=r"lesions\.csv; --overwrite") as caught:
        check_output_folder(tmp_path, ["semantic.nii.gz", "lesions.csv"])
    assert "semantic" not in str(caught.value)
    check_output_folder(tmp_path, ["semantic.nii.gz", "lesions.csv"], overwrite=True)
    check_output_folder(tmp_path, ["semantic.nii.gz"])
    assert names_under(tmp_path) == ["lesions.csv"]
