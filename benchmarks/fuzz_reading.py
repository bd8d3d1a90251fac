"""Damaged files by the thousand through `read_scan` and `load_volume`: nothing but a `MedsegError` may come out.

    python benchmarks/fuzz_reading.py 20000 [--seed 0] [--formats nifti,nrrd,metaimage,archive,dicom] [--first N]

Each input is a valid small file with bits flipped, bytes spliced, cut, doubled or overwritten by telling numbers, or a
header field exchanged. What a damaged zip or tar.gz still gives must be the voxels that were put in. Every input has
its own seed, so `--first N 1` repeats one. A child process reads them under a memory limit; one that takes too long or
kills the child is a finding and the run goes on behind it.
"""

from __future__ import annotations

import argparse
import gzip
import io
import multiprocessing as mp
import resource
import shutil
import signal
import struct
import sys
import tarfile
import tempfile
import time
import traceback
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.io.dicom_files import stored_pixels, write_series
from tests.io.nifti_files import save
from tests.io.text_headers import VOXELS, payload, write_meta, write_nrrd

SECONDS_EACH = 10
MEMORY_MIB = 3072  # address space: Python with numpy, nibabel and pydicom maps some 1,000
TELLING = [0, 1, 2, 7, 8, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63 - 1]
WORDS = [
    *(b"", b"0", b"-1", b"nan", b"inf", b"1e999", b"9" * 40, b"(1,0,0)", b"none", b"LOCAL", b"LIST", b"/etc/passwd"),
    *(b"../a", b"%d", b"True", b"gzip", b"raw", b"ascii", b"3 4 5", b"32767 32767 32767", b"MET_DOUBLE", b"double"),
    *(b"\x00", b"\xff\xfe", b"\n\n", b":=", b"=", b":", b"#"),
]
Mutation = Callable[[bytearray, np.random.Generator], None]


