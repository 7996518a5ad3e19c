"""ethtool's questions to drivers in Python (Linux include/linux/ethtool.h, net/ethtool/ioctl.c)."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import fields
from importlib.metadata import version
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias, cast

from vmkernel_core.errors import NotSupported, UsageError
from vmkernel_core.net.settings import (
    Channels,
    Coalescing,
    DriverInfo,
    LinkSettings,
    Pause,
    RegisterDump,
    Rings,
    SelfTest,
    WakeOnLan,
)
from vmklinux.ethtool_settings import MESSAGES, bits, words

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from vmkernel_core.net.controls import AnySetting
    from vmkernel_core.net.settings import Setting
    from vmklinux.native.netdevice import NetDevice

#: What set_phys_id is told: begin, end, light on, light off.
PhysId: TypeAlias = Literal["active", "inactive", "on", "off"]

#: The functions of EthtoolOps for a setting: they end in this.
SETTINGS: dict[type, str] = {
    LinkSettings: "link_settings",
    WakeOnLan: "wol",
    Rings: "ringparam",
    Pause: "pauseparam",
    Coalescing: "coalesce",
    Channels: "channels",
}
_MAX = "_max"
PASSWORD = 6  # SOPASS_MAX, bytes


class EthtoolOps:
    """What a driver's class defines of ethtool, by Linux's names; what it does not, its device cannot do.

    They are called with the baton, under ``rtnl``, while the device is present, and may sleep. A NotSupported that a
    ``set_`` function raises is told with the driver's name and the setting.
    """

    #: Members of Coalescing that set_coalesce heeds (supported_coalesce_params).
    supported_coalesce_params: ClassVar[frozenset[str]] = frozenset()

    def get_link_settings(self) -> LinkSettings:
        """How the link runs and may run (get_link_ksettings)."""
        raise _missing("get_link_settings")

    def set_link_settings(self, settings: LinkSettings) -> None:
        """Change it; modes that the device has not were refused before."""
        raise _missing("set_link_settings")

    def get_wol(self) -> WakeOnLan:
        """What wakes the machine."""
        raise _missing("get_wol")

    def set_wol(self, settings: WakeOnLan) -> None:
        """Change it; what is not supported was refused before."""
        raise _missing("set_wol")

    def get_ringparam(self) -> Rings:
        """Descriptors per ring."""
        raise _missing("get_ringparam")

    def set_ringparam(self, settings: Rings) -> None:
        """Change them; numbers above the maxima were refused before."""
        raise _missing("set_ringparam")

    def get_pauseparam(self) -> Pause:
        """Flow control."""
        raise _missing("get_pauseparam")

    def set_pauseparam(self, settings: Pause) -> None:
        """Change it."""
        raise _missing("set_pauseparam")

    def get_coalesce(self) -> Coalescing:
        """When the device interrupts."""
        raise _missing("get_coalesce")

    def set_coalesce(self, settings: Coalescing) -> None:
        """Change it; changes of other than ``supported_coalesce_params`` were refused before."""
        raise _missing("set_coalesce")

    def get_channels(self) -> Channels:
        """Queues with an interrupt of their own."""
        raise _missing("get_channels")

    def set_channels(self, settings: Channels) -> None:
        """Change them; numbers above the maxima were refused before."""
        raise _missing("set_channels")

    def get_firmware_version(self) -> str:
        """The device's firmware, "" when it has none (get_drvinfo's fw_version)."""
        return ""

    def get_ethtool_stats(self) -> Mapping[str, int]:
        """Counters of the driver's own, by name; none by default."""
        return {}

    def self_test(self, offline: bool) -> SelfTest:
        """Test the device; ``offline`` allows tests that interrupt traffic."""
        raise _missing("self_test")

    def get_regs(self) -> RegisterDump:
        """All registers."""
        raise _missing("get_regs")

    def get_eeprom_len(self) -> int:
        """Bytes of the EEPROM."""
        raise _missing("get_eeprom")

    def get_eeprom(self, offset: int, length: int) -> bytes:
        """Some of them; that they lie inside of it was seen to before."""
        raise _missing("get_eeprom")

    def nway_reset(self) -> None:
        """Restart autonegotiation."""
        raise _missing("nway_reset")

    def set_phys_id(self, state: PhysId) -> int:
        """Blink: for "active" tell how often a second "on" and "off" shall come, 0 when the device does it by itself."""
        raise _missing("set_phys_id")


def _missing(function: str) -> NotSupported:
    return NotSupported(f"it has no {function}")


