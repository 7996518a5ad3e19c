"""A login that somebody wants: the way from a portal's name to a connection that is online."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import partial
from typing import TYPE_CHECKING

from native_drivers.scsi.vmkiscsi.connection import Connection
from native_drivers.scsi.vmkiscsi.errors import IscsiError, PortalUnreachable
from native_drivers.scsi.vmkiscsi.portal import Portal
from vmklinux.native.timer import Timer, mod_timer, timer_delete
from vmklinux.native.wait import WaitQueue

if TYPE_CHECKING:
    from native_drivers.scsi.vmkiscsi.library import Library
    from native_drivers.scsi.vmkiscsi.parameters import Settings
    from native_drivers.scsi.vmkiscsi.poller import Poller
    from vmklinux.native.device import Device

#: How often a target may send us elsewhere before it lets us in.
REDIRECTS = 4
#: How many addresses of a name are tried.
ADDRESSES = 4


class Link(ABC):
    """Connects and logs in when ``open`` is called; ``up`` and ``down`` tell what became of it. All with the baton.

    ``changed`` wakes those who wait for it. ``limit`` is set until it is logged in; when it expires the attempt fails.
    """

    def __init__(
        self,
        device: Device,
        library: Library,
        settings: Settings,
        poller: Poller,
        portal: Portal,
        target: str | None,
    ) -> None:
        """``target`` None: to discover."""
        self.portal, self.target = portal, target
        self.isid = (0, 0)
        self.changed = WaitQueue()
        self.connection: Connection | None = None
        self._library, self._settings, self._poller = library, settings, poller
        self._redirects = 0
        self._attempt = 0
        self._addresses: list[Portal] = []
        self._share = 0.0
        self.limit = Timer(device, self._too_late)

    @abstractmethod
    def up(self) -> None:
        """It is logged in."""

    @abstractmethod
    def down(self, error: IscsiError) -> None:
        """It is not logged in, or not any more; the connection is closed."""

    @abstractmethod
    def progress(self, connection: Connection) -> None:
        """The connection is online and was served."""

    @abstractmethod
    def is_done(self) -> bool:
        """Whether what ``open`` began came to something, or to nothing."""

    @property
    def online(self) -> bool:
        """Whether it is logged in."""
        return self.connection is not None and self.connection.state == "online"

    def open(self) -> None:
        """Begin; what there was is closed."""
        self.close()
        self._redirects = 0
        self._go(self.portal)

    def _go(self, portal: Portal) -> None:
        self._attempt += 1
        mod_timer(self.limit, self._settings.login_timeout)
        self._poller.resolve(portal, partial(self._resolved, self._attempt, portal))

    def _resolved(self, attempt: int, portal: Portal, found: list[Portal] | PortalUnreachable) -> None:
        if attempt != self._attempt:
            return
        if isinstance(found, PortalUnreachable):
            self.fail(found)
            return
        self._addresses = found[:ADDRESSES]
        # A name may have addresses that lead nowhere: one of them must not take all the time.
        self._share = self._settings.login_timeout / len(self._addresses)
        self._connect(portal)

    def _connect(self, portal: Portal) -> None:
        """To the next of the portal's addresses."""
        mod_timer(self.limit, self._share)
        connection = Connection(self._library, self._settings, portal, self.target, self.isid)
        self.connection = connection
        try:
            connection.connect(self._addresses.pop(0))
        except PortalUnreachable as error:
            self._not_there(connection, error)
        else:
            self._poller.add(self, connection)

    def _not_there(self, connection: Connection, error: IscsiError) -> None:
        """An attempt has failed; where nobody answered there may be another address."""
        if connection.state == "connecting" and self._addresses:
            self._drop()
            self._connect(connection.portal)
        else:
            self.fail(error)

    def service(self, ready: int) -> None:
        """For the poller: the socket is ready."""
        connection = self.connection
        if connection is None or connection.state == "closed":
            return
        was_online = self.online
        connection.service(ready)
        if connection.redirect:
            self._follow(connection.redirect)
            return
        if self.online:
            if not was_online:
                timer_delete(self.limit)
                self.up()
            self.progress(connection)
        if connection.error is not None:
            self._not_there(connection, connection.error)
        elif connection is self.connection:
            self._poller.update(connection)
            self.changed.wake_up()

    def traffic(self, ready: int) -> bool:
        """For the poller: the same of a login that is online, at a delivery point; False when that is not all."""
        connection = self.connection
        if connection is None or connection.state != "online":
            return False
        connection.service(ready)
        self.progress(connection)
        if connection.error is not None or connection.state != "online":
            return False
        if connection is self.connection:
            self._poller.update(connection)
        self.changed.wake_up()
        return True

    def _follow(self, redirect: str) -> None:
        """The target is elsewhere, for now (RFC 7143, 7.3.3)."""
        self._redirects += 1
        portal = Portal.told(redirect)
        if portal is None or self._redirects > REDIRECTS:
            self.fail(
                IscsiError(
                    f"the target sends us to {redirect} in vain", where=f"{self.target} at {self.portal}"
                )
            )
        else:
            self.close()
            self._go(portal)

    def _too_late(self) -> None:
        limit, connection = self._settings.login_timeout, self.connection
        error = PortalUnreachable(
            f"no {'answer' if self.online else 'login'} within {limit} s",
            where=f"{self.target or 'discovery'} at {self.portal}",
            remedy="see that a target listens there, or give it more time by login_timeout",
        )
        if connection is None:  # its name is still being looked up
            self.fail(error)
        else:
            self._not_there(connection, error)

    def fail(self, error: IscsiError) -> None:
        """It is of no use any more."""
        self.close()
        self.down(error)

    def close(self) -> None:
        """End the connection at once, if there is one."""
        self._attempt += 1
        self._addresses = []
        self._drop()

    def _drop(self) -> None:
        timer_delete(self.limit)
        if self.connection is not None:
            connection, self.connection = self.connection, None
            self._poller.remove(connection)
            connection.close()
