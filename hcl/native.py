"""Drivers in Python, as far as the list is concerned: which version of this package they are of, and their sources.

They are data here: nothing of them is imported.
"""

from __future__ import annotations

from functools import cache
from hashlib import sha256
from pathlib import Path

PACKAGE = "vmklinux"
"""The distribution that the drivers, and what they stand on, come with."""
SOURCES = "*.py"
"""What of a driver's folder is its code; the list's data beside it is not."""


@cache
def version() -> str:
    """The version of this package; "" where it is not installed, and then nobody can tell."""
    from importlib import metadata

    try:
        return metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        return ""


def series(release: str) -> str:
    """The series of a version, its first two numbers: ``0.1`` of ``0.1.3``. A certification run counts within it, as one
    of a Linux module does within the kernel's series.
    """
    return ".".join(release.split(".")[:2])


def driver_name(driver: str) -> str:
    """What the driver in Python of an ESX driver is called: ``e1000`` of ``net/e1000``."""
    return driver.rpartition("/")[2]


def sources_sha256(folder: Path) -> str:
    """The SHA-256 over a driver's sources; "" where there are none.

    It is that of a text with a line for each file, as ``LC_ALL=C sha256sum *.py`` prints them in the folder.
    """
    files = sorted(folder.glob(SOURCES), key=lambda file: file.name)
    lines = [f"{sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files]
    return sha256("".join(lines).encode()).hexdigest() if lines else ""
