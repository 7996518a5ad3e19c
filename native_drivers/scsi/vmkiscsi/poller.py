"""Who looks after the sockets of one initiator.

One whose session is online is like a card that interrupts: what comes is taken in at a delivery point, by whoever waits
for a device just then, and nobody else has to wake up for it. All the others, and one with which something is wrong, are
waited for by a thread: what happens there may take longer, and is told to programs.
"""

from __future__ import annotations

import logging
import os
import select
import threading
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeAlias

from native_drivers.scsi.vmkiscsi.errors import PortalUnreachable
from native_drivers.scsi.vmkiscsi.library import Event
from vmklinux.native.descriptor_irq import DescriptorIrq
from vmklinux.native.device import baton
from vmklinux.native.wait import WaitQueue, wait_event_timeout

if TYPE_CHECKING:
    from collections.abc import Callable

    from native_drivers.scsi.vmkiscsi.connection import Connection
    from native_drivers.scsi.vmkiscsi.portal import Portal
    from vmklinux.native.device import Device

log = logging.getLogger(__name__)

#: Seconds that the end waits for what the thread is doing.
LIMIT = 60.0
#: How often an interrupt looks for more.
ROUNDS = 8
_TRAFFIC = Event.IN | Event.OUT
#: Gets the addresses of a portal, or why there are none.
Tell: TypeAlias = "Callable[[list[Portal] | PortalUnreachable], None]"


class Polled(Protocol):
    """Somebody with a connection."""

    def service(self, ready: int) -> None:
        """The socket is ready for that. With the baton."""

    def traffic(self, ready: int) -> bool:
        """The same at a delivery point; False when it is for ``service`` to go on."""


class Poller:
    """Has the owners of sockets called when these are ready, with the baton.

    ``after`` is called once when all that were ready have been served. Its end is the driver's letting go of the device.
    """

    def __init__(self, device: Device, after: Callable[[], object]) -> None:
        """Begin to wait."""
        self._device = device
        self._after = after
        self._epoll, self._online = select.epoll(), select.epoll()
        self._kick = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._kick, select.EPOLLIN)
        self._owners: dict[int, Polled] = {}
        self._waits_for: dict[int, tuple[select.epoll, int]] = {}
        self._answers: list[Callable[[], None]] = []
        self._troubled: list[Polled] = []
        self._serving = False
        self._ending = self._ended = False
        self._changed = WaitQueue()
        device.devres.add(self._online.close)
        self._irq = DescriptorIrq(device, self._online.fileno(), self._interrupt)
        self._thread = threading.Thread(target=self._run, name=f"vmk-iscsi {device.name}", daemon=True)
        device.devres.add(self._end)
        self._thread.start()

    def add(self, owner: Polled, connection: Connection) -> None:
        """Serve the owner when its socket is ready."""
        self._owners[connection.fd] = owner
        self._wait(self._epoll, connection.fd, connection.events)

    def _wait(self, epoll: select.epoll, fd: int, events: int) -> None:
        self._waits_for[fd] = epoll, events
        epoll.register(fd, events)

    def _leave(self, fd: int) -> int:
        epoll, events = self._waits_for.pop(fd)
        epoll.unregister(fd)
        return events

    def is_online(self, connection: Connection) -> None:
        """What comes is ordinary from now on, until ``traffic`` says no."""
        self._wait(self._online, connection.fd, self._leave(connection.fd))

    def update(self, connection: Connection) -> None:
        """What the socket is to be waited for may have changed."""
        fd, events = connection.fd, connection.events
        epoll, before = self._waits_for[fd]
        if before != events:
            self._waits_for[fd] = epoll, events
            epoll.modify(fd, events)

    def remove(self, connection: Connection) -> None:
        """Its socket is about to be closed. One that was never added may be given."""
        if self._owners.pop(connection.fd, None) is not None:
            self._leave(connection.fd)

    def resolve(self, portal: Portal, tell: Tell) -> None:
        """Ask for the addresses of a portal, and tell them soon, with the baton."""
        if portal.is_address:
            self._answer(partial(tell, [portal]))
            return
        # A thread of its own: a name service may take long, or not answer, and sessions shall not wait for it.
        threading.Thread(
            target=self._look_up, args=(portal, tell), name=f"vmk-iscsi {portal.host}", daemon=True
        ).start()

    def _look_up(self, portal: Portal, tell: Tell) -> None:
        found: list[Portal] | PortalUnreachable
        try:
            found = portal.resolve()
        except PortalUnreachable as error:
            found = error
        with baton():
            if not self._ended:
                self._answer(partial(tell, found))

    def _answer(self, answer: Callable[[], None]) -> None:
        self._answers.append(answer)
        self.wake()

    def look(self, owner: Polled) -> None:
        """Serve the owner soon, whatever its socket is ready for."""
        self._troubled.append(owner)
        self.wake()

    def wake(self) -> None:
        """Have ``after`` called soon, which is done anyway after what the poller calls."""
        if not self._serving:
            os.eventfd_write(self._kick, 1)

    def _interrupt(self) -> None:
        """Sockets of sessions that are online are ready."""
        self._serving = True
        for _ in range(ROUNDS):
            ready = self._online.poll(0)
            if not ready:
                break
            for fd, events in ready:
                owner = self._owners.get(fd)
                if owner is not None and (events & ~_TRAFFIC or not owner.traffic(events)):
                    self._hand_over(fd, owner)
            self._after()
        else:
            self._irq.again()
        self._served()

    def _hand_over(self, fd: int, owner: Polled) -> None:
        """Something is wrong with a socket: it is the thread's."""
        if fd in self._owners:
            self._wait(self._epoll, fd, self._leave(fd))
            self._troubled.append(owner)

    def _served(self) -> None:
        self._serving = False
        if self._answers or self._troubled:
            self.wake()

    def _run(self) -> None:
        while not self._ending:
            ready = dict(self._epoll.poll())
            if ready.pop(self._kick, 0):
                os.eventfd_read(self._kick)
            with baton():
                if self._device.stopped is None:
                    self._serve(ready)
                else:
                    self._silence()
        with baton():
            self._ended = True
            self._changed.wake_up()

    def _serve(self, ready: dict[int, int]) -> None:
        deliver = self._device.deliver
        self._serving = True
        # First, since the sockets of new connections may have the numbers of old ones.
        for fd, events in ready.items():
            if (found := self._owners.get(fd)) is not None:
                deliver(partial(found.service, events))
        answers, self._answers = self._answers, []
        for answer in answers:
            deliver(answer)
        troubled, self._troubled = self._troubled, []
        for owner in troubled:
            deliver(partial(owner.service, 0))
        deliver(self._after)
        self._served()

    def _silence(self) -> None:
        """The driver was stopped: nobody looks at the sockets any more, whatever they are ready for."""
        for fd in list(self._owners):
            self._leave(fd)
        self._owners.clear()

    def _end(self) -> None:
        with baton():
            self._ending = True
            os.eventfd_write(self._kick, 1)
            ended = wait_event_timeout(self._changed, lambda: self._ended, LIMIT)
        if not ended:
            log.error("%s: its poller has not ended after %.0f s", self._device.name, LIMIT)
            return
        self._thread.join()
        self._epoll.close()
        os.close(self._kick)
