"""ethtool, called from this side: a driver's ethtool_ops (Linux net/ethtool/ioctl.c)."""

from __future__ import annotations

import errno
import logging
import os
import time
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from vmkernel_core.errors import NotSupported, UsageError
from vmkernel_core.memory import load_bytes
from vmkernel_core.net.settings import (
    Channels,
    Coalescing,
    DriverInfo,
    RegisterDump,
    SelfTest,
    WakeOnLan,
)
from vmklinux.errors import DriverRefused
from vmklinux.ethtool_settings import COALESCING, FORMS, MESSAGES, bits, names, words
from vmklinux.kobject import Obj

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vmkernel_core.net.controls import AnySetting
    from vmkernel_core.net.settings import Setting
    from vmklinux.ethtool_settings import Form
    from vmklinux.netdevice import NetDevice

log = logging.getLogger(__name__)

# include/uapi/linux/ethtool.h
ETH_GSTRING_LEN = 32
ETH_SS_TEST, ETH_SS_STATS = 0, 1
ETH_TEST_FL_OFFLINE, ETH_TEST_FL_FAILED = 1, 2
ETHTOOL_ID_INACTIVE, ETHTOOL_ID_ACTIVE, ETHTOOL_ID_ON, ETHTOOL_ID_OFF = 0, 1, 2, 3  # linux/ethtool.h