class NativeEthtool:
    """The controls of a network device (ControlDriver)."""

    def __init__(self, dev: NetDevice) -> None:
        """Of that device."""
        self._dev = dev
        self._identifying = False

    @contextmanager
    def _operation(self, what: str = "do this") -> Iterator[EthtoolOps]:
        """Around an operation: alone, with the device there."""
        dev = self._dev
        with dev.configuring():
            if not dev.present:
                raise NotSupported(f"{dev.name} is suspended or being reset")
            try:
                yield dev.ops
            except NotSupported as error:
                raise NotSupported(
                    f"{dev.pdev.driver_name} cannot {what}: {error.what}", where=dev.name, remedy=error.remedy
                ) from None

    # ---- settings ----

    def get(self, kind: type[AnySetting]) -> AnySetting:
        """Read a setting."""
        with self._operation() as ops:
            return cast("AnySetting", getattr(ops, f"get_{SETTINGS[kind]}")())

    def set(self, setting: Setting) -> None:
        """Change a setting, if it can be at all."""
        name = SETTINGS[type(setting)]
        with self._operation(f"change its {words(setting)}") as ops:
            if getattr(type(ops), f"set_{name}") is getattr(EthtoolOps, f"set_{name}"):
                raise _missing(f"set_{name}")
            before = getattr(ops, f"get_{name}")()
            _check_range(before, setting)
            match setting:
                case LinkSettings():
                    _check_modes(before, setting)
                case WakeOnLan():
                    _check_wake(before, setting)
                case Coalescing():
                    _check_coalesce(before, setting, ops.supported_coalesce_params)
            getattr(ops, f"set_{name}")(setting)

    # ---- questions ----

    def driver_info(self) -> DriverInfo:
        """Driver, version, firmware, place."""
        with self._operation() as ops:
            pdev = self._dev.pdev
            return DriverInfo(pdev.driver_name, version("vmklinux"), ops.get_firmware_version(), pdev.name)

    def statistics(self) -> dict[str, int]:
        """The driver's own counters; none while it is suspended."""
        if not self._dev.present:
            return {}
        with self._operation() as ops:
            return dict(ops.get_ethtool_stats())

    def self_test(self, offline: bool) -> SelfTest:
        """Test the device."""
        with self._operation() as ops:
            return ops.self_test(offline)

    def registers(self) -> RegisterDump:
        """Read all registers."""
        with self._operation() as ops:
            return ops.get_regs()

    def eeprom(self, offset: int, length: int | None) -> bytes:
        """Read the EEPROM, to its end when no length is given."""
        with self._operation() as ops:
            total = ops.get_eeprom_len()
            wanted = total - offset if length is None else length
            if not (0 <= offset < total and 0 < wanted <= total - offset):
                raise UsageError(f"the EEPROM has {total} bytes", remedy="read inside of it")
            return ops.get_eeprom(offset, wanted)

    # ---- actions ----

    def message_level(self) -> frozenset[str]:
        """What is logged."""
        return self._dev.msg_enable

    def set_message_level(self, subjects: frozenset[str]) -> None:
        """Change it."""
        bits(subjects, MESSAGES)  # refuses strange ones
        self._dev.msg_enable = subjects

    def renegotiate(self) -> None:
        """Restart autonegotiation."""
        with self._operation() as ops:
            ops.nway_reset()

    def identify(self, seconds: float) -> None:
        """Blink: the driver does it by itself, or is told to switch the light at its rate."""
        with self._operation() as ops:
            if self._identifying:
                raise UsageError(f"{self._dev.name} blinks already")
            rate = ops.set_phys_id("active")
            self._identifying = True
        until = time.monotonic() + seconds
        state: PhysId = "on"
        try:
            while (left := until - time.monotonic()) > 0:
                if rate:
                    with self._operation() as ops:
                        ops.set_phys_id(state)
                    state = "off" if state == "on" else "on"
                time.sleep(min(left, 1 / (2 * rate)) if rate else left)
        finally:
            self._identifying = False
            with self._operation() as ops:
                ops.set_phys_id("inactive")


def _check_range(before: Setting, setting: Setting) -> None:
    """Numbers that have a maximum lie below it."""
    bounds = {field.name for field in fields(before) if field.name.endswith(_MAX)}
    for bound in bounds:
        name, highest = bound.removesuffix(_MAX), getattr(before, bound)
        if not 0 <= getattr(setting, name) <= highest:
            raise UsageError(
                f"{getattr(setting, name)} is out of range for {name}", remedy=f"use 0 to {highest}"
            )


def _check_modes(before: LinkSettings, setting: LinkSettings) -> None:
    if strange := setting.advertised - before.supported - before.advertised:
        raise UsageError(
            f"there is no {', '.join(sorted(strange))} at this device",
            remedy=f"it has {', '.join(sorted(before.supported))}",
        )


def _check_wake(before: WakeOnLan, setting: WakeOnLan) -> None:
    if missing := setting.enabled - before.supported:
        raise UsageError(f"the device cannot wake on {', '.join(sorted(missing))}")
    if "secure-on" in setting.enabled and len(setting.password) != PASSWORD:
        raise UsageError(f"a wake-on-LAN password has {PASSWORD} bytes, not {len(setting.password)}")


def _check_coalesce(before: Coalescing, setting: Coalescing, can: frozenset[str]) -> None:
    for field in fields(before):
        if field.name not in can and getattr(before, field.name) != getattr(setting, field.name):
            raise _missing(f"{field.name} (it has {', '.join(sorted(can))})")
