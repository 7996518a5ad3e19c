"""A session with a target: what the host sees as a target with its logical units.

A connection that is lost is made anew, at once and then after longer and longer pauses. Meanwhile the devices are
blocked, and the commands that were in flight are with the mid-layer, which sends them again when the devices run. When
the target has not come back after the replacement timeout the devices go offline, which ends commands with PathLost;
should it come later, they run again.
"""

from __future__ import annotations

import logging
import secrets
from typing import TYPE_CHECKING

from native_drivers.scsi.vmkiscsi.identity import IdentityCheck
from native_drivers.scsi.vmkiscsi.link import Link
from vmkernel_core._core import lib
from vmkernel_core.storage.command import Direction, HostStatus
from vmklinux.native.scsi_device import scsi_device_set_state
from vmklinux.native.timer import Timer, mod_timer, timer_delete
from vmklinux.native.wait import wait_event_timeout

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from native_drivers.scsi.vmkiscsi.connection import Connection
    from native_drivers.scsi.vmkiscsi.errors import IscsiError
    from native_drivers.scsi.vmkiscsi.library import Library
    from native_drivers.scsi.vmkiscsi.parameters import Settings
    from native_drivers.scsi.vmkiscsi.poller import Poller
    from native_drivers.scsi.vmkiscsi.portal import Portal
    from native_drivers.scsi.vmkiscsi.tasks import Answer
    from vmkernel_core.storage.iscsi import SessionState
    from vmklinux.native.device import Device
    from vmklinux.native.scsi_cmnd import ScsiCmnd
    from vmklinux.native.scsi_device import ScsiDevice
    from vmklinux.scsi_policy import SdevState

log = logging.getLogger(__name__)

#: Seconds between attempts to log in again: the first, by how much it grows, the most.
PAUSE, PAUSE_GROWS, PAUSE_MOST = 0.25, 2.0, 10.0
#: Seconds that a target has for task management.
MANAGEMENT_LIMIT = 10.0
#: Responses to task management (RFC 7143, 11.6.1) that mean that the target has the command no more.
_DONE = (0, 1)
_SAM_STATUSES = 0x100
#: The states of devices that a transport takes them out of (Linux scsi_target_block, scsi_target_unblock).
_FROM: dict[SdevState, tuple[SdevState, ...]] = {
    "BLOCK": ("RUNNING", "QUIESCE"),
    "TRANSPORT_OFFLINE": ("BLOCK",),
    "RUNNING": ("BLOCK", "TRANSPORT_OFFLINE"),
}


