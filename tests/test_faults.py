"""Trouble ends a case at once, with its own text: no hang, no half a result."""

from __future__ import annotations

import resource
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import medseg
from medseg.errors import Cancelled, NetworkFailed
from medseg.inference.segmenter import Segmenter
from tests.io.nifti_files import save
from tests.plans import BrighterThan, tiny_plan

AT_ONCE_S = 5.0


class Failing(nn.Module):
    """Works for some windows, then fails as `fail` does."""

    def __init__(self, fail: Callable[[], None], after: int = 2) -> None:
        super().__init__()
        self.inner, self.fail, self.left = BrighterThan(5.0), fail, after

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.left -= 1
        if self.left < 0:
            self.fail()
        return self.inner(image)


def out_of_memory() -> None:
    torch.empty(2**60, dtype=torch.uint8)


def unknown_operator() -> None:
    torch.ops.medseg.no_such_operator()


def out_of_memory_on_a_device() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")


def division_by_zero() -> None:
    _ = 1 // 0


@pytest.fixture(name="scan")
def _scan(tmp_path: Path) -> object:
    array = np.random.default_rng(0).random((40, 40, 40), dtype=np.float32) * 9
    return medseg.read_scan(save(array, tmp_path / "scan.nii.gz"))


@pytest.mark.parametrize(
    ("fail", "text"),
    [
        (out_of_memory, "allocate|memory"),
        (unknown_operator, "no_such_operator"),
        (out_of_memory_on_a_device, r"Tried to allocate 20\.00 GiB"),
        (division_by_zero, "division"),
    ],
)
def test_a_failing_network_ends_the_case_with_its_own_text(scan: object, fail: Callable[[], None], text: str) -> None:
    segmenter = Segmenter(Failing(fail), tiny_plan(spacing_mm=None), device="cpu", precision="exact")
    n_threads = threading.active_count()
    start = time.perf_counter()
    with pytest.raises(Exception, match=text):
        medseg.segment_case(scan, segmenter)
    assert time.perf_counter() - start < AT_ONCE_S
    assert threading.active_count() == n_threads


def test_the_segmenter_works_on_after_a_failed_case(scan: object) -> None:
    network = Failing(division_by_zero)
    segmenter = Segmenter(network, tiny_plan(spacing_mm=None), device="cpu", precision="exact")
    with pytest.raises(NetworkFailed, match="on a window of 16 x 16 x 16 voxels: integer division"):
        medseg.segment_case(scan, segmenter)
    network.left = 10**6
    whole = Segmenter(BrighterThan(5.0), tiny_plan(spacing_mm=None), device="cpu", precision="exact")
    again = medseg.segment_case(scan, segmenter).semantic.array
    np.testing.assert_array_equal(again, medseg.segment_case(scan, whole).semantic.array)


def test_cancel_from_another_thread_ends_the_case_within_a_window(scan: object) -> None:
    class Slow(BrighterThan):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            time.sleep(0.05)
            return super().forward(image)

    event = threading.Event()
    segmenter = Segmenter(Slow(5.0), tiny_plan(spacing_mm=None), device="cpu", precision="exact")
    threading.Timer(0.5, event.set).start()
    start = time.perf_counter()
    with pytest.raises(Cancelled):
        medseg.segment_case(scan, segmenter, cancel=event)
    assert time.perf_counter() - start < AT_ONCE_S


def test_a_full_disk_while_writing_leaves_no_half_result(scan: object, tmp_path: Path) -> None:
    """In a process of its own, for the limit on the size of files stays."""
    result_folder = tmp_path / "out"
    limit = 20_000
    code = textwrap.dedent(f"""
        import resource, signal, sys, time
        import medseg
        from medseg.inference.segmenter import Segmenter
        from tests.plans import BrighterThan, tiny_plan
        scan = medseg.read_scan({str(tmp_path / "scan.nii.gz")!r})
        segmenter = Segmenter(BrighterThan(5.0), tiny_plan(spacing_mm=None), device="cpu", precision="exact")
        result = medseg.segment_case(scan, segmenter)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
        start = time.perf_counter()
        try:
            medseg.write_case(result, {str(result_folder)!r})
        except medseg.MedsegError as error:
            print(f"{{type(error).__name__}}: {{error}} after {{time.perf_counter() - start:.2f}} s")
    """)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path.cwd())
    said, seconds = done.stdout.strip().rsplit(" after ", 1)
    assert said.startswith("OutputNotWritable: ")
    assert "File too large" in said
    assert float(seconds.split()[0]) < AT_ONCE_S
    assert not result_folder.exists()
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != limit


def test_a_full_disk_under_sums_in_files_is_an_error_not_a_crash(tmp_path: Path) -> None:
    code = textwrap.dedent(f"""
        import resource, signal, torch
        from medseg.inference.memory import sums_in_files
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            sums_in_files({str(tmp_path)!r})((64, 64, 64), torch.float32)
        except OSError as error:
            print(error.strerror)
    """)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "File too large"
    assert list(tmp_path.iterdir()) == []
