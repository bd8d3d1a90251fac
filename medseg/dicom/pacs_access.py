"""How an archive is entered: user and password, token, certificates; from a private file or the keyring."""

from __future__ import annotations

import os
import ssl
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import yaml

from medseg.dicom.pacs import TITLE, Pacs, PacsAddress
from medseg.dicom.patience import Patience
from medseg.errors import UsageError

__all__ = ["KEYRING", "PacsAccess", "Secrets", "open_pacs"]

KEYRING = "keyring"
_FIELDS = ("user", "password", "token", "ca_file", "client_certificate", "client_key")


@dataclass(frozen=True)
class PacsAccess:
    """An archive and how to enter it; holds no secret itself.

    Parameters
    ----------
    address
        As `PacsAddress.parse` takes it.
    credentials
        A YAML file that only its owner can read, "keyring", or None for an archive that asks for nothing.
    own_title
        Our application entity title, for DIMSE.
    receive_port
        Where a DIMSE archive sends the series that we ask it to move to us; the archive must know title and port.
    patience
        How often a server that does not answer is asked again.

    Raises
    ------
    UsageError
        If there can be no such title or port.
    """

    address: str
    credentials: str | None = None
    own_title: str = "MEDSEG"
    receive_port: int = 11112
    patience: Patience = field(default_factory=Patience)

    def __post_init__(self) -> None:
        if not TITLE.fullmatch(self.own_title):
            raise UsageError(f"an application entity title has 1 to 16 characters of ASCII; got {self.own_title!r}")
        if not 0 < self.receive_port < 65536:
            raise UsageError(f"a port is 1 to 65535; got {self.receive_port} to receive")

    def with_own_patience(self) -> PacsAccess:
        """The same with a patience of its own: losing it is no matter for others."""
        return replace(self, patience=replace(self.patience))


@dataclass(frozen=True)
class Secrets:
    """What an archive wants to know of us; not shown."""

    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    ca_file: str = ""
    client_certificate: str = ""
    client_key: str = field(default="", repr=False)

    @property
    def has_any(self) -> bool:
        """Whether something secret would be sent."""
        return bool(self.password or self.token)

    def tls(self) -> ssl.SSLContext:
        """The TLS settings of a connection: certificates are checked.

        Raises
        ------
        UsageError
            If a certificate cannot be read.
        """
        try:
            context = ssl.create_default_context(cafile=self.ca_file or None)
            if self.client_certificate:
                context.load_cert_chain(self.client_certificate, self.client_key or None)
        except (OSError, ssl.SSLError) as error:
            raise UsageError(f"a certificate of --credentials cannot be used: {error}") from error
        return context

    def tls_to_receive(self) -> ssl.SSLContext:
        """The TLS settings of what an archive sends to us: we show our certificate, and it must show a trusted one.

        Raises
        ------
        UsageError
            If we have no certificate, or one cannot be read.
        """
        if not self.client_certificate:
            raise UsageError(
                "to receive within TLS we need a certificate: client_certificate and client_key of --credentials"
            )
        try:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=self.ca_file or None)
            context.load_cert_chain(self.client_certificate, self.client_key or None)
        except (OSError, ssl.SSLError) as error:
            raise UsageError(f"a certificate of --credentials cannot be used: {error}") from error
        context.verify_mode = ssl.CERT_REQUIRED
        return context


def open_pacs(access: PacsAccess) -> Pacs:
    """An archive, ready to be asked.

    Raises
    ------
    UsageError
        If the address or the credentials make no sense, or the extra `pacs` is not installed.
    """
    address = PacsAddress.parse(access.address)
    secrets = _secrets(access, address)
    if secrets.has_any and not address.is_encrypted and not address.is_on_this_machine:
        raise UsageError(f"{address.text} is not encrypted; a password or token is sent by https only")
    try:
        if address.kind == "dicomweb":
            from medseg.dicom.dicomweb import DicomWeb

            return DicomWeb(address, secrets, access.patience)
        from medseg.dicom.dimse import Dimse

        return Dimse(address, secrets, access.patience, access.own_title, access.receive_port)
    except ModuleNotFoundError as error:
        raise UsageError(f"a PACS needs {error.name}: pip install 'medseg[pacs]'") from error


def _secrets(access: PacsAccess, address: PacsAddress) -> Secrets:
    if access.credentials is None:
        return Secrets()
    if access.credentials == KEYRING:
        return _from_keyring(address)
    return _from_file(Path(access.credentials), address)


def _from_keyring(address: PacsAddress) -> Secrets:
    try:
        import keyring
        import keyring.errors
    except ModuleNotFoundError as error:
        raise UsageError("the keyring needs the extra pacs: pip install 'medseg[pacs]'") from error
    try:
        found = keyring.get_credential(address.text, None)
    except keyring.errors.KeyringError as error:
        raise UsageError(f"the keyring cannot be opened ({error}); give --credentials FILE instead") from error
    if found is None:
        raise UsageError(f"the keyring has nothing for {address.text}; run: keyring set {address.text} USER")
    return Secrets(user=found.username, password=found.password)


def _from_file(file: Path, address: PacsAddress) -> Secrets:
    """The entry of an address in a YAML file: address -> user, password, token, certificates."""
    try:
        if os.name == "posix" and file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise UsageError(f"{file} can be read by others than its owner; run: chmod 600 {file}")
        entries = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"credentials {file} cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise UsageError(f"credentials {file} are no YAML") from error  # the parser's message shows the lines
    entry = entries.get(address.text) if isinstance(entries, Mapping) else None
    if not isinstance(entry, Mapping):
        raise UsageError(f"credentials {file} hold nothing for {address.text}; write '{address.text}:' and its fields")
    unknown = sorted(str(name) for name in entry if name not in _FIELDS)
    if unknown:
        raise UsageError(f"credentials {file}: no field {', '.join(unknown)}; fields are {', '.join(_FIELDS)}")
    odd = sorted(name for name, value in entry.items() if not isinstance(value, str))
    if odd:  # YAML reads 0123 as 83, and nothing as None
        raise UsageError(f"credentials {file}: {', '.join(odd)} must be text; put it in quotes")
    return Secrets(**entry)
