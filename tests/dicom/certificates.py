"""An authority and the certificates that it signs, for 127.0.0.1 only."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.dicom.results import tool


def make_certificates(folder: Path, *names: str) -> Path:
    """Write NAME.pem and NAME.key for each name, signed by the authority `ca.pem`; returns that."""
    ca, ca_key = folder / "ca.pem", folder / "ca.key"
    new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    _openssl(*new, "-subj", "/CN=authority", "-keyout", ca_key, "-out", ca)
    for name in names:
        where = ["-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1", "-CA", ca, "-CAkey", ca_key]
        where += ["-addext", "basicConstraints=critical,CA:FALSE"]
        _openssl(*new, *where, "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem")
    return ca


def _openssl(*words: object) -> None:
    done = subprocess.run([tool("openssl"), *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
