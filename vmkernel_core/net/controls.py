"""The controls of an uplink: its settings, its self test and what else ethtool does for Linux."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from vmkernel_core.errors import UsageError
from vmkernel_core.net.settings import (
    Channels,
    Coalescing,
    LinkSettings,
    Pause,
    Rings,
    Setting,
    WakeOnLan,
)

if TYPE_CHECKING:
    from vmkernel_core.net.settings import DriverInfo, RegisterDump, SelfTest

AnySetting = TypeVar("AnySetting", bound=Setting)


class ControlDriver(Protocol):
    """What stands behind the controls. Each method raises NotSupported when the driver cannot do it."""

    def get(self, kind: type[AnySetting]) -> AnySetting:
        """Read a setting."""

    def set(self, setting: Setting) -> None:
        """Change one; UsageError for what cannot be."""

    def driver_info(self) -> DriverInfo:
        """Who drives the device."""

    def self_test(self, offline: bool) -> SelfTest:
        """Test the device."""

    def registers(self) -> RegisterDump:
        """Read all registers."""

    def eeprom(self, offset: int, length: int | None) -> bytes:
        """Read the EEPROM, to its end when no length is given."""

    def message_level(self) -> frozenset[str]:
        """Tell what the driver logs."""

    def set_message_level(self, subjects: frozenset[str]) -> None:
        """Change it; UsageError."""

    def renegotiate(self) -> None:
        """Restart autonegotiation."""

    def identify(self, seconds: float) -> None:
        """Blink."""


class Control(Generic[AnySetting]):
    """A setting as an attribute of Controls: reading asks the driver, assigning changes it."""

    def __init__(self, kind: type[AnySetting]) -> None:
        """Of that type."""
        self._kind = kind

    def __get__(self, owner: Controls, _type: type | None = None) -> AnySetting:
        """Ask the driver."""
        return owner._controls.get(self._kind)

    def __set__(self, owner: Controls, value: AnySetting) -> None:
        """Have the driver change it; what is read only in the value does not count."""
        if not isinstance(value, self._kind):
            raise UsageError(f"{value!r} is no {self._kind.__name__}")
        owner._controls.set(value)


class Controls(ABC):
    """Settings and tests of a device, for Uplink to inherit.

    Change a setting by replacing it: ``nic.rings = dataclasses.replace(nic.rings, rx=512)``. Everything raises
    NotSupported when the device or its driver cannot do it, DriverRefused when the driver returns an error,
    UsageError for a value that cannot be.
    """

    @property
    @abstractmethod
    def _controls(self) -> ControlDriver:
        """The driver's side; raises while the device cannot be used."""

    link = Control(LinkSettings)
    wake_on_lan = Control(WakeOnLan)
    rings = Control(Rings)
    pause = Control(Pause)
    coalescing = Control(Coalescing)
    channels = Control(Channels)

    @property
    def driver_info(self) -> DriverInfo:
        """Driver, version, firmware, place on the bus."""
        return self._controls.driver_info()

    @property
    def message_level(self) -> frozenset[str]:
        """Subjects that the driver logs, by Linux's names: ``drv``, ``probe``, ``link``, ``rx_err`` ..."""
        return self._controls.message_level()

    @message_level.setter
    def message_level(self, subjects: frozenset[str]) -> None:
        self._controls.set_message_level(subjects)

    def self_test(self, *, offline: bool = False) -> SelfTest:
        """Have the driver test the device; ``offline`` allows tests that interrupt traffic and take the link down."""
        return self._controls.self_test(offline)

    def registers(self) -> RegisterDump:
        """Dump the device's registers."""
        return self._controls.registers()

    def eeprom(self, offset: int = 0, length: int | None = None) -> bytes:
        """Read bytes of the device's EEPROM, up to its end when no length is given."""
        return self._controls.eeprom(offset, length)

    def renegotiate(self) -> None:
        """Restart autonegotiation; the link goes down and comes back."""
        self._controls.renegotiate()

    def identify(self, seconds: float) -> None:
        """Blink the device's light for so long, to find it; returns then."""
        if not 0 < seconds <= 3600:
            raise UsageError(f"cannot blink for {seconds:g} s", remedy="use up to 3600 s")
        self._controls.identify(seconds)