def seeds() -> dict[str, list[tuple[str, dict[str, bytes]]]]:
    """Valid inputs by format: the name to read, and the files of its folder."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        nifti = save(VOXELS, folder / "a.nii").read_bytes()
        nib.Nifti2Image(VOXELS, np.eye(4)).to_filename(folder / "b.nii")
        big = nib.Nifti1Image(VOXELS, np.eye(4), nib.Nifti1Header(endianness=">"))
        big.to_filename(folder / "c.nii")
        nib.Nifti1Pair(VOXELS, np.eye(4)).to_filename(folder / "d.img")
        series = {path.name: path.read_bytes() for path in write_series(folder / "ct")}
        pet = {path.name: path.read_bytes() for path in write_series(folder / "pet", modality="PT")}
        nrrd, meta = write_nrrd(folder / "a.nrrd").read_bytes(), write_meta(folder / "a.mha").read_bytes()
        packed_nrrd = write_nrrd(folder / "b.nrrd", gzip.compress(payload()), encoding="gzip").read_bytes()
        packed_meta = write_meta(folder / "b.mha", zlib.compress(payload()), CompressedData="True").read_bytes()
        nhdr = write_nrrd(folder / "a.nhdr", b"", data_file="a.raw").read_bytes()
        mhd = write_meta(folder / "a.mhd", b"", ElementDataFile="a.raw").read_bytes()
        pair = {name: (folder / name).read_bytes() for name in ("d.hdr", "d.img")}
        others = [(folder / name).read_bytes() for name in ("b.nii", "c.nii")]
    return {
        "nifti": [
            *(("a.nii", {"a.nii": data}) for data in (nifti, *others)),
            ("a.nii.gz", {"a.nii.gz": gzip.compress(nifti, mtime=0)}),
            ("d.hdr", pair),
        ],
        "nrrd": [
            ("a.nrrd", {"a.nrrd": nrrd}),
            ("b.nrrd", {"b.nrrd": packed_nrrd}),
            ("a.nhdr", {"a.nhdr": nhdr, "a.raw": payload()}),
        ],
        "metaimage": [
            ("a.mha", {"a.mha": meta}),
            ("b.mha", {"b.mha": packed_meta}),
            ("a.mhd", {"a.mhd": mhd, "a.raw": payload()}),
        ],
        "archive": [
            ("a.zip", {"a.zip": zipped({"p/a.nii": nifti})}),
            ("a.zip", {"a.zip": zipped(series)}),
            ("a.tar", {"a.tar": tarred({"p/a.nrrd": nrrd, "note.txt": b"x"}, "w")}),
            ("a.tgz", {"a.tgz": tarred(series, "w:gz")}),
        ],
        "dicom": [("", series), ("", pet)],
    }


def zipped(members: dict[str, bytes]) -> bytes:
    """A zip of these members; equal members give equal bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def tarred(members: dict[str, bytes], mode: Any) -> bytes:
    """A tar of these members."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def position(data: bytearray, rng: np.random.Generator) -> int:
    """Anywhere, but more often near the beginning, where headers are."""
    reach = len(data) if rng.random() < 0.4 else min(len(data), 800)
    return int(rng.integers(0, reach)) if reach else 0


def flip_bits(data: bytearray, rng: np.random.Generator) -> None:
    """Flip one to eight bits."""
    for _ in range(int(rng.integers(1, 9))):
        if data:
            data[position(data, rng)] ^= 1 << int(rng.integers(0, 8))


def cut(data: bytearray, rng: np.random.Generator) -> None:
    """Drop the end."""
    del data[int(rng.integers(0, len(data) + 1)) :]


def remove(data: bytearray, rng: np.random.Generator) -> None:
    """Take up to 63 bytes out."""
    start = position(data, rng)
    del data[start : start + int(rng.integers(1, 64))]


def splice(data: bytearray, rng: np.random.Generator) -> None:
    """Copy up to 63 bytes to another place."""
    start, source = position(data, rng), position(data, rng)
    data[start:start] = data[source : source + int(rng.integers(1, 64))]


def put_number(data: bytearray, rng: np.random.Generator) -> None:
    """Overwrite a binary field by a number at the edge of some type."""
    start = position(data, rng) // 2 * 2
    kind = str(rng.choice(["<H", ">H", "<I", ">I", "<Q", "<f", ">f", "<d"]))
    if kind[1] in "fd":
        packed = struct.pack(kind, float(rng.choice([np.nan, np.inf, -np.inf, 0.0, -1.0, 1e38, 1e-45, 352.0])))
    else:
        packed = struct.pack(kind, TELLING[int(rng.integers(len(TELLING)))] & (256 ** struct.calcsize(kind) - 1))
    data[start : start + len(packed)] = packed


def put_word(data: bytearray, rng: np.random.Generator) -> None:
    """Exchange what follows a colon or an equals sign in a line, or put a word anywhere."""
    word = WORDS[int(rng.integers(len(WORDS)))]
    marks = [index for index, byte in enumerate(data[:800]) if byte in b":="]
    if marks and rng.random() < 0.8:
        start = marks[int(rng.integers(len(marks)))] + 1
        end = data.find(b"\n", start)
        data[start : end if end >= 0 else start + 4] = b" " + word
    else:
        start = position(data, rng)
        data[start : start + len(word)] = word


def drop_or_double_line(data: bytearray, rng: np.random.Generator) -> None:
    """Drop or double one line of a text header."""
    lines = bytes(data).split(b"\n")
    line = int(rng.integers(0, min(len(lines), 20)))
    lines[line : line + 1] = [] if rng.random() < 0.5 else [lines[line]] * 2
    data[:] = b"\n".join(lines)


MUTATIONS: list[Mutation] = [flip_bits, flip_bits, put_number, put_number, put_word, cut, remove, splice]
MUTATIONS.append(drop_or_double_line)


def mutated(number: int, seed: int, formats: list[str], valid: Any) -> tuple[str, str, dict[str, bytes]]:
    """Input `number`: its description, the name to read, and the files."""
    rng = np.random.default_rng((seed, number))
    kind = formats[number % len(formats)]
    name, files = valid[kind][int(rng.integers(len(valid[kind])))]
    chosen = sorted(files)[int(rng.integers(len(files)))]
    data = bytearray(files[chosen])
    inside = chosen.endswith(".gz") and rng.random() < 0.7
    if inside:
        data = bytearray(gzip.decompress(data))
    steps = [MUTATIONS[int(rng.integers(len(MUTATIONS)))] for _ in range(int(rng.choice([1, 1, 1, 2, 3])))]
    for step in steps:
        step(data, rng)
    changed = gzip.compress(bytes(data), mtime=0) if inside else bytes(data)
    what = f"{kind} {chosen}: {', '.join(step.__name__ for step in steps)}"
    return what, name, {**files, chosen: changed}


def is_whole(array: np.ndarray) -> bool:
    """Whether voxels out of a damaged archive are those of one that was put in: no slice lost, no bit changed."""
    stored = stored_pixels(4).astype(np.float32) * 2 - 1000
    return any(array[0].shape == known.shape and np.array_equal(array[0], known) for known in (VOXELS, stored))


def read_all(numbers: range, seed: int, formats: list[str], report: Any) -> None:
    """In a child: read every input, report each; what hangs or crashes is seen by the parent."""
    from medseg.errors import MedsegError
    from medseg.io import archive
    from medseg.io.scan import load_volume, read_scan

    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MIB << 20, MEMORY_MIB << 20))
    valid = seeds()
    for number in numbers:
        report.send(("start", number, ""))
        what, name, files = mutated(number, seed, formats, valid)
        with tempfile.TemporaryDirectory() as folder:
            for file, data in files.items():
                Path(folder, file).write_bytes(data)
            try:
                volume = load_volume(read_scan(Path(folder, name)))
                outcome = "read"
                if name in ("a.zip", "a.tgz") and not is_whole(volume.array):
                    outcome = f"FINDING other voxels out of an archive with checksums | {what}"
            except MedsegError as error:
                outcome = type(error).__name__
            except BaseException as error:  # everything else is what this program looks for
                where = traceback.extract_tb(error.__traceback__)
                inner = next((f for f in reversed(where) if "medseg" in f.filename), where[-1])
                shown = f"{type(error).__name__} at {Path(inner.filename).name}:{inner.lineno}"
                outcome = f"FINDING {shown} | {what} | {str(error)[:200]}"
            for kept in archive._kept.values():
                shutil.rmtree(kept.folder, ignore_errors=True)
            archive._kept.clear()
        report.send(("end", number, outcome))
    report.send(("done", -1, ""))


def outcomes(first: int, count: int, seed: int, formats: list[str]) -> Iterator[tuple[int, str]]:
    """(number, outcome) of every input, restarting the child behind one that hangs or kills it."""
    context = mp.get_context("spawn")
    following, end = first, first + count
    while following < end:
        receive, send = context.Pipe(duplex=False)
        child = context.Process(target=read_all, args=(range(following, end), seed, formats, send), daemon=True)
        child.start()
        send.close()
        current = following
        try:
            while True:
                if not receive.poll(SECONDS_EACH + (60 if current == following else 0)):
                    yield current, f"FINDING hang: more than {SECONDS_EACH} s"
                    break
                event, number, outcome = receive.recv()
                if event == "done":
                    return
                current = number
                if event == "end":
                    yield number, outcome
        except EOFError:
            child.join()
            yield current, f"FINDING crash: the process ended with {child.exitcode}"
        child.kill()
        child.join()
        following = current + 1


def main() -> int:
    """Run the inputs that were asked for, print what was found; 1 if anything was."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--formats", default="nifti,nrrd,metaimage,archive,dicom")
    given = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    formats = given.formats.split(",")
    tally: Counter[str] = Counter()
    findings: Counter[str] = Counter()
    start = time.monotonic()
    for number, outcome in outcomes(given.first, given.count, given.seed, formats):
        kind = "FINDING" if outcome.startswith("FINDING") else outcome
        tally[kind] += 1
        if kind == "FINDING":
            findings[outcome.split(" | ")[0]] += 1
            if findings[outcome.split(" | ")[0]] <= 3:
                print(f"{number}: {outcome}", flush=True)
        if sum(tally.values()) % 2000 == 0:
            print(f"{sum(tally.values())} inputs, {time.monotonic() - start:.0f} s: {dict(tally)}", flush=True)
    print(f"{sum(tally.values())} inputs in {time.monotonic() - start:.0f} s: {dict(tally.most_common())}")
    for finding, times in findings.most_common():
        print(f"  {times:6d}  {finding}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
