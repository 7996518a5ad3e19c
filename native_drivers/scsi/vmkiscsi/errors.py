"""What can go wrong between initiator and target, as exceptions that name portal, target and remedy. Never a secret."""

from __future__ import annotations

from vmkernel_core.errors import DeviceGone, VmkError


class NoLibrary(VmkError):
    """The library that speaks iSCSI is not installed."""

    exit_code = 4


class IscsiError(VmkError):
    """The target, or the way to it, did what it must not."""


class PortalUnreachable(IscsiError, DeviceGone):
    """Nobody answers at the portal, or it stopped answering."""


class LoginRefused(IscsiError):
    """The portal answered, and let nobody in. ``status``: class and detail of the response (RFC 7143, 11.13.5)."""

    exit_code = 7

    def __init__(self, what: str, status: int, *, where: str = "", remedy: str = "") -> None:
        super().__init__(what, where=where, remedy=remedy)
        self.status = status
