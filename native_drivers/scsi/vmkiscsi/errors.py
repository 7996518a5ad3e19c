"""What can go wrong between initiator and target, as exceptions that name portal, target and remedy. Never a secret."""

from __future__ import annotations

from vmkernel_core.errors import DeviceGone, NoDriver, VmkError


class NoLibrary(NoDriver):
    """The library that speaks iSCSI is not installed."""


class IscsiError(VmkError):
    """The target, or the way to it, did what it must not."""


class PortalUnreachable(IscsiError, DeviceGone):
    """Nobody answers at the portal, or it stopped answering."""


class LoginRefused(IscsiError):
    """The portal answered, and let nobody in. ``status``: class and detail of the response (RFC 7143, 11.13.5)."""

    def __init__(self, what: str, status: int, *, where: str = "", remedy: str = "") -> None:
        super().__init__(what, where=where, remedy=remedy)
        self.status = status
