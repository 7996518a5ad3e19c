"""The driver: targets are looked for and logged in to, each session becomes a target of one SCSI host."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from native_drivers.scsi.vmkiscsi import parameters
from native_drivers.scsi.vmkiscsi.controls import Controls
from native_drivers.scsi.vmkiscsi.discovery import Discovery
from native_drivers.scsi.vmkiscsi.errors import IscsiError
from native_drivers.scsi.vmkiscsi.library import load
from native_drivers.scsi.vmkiscsi.link import REDIRECTS
from native_drivers.scsi.vmkiscsi.poller import Poller
from native_drivers.scsi.vmkiscsi.session import Session
from vmkernel_core._core import lib
from vmkernel_core.errors import NotSupported
from vmkernel_core.storage.command import Status
from vmklinux.native.scsi_host import ScsiHostTemplate, scsi_add_host, scsi_done, scsi_host_alloc
from vmklinux.native.scsi_scan import scsi_remove_device, scsi_scan_host, scsi_scan_target
from vmklinux.native.wait import wait_event_timeout

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from native_drivers.scsi.vmkiscsi.link import Link
    from native_drivers.scsi.vmkiscsi.portal import Portal
    from vmklinux.native.device import Device
    from vmklinux.native.scsi_cmnd import ScsiCmnd
    from vmklinux.native.scsi_device import ScsiDevice
    from vmklinux.native.scsi_host import ScsiHost

log = logging.getLogger(__name__)

#: Sessions of one host, and commands of all of them together.
SESSIONS, COMMANDS = 256, 1024
#: A LUN is told in two bytes; what else of its eight libiscsi leaves zero.
LUNS = 1 << 16
#: Pieces of data in a command: the library hands those of one PDU to readv or writev, which take 1024.
PIECES = 1024
#: Blocks of 512 bytes in a command, and bytes of a CDB that a PDU has room for.
SECTORS, CDB = 8192, 16
#: Seconds that targets have to agree to a logout.
LOGOUT_LIMIT = 5.0
#: ILLEGAL REQUEST, invalid field in CDB (SPC-4, 4.5.3).
_CDB_TOO_LONG = bytes([0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x24, 0, 0, 0, 0, 0])


class VmkIscsi(ScsiHostTemplate):
    """The software iSCSI initiator."""

    name = parameters.NAME
    known_parameters = parameters.TABLE

    def __init__(self, device: Device, given: Mapping[str, str]) -> None:
        self.device = device
        self.given = given
        self.sessions: list[Session] = []
        self.discoveries: list[Discovery] = []
        self._finished: list[ScsiCmnd] = []

    def probe(self) -> None:
        """Log in to the targets and make a host of them.

        UsageError, NoLibrary; when not one login worked, what the first failed with: LoginRefused, PortalUnreachable ...
        """
        self.settings = settings = parameters.Settings.read(self.given)
        self.library = load()
        if settings.data_digest and not self.library.data_digest:
            raise NotSupported(
                f"{self.library.name} puts no checksums on data",
                where=self.name,
                remedy="leave data_digest out, or install libiscsi 1.20.1 or later",
            )
        self._poller = Poller(self.device, self._give_back)
        self.device.devres.add(self._leave)
        if not settings.targets:
            for portal in settings.portals:
                self.ask(portal)
        self._controls = Controls(self)
        self.host = self._make_host()
        errors = self._look_for_targets()
        self._looked = True
        if not any(session.logins for session in self.sessions):
            raise errors[0] if errors else self._no_target()
        scsi_add_host(self.host)
        scsi_scan_host(self.host)

    def _no_target(self) -> IscsiError:
        return IscsiError(
            "the portals tell of no target",
            where=", ".join(map(str, self.settings.portals)),
            remedy=f"let targets accept this initiator, {self.settings.initiator}, or name one by target=…",
        )

    def _make_host(self) -> ScsiHost:
        host = scsi_host_alloc(self.device, self)
        host.can_queue, host.cmd_per_lun = COMMANDS, self.settings.queue_depth
        host.max_id, host.max_lun = SESSIONS, LUNS
        host.sg_tablesize, host.max_sectors, host.max_segment_size = PIECES, SECTORS, SECTORS * 512
        host.dma_boundary, host.dma_alignment = (1 << 64) - 1, 0
        host.skip_settle_delay = True
        return host

    def info(self) -> str:
        """Who it is to targets, and with how many sessions."""
        sessions = sum(session.online for session in self.sessions)
        return f"iSCSI initiator {self.settings.initiator}, {sessions} sessions ({self.library.name})"

    # ---- targets ----

    def iscsi(self) -> Controls:
        """Its targets and sessions."""
        return self._controls

    def ask(self, portal: Portal) -> None:
        """Ask one more portal for its targets, from the next look for them on."""
        self.discoveries.append(
            Discovery(self.device, self.library, self.settings, self._poller, portal, None)
        )

    def _look_for_targets(self) -> list[IscsiError]:
        """Log in to those that there is no session with; what failed, which the log has too."""
        wanted, errors = self._wanted()
        known = {(session.portal, session.target_name) for session in self.sessions}
        for portal, target in wanted:
            if (portal, target) not in known:
                self._add_sessions(portal, target)
        errors += self._open([session for session in self.sessions if session.state == "new"])
        for error in errors:
            log.error("%s: %s", self.name, error)
        return errors

    def _open(self, sessions: Sequence[Session]) -> list[IscsiError]:
        for session in sessions:
            session.open()
        self._wait_for(sessions)
        return [session.error for session in sessions if session.error is not None]

    def _wanted(self) -> tuple[list[tuple[Portal, str]], list[IscsiError]]:
        """Portals and targets to log in to, in order; what went wrong on looking for them."""
        settings, discoveries = self.settings, list(self.discoveries)
        for discovery in discoveries:
            discovery.open()
        self._wait_for(discoveries)
        wanted = {(portal, target): None for target in settings.targets for portal in settings.portals}
        for discovery in discoveries:
            for name, portals in (discovery.targets or {}).items():
                wanted.update(((portal, name), None) for portal in portals)
        return list(wanted), [one.error for one in discoveries if one.error is not None]

    def _wait_for(self, links: Sequence[Link]) -> None:
        """Until each is done; what is done in vain says so by itself before this limit."""
        limit = (REDIRECTS + 2) * self.settings.login_timeout
        for link in links:
            wait_event_timeout(link.changed, link.is_done, limit)

    def _add_sessions(self, portal: Portal, target: str) -> None:
        for _ in range(self.settings.sessions):
            id = len(self.sessions)
            if id == SESSIONS:
                log.error("%s: %s at %s: no more than %d sessions", self.name, target, portal, SESSIONS)
                return
            self.sessions.append(self._session(id, portal, target))

    def _session(self, id: int, portal: Portal, target: str) -> Session:
        def devices() -> list[ScsiDevice]:
            return [device for device in self.host.devices if device.id == id]

        return Session(
            self.device, self.library, self.settings, self._poller, portal, target, id, devices, self._finish
        )

    def _leave(self) -> None:
        self._end(self.sessions)
        self.sessions.clear()

    def _end(self, sessions: Sequence[Session]) -> None:
        for session in sessions:
            session.begin_to_leave()
        # The poller serves nobody once the driver was stopped.
        deadline = lib.vmk_now() + (0 if self.device.stopped else int(LOGOUT_LIMIT * 1e9))
        for session in sessions:
            session.leave(deadline)

    def log_in(self, sessions: Sequence[Session]) -> None:
        """Log in by those that are not, and look for their devices. What the first failed with when none worked."""
        with self.host.scanning():
            wanted = [session for session in sessions if session.state in ("new", "closed")]
            for session in wanted:
                session.state = "new"
            errors = self._open(wanted)
            if wanted and len(errors) == len(wanted):
                raise errors[0]
            for session in wanted:
                scsi_scan_target(self.host, 0, session.id)

    def log_out(self, sessions: Sequence[Session]) -> None:
        """Take the devices of these sessions away, and log out. They are not logged in to again by themselves."""
        with self.host.scanning():
            for session in sessions:
                for device in session.devices():
                    scsi_remove_device(device)
            self._end(sessions)

    def scan_start(self) -> None:
        """Look for targets that came since."""
        if self._looked:  # probe has just done so
            self._looked = False
        else:
            self._look_for_targets()

    def slave_alloc(self, device: ScsiDevice) -> bool:
        """Whether there is such a target. One that is lost for now would keep a scan waiting."""
        return device.id < len(self.sessions) and self.sessions[device.id].state == "online"

    # ---- commands ----

    def queuecommand(self, commands: Sequence[ScsiCmnd]) -> int:
        """Send them; none is taken while the session is not online."""
        base = self.device.memory.base
        session = self.sessions[commands[0].device.id]
        if not session.online:
            return 0
        for cmnd in commands:
            if len(cmnd.cdb) > CDB:
                cmnd.status, cmnd.sense = Status.CHECK_CONDITION, _CDB_TOO_LONG
                self._finish([cmnd])
            else:
                session.issue(cmnd, base)
        session.flush()
        return len(commands)

    def _finish(self, commands: Sequence[ScsiCmnd]) -> None:
        self._finished += commands
        self._poller.wake()

    def _give_back(self) -> None:
        """For the poller, when it has served all sockets."""
        finished, self._finished = self._finished, []
        scsi_done(finished)

    def eh_abort(self, cmnd: ScsiCmnd) -> bool:
        """ABORT TASK."""
        return self.sessions[cmnd.device.id].abort(cmnd)

    def eh_device_reset(self, device: ScsiDevice) -> bool:
        """LOGICAL UNIT RESET."""
        return self.sessions[device.id].reset_lun(device.lun)

    def eh_target_reset(self, device: ScsiDevice) -> bool:
        """Log in anew: the target ends what it does for the old connection."""
        return self.sessions[device.id].reset()

    def eh_host_reset(self) -> bool:
        """The same for all."""
        sessions = [session for session in self.sessions if session.logins]
        for session in sessions:
            session.reconnect()
        return all([session.wait_online() for session in sessions])
