"""The one root of every error that this project raises on purpose."""


class VmkError(Exception):
    """Something went wrong that a person can act on: what, where, and the remedy.

    ``str(error)`` is one line for people: ``what (where); remedy``. ``exit_code`` is what a console
    command that ends with this error returns to the shell (docs/architecture.md lists them).
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        self.what = what
        self.where = where
        self.remedy = remedy
        text = f"{what} ({where})" if where else what
        super().__init__(f"{text}; {remedy}" if remedy else text)


class UsageError(VmkError):
    """The caller asked for something that cannot be: an argument out of range, a name that is not known."""

    exit_code = 3


class NotSupported(UsageError):
    """The device, or its driver, has no such function."""


class DeviceGone(VmkError):
    """The device, or the process that provided it, is no longer there."""

    exit_code = 5


class TimedOut(VmkError):
    """A wait reached its limit; ``what`` names what was waited for."""

    exit_code = 6


class NoDriver(VmkError):
    """No driver may serve the device: the HCL names none, or the device is unsupported, or the profile wants more."""

    exit_code = 4