class Session(Link):
    """``id`` is its target id on the host; ``error`` the latest that befell it; ``logins`` counts them.

    ``devices`` tells those that are reached through it.
    """

    def __init__(
        self, device: Device, library: Library, settings: Settings, poller: Poller, portal: Portal, target: str,
        id: int, devices: Callable[[], Sequence[ScsiDevice]], give_back: Callable[[Sequence[ScsiCmnd]], None],
    ) -> None:  # fmt: skip
        """``give_back`` takes commands that have ended."""
        super().__init__(device, library, settings, poller, portal, target)
        # Logging in again with the same one makes the target end what it still does for the old connection.
        self.isid = (secrets.randbits(24), id)
        self.id = id
        self.target_name = target
        self.devices = devices
        self.state: SessionState = "new"
        self.error: IscsiError | None = None
        self.logins = 0
        self._give_back = give_back
        self._commands: dict[int, ScsiCmnd] = {}
        self._identity: IdentityCheck | None = None
        self._pause = PAUSE
        self._pinged = False
        self._again = Timer(device, self.open)
        self._alive = Timer(device, self._check)
        self._patience = Timer(device, self._give_up)

    @property
    def name(self) -> str:
        """Target and portal."""
        return f"{self.target_name} at {self.portal}"

    @property
    def isid_text(self) -> str:
        """The ISID, of the type "random" (RFC 7143, 11.12.5), in hexadecimal digits."""
        random, qualifier = self.isid
        return f"80{random:06x}{qualifier:04x}"

    @property
    def agreed(self) -> Mapping[str, str]:
        """What was agreed on at the login; empty while there is none."""
        return self.connection.negotiation.agreed if self.connection is not None and self.online else {}

    def is_done(self) -> bool:
        """Whether it ever was online, or could not be."""
        return self.state != "new" or self.error is not None

    def open(self) -> None:
        """Log in."""
        self.error = None
        super().open()

    # ---- commands ----

    def issue(self, cmnd: ScsiCmnd, base: int) -> None:
        """Start a command on a session that is online; machine memory begins at address ``base``. ``flush`` sends it."""
        connection = self.connection
        assert connection is not None
        self._commands[cmnd.tag] = cmnd
        pieces = [(base + address, length) for address, length in cmnd.sg]
        writes = cmnd.direction is Direction.TO_DEVICE
        connection.tasks.issue(cmnd.tag, cmnd.device.lun, cmnd.cdb, pieces, cmnd.length, writes)

    def flush(self) -> None:
        """Send what was started."""
        connection = self.connection
        if connection is not None:
            connection.flush()
            self._poller.update(connection)
            if connection.error is not None or connection.tasks.lost:
                self._poller.look(self)

    def progress(self, connection: Connection) -> None:
        """Take what has ended."""
        ended, connection.tasks.ended = connection.tasks.ended, []
        done = []
        for tag, outcome in ended:
            if self._identity is not None and self._identity.take(tag, outcome):
                continue
            cmnd = self._commands.pop(tag)
            if outcome.status < _SAM_STATUSES:
                cmnd.status, cmnd.sense = outcome.status, outcome.sense
            else:
                cmnd.host = HostStatus.ERROR
            cmnd.residual = outcome.residual
            done.append(cmnd)
        if done:
            self._give_back(done)
        if self._identity is not None and self._identity.done:
            self._run(self._identity.strangers)

    # ---- its life ----

    def up(self) -> None:
        """Logged in. Devices that there are have to prove that they are what they were."""
        assert self.connection is not None
        log.info("%s: logged in%s", self.name, " again" if self.logins else "")
        self.logins += 1
        self._pinged = False
        if self._settings.noop_interval:
            mod_timer(self._alive, self._settings.noop_interval)
        self._identity = IdentityCheck(self.connection.tasks, self.devices())
        if self._identity.done:
            self._run([])
        else:
            self.flush()

    def _run(self, strangers: Sequence[ScsiDevice]) -> None:
        """Commands may go, but to those."""
        assert self.connection is not None
        self._identity = None
        self.state, self.error, self._pause = "online", None, PAUSE
        timer_delete(self._patience)
        self._poller.is_online(self.connection)
        for device in strangers:
            log.error(
                "%s: LUN %d is another unit now: its device stays offline; take the session away and add it again",
                self.name,
                device.lun,
            )
            scsi_device_set_state(device, "OFFLINE")
        self._set_devices("RUNNING")
        self.changed.wake_up()

    def down(self, error: IscsiError) -> None:
        """The login failed, or the connection was lost: try again, unless there never was one."""
        timer_delete(self._alive)
        self._identity = None
        if self.state != "closed":
            self.error = error
        if self.state == "online":
            log.warning("%s: %s", self.name, error.what)
            self.state = "blocked"
            self._set_devices("BLOCK")
            mod_timer(self._patience, self._settings.replacement_timeout)
            self._abandon(HostStatus.TRANSPORT_DISRUPTED)
            self.open()
        elif self.state in ("blocked", "lost"):
            log.info("%s: %s; again in %.2f s", self.name, error.what, self._pause)
            mod_timer(self._again, self._pause)
            self._pause = min(self._pause * PAUSE_GROWS, PAUSE_MOST)
            self._abandon(HostStatus.TRANSPORT_DISRUPTED)  # those of error handling
        self.changed.wake_up()

    def _abandon(self, status: HostStatus) -> None:
        """Give all commands back."""
        commands, self._commands = list(self._commands.values()), {}
        for cmnd in commands:
            cmnd.host, cmnd.residual = status, cmnd.length
        self._give_back(commands)

    def _give_up(self) -> None:
        waited = self._settings.replacement_timeout
        log.error("%s: not back after %d s: commands end with PathLost", self.name, waited)
        self.state = "lost"
        self._set_devices("TRANSPORT_OFFLINE")

    def _set_devices(self, state: SdevState) -> None:
        """Those that the way to was the trouble with: one that goes, or that somebody took offline, stays so."""
        for device in self.devices():
            if device.sdev_state in _FROM[state]:
                scsi_device_set_state(device, state)

    def _check(self) -> None:
        """Nothing came for a while: ask for a sign of life. Nothing came since that: the connection is dead."""
        connection = self.connection
        if connection is None or connection.state != "online":
            return
        heard, connection.heard = connection.heard, False
        if heard:
            self._pinged = False
            mod_timer(self._alive, self._settings.noop_interval)
        elif self._pinged:
            connection.error = connection.silent(self._settings.noop_timeout)
            self.fail(connection.error)
        else:
            self._pinged = True
            connection.ping()
            self._poller.update(connection)
            mod_timer(self._alive, self._settings.noop_timeout)

    def begin_to_leave(self) -> None:
        """Log out, if there is a login; nothing more is tried."""
        self.state = "closed"
        for timer in (self._again, self._alive, self._patience):
            timer_delete(timer)
        if self.connection is not None and self.connection.logout():
            self._poller.update(self.connection)

    def leave(self, deadline: int) -> None:
        """End, when the target has agreed, or at a time of CLOCK_MONOTONIC in nanoseconds. May sleep."""
        connection = self.connection
        if connection is not None and connection.state == "logout":
            seconds = (deadline - lib.vmk_now()) / 1e9
            wait_event_timeout(self.changed, lambda: connection.state == "closed", seconds)
        self.close()
        self._abandon(HostStatus.NO_CONNECT)

    # ---- error handling; may sleep ----

    def abort(self, cmnd: ScsiCmnd) -> bool:
        """Have the target forget a command; whether it did, or nobody there has it."""
        if cmnd.tag not in self._commands:
            return True

        def begin(connection: Connection, answer: Answer) -> bool:
            return connection.tasks.abort(cmnd.tag, answer)

        return self._manage(begin) and self._forget([cmnd.tag])

    def reset_lun(self, lun: int) -> bool:
        """Have the target reset a logical unit; whether it did."""

        def begin(connection: Connection, answer: Answer) -> bool:
            return connection.tasks.reset_lun(lun, answer)

        return self._manage(begin) and self._forget(
            [tag for tag, cmnd in self._commands.items() if cmnd.device.lun == lun]
        )

    def _manage(self, begin: Callable[[Connection, Answer], bool]) -> bool:
        answers: list[int | None] = []

        def answer(response: int | None) -> None:
            answers.append(response)
            self.changed.wake_up()

        connection = self.connection
        if connection is None or not self.online or not begin(connection, answer):
            return False
        self.flush()
        return (
            wait_event_timeout(self.changed, lambda: bool(answers), MANAGEMENT_LIMIT) and answers[0] in _DONE
        )

    def _forget(self, tags: Sequence[int]) -> bool:
        """The target has these commands no more."""
        connection = self.connection
        heard = True
        for tag in tags:
            if self._commands.pop(tag, None) is not None and connection is not None:
                heard = connection.tasks.forget(tag) and heard
        if not heard:
            self.reconnect()
        return True

    def reconnect(self) -> None:
        """End the connection and make another: all commands are given back, and the target forgets them."""
        if self.state == "online" and self.connection is not None:
            self.fail(self.connection.dropped())

    def reset(self) -> bool:
        """The same, and wait for the login; whether there is one."""
        self.reconnect()
        return self.wait_online()

    def wait_online(self) -> bool:
        """Wait for the login; whether there is one."""
        return wait_event_timeout(self.changed, lambda: self.state == "online", self._settings.login_timeout)
