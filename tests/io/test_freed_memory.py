"""Memory that a process of medseg's own keeps once it is free."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="mallopt is the GNU C library's")


def faults(call: str, environment: dict[str, str] | None = None) -> tuple[str, int]:
    """What `keep_freed_memory` says, and how many pages a process then asks for that frees and takes 8 MiB again."""
    code = textwrap.dedent(f"""
        import resource
        import numpy as np
        from medseg.io.freed_memory import keep_freed_memory
        said = {call}
        for _ in range(3):
            blocks = [np.ones(1 << 20) for _ in range(8)]
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(20):
            del blocks
            blocks = [np.ones(1 << 20) for _ in range(8)]
        print(said, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    """)
    silent = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**silent, **(environment or {})},
        capture_output=True,
        text=True,
        check=True,
    )
    said, n_faults = done.stdout.split()
    return said, int(n_faults)


def test_freed_blocks_are_taken_again_without_asking_the_system() -> None:
    said, kept = faults("keep_freed_memory()")
    assert said == "True"
    _, given_back = faults("None")
    assert kept < given_back / 10


def test_what_the_environment_says_counts_more() -> None:
    said, _ = faults("keep_freed_memory()", {"MALLOC_TRIM_THRESHOLD_": "131072"})
    assert said == "False"
