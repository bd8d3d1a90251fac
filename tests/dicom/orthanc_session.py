"""Store files in an Orthanc server and fetch them back; run in a network namespace of its own.

    unshare -n python -m tests.dicom.orthanc_session IN OUT

Orthanc listens on every address it finds, so it gets a network with nothing but a loopback. Files of IN are stored by
STOW-RS, fetched into OUT/stow, and stored again by C-STORE and fetched into OUT/cstore. Prints what the server answered
as JSON. Whatever happens, the server is stopped at the end.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from pydicom import dcmread

HTTP, DICOM = 18042, 14242
ROOT = f"http://127.0.0.1:{HTTP}"
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
BOUNDARY = "medseg-test"
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1


def main(inputs: Path, outputs: Path) -> dict[str, Any]:
    """Store, fetch, and tell."""
    bring_loopback_up()
    with tempfile.TemporaryDirectory() as folder:
        server = start(Path(folder))
        try:
            files = sorted(inputs.glob("*.dcm"))
            answers = {"stow": {file.name: stow(file) for file in files}, "found": {}, "cstore": {}}
            fetch(outputs / "stow")
            for file in files:
                dataset = dcmread(file, stop_before_pixels=True)
                answers["found"][file.name] = is_found(dataset)
            for study in get("/studies"):
                urllib.request.urlopen(urllib.request.Request(f"{ROOT}/studies/{study}", method="DELETE"))
            answers["cstore"] = {file.name: c_store(file) for file in files}
            fetch(outputs / "cstore")
            return answers
        finally:
            server.terminate()
            server.wait(timeout=30)


def bring_loopback_up() -> None:
    """What `ip link set lo up` does."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        name = struct.pack("16sh", b"lo", 0)
        flags = struct.unpack("16sh", fcntl.ioctl(any_socket, _SIOCGIFFLAGS, name))[1]
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh", b"lo", flags | _IFF_UP))


def start(folder: Path) -> subprocess.Popen[bytes]:
    """A server with an empty store, once it answers."""
    config = {
        "Name": "medseg-test",
        "StorageDirectory": str(folder / "db"),
        "IndexDirectory": str(folder / "db"),
        "HttpPort": HTTP,
        "DicomPort": DICOM,
        "DicomAet": "ORTHANC",
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomAlwaysAllowStore": True,
        "Plugins": [str(PLUGIN)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    (folder / "orthanc.json").write_text(json.dumps(config))
    with (folder / "log.txt").open("wb") as log:
        server = subprocess.Popen(
            [shutil.which("Orthanc") or "Orthanc", str(folder / "orthanc.json")], stdout=log, stderr=log
        )
    for _ in range(120):
        if server.poll() is not None:
            raise RuntimeError((folder / "log.txt").read_text(errors="replace")[-2000:])
        try:
            get("/system")
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.25)
        else:
            return server
    server.kill()
    raise RuntimeError("Orthanc did not answer in 30 s")


def get(path: str) -> Any:
    with urllib.request.urlopen(f"{ROOT}{path}", timeout=10) as answer:
        return json.load(answer)


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


def dcmtk_storescu() -> str | None:
    """The command of dcmtk; pynetdicom has one of the same name, with other options."""
    for folder in os.get_exec_path():
        command = shutil.which("storescu", path=folder)
        if command and "dcmtk" in subprocess.run([command, "--version"], capture_output=True, text=True).stdout:
            return command
    return None


def c_store(file: Path) -> str:
    """Store by C-STORE with dcmtk: "stored", or what went wrong."""
    command = [dcmtk_storescu() or "storescu", "-R", "-aec", "ORTHANC", "127.0.0.1", str(DICOM), str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "stored" if done.returncode == 0 else (done.stdout + done.stderr).strip()[-300:]


def is_found(dataset: Any) -> bool:
    """Whether a search by study and modality (QIDO-RS) names the series."""
    path = f"/dicom-web/studies/{dataset.StudyInstanceUID}/series?Modality={dataset.Modality}"
    return any(item["0020000E"]["Value"] == [dataset.SeriesInstanceUID] for item in get(path))


def fetch(folder: Path) -> None:
    """Every stored file, named by its UID."""
    folder.mkdir(parents=True)
    for instance in get("/instances"):
        with urllib.request.urlopen(f"{ROOT}/instances/{instance}/file", timeout=30) as answer:
            content = answer.read()
        path = folder / "file"
        path.write_bytes(content)
        path.rename(folder / f"{dcmread(path, stop_before_pixels=True).SOPInstanceUID}.dcm")


if __name__ == "__main__":
    json.dump(main(Path(sys.argv[1]), Path(sys.argv[2])), sys.stdout)
