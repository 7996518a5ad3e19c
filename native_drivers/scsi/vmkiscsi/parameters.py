"""What the driver may be told when it is loaded: one table, and the settings that come of it."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from native_drivers.scsi.vmkiscsi.library import DIGESTS
from native_drivers.scsi.vmkiscsi.portal import Portal
from vmkernel_core.errors import UsageError
from vmklinux.module.param import TYPES, Parameter

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger(__name__)

NAME = "vmkiscsi"
_TEXT, _NUMBER = TYPES["param_ops_charp"], TYPES["param_ops_uint"]
_DIGEST_VALUES = "none (the default), crc32c, or both in the order of preference: crc32c,none"

#: Name, type and description of each; the description names the default.
TABLE = tuple(
    Parameter(NAME, name, kind, description)
    for name, kind, description in (
        ("portal", _TEXT, "portals, host[:port] with commas between them; it has to be given"),
        ("target", _TEXT, "names of targets with commas between them; default: all that the portals tell of"),
        ("initiator", _TEXT, "this side's iSCSI name; default: that of /etc/iscsi, else one made for the machine"),
        ("chap_name", _TEXT, "CHAP: the name to log in with; default: none"),
        ("chap_secret_file", _TEXT, "CHAP: the file that has its secret"),
        ("mutual_chap_name", _TEXT, "mutual CHAP: the name that targets have to give; default: none"),
        ("mutual_chap_secret_file", _TEXT, "mutual CHAP: the file that has the targets' secret"),
        ("header_digest", _TEXT, f"checksums on headers: {_DIGEST_VALUES}"),
        ("data_digest", _TEXT, f"checksums on data: {_DIGEST_VALUES}; libiscsi 1.20.1 or later"),
        ("sessions", _NUMBER, "sessions with each target through each portal; default 1"),
        ("queue_depth", _NUMBER, "commands that each device takes at once; default 32"),
        ("noop_interval", _NUMBER, "seconds of silence until the target is asked whether it lives; default 5, 0: never"),
        ("noop_timeout", _NUMBER, "seconds that it has to answer that; default 5"),
        ("login_timeout", _NUMBER, "seconds that connecting and logging in may take; default 15"),
        ("replacement_timeout", _NUMBER, "seconds that commands wait for a lost target to come back; default 120"),
    )
)  # fmt: skip

_OTHERS = 0o077  # of the mode of a file: group and all others
_SECRET_LIMIT = 255
"""Bytes that libiscsi keeps of a name or a secret."""
#: iSCSI names (RFC 3722, RFC 3980): iqn., eui. and naa. formats.
_ISCSI_NAME = re.compile(
    r"iqn\.\d{4}-\d{2}\.[^\s,]{1,210}|eui\.[0-9A-Fa-f]{16}|naa\.(?:[0-9A-Fa-f]{16}|[0-9A-Fa-f]{32})"
)
_INITIATOR_FILE = Path("/etc/iscsi/initiatorname.iscsi")


@dataclass(frozen=True)
class Chap:
    """A name, and the secret that proves it; nothing prints the secret."""

    name: str
    secret: str = field(repr=False)


@dataclass(frozen=True)
class Settings:
    """The parameters, read and checked; times in seconds. ``targets`` empty: all that the portals tell of."""

    portals: tuple[Portal, ...]
    targets: tuple[str, ...]
    initiator: str
    chap: Chap | None
    mutual_chap: Chap | None
    header_digest: int
    data_digest: int
    sessions: int
    queue_depth: int
    noop_interval: int
    noop_timeout: int
    login_timeout: int
    replacement_timeout: int

    @classmethod
    def read(cls, given: Mapping[str, str]) -> Settings:
        """From what the operator gave, name to value. UsageError tells what cannot be."""
        reader = _Reader(given)
        chap, mutual = reader.chap("chap"), reader.chap("mutual_chap")
        if mutual and (chap is None or chap.secret == mutual.secret):
            raise UsageError(
                "mutual CHAP without CHAP, or with its secret",
                where=NAME,
                remedy="give chap_name and chap_secret_file too; the two secrets must differ",
            )
        return cls(
            portals=tuple(dict.fromkeys(map(Portal.parse, reader.words("portal", needed=True)))),
            targets=tuple(map(_iscsi_name, reader.words("target"))),
            initiator=_iscsi_name(given.get("initiator") or _own_name()),
            chap=chap,
            mutual_chap=mutual,
            header_digest=reader.digest("header_digest"),
            data_digest=reader.digest("data_digest"),
            sessions=reader.number("sessions", 1, 1, 32),
            queue_depth=reader.number("queue_depth", 32, 1, 256),
            noop_interval=reader.number("noop_interval", 5, 0, 3600),
            noop_timeout=reader.number("noop_timeout", 5, 1, 3600),
            login_timeout=reader.number("login_timeout", 15, 1, 3600),
            replacement_timeout=reader.number("replacement_timeout", 120, 0, 86400),
        )


class _Reader:
    """Reads values of parameters."""

    def __init__(self, given: Mapping[str, str]) -> None:
        self._given = given

    def words(self, name: str, *, needed: bool = False) -> list[str]:
        words = [word.strip() for word in self._given.get(name, "").split(",") if word.strip()]
        if needed and not words:
            raise UsageError(f"no {name} is given", where=NAME, remedy=f"set {name}=… before it is loaded")
        return words

    def number(self, name: str, default: int, low: int, high: int) -> int:
        text = self._given.get(name, str(default))
        value = int(text) if text.isascii() and text.isdigit() else -1
        if not low <= value <= high:
            raise UsageError(f"{name} does not take {text!r}", where=NAME, remedy=f"give {low} to {high}")
        return value

    def digest(self, name: str) -> int:
        text = self._given.get(name, "none").lower()
        if text not in DIGESTS:
            raise UsageError(
                f"{name} does not take {text!r}", where=NAME, remedy=f"give one of {', or '.join(DIGESTS)}"
            )
        return DIGESTS[text]

    def chap(self, prefix: str) -> Chap | None:
        name, file = self._given.get(f"{prefix}_name", ""), self._given.get(f"{prefix}_secret_file", "")
        if not name and not file:
            return None
        if not name or not file:
            raise UsageError(
                f"{prefix} needs a name and a secret",
                where=NAME,
                remedy=f"give {prefix}_name and {prefix}_secret_file",
            )
        try:
            if Path(file).stat().st_mode & _OTHERS:
                log.warning("%s: others may read %s; run: chmod 600 %s", NAME, file, file)
            secret = Path(file).read_text("utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is no text"
            raise UsageError(f"{prefix}_secret_file cannot be read: {why}", where=file) from None
        if not secret or "\n" in secret or max(len(secret.encode()), len(name.encode())) > _SECRET_LIMIT:
            raise UsageError(
                f"{prefix}: name and secret have 1 to {_SECRET_LIMIT} bytes, in one line",
                where=file,
                remedy="write the secret, and nothing else, into the file",
            )
        return Chap(name, secret)


def _iscsi_name(text: str) -> str:
    if not _ISCSI_NAME.fullmatch(text):
        raise UsageError(
            f"{text!r} is no iSCSI name", where=NAME, remedy="names begin with iqn.yyyy-mm., eui. or naa."
        )
    return text


def _own_name() -> str:
    """What /etc/iscsi says, where open-iscsi is installed; else a locally assigned one that stays with the machine."""
    if _INITIATOR_FILE.exists() and os.access(_INITIATOR_FILE, os.R_OK):
        found = re.search(r"(?m)^InitiatorName=(\S+)", _INITIATOR_FILE.read_text())
        if found:
            return found[1]
    machine = Path("/etc/machine-id")
    seed = machine.read_text() if machine.exists() else socket.gethostname()
    # NAA 3h: locally assigned (SPC-4, 7.8.6.5.3; RFC 3980).
    return f"naa.3{hashlib.sha256(f'{NAME} {seed}'.encode()).hexdigest()[:15]}"
