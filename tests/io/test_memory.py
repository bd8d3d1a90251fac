from __future__ import annotations

import subprocess
import sys

import pytest

from medseg.errors import ScanTooLarge
from medseg.io.memory import available_memory_bytes, check_fits_memory


def test_some_memory_is_free_but_no_exbibyte():
    assert 2**20 < available_memory_bytes() < 2**60


def test_what_does_not_fit_is_refused_with_both_sizes():
    check_fits_memory(1000, "p07")
    with pytest.raises(ScanTooLarge, match=r"p07 needs 1048576\.0 GiB of memory, \d+\.\d GiB are free"):
        check_fits_memory(2**50, "p07")


def test_limit_of_the_process_counts():
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30));"
        "from medseg.io.memory import available_memory_bytes; print(available_memory_bytes())"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0 < int(shown.stdout) < 2**30
