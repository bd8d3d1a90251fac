"""Store files in an Orthanc server and fetch them back; run in a network namespace of its own.

    unshare -n python -m tests.dicom.orthanc_session IN OUT

Orthanc listens on every address it finds, so it gets a network with nothing but a loopback. Files of IN are stored by
STOW-RS, fetched into OUT/stow, and stored again by C-STORE and fetched into OUT/cstore. Prints what the server answered
as JSON. Whatever happens, the server is stopped at the end.
"""

from __future__ import annotations

import fcntl
import json
import socket
import struct
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from pydicom import dcmread

from tests.dicom.orthanc_server import DICOM, ROOT, ask, dcmtk, orthanc

BOUNDARY = "medseg-test"
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1


def main(inputs: Path, outputs: Path) -> dict[str, Any]:
    """Store, fetch, and tell."""
    bring_loopback_up()
    with tempfile.TemporaryDirectory() as folder, orthanc(Path(folder)):
        files = sorted(inputs.glob("*.dcm"))
        answers = {"stow": {file.name: stow(file) for file in files}, "found": {}, "cstore": {}}
        fetch(outputs / "stow")
        for file in files:
            dataset = dcmread(file, stop_before_pixels=True)
            answers["found"][file.name] = is_found(dataset)
        for study in ask("/studies"):
            ask(f"/studies/{study}", "DELETE")
        answers["cstore"] = {file.name: c_store(file) for file in files}
        fetch(outputs / "cstore")
        return answers


def bring_loopback_up() -> None:
    """What `ip link set lo up` does."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        name = struct.pack("16sh", b"lo", 0)
        flags = struct.unpack("16sh", fcntl.ioctl(any_socket, _SIOCGIFFLAGS, name))[1]
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh", b"lo", flags | _IFF_UP))


def stow(file: Path) -> str:
    """Store by STOW-RS: "stored", or what went wrong."""
    head = f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    body = head + file.read_bytes() + f"\r\n--{BOUNDARY}--\r\n".encode()
    content_type = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'
    request = urllib.request.Request(
        f"{ROOT}/dicom-web/studies",
        data=body,
        headers={"Content-Type": content_type, "Accept": "application/dicom+json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            told = json.load(answer)
    except urllib.error.HTTPError as error:
        return f"HTTP {error.code}"
    return (
        "stored" if told.get("00081199", {}).get("Value") and not told.get("00081198", {}).get("Value") else str(told)
    )


def c_store(file: Path) -> str:
    """Store by C-STORE with dcmtk: "stored", or what went wrong."""
    command = [dcmtk("storescu"), "-R", "-aec", "ORTHANC", "127.0.0.1", str(DICOM), str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "stored" if done.returncode == 0 else (done.stdout + done.stderr).strip()[-300:]


def is_found(dataset: Any) -> bool:
    """Whether a search by study and modality (QIDO-RS) names the series."""
    path = f"/dicom-web/studies/{dataset.StudyInstanceUID}/series?Modality={dataset.Modality}"
    return any(item["0020000E"]["Value"] == [dataset.SeriesInstanceUID] for item in ask(path))


def fetch(folder: Path) -> None:
    """Every stored file, named by its UID."""
    folder.mkdir(parents=True)
    for instance in ask("/instances"):
        with urllib.request.urlopen(f"{ROOT}/instances/{instance}/file", timeout=30) as answer:
            content = answer.read()
        path = folder / "file"
        path.write_bytes(content)
        path.rename(folder / f"{dcmread(path, stop_before_pixels=True).SOPInstanceUID}.dcm")


if __name__ == "__main__":
    json.dump(main(Path(sys.argv[1]), Path(sys.argv[2])), sys.stdout)