class Ethtool:
    """The controls of one network device (ControlDriver): each method is one ethtool operation, under the RTNL."""

    def __init__(self, device: NetDevice) -> None:
        """Of that device."""
        self._device = device
        self._linux = device.linux
        self._netdev = device.obj
        self._identifying = False

    # ---- how an operation goes ----

    @contextmanager
    def _operation(self) -> Iterator[None]:
        """Around an operation, as dev_ethtool does: alone, with the device there and its driver prepared for it."""
        with self._linux.baton(), self._device.rtnl:
            if not self._device.has_state("__LINK_STATE_PRESENT"):
                raise NotSupported(f"{self._device.name} is suspended or being reset")
            begin = self._lookup("begin")
            if begin:
                self._check("begin an operation", self._call_int(begin))
            try:
                yield
            finally:
                if complete := self._lookup("complete"):
                    self._call_int(complete)

    def _lookup(self, name: str) -> int:
        """A function of the driver's ethtool_ops; 0 when it has none."""
        ops = self._netdev.ethtool_ops
        return int(getattr(ops, name)) if ops else 0

    def _function(self, *functions: str) -> int:
        """The first of the functions, all of which the driver has to have."""
        found = [self._lookup(name) for name in functions]
        if not all(found):
            raise self._unsupported(functions[found.index(0)])
        return found[0]

    def _unsupported(self, what: str) -> NotSupported:
        driver = self._device.driver_name
        return NotSupported(f"{driver} cannot do this: it has no {what}", where=self._device.name)

    def _call_int(self, function: int, *arguments: int | Obj) -> int:
        return self._linux.call_int(function, self._netdev, *arguments, owner=self._device.owner)

    def _check(self, what: str, result: int, extack: Obj | None = None) -> None:
        """Raise what a driver's error code means, with the text that it gave."""
        if result >= 0:
            return
        driver, where = self._device.driver_name, self._device.name
        said = self._linux.string(extack._msg) if extack and extack._msg else os.strerror(-result)
        if result == -errno.EOPNOTSUPP:
            raise NotSupported(f"{driver} cannot {what}: {said}", where=where)
        raise DriverRefused(f"{driver} refused to {what}: {said}", -result, where=where)

    @contextmanager
    def _memory(self, *structs: str | int) -> Iterator[list[Any]]:
        """Cleared structs (Obj), or so many bytes (an address), while the block runs."""
        made: list[Obj | int] = []
        try:
            for kind in structs:
                made.append(self._linux.new(kind) if isinstance(kind, str) else self._linux.allocate(kind))
            yield made
        finally:
            for memory in made:
                self._linux.free(memory)

    # ---- settings ----

    def get(self, kind: type[AnySetting]) -> AnySetting:
        """Read a setting."""
        form = FORMS[kind]
        with self._operation(), self._structs(form) as structs:
            self._read(form, structs)
            value: AnySetting = form.read(self._linux.types, structs[0])
            return value

    def set(self, setting: Setting) -> None:
        """Change a setting: read the struct, change the members, give it to the driver."""
        form = FORMS[type(setting)]
        with self._operation(), self._structs(form) as structs:
            function = self._function("set_" + form.operation)
            self._read(form, structs)
            before = form.read(self._linux.types, structs[0])
            form.write(self._linux.types, structs[0], setting)
            self._judge(before, form.read(self._linux.types, structs[0]))
            extack = structs[-1]
            self._check(f"change its {words(setting)}", self._call_int(function, *structs), extack)
            if isinstance(setting, WakeOnLan):
                self._set_wol_enabled(bool(setting.enabled))

    @contextmanager
    def _structs(self, form: Form) -> Iterator[list[Any]]:
        """Arguments of a setting's functions: those that take fewer do not look at the rest."""
        with self._memory(form.struct, *(form.extension,) * bool(form.extension), "netlink_ext_ack") as made:
            yield made if form.extension else [made[0], 0, made[1]]

    def _read(self, form: Form, structs: list[Any]) -> None:
        result = self._call_int(self._function("get_" + form.operation), *structs)
        if form.struct == "ethtool_link_ksettings":  # the only one of them that does not return void
            self._check("tell its link settings", result)

    def _judge(self, before: Setting, after: Setting) -> None:
        """What the driver need not look at, because Linux refuses it before."""
        if isinstance(after, Channels) and not after.combined and not (after.rx and after.tx):
            raise UsageError("a device needs a channel for each direction", where=self._device.name)
        if isinstance(after, Coalescing):
            can = names(self._netdev.ethtool_ops.supported_coalesce_params, COALESCING)
            for name in COALESCING:
                if name not in can and getattr(before, name) != getattr(after, name):
                    raise self._unsupported(f"{name} (it has {', '.join(sorted(can))})")

    def _set_wol_enabled(self, on: bool) -> None:
        """Note in the net_device that it wakes, where this kernel keeps that."""
        fields = self._linux.types.struct("net_device").fields
        holder = self._netdev if "wol_enabled" in fields else self._netdev.ethtool
        holder.wol_enabled = on

    # ---- questions ----

    def driver_info(self) -> DriverInfo:
        """ETHTOOL_GDRVINFO, with Linux's defaults for what the driver does not say."""
        with self._operation(), self._memory("ethtool_drvinfo") as (info,):
            if function := self._lookup("get_drvinfo"):
                self._call_int(function, info)
            return DriverInfo(
                info.driver.text() or self._device.driver_name,
                info.version.text() or self._linux.image.release,
                info.fw_version.text(),
                info.bus_info.text() or self._linux.string(self._netdev.dev.parent.kobj.name),
            )

    def statistics(self) -> dict[str, int]:
        """The driver's own statistics (``ethtool -S``), by name; none when it keeps none, or is suspended.

        vmxnet3 gives the counters of each queue the same names: from the second on they end in `` [2]``, `` [3]`` ...
        """
        present = self._device.has_state("__LINK_STATE_PRESENT")
        if not (present and self._lookup("get_sset_count") and self._lookup("get_ethtool_stats")):
            return {}
        with self._operation():
            count = self._count(ETH_SS_STATS)
            if not count:
                return {}
            with self._memory("ethtool_stats", count * 8) as (stats, values):
                stats.n_stats = count
                labels = self._labels(ETH_SS_STATS, count)
                self._call_int(self._lookup("get_ethtool_stats"), stats, values)
                return dict(zip(_distinct(labels), _numbers(values, count), strict=True))

    def self_test(self, offline: bool) -> SelfTest:
        """ETHTOOL_TEST."""
        with self._operation():
            function = self._function("self_test", "get_sset_count", "get_strings")
            count = self._count(ETH_SS_TEST)
            with self._memory("ethtool_test", max(count, 1) * 8) as (test, values):
                test.len, test.flags = count, ETH_TEST_FL_OFFLINE if offline else 0
                labels = self._labels(ETH_SS_TEST, count)
                self._call_int(function, test, values)
                return SelfTest(
                    not test.flags & ETH_TEST_FL_FAILED,
                    offline and bool(test.flags & ETH_TEST_FL_OFFLINE),
                    # Drivers put error codes into them, though the type is unsigned.
                    dict(zip(labels, _numbers(values, count, signed=True), strict=True)),
                )

    def _count(self, string_set: int) -> int:
        return max(self._call_int(self._function("get_sset_count"), string_set), 0)

    def _labels(self, string_set: int, count: int) -> list[str]:
        """The names of a string set."""
        with self._memory(max(count, 1) * ETH_GSTRING_LEN) as (memory,):
            self._call_int(self._function("get_strings"), string_set, memory)
            raw = load_bytes(memory, count * ETH_GSTRING_LEN)
        texts = (raw[at : at + ETH_GSTRING_LEN] for at in range(0, len(raw), ETH_GSTRING_LEN))
        return [text.partition(b"\0")[0].decode("ascii", "replace").rstrip() for text in texts]

    def registers(self) -> RegisterDump:
        """ETHTOOL_GREGS."""
        with self._operation():
            function = self._function("get_regs", "get_regs_len")
            length = self._call_int(self._lookup("get_regs_len"))
            self._check("dump its registers", length)
            with self._memory("ethtool_regs", max(length, 1)) as (regs, memory):
                regs.len = length
                self._call_int(function, regs, memory)
                return RegisterDump(regs.version, load_bytes(memory, min(regs.len, length)))

    def eeprom(self, offset: int, length: int | None) -> bytes:
        """ETHTOOL_GEEPROM."""
        with self._operation():
            function = self._function("get_eeprom", "get_eeprom_len")
            total = self._call_int(self._lookup("get_eeprom_len"))
            self._check("tell the size of its EEPROM", total)
            if not total:
                raise self._unsupported("EEPROM")
            wanted = total - offset if length is None else length
            if not (0 <= offset < total and 0 < wanted <= total - offset):
                raise UsageError(f"the EEPROM has {total} bytes", remedy="read inside of it")
            with self._memory("ethtool_eeprom", wanted) as (eeprom, memory):
                eeprom.offset, eeprom.len = offset, wanted
                self._check("read its EEPROM", self._call_int(function, eeprom, memory))
                return load_bytes(memory, wanted)

    # ---- actions ----

    def message_level(self) -> frozenset[str]:
        """ETHTOOL_GMSGLVL."""
        with self._operation():
            return names(self._call_int(self._function("get_msglevel")), MESSAGES)

    def set_message_level(self, subjects: frozenset[str]) -> None:
        """ETHTOOL_SMSGLVL."""
        with self._operation():
            self._call_int(self._function("set_msglevel"), bits(subjects, MESSAGES))

    def renegotiate(self) -> None:
        """ETHTOOL_NWAY_RST."""
        with self._operation():
            self._check("restart autonegotiation", self._call_int(self._function("nway_reset")))

    def identify(self, seconds: float) -> None:
        """ETHTOOL_PHYS_ID: the driver blinks by itself, or is told to switch the light at its rate."""
        with self._operation():
            function = self._function("set_phys_id")
            if self._identifying:
                raise UsageError(f"{self._device.name} blinks already")
            rate = self._call_int(function, ETHTOOL_ID_ACTIVE)
            self._check("blink", rate)
            self._identifying = True
        until = time.monotonic() + seconds
        on = True
        try:
            while (left := until - time.monotonic()) > 0:
                if rate:
                    with self._operation():
                        state = ETHTOOL_ID_ON if on else ETHTOOL_ID_OFF
                        self._check("switch its light", self._call_int(function, state))
                    on = not on
                time.sleep(min(left, 1 / (2 * rate)) if rate else left)
        finally:
            self._identifying = False
            with self._operation():
                self._call_int(function, ETHTOOL_ID_INACTIVE)


def _numbers(address: int, count: int, *, signed: bool = False) -> list[int]:
    raw = load_bytes(address, count * 8)
    return [int.from_bytes(raw[at : at + 8], "little", signed=signed) for at in range(0, len(raw), 8)]


def _distinct(labels: Sequence[str]) -> Iterator[str]:
    seen: Counter[str] = Counter()
    for label in labels:
        seen[label] += 1
        yield label if seen[label] == 1 else f"{label} [{seen[label]}]"
