"""Releases of the list: one signed JSON file with its rows, what a site laid over them, and the evidence.

A file holds ``{"release": {...}, "signature": {...}}``; the signature is over the canonical form of the release.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from hcl import signing
from hcl.errors import BadRelease, CannotWrite
from hcl.evidence import Enclosed, Evidence, Signed
from hcl.files import write_whole
from hcl.overlay import Overlay, Placed
from hcl.registry import Claim, Driver, Registry
from hcl.site import KEYS, RELEASE
from hcl.usb import Table

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

VERSION = 1


class Release(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The list at one time. Places are ``file:line`` of what it was made of, without the directories around it."""

    version: Annotated[int, msgspec.Meta(ge=VERSION, le=VERSION)] = VERSION
    made: Annotated[datetime, msgspec.Meta(tz=True)]
    kernels: tuple[str, ...]
    """Kernel series that it knows."""
    drivers: tuple[Driver, ...]
    places: dict[str, str]
    """Where each driver is declared."""
    claims: tuple[Claim, ...]
    usb: Table
    overlays: tuple[tuple[Placed, ...], ...] = ()
    """The first has the last word."""
    runs: tuple[Signed, ...] = ()
    """Evidence, each run with its own signature."""
    keys: tuple[str, ...] = ()
    """The public keys in PEM that the runs are signed with."""

    @property
    def name(self) -> str:
        """How it is called."""
        return f"release of {self.made:%Y-%m-%dT%H:%M:%SZ}"

    def enclosed(self, file: Path) -> Enclosed:
        """Its evidence, as that of the file that it came from."""
        return Enclosed(file, self.runs, self.keys)

    def registry(self, evidence: Evidence | None = None, overlays: Iterable[Overlay] = ()) -> Registry:
        """The registry that it is, with what a site has beside it. RegistryError."""
        return Registry(
            {driver.name: driver for driver in self.drivers},
            self.claims,
            self.kernels,
            self.places,
            evidence,
            overlays=[*overlays, *map(Overlay, self.overlays)],
            usb=self.usb,
        )


class _Header(msgspec.Struct, frozen=True):
    version: int


class _HeaderOf(msgspec.Struct, frozen=True):
    release: _Header


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    release: msgspec.Raw
    signature: signing.Signature


def of(registry: Registry, made: datetime) -> Release:
    """The release of a registry: all of it, and what of its evidence holds."""
    runs = registry.evidence.counting()
    signers = {signed.signature.key for signed in runs}
    known = {signing.fingerprint(key): key for key in registry.evidence.keys}
    return Release(
        made=made,
        kernels=registry.kernels,
        drivers=tuple(registry.drivers.values()),
        places={name: f"{name}/{_short(place)}" for name, place in registry.places.items()},
        claims=tuple(
            msgspec.structs.replace(claim, place=f"{claim.driver}/{_short(claim.place)}")
            for claim in registry.claims
        ),
        usb=registry.usb,
        overlays=tuple(
            tuple(Placed(each.entry, _short(each.place)) for each in overlay.entries)
            for overlay in registry.overlays
        ),
        runs=tuple(runs),
        keys=tuple(signing.pem(known[signer]) for signer in sorted(signers)),
    )


def _short(place: str) -> str:
    return place.rpartition("/")[2]


def write(release: Release, key: Ed25519PrivateKey, path: Path) -> None:
    """Sign a release and write its file. CannotWrite."""
    document = {"release": release, "signature": signing.sign(release, key)}
    write_whole(path, msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n")


def read(path: Path, keys: Iterable[Ed25519PublicKey]) -> Release:
    """The release of a file. BadRelease when it is none of this version; BadSignature when no trusted key signed it."""
    return _opened(_content(path), keys, str(path))


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadRelease(f"cannot read the release: {error.strerror}", where=str(path)) from error


def _opened(content: bytes, keys: Iterable[Ed25519PublicKey], where: str) -> Release:
    try:
        version = msgspec.json.decode(content, type=_HeaderOf).release.version
        if version > VERSION:
            raise BadRelease(
                f"it has version {version}; this knows {VERSION}", where=where, remedy="use a newer vmklinux"
            )
        file = msgspec.json.decode(content, type=_File)
        document: Any = msgspec.json.decode(file.release)
        # Over what stands there, not over what is understood of it.
        signing.verify(document, file.signature, keys, where)
        return msgspec.convert(document, Release)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRelease(f"no release of the list: {error}", where=where) from error


def install(path: Path, keys: Iterable[Ed25519PublicKey], directory: Path) -> Release:
    """Put a release where the tools look for it, with the key that signed it: whole, or not at all.

    BadRelease, BadSignature, RegistryError when it does not fit together, CannotWrite.
    """
    trusted = list(keys)
    content = _content(path)
    release = _opened(content, trusted, str(path))
    release.registry()
    signer = msgspec.json.decode(content, type=_File).signature.key
    key = next(key for key in trusted if signing.fingerprint(key) == signer)
    file = directory / KEYS / f"{signer}.pem"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotWrite(f"cannot make the directory: {error.strerror}", where=str(file.parent)) from error
    known = file.exists()
    if not known:
        write_whole(file, signing.pem(key).encode())
    try:
        write_whole(directory / RELEASE, content)
    except CannotWrite:
        if not known:
            file.unlink()
        raise
    return release
