"""DICOM objects on every loadable series of a folder of series, shown to validators and to other readers.

    python benchmarks/accuracy_dicom.py FOLDER

FOLDER holds one folder a series. On each stack a synthetic lesion map is written as SEG (binary and label map), SR
and RTSTRUCT. The table tells what dciodvfy calls an error, where dcentvfy finds the objects to differ from the source,
and which readers give every voxel of every lesion back (SimpleITK and GDCM know no segments: frames and sizes are
compared). Needs the test extra and Debian's dcmtk.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.dicom.readers import (
    NAMES,
    NEEDS,
    READERS,
    dcentvfy_errors,
    dciodvfy_errors,
    find,
    loadable_stacks,
    write_all,
)


def main(root: Path) -> None:
    """Print a row a stack and kind, then what was found in detail."""
    readers = [name for name in READERS if find(NEEDS.get(name, "python3"))]
    print("| stack | kind | kB SEG, SR, RT | dciodvfy | dcentvfy | " + " | ".join(readers) + " | CPU s |")
    print("|---" * (6 + len(readers)) + "|")
    details: dict[str, int] = {}
    for folder in sorted(path for path in root.iterdir() if path.is_dir() and path.name != "ref"):
        for name, scan in loadable_stacks(folder):
            for kind in ("binary", "labelmap"):
                with tempfile.TemporaryDirectory() as temporary:
                    start = time.process_time()
                    out, lesions = write_all(scan, Path(temporary) / "out", kind)
                    seconds = time.process_time() - start
                    errors = [error for file in NAMES for error in dciodvfy_errors(out / file)]
                    source = list(dict.fromkeys(scan.files[0]))
                    before = set(dcentvfy_errors(source))
                    unlike = [e for e in dcentvfy_errors([*source, *(out / n for n in NAMES)]) if e not in before]
                    for error in (*errors, *unlike):
                        details[f"{name} {kind}: {error}"] = details.get(f"{name} {kind}: {error}", 0) + 1
                    agree = [verdict(reader, out, scan, lesions) for reader in readers]
                    sizes = ", ".join(f"{(out / n).stat().st_size / 1000:.0f}" for n in (NAMES[0], NAMES[2], NAMES[3]))
                    cells = [name, kind, sizes, len(errors), len(unlike), *agree, f"{seconds:.2f}"]
                    print("| " + " | ".join(map(str, cells)) + " |", flush=True)
    for detail, count in details.items():
        print(f"{count} x {detail}")


def verdict(reader: str, out: Path, scan: object, lesions: object) -> str:
    """Yes, no, or why a reader gave up."""
    try:
        return "yes" if READERS[reader](out, scan, lesions) else "no"  # type: ignore[arg-type]
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:60]}"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
