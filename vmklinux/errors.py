"""What can go wrong with a driver that runs."""

from __future__ import annotations

from vmkernel_core.errors import VmkError


class DriverStopped(VmkError):
    """A driver did what cannot be allowed and was stopped: ``reason`` in a word, ``site`` where in its code."""

    exit_code = 7

    def __init__(self, module: str, what: str, *, reason: str, site: str) -> None:
        """Say which module, what happened, the reason as a word of vmklinux.linux.STOPS, and where."""
        super().__init__(
            f"{module} was stopped: {what}", where=site, remedy="unload the module and load it again"
        )
        self.module = module
        self.reason = reason
        self.site = site


class DriverRefused(VmkError):
    """A driver's own function returned an error code: ``errno`` is positive."""

    exit_code = 7

    def __init__(self, what: str, errno: int, *, where: str = "", remedy: str = "") -> None:
        """Say what was asked of the driver and the error that it gave."""
        super().__init__(what, where=where, remedy=remedy)
        self.errno = errno


class WorldEnded(VmkError):
    """The kernel code of a world was ended in its sleep, because its module goes; nobody is to blame."""
