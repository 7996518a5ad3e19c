"""SendTargets: what a portal tells of (RFC 7143, appendix C)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from native_drivers.scsi.vmkiscsi.link import Link
from native_drivers.scsi.vmkiscsi.portal import Portal
from vmklinux.native.timer import mod_timer

if TYPE_CHECKING:
    from native_drivers.scsi.vmkiscsi.connection import Connection
    from native_drivers.scsi.vmkiscsi.errors import IscsiError


class Discovery(Link):
    """The question to one portal, asked by ``open``. ``targets``: names and portals; ``error``: why there are none."""

    targets: dict[str, list[Portal]] | None = None
    error: IscsiError | None = None

    def is_done(self) -> bool:
        """Whether there is an answer."""
        return self.targets is not None or self.error is not None

    def open(self) -> None:
        """Ask, again."""
        self.targets = self.error = None
        super().open()

    def up(self) -> None:
        """Ask; the answer has as long as the login had."""
        assert self.connection is not None
        mod_timer(self.limit, self._settings.login_timeout)
        self.connection.discover()

    def progress(self, connection: Connection) -> None:
        """The answer may be there."""
        if connection.targets is not None and not self.is_done():
            asked = (self.portal, connection.address)
            self.targets = {name: self._choose(told, asked) for name, told in connection.targets.items()}
            self.close()
            self.changed.wake_up()

    def _choose(self, told: list[str], asked: tuple[Portal, Portal]) -> list[Portal]:
        """The portal that answered, if a target says that it is there, or says nothing; else where it says."""
        portals = [portal for text in told if (portal := Portal.told(text)) is not None]
        return [self.portal] if not portals or any(portal in asked for portal in portals) else portals

    def down(self, error: IscsiError) -> None:
        """There is no answer."""
        self.error = error
        self.changed.wake_up()
