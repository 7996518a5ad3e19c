"""What a site has of its own: overlays, evidence, keys that it trusts, and the release of the list that it imported."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from hcl.errors import RegistryError

VARIABLE = "VMK_HCL"
"""The environment's name for the site's directory; empty means none."""
DIRECTORY = "/etc/vmklinux/hcl.d"
"""Where it is when the environment does not say. It need not be there.

It may hold overlays (``*.toml``), evidence (``runs/*.json``), trusted keys (``keys/*.pem``) and an imported release of
the list (``release.json``).
"""
RUNS, KEYS, RELEASE = "runs", "keys", "release.json"


class Site(NamedTuple):
    """What a command was given beside the site's directory."""

    overlays: tuple[Path, ...] = ()
    """Files, or directories of ``*.toml``."""
    evidence: tuple[Path, ...] = ()
    """Directories of evidence files."""
    keys: tuple[Path, ...] = ()
    """PEM files of public keys, or directories of ``*.pem``."""


def directory() -> str | None:
    """The site's directory, there or not; None when the environment says that there is none."""
    return os.environ.get(VARIABLE, DIRECTORY) or None


def folders(where: str | None) -> list[Path]:
    """The site's directory where there is one. RegistryError when it cannot be read, or is not where the environment
    says: what a site refuses must not be let through for a slip.
    """
    if where is None:
        return []
    try:
        with os.scandir(where):
            return [Path(where)]
    except FileNotFoundError as error:
        if where == DIRECTORY:
            return []
        raise _unreadable(Path(where), error) from error
    except OSError as error:
        raise _unreadable(Path(where), error) from error


def _unreadable(place: Path, error: OSError) -> RegistryError:
    return RegistryError(
        f"cannot read the site's directory: {error.strerror}", where=str(place), remedy=f"see {VARIABLE}"
    )


def overlay_files(places: tuple[Path, ...]) -> list[Path]:
    """The files of overlays in these places. RegistryError when there is no such place."""
    files: list[Path] = []
    for place in places:
        if place.is_dir():
            files += sorted(place.glob("*.toml"))
        elif place.is_file():
            files.append(place)
        else:
            raise RegistryError(
                "no such overlay", where=str(place), remedy="name a file, or a directory of *.toml"
            )
    return files
