"""An Orthanc server in this network namespace, which must be one of its own: Orthanc listens on every address."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.dicom.results import tool

HTTP, DICOM, RECEIVE = 18042, 14242, 14243
ROOT = f"http://127.0.0.1:{HTTP}"
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
USER, PASSWORD = "reader", "a secret of the test"


def run_in_own_network(module: str, *arguments: Path) -> Any:
    """What `python -m MODULE ARGUMENTS` prints as JSON, run where only a loopback is; skips where that cannot be."""
    tool("Orthanc")
    dcmtk("storescu")
    if not PLUGIN.is_file():
        pytest.skip("no DICOMweb plugin of Orthanc: apt-get install orthanc-dicomweb")
    unshare = [tool("unshare"), "-n"] if os.geteuid() == 0 else [tool("unshare"), "-rn"]
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no network namespaces here; Orthanc would listen on the real network")
    command = [*unshare, sys.executable, "-m", module, *map(str, arguments)]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False, cwd=root)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@contextmanager
def orthanc(folder: Path, *, with_password: bool = False) -> Iterator[None]:
    """A server with an empty store while the block lasts."""
    config = {
        "Name": "medseg-test",
        "StorageDirectory": str(folder / "db"),
        "IndexDirectory": str(folder / "db"),
        "HttpPort": HTTP,
        "DicomPort": DICOM,
        "DicomAet": "ORTHANC",
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": with_password,
        "RegisteredUsers": {USER: PASSWORD},
        "DicomModalities": {"medseg": ["MEDSEG", "127.0.0.1", RECEIVE]},
        "DicomAlwaysAllowStore": True,
        "OverwriteInstances": True,  # so that storing again would show among the changes
        "StableAge": 86400,  # "nothing came for a minute" is a change as well, which a slow machine would live to see
        "Plugins": [str(PLUGIN)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    (folder / "orthanc.json").write_text(json.dumps(config))
    with (folder / "log.txt").open("wb") as log:
        server = subprocess.Popen(
            [shutil.which("Orthanc") or "Orthanc", str(folder / "orthanc.json")], stdout=log, stderr=log
        )
    try:
        _wait_until_it_answers(server, folder / "log.txt")
        yield
    finally:
        server.terminate()
        server.wait(timeout=30)


def _wait_until_it_answers(server: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(240):
        if server.poll() is not None:
            raise RuntimeError(log.read_text(errors="replace")[-2000:])
        try:
            ask("/system")
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.25)
        else:
            return
    raise RuntimeError("Orthanc did not answer in 60 s")


def ask(path: str, method: str = "GET") -> Any:
    """What the server's own interface answers, from JSON."""
    passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
    passwords.add_password(None, ROOT, USER, PASSWORD)
    opener = urllib.request.build_opener(urllib.request.HTTPBasicAuthHandler(passwords))
    with opener.open(urllib.request.Request(f"{ROOT}{path}", method=method), timeout=30) as answer:
        return json.load(answer)


def dcmtk(name: str) -> str:
    """A command of dcmtk; pynetdicom brings some of the same name into the environment."""
    ours = Path(sys.executable).parent
    path = os.pathsep.join(p for p in os.environ.get("PATH", os.defpath).split(os.pathsep) if Path(p) != ours)
    found = shutil.which(name, path=path)
    if found is None:
        pytest.skip(f"no {name} here: apt-get install dcmtk")
    return found


def c_store(folder: Path) -> None:
    """Push every file below a folder by dcmtk's storescu."""
    command = [
        dcmtk("storescu"),
        "-aec",
        "ORTHANC",
        "-aet",
        "MEDSEG",
        "+sd",
        "+r",
        "127.0.0.1",
        str(DICOM),
        str(folder),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
