"""What an operator is told of the initiator's targets and sessions, and may change while it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from native_drivers.scsi.vmkiscsi.portal import Portal
from vmkernel_core.errors import UsageError
from vmkernel_core.storage.iscsi import Chap, IscsiControls, KnownTarget, TargetSession

if TYPE_CHECKING:
    from native_drivers.scsi.vmkiscsi.initiator import VmkIscsi
    from native_drivers.scsi.vmkiscsi.session import Session
    from vmkernel_core.storage.iscsi import ChapDirection, DiscoveryMethod


class Controls(IscsiControls):
    """Those of one initiator."""

    def __init__(self, initiator: VmkIscsi) -> None:
        """It has read its settings."""
        self._initiator = initiator
        self._settings = initiator.settings
        self._calling = initiator.device.calling

    def name(self) -> str:
        """The one that it tells targets."""
        return self._settings.initiator

    def sendtargets(self) -> list[str]:
        """Those of the parameters, unless these name targets, and those that were added."""
        with self._calling():
            return [str(one.portal) for one in self._initiator.discoveries]

    def add_sendtarget(self, portal: str) -> None:
        """Another one to ask."""
        found = Portal.parse(portal)
        with self._calling():
            if any(one.portal == found for one in self._initiator.discoveries):
                raise UsageError(f"portal {found} is asked already")
            self._initiator.ask(found)

    def remove_sendtarget(self, portal: str) -> None:
        """One less."""
        found = Portal.parse(portal)
        with self._calling():
            for one in self._initiator.discoveries:
                if one.portal == found:
                    self._initiator.discoveries.remove(one)
                    return
            known = ", ".join(str(one.portal) for one in self._initiator.discoveries)
            raise UsageError(f"portal {found} is not asked", remedy=f"use one of {known or 'none'}")

    def targets(self) -> list[KnownTarget]:
        """Those that there is, was, or should have been a session with."""
        by_name: dict[str, list[Session]] = {}
        with self._calling():
            for session in self._initiator.sessions:
                by_name.setdefault(session.target_name, []).append(session)
            return [self._target(name, sessions) for name, sessions in by_name.items()]

    def _target(self, name: str, sessions: list[Session]) -> KnownTarget:
        method: DiscoveryMethod = "STATIC" if name in self._settings.targets else "SENDTARGETS"
        alias = next((text for one in sessions if (text := one.agreed.get("TargetAlias"))), "")
        error = next((one.error for one in sessions if one.error is not None), None)
        return KnownTarget(name, alias, method, error)

    def sessions(self) -> list[TargetSession]:
        """By target id."""
        with self._calling():
            return [
                TargetSession(
                    one.id, one.target_name, str(one.portal), one.isid_text, one.state, one.logins, one.error,
                    dict(one.agreed),
                )
                for one in self._initiator.sessions
            ]  # fmt: skip

    def add_session(self, target: str, isid: str | None = None) -> None:
        """Log in, and look for devices."""
        with self._calling():
            self._initiator.log_in(self._chosen(target, isid))

    def remove_session(self, target: str, isid: str | None = None) -> None:
        """Take devices away, and log out."""
        with self._calling():
            self._initiator.log_out(self._chosen(target, isid))

    def _chosen(self, target: str, isid: str | None) -> list[Session]:
        every = self._initiator.sessions
        found = [one for one in every if one.target_name == target and isid in (None, one.isid_text)]
        if not found:
            names = ", ".join(dict.fromkeys(one.target_name for one in every))
            raise UsageError(
                f"there is no session {f'{isid} ' if isid else ''}with {target}",
                remedy=f"targets that are known: {names or 'none'}",
            )
        return found

    def chap(self, direction: ChapDirection) -> Chap:
        """By the parameters. A target may do without our CHAP, but not without its own."""
        if direction == "uni":
            return Chap(self._settings.chap.name, "chapPreferred") if self._settings.chap else _NO_CHAP
        return (
            Chap(self._settings.mutual_chap.name, "chapRequired") if self._settings.mutual_chap else _NO_CHAP
        )


_NO_CHAP = Chap("", "chapProhibited")
