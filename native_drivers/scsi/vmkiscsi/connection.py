"""One connection to a portal, from its TCP handshake to its end: a context of libiscsi's, which is used once.

Everything here is called with the baton, which is the library's lock, and nothing waits. The library calls back from
inside ``service`` and ``close`` only; what it told is acted upon by the owner when they have returned.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from native_drivers.scsi.vmkiscsi.errors import IscsiError, LoginRefused, PortalUnreachable
from native_drivers.scsi.vmkiscsi.library import DIGESTS, Event, SessionType, TaskStatus
from native_drivers.scsi.vmkiscsi.negotiation import ANSWERS, TROUBLE, Negotiation
from native_drivers.scsi.vmkiscsi.tasks import Tasks

if TYPE_CHECKING:
    from collections.abc import Callable

    from native_drivers.scsi.vmkiscsi.library import Library
    from native_drivers.scsi.vmkiscsi.parameters import Settings
    from native_drivers.scsi.vmkiscsi.portal import Portal

#: Login statuses (RFC 7143, 11.13.5), and what to do about them.
_AUTHENTICATION, _AUTHORIZATION, _NOT_FOUND = 0x0201, 0x0202, 0x0203
_REMEDIES = {
    _AUTHENTICATION: "compare chap_name and the secret in chap_secret_file with the target's account for this initiator",
    _AUTHORIZATION: "let the target accept this initiator's name",
    _NOT_FOUND: "compare the name with what the portal tells of when no target is given",
}
_MOVED = range(0x0100, 0x0200)
_STATUS = re.compile(r"Status: (?P<words>.*)\((?P<number>\d+)\)")
_MUTUAL = re.compile(r"CHAP_[NR]|CHAP targetname")
_MUTUAL_REMEDY = (
    "compare mutual_chap_name and the secret in mutual_chap_secret_file with the target's outgoing account"
)
_SOCKET_ERROR = re.compile(r"socket error (?P<words>.*)\(\d+\)")
_TRANSFER, _END = Event.IN | Event.OUT, Event.ERROR | Event.HANGUP
ConnectionState: TypeAlias = Literal["connecting", "login", "online", "logout", "closed"]


class Connection:
    """``state``; ``error`` that ended it; ``redirect``: the portal to which the target sends us, instead of a login.

    ``address`` is where the portal was found, ``fd`` its socket (-1: none); ``tasks`` are its SCSI commands; ``heard``:
    whether anything came since the owner last cleared it. ``targets``, names and portals, is what a discovery was told;
    ``negotiation`` what was agreed on at the login.
    """

    def __init__(
        self, library: Library, settings: Settings, portal: Portal, target: str | None, isid: tuple[int, int]
    ) -> None:
        """Nothing is sent yet. ``target`` None: to discover. ``isid`` (24 and 16 bits) tells sessions apart."""
        self.portal, self.target, self.address = portal, target, portal
        self.state: ConnectionState = "closed"
        self.fd = -1
        self.error: IscsiError | None = None
        self.redirect = ""
        self.heard = False
        self.targets: dict[str, list[str]] | None = None
        self.negotiation = Negotiation(target)
        self._lib, self._ffi, self._library = library.lib, library.ffi, library
        self._settings = settings
        self._context = self._lib.iscsi_create_context(settings.initiator.encode())
        self.tasks = Tasks(library, self._context)
        # The library holds the addresses of these.
        self._on_connect = self._callback(self._connected)
        self._on_login = self._callback(self._logged_in)
        self._on_logout = self._callback(self._logged_out)
        self._on_discovery = self._callback(self._discovered)
        self._on_nop = self._callback(self._nop_answered)
        self._on_log = library.log_function(self.negotiation.hear, self.tasks.failed)
        self._prepare(settings, isid)

    def _callback(self, function: Callable[[Any, int, Any, int], None]) -> Any:
        return self._library.callback(function, self.tasks.failed)

    def _prepare(self, settings: Settings, isid: tuple[int, int]) -> None:
        lib, context = self._lib, self._context
        lib.iscsi_set_log_fn(context, self._on_log)
        lib.iscsi_set_log_level(context, ANSWERS)
        lib.iscsi_set_noautoreconnect(context, 1)  # the session sees to it
        lib.iscsi_set_isid_random(context, *isid)
        if self.target is None:
            lib.iscsi_set_session_type(context, SessionType.DISCOVERY)
        else:
            lib.iscsi_set_session_type(context, SessionType.NORMAL)
            lib.iscsi_set_targetname(context, self.target.encode())
        lib.iscsi_set_header_digest(context, settings.header_digest)
        if self._library.data_digest:
            lib.iscsi_set_data_digest(context, settings.data_digest)
        for chap, function in (
            (settings.chap, lib.iscsi_set_initiator_username_pwd),
            (settings.mutual_chap, lib.iscsi_set_target_username_pwd),
        ):
            if chap is not None:
                function(context, chap.name.encode(), chap.secret.encode())

    # ---- its life ----

    @property
    def where(self) -> str:
        """Portal and target, for people."""
        return f"{self.target or 'discovery'} at {self.portal}"

    @property
    def events(self) -> int:
        """What its socket has to be waited for now."""
        return int(self._lib.iscsi_which_events(self._context)) | Event.READ_HANGUP

    def connect(self, address: Portal) -> None:
        """Begin, at the portal's ``address``. PortalUnreachable."""
        self.state, self.address = "connecting", address
        if self._lib.iscsi_connect_async(self._context, str(address).encode(), self._on_connect, 0) < 0:
            raise self._unreachable(self._words())
        self.fd = int(self._lib.iscsi_get_fd(self._context))
        os.set_inheritable(self.fd, False)

    def service(self, ready: int) -> None:
        """The socket is ready: send and receive what goes without waiting. A loss is told by ``error``."""
        lib, context, tasks = self._lib, self._context, self.tasks
        self.heard = self.heard or bool(ready & Event.IN)
        # What was still received is looked at before the end.
        broken = lib.iscsi_service(context, ready & _TRANSFER or ready & _END) < 0
        tasks.settle()
        if ready & Event.IN and not broken and lib.iscsi_which_events(context) & Event.OUT:
            broken = lib.iscsi_service(context, Event.OUT) < 0
        if tasks.failure is not None:
            raise tasks.failure
        broken = broken or tasks.lost or self.negotiation.given_up
        if (broken or ready & (_END | Event.READ_HANGUP)) and not (self.error or self.redirect):
            self.error = self._broken()

    def flush(self) -> None:
        """Send what was begun, as far as the socket takes it."""
        if self._lib.iscsi_which_events(self._context) & Event.OUT:
            self.service(Event.OUT)

    def close(self) -> None:
        """End it at once; its commands are forgotten. May be called twice."""
        if self._context is not None:
            self.state = "closed"
            context, self._context = self._context, None
            self._lib.iscsi_destroy_context(context)
            self.tasks.close()

    def logout(self) -> bool:
        """Begin to take leave of the target; ``state`` is "closed" when it has agreed. False when there is no login."""
        if self.state != "online" or self._lib.iscsi_logout_async(self._context, self._on_logout, 0) < 0:
            return False
        self.state = "logout"
        self.flush()
        return True

    def _words(self) -> str:
        return self._library.text(self._lib.iscsi_get_error(self._context))

    def _unreachable(self, words: str) -> PortalUnreachable:
        if match := _SOCKET_ERROR.search(words):
            words = match["words"]
        return PortalUnreachable(
            f"portal {self.portal} cannot be reached: {words}",
            where=self.where,
            remedy="see that a target listens there and that no firewall is in between",
        )

    def _broken(self) -> IscsiError:
        if self.state == "connecting":
            return self._unreachable(self._words())
        if self.state == "login":
            return IscsiError(
                "the target ended the connection during the login",
                where=self.where,
                remedy="its log tells why",
            )
        return PortalUnreachable("the connection was lost", where=self.where)

    def silent(self, seconds: float) -> IscsiError:
        """What it ends with when the target gives no sign of life."""
        return PortalUnreachable(f"the target gave no sign of life for {seconds} s", where=self.where)

    def dropped(self) -> IscsiError:
        """What it ends with when error handling ends it."""
        return IscsiError("error handling ended the connection", where=self.where)

    def _refused(self) -> IscsiError:
        """Why a login failed: the library tells only in words."""
        words = self._words()
        if match := _STATUS.search(words):
            status = int(match["number"])
            return LoginRefused(
                f"the target refused the login: {match['words']}",
                status,
                where=self.where,
                remedy=_REMEDIES.get(status, "its log tells why"),
            )
        if _MUTUAL.search(words):
            return self._unproven()
        return IscsiError(f"the login failed: {words}", where=self.where, remedy="the target's log tells why")

    def _unproven(self) -> LoginRefused:
        return LoginRefused(
            "the target did not prove who it is (mutual CHAP)", 0, where=self.where, remedy=_MUTUAL_REMEDY
        )

    def _unacceptable(self) -> IscsiError | None:
        """Why we do not want the login that the target agreed to: the library does not insist on what was asked for."""
        if self._settings.mutual_chap is not None and not self.negotiation.proven:
            return self._unproven()
        if self.target is None:
            return None
        for name, key, wanted in (
            ("header_digest", "HeaderDigest", self._settings.header_digest),
            ("data_digest", "DataDigest", self._settings.data_digest),
        ):
            if wanted == DIGESTS["crc32c"] and self.negotiation.agreed.get(key) != "CRC32C":
                return IscsiError(
                    f"the target does not agree to {name}=crc32c",
                    where=self.where,
                    remedy=f"let it, or set {name}=crc32c,none",
                )
        return None

    # ---- what the library tells ----

    def _connected(self, context: Any, status: int, _data: Any, _private: int) -> None:
        if status:
            self.error = self._unreachable(self._words())
            return
        self.state = "login"
        if self._lib.iscsi_login_async(context, self._on_login, 0) < 0:
            self.error = self._refused()

    def _logged_in(self, context: Any, status: int, _data: Any, _private: int) -> None:
        if status:
            error = self._refused()
            # The library knows as one only what is moved for now.
            if status == TaskStatus.REDIRECT or (isinstance(error, LoginRefused) and error.status in _MOVED):
                self.redirect = self._library.text(self._lib.iscsi_get_target_address(context))
            if not self.redirect:
                self.error = self.error or error
            return
        self.error = self.error or self._unacceptable()
        if self.error is None:
            self.state = "online"
            self._lib.iscsi_set_log_level(context, TROUBLE)

    def _logged_out(self, _context: Any, _status: int, _data: Any, _private: int) -> None:
        self.state = "closed"

    # ---- discovery and signs of life ----

    def discover(self) -> None:
        """Ask for the targets; ``targets`` has them some time later."""
        if self._lib.iscsi_discovery_async(self._context, self._on_discovery, 0) < 0:
            self.error = IscsiError(f"discovery failed: {self._words()}", where=self.where)
        self.flush()

    def _discovered(self, _context: Any, status: int, data: Any, _private: int) -> None:
        if status:
            if status != TaskStatus.CANCELLED:
                self.error = IscsiError(f"discovery failed: {self._words()}", where=self.where)
            return
        found: dict[str, list[str]] = {}
        address: Any = self._ffi.cast("struct iscsi_discovery_address *", data)
        while address:
            portals = found.setdefault(self._library.text(address.target_name), [])
            portal = address.portals
            while portal:
                portals.append(self._library.text(portal.portal))
                portal = portal.next
            address = address.next
        self.targets = dict(reversed(found.items()))  # the library puts each before those that it had

    def ping(self) -> None:
        """Ask for a sign of life (NOP-Out); ``heard`` tells that there was one."""
        self._lib.iscsi_nop_out_async(self._context, self._on_nop, self._ffi.NULL, 0, 0)
        self.flush()

    def _nop_answered(self, _context: Any, status: int, _data: Any, _private: int) -> None:
        if status == TaskStatus.CANCELLED and self._context is not None:
            self.error = self.error or self._broken()
