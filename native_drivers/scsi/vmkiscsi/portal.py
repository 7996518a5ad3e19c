"""Portals: where targets are reached (RFC 7143, 4.1)."""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass

from native_drivers.scsi.vmkiscsi.errors import PortalUnreachable
from vmkernel_core.errors import UsageError

#: The TCP port that is iSCSI's own.
PORT = 3260
_SYNTAX = re.compile(r"(?:\[(?P<six>[^]]+)\]|(?P<host>[^\[\]:,]+))(?::(?P<port>\d{1,5}))?(?:,\d+)?")


@dataclass(frozen=True, order=True)
class Portal:
    """``host``, a name or an address without brackets, and TCP ``port``."""

    host: str
    port: int

    def __str__(self) -> str:
        """As it is written: ``host:port``."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> Portal:
        """Read ``host[:port]``; a portal group's tag behind it (``,1``) is passed over. UsageError."""
        match = _SYNTAX.fullmatch(text.strip())
        port = int(match["port"] or PORT) if match else 0
        if match is None or not 0 < port < 1 << 16:
            raise UsageError(f"{text!r} is no portal", remedy="give host:port, such as 192.0.2.1:3260")
        return cls(match["six"] or match["host"], port)

    @classmethod
    def told(cls, text: str) -> Portal | None:
        """Read what a target sent; None for what is no portal."""
        try:
            return cls.parse(text)
        except UsageError:
            return None

    @property
    def is_address(self) -> bool:
        """Whether ``host`` is an address, so that nobody has to be asked for it."""
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            return False
        return True

    def resolve(self) -> list[Portal]:
        """The same with addresses for the name, the best first; asking for them may take seconds. PortalUnreachable."""
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise PortalUnreachable(
                f"no address for portal {self}: {error.strerror or error}",
                remedy="give its address, or see to the name service",
            ) from error
        return list(dict.fromkeys(Portal(_host(address), self.port) for *_, address in found))


def _host(address: tuple[object, ...]) -> str:
    """The address in a socket's; of an IPv6 one that is valid on one link only (RFC 4007) with its link."""
    scope = address[3] if len(address) == 4 else 0
    return f"{address[0]}%{scope}" if scope else str(address[0])
