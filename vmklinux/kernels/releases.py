"""Kernel releases (what ``uname -r`` says): which begin with what, and which is newer."""

import re

_PARTS = re.compile(r"[0-9]+|[a-z]+")


def begins(release: str, prefix: str) -> bool:
    """Whether ``release`` begins with ``prefix`` and no number is cut: 6.1 begins 6.1.0-56 and not 6.12."""
    if not release.startswith(prefix):
        return False
    seam = release[max(len(prefix) - 1, 0) : len(prefix) + 1]
    return not re.fullmatch(r"[0-9]{2}", seam)


def age_key(release: str) -> tuple[tuple[int, int, str], ...]:
    """A key that sorts releases from the oldest to the newest: numbers as numbers, and rc before the rest."""
    return tuple(
        (2, int(part), "") if part.isdigit() else (0 if part == "rc" else 1, 0, part)
        for part in _PARTS.findall(release)
    )


def series(release: str) -> str:
    """The series of a release, its first two numbers: 6.12 of 6.12.9+deb13-amd64."""
    return ".".join(re.findall(r"[0-9]+", release)[:2])
