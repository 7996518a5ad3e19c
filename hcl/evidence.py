"""Evidence: what a certification run found, signed. A device counts as certified by such a run only.

A file holds ``{"run": {...}, "signature": {...}}``; the signature is over the canonical form of the run. Those that come
with this package are in ``runs/``, and the public keys that are trusted for them in ``keys/``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple, TypeAlias

import msgspec

from hcl import signing
from hcl.errors import BadEvidence, BadKey, BadSignature
from hcl.inventory import Hex4, Hex6
from hcl.verdict import Engine

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

_log = logging.getLogger(__name__)

VERSION = 1


class Check(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One thing that a run looked at."""

    name: Annotated[str, msgspec.Meta(min_length=1)]
    passed: bool
    detail: str = ""
    """What was seen; of a failed one, what went wrong."""
    figures: dict[str, float] = {}
    """Measured values by name and unit: ``{"frames": 4096, "seconds": 60.0}``."""


class Run(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A certification run: a suite, a device, a module of a kernel or a driver in Python, and what came out."""

    version: Annotated[int, msgspec.Meta(ge=VERSION, le=VERSION)] = VERSION
    suite: Literal["nic", "storage"]
    suite_version: Annotated[int, msgspec.Meta(ge=1)]
    vendor: Hex4
    device: Hex4
    subvendor: Hex4
    subdevice: Hex4
    pci_class: Hex6
    engine: Engine = "linux"
    module: str
    """The driver that was run: a Linux module's name, or a native driver's."""
    module_sha256: Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]
    """Of the module's file; of a native driver, over its folder's sources, as ``hcl.native.sources_sha256`` makes it."""
    kernel: str = ""
    """The kernel release that the module belongs to; "" for a native driver, which needs none."""
    vmklinux: str | msgspec.UnsetType = msgspec.UNSET
    """The version of this package that the native driver belongs to; absent for a Linux module."""
    counterpart: str
    """What the device was: ``QEMU 7.2.22: e1000``, or a machine's model."""
    started: Annotated[datetime, msgspec.Meta(tz=True)]
    seconds: Annotated[float, msgspec.Meta(ge=0)]
    checks: Annotated[tuple[Check, ...], msgspec.Meta(min_length=1)]

    def __post_init__(self) -> None:
        """Refuse a module without its kernel, a native driver with one, or without the version that it is of."""
        if bool(self.kernel) != (self.engine == "linux") or bool(self.vmklinux) != (self.engine == "native"):
            raise ValueError(
                "it names the kernel of a Linux module, or vmklinux's version of a native driver"
            )

    @property
    def passed(self) -> bool:
        """Whether all checks did."""
        return all(check.passed for check in self.checks)

    @property
    def release(self) -> str:
        """What the driver belongs to: the kernel's release, or vmklinux's version."""
        return self.kernel or self.vmklinux or ""

    @property
    def driver(self) -> str:
        """The driver that was run, in words."""
        return driver_in_words(self.engine, self.module, self.release)

    @property
    def name(self) -> str:
        """How it is referred to, and its file's name without suffix."""
        device = f"{self.vendor}-{self.device}-{self.subvendor}-{self.subdevice}"
        of = self.kernel or f"native-{self.release}"
        return f"{device}_{self.module}_{of}_{self.started:%Y%m%dT%H%M%SZ}"


class Signed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A run with its signature: what a file of evidence holds."""

    run: Run
    signature: signing.Signature


_DECODER = msgspec.json.Decoder(Signed)
#: What runs are found by: vendor, device, engine, module.
_Key: TypeAlias = tuple[str, str, Engine, str]


def write(run: Run, key: Ed25519PrivateKey, directory: Path) -> Path:
    """Sign a run and write its file, whole or not at all; the file. BadEvidence when it cannot be written."""
    from hcl.files import write_whole

    signed = Signed(run, signing.sign(run, key))
    path = directory / f"{run.name}.json"
    write_whole(path, msgspec.json.format(msgspec.json.encode(signed), indent=2) + b"\n")
    return path


def read(path: Path, keys: Iterable[Ed25519PublicKey]) -> Run:
    """A run from its file. BadEvidence when it is not one, BadSignature when no trusted key signed it."""
    signed = _decoded(path)
    signing.verify(signed.run, signed.signature, keys, str(path))
    return signed.run


def _decoded(path: Path) -> Signed:
    try:
        return _DECODER.decode(path.read_bytes())
    except OSError as error:
        raise BadEvidence(f"cannot read the evidence: {error.strerror}", where=str(path)) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadEvidence(f"no evidence of this version: {error}", where=str(path)) from error


class Enclosed(NamedTuple):
    """Runs, and keys in PEM, that another file holds."""

    file: Path
    runs: tuple[Signed, ...]
    keys: tuple[str, ...]


class Evidence:
    """Runs by device, from directories of their files. A signature is checked when a run first counts."""

    def __init__(
        self, directories: Iterable[Path] = (), keys: Iterable[Path] = (), enclosed: Enclosed | None = None
    ) -> None:
        """``directories`` hold run files, ``keys`` are PEM files of public keys, or directories of such."""
        self._directories = tuple(directories)
        self._key_files = tuple(keys)
        self._enclosed = enclosed
        self._found: dict[_Key, list[tuple[Path, Signed]]] | None = None
        self._checked: dict[tuple[Path, str], bool] = {}

    @cached_property
    def keys(self) -> tuple[Ed25519PublicKey, ...]:
        """The trusted keys. BadKey."""
        files = [
            file
            for place in self._key_files
            for file in (sorted(place.glob("*.pem")) if place.is_dir() else (place,))
        ]
        enclosed = self._enclosed
        more = (
            [signing.public_key_of(key.encode(), str(enclosed.file)) for key in enclosed.keys]
            if enclosed
            else []
        )
        return (*(signing.public_key(file) for file in files), *more)

    def newest(
        self, vendor: str, device: str, engine: Engine, module: str, series: str
    ) -> tuple[Path, Run] | None:
        """The last run of the engine's module on such a device, passed or not, and its file; None when nobody made one.
        The series is the kernel's, or vmklinux's.

        One that is not signed by a trusted key, or was changed, counts for nothing, and the log says so.
        """
        for path, signed in self._index().get((vendor, device, engine, module), ()):
            if of_series(signed.run.release, series) and self._holds(path, signed):
                return path, signed.run
        return None

    def counting(self) -> list[Signed]:
        """All runs that count, the newest first, each once."""
        runs = {
            signed.run.name: signed
            for found in self._index().values()
            for path, signed in found
            if self._holds(path, signed)
        }
        return sorted(runs.values(), key=lambda signed: signed.run.started, reverse=True)

    def _holds(self, path: Path, signed: Signed) -> bool:
        """Whether a trusted key signed this very run; the log says it when not."""
        known = (path, signed.run.name)
        if known not in self._checked:
            try:
                signing.verify(signed.run, signed.signature, self.keys, str(path))
            except (BadSignature, BadKey) as error:
                _log.warning("evidence that does not count: %s", error)
                self._checked[known] = False
            else:
                self._checked[known] = True
        return self._checked[known]

    def _index(self) -> dict[_Key, list[tuple[Path, Signed]]]:
        if self._found is None:
            self._found = {}
            paths = sorted(path for directory in self._directories for path in directory.glob("*.json"))
            found = [(path, _decoded(path)) for path in paths]
            if self._enclosed:
                found += [(self._enclosed.file, signed) for signed in self._enclosed.runs]
            for path, signed in found:
                run = signed.run
                key = run.vendor, run.device, run.engine, run.module
                self._found.setdefault(key, []).append((path, signed))
            for runs in self._found.values():
                runs.sort(key=lambda each: each[1].run.started, reverse=True)
        return self._found


def driver_in_words(engine: Engine, module: str, release: str) -> str:
    """A driver with the release that it belongs to: the kernel's, or this package's."""
    return f"{module} {'of Linux' if engine == 'linux' else 'in Python of vmklinux'} {release}"


def of_series(release: str, series: str) -> bool:
    """Whether a release, or its beginning, belongs to a series: ``6.1.0-56-amd64`` to ``6.1``."""
    return release == series or release.startswith((f"{series}.", f"{series}-", f"{series}+"))
