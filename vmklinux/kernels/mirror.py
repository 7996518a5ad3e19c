"""Debian suites beyond those that the host uses, through a private apt configuration that needs no root."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vmklinux.kernels.apt import Apt
from vmklinux.kernels.errors import FetchError
from vmklinux.kernels.releases import begins


@dataclass(frozen=True, slots=True)
class Suite:
    """A suite of Debian's and the kernel series that it carries; none are named where they change."""

    name: str
    series: tuple[str, ...] = ()


SUITES = (
    Suite("bullseye-security", ("5.10",)),
    Suite("bookworm", ("6.1",)),
    Suite("bookworm-security", ("6.1", "6.12")),
    Suite("bookworm-backports", ("6.12",)),
    Suite("trixie", ("6.12",)),
    Suite("trixie-security", ("6.12",)),
    Suite("trixie-backports"),
    Suite("sid"),
)
"""Where Debian's kernels are. Names ending in -security live in an archive of their own."""

_SECURITY = "-security"
_RELEASE_NAMES = frozenset(
    {
        "bullseye",
        "bookworm",
        "trixie",
        "forky",
        "sid",
        "oldoldstable",
        "oldstable",
        "stable",
        "testing",
        "unstable",
    }
)

# Debian 12 has .gpg, Debian 13 both.
_KEYRINGS = ("debian-archive-keyring.gpg", "debian-archive-keyring.pgp")


def suites_for(release: str) -> list[Suite]:
    """The suites that may carry releases beginning with ``release``."""
    fixed = [
        suite
        for suite in SUITES
        if any(begins(release, series) or begins(series, release) for series in suite.series)
    ]
    return fixed or [suite for suite in SUITES if not suite.series]


def source_lines(sources: list[tuple[str, str]], suites: list[Suite], keyring: Path | None) -> list[str]:
    """One-line apt sources for ``suites`` at the Debian mirrors among ``sources``, as Apt.suites gives them.

    A foreign archive that has a suite with a Debian name is listed too, and dropped by apt: it lacks
    Debian's signature.
    """
    signed = f" signed-by={keyring}" if keyring else ""
    lines: dict[str, None] = {}
    for suite in suites:
        for address, name in sources:
            of_debian = name.partition("-")[0] in _RELEASE_NAMES
            if of_debian and name.endswith(_SECURITY) == suite.name.endswith(_SECURITY):
                lines[f"deb [arch=amd64{signed}] {address} {suite.name} main"] = None
    return list(lines)


def _keyring(directory: Path) -> Path | None:
    return next((directory / name for name in _KEYRINGS if (directory / name).is_file()), None)


def private_apt(
    directory: Path, host: Apt, suites: list[Suite], keyrings: Path = Path("/usr/share/keyrings")
) -> Apt:
    """Write an apt configuration for ``suites`` into ``directory``; all that apt writes stays in there.

    The mirror is the host's own, as are proxies, limits and trusted keys. Raises FetchError when the
    host's sources name no mirror of Debian's.
    """
    lines = source_lines(host.suites(), suites, _keyring(keyrings))
    if not lines:
        raise FetchError(
            "apt's sources name no mirror of Debian's",
            where="/etc/apt/sources.list, /etc/apt/sources.list.d",
            remedy="add Debian's address with the suite bookworm and the component main to them",
        )
    sources = directory / "sources.list"
    sources.write_text("".join(f"{line}\n" for line in lines))
    for name in ("lists/partial", "archives/partial"):
        (directory / name).mkdir(parents=True)
    config = directory / "apt.conf"
    config.write_text(_CONFIG.format(directory=directory))
    return Apt(config)


# The hooks that the host runs after an update are about the host's lists.
_CONFIG = """\
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
APT::Architecture "amd64";
Acquire::Languages "none";
Dir::Etc::SourceList "{directory}/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::State::Lists "{directory}/lists";
Dir::State::status "/dev/null";
Dir::Cache "{directory}";
Dir::Cache::archives "{directory}/archives";
Dir::Cache::pkgcache "{directory}/pkgcache.bin";
Dir::Cache::srcpkgcache "";
"""
