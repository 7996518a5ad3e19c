"""iSCSI as an operator sees it: what an adapter that is an initiator tells of its targets, and lets itself be told."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vmkernel_core.errors import VmkError

#: new: never logged in; blocked: lost, and commands wait for it; lost: for longer than they wait; closed: an operator
#: has removed it.
SessionState: TypeAlias = Literal["new", "online", "blocked", "lost", "closed"]
#: How a target came to be known: a portal told of it, or an operator named it.
DiscoveryMethod: TypeAlias = Literal["SENDTARGETS", "STATIC"]
#: uni: the initiator proves to the target who it is; mutual: the target to the initiator.
ChapDirection: TypeAlias = Literal["uni", "mutual"]
#: As ESX says it. Prohibited: it is not used; preferred: unless the target does without; required: or there is no login.
ChapLevel: TypeAlias = Literal["chapProhibited", "chapPreferred", "chapRequired"]


@dataclass(frozen=True, slots=True)
class TargetSession:
    """A session with a target: ``id`` is that of the target on the adapter, ``isid`` (12 hexadecimal digits) its own.

    ``target`` and ``portal`` are its name and where it is; ``logins`` counts them; ``error`` is what ended the last one,
    while there is none. ``negotiated`` is what was agreed on at the login, by key (RFC 7143, 13); empty while there is
    none. The targets' keys that are of no concern to an initiator are not in it.
    """

    id: int
    target: str
    portal: str
    isid: str
    state: SessionState
    logins: int
    error: VmkError | None
    negotiated: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class KnownTarget:
    """A target that there is, or was: its name, its alias if it told one, and what it failed with, while it does."""

    name: str
    alias: str
    method: DiscoveryMethod
    error: VmkError | None


@dataclass(frozen=True, slots=True)
class Chap:
    """How CHAP is used in one direction; ``name`` is the one that is proven, "" without CHAP. Never the secret."""

    name: str
    level: ChapLevel


class IscsiControls(ABC):
    """What an initiator is asked, and told. A portal is ``host[:port]``; what it is told holds until its driver goes.

    All may raise DriverStopped.
    """

    @abstractmethod
    def name(self) -> str:
        """Its iSCSI name."""

    @abstractmethod
    def sendtargets(self) -> list[str]:
        """The portals that are asked for their targets."""

    @abstractmethod
    def add_sendtarget(self, portal: str) -> None:
        """Ask one more portal, when the adapter is next scanned. UsageError."""

    @abstractmethod
    def remove_sendtarget(self, portal: str) -> None:
        """Do not ask a portal any more; sessions with targets that it told of stay. UsageError."""

    @abstractmethod
    def targets(self) -> list[KnownTarget]:
        """The targets that it knows."""

    @abstractmethod
    def sessions(self) -> list[TargetSession]:
        """All sessions, those that could not be had included."""

    @abstractmethod
    def add_session(self, target: str, isid: str | None = None) -> None:
        """Log in, where there is no login, by each session with a target, or one; then look for its devices.

        UsageError; the error of the last login when none worked.
        """

    @abstractmethod
    def remove_session(self, target: str, isid: str | None = None) -> None:
        """Take the devices of the sessions with a target, or of one of them, away, and log out. UsageError."""

    @abstractmethod
    def chap(self, direction: ChapDirection) -> Chap:
        """How CHAP is used."""
