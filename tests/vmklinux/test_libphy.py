"""Debian's own libphy.ko on our driver core: a PHY on a bus of its own, whose registers are 32 words of memory read by a
few bytes of machine code. Independent: libphy; what the registers mean is IEEE 802.3's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.vmklinux.conftest import CODE
from vmkernel_core.errors import UsageError
from vmkernel_core.memory import load, store, store_bytes
from vmklinux.kobject import Obj, addressof
from vmklinux.linux import Linux
from vmklinux.loader import Loader

#: IEEE 802.3, 22.2.4: the registers of a PHY, and what is written there.
BMCR, BMSR, PHYSID1, PHYSID2, ADVERTISE, LPA, ESTATUS, STAT1000 = 0, 1, 2, 3, 4, 5, 15, 10
AUTONEGOTIATION, RESTART, LINK, COMPLETE, CAPABLE, EXTENDED = 1 << 12, 1 << 9, 1 << 2, 1 << 5, 1 << 3, 1 << 8
ALL_10_AND_100 = 0x01E1  # with the selector of IEEE 802.3
BMSR_10_AND_100 = 0x7800
ESTATUS_1000_FULL, PARTNER_1000_FULL = 1 << 13, 1 << 11
#: An id that no driver claims.
IDENTIFIER = 0x0ABC_DEF0


class Phy:
    """A PHY's bus, registered with libphy."""

    def __init__(self, linux: Linux) -> None:
        self.linux = linux
        self.loader = Loader(linux)
        self.exports = self.loader.load("libphy").linked.exports
        self.registers, self.name = linux.allocate(64), linux.new_string("test bus")
        table = self.registers.to_bytes(8, "little")
        # movabs $table,%rax; movzwl (%rax,%rdx,2),%eax; ret
        store_bytes(CODE, b"\x48\xb8" + table + b"\x0f\xb7\x04\x50\xc3")
        # movabs $table,%rax; mov %cx,(%rax,%rdx,2); xor %eax,%eax; ret
        store_bytes(CODE + 64, b"\x48\xb8" + table + b"\x66\x89\x0c\x50\x31\xc0\xc3")

    def call(self, name: str, *arguments: int | Obj) -> int:
        return self.linux.call(self.exports[name], *arguments)

    def call_int(self, name: str, *arguments: int | Obj) -> int:
        return self.linux.call_int(self.exports[name], *arguments)

    def set(self, **values: int) -> None:
        """Fill registers, by the names above."""
        for name, value in values.items():
            store(self.registers + 2 * globals()[name], 2, value)

    def get(self, register: int) -> int:
        return load(self.registers + 2 * register, 2)

    def register(self) -> Obj:
        """Put the bus in, with one PHY at address 0."""
        bus = Obj(self.linux.types, "mii_bus", self.call("mdiobus_alloc_size", 0))
        bus.read, bus.write, bus.phy_mask = CODE, CODE + 64, 0xFFFF_FFFE
        bus.name = self.name
        store_bytes(addressof(bus, "id"), b"test\0")
        assert self.call_int("__mdiobus_register", bus, 0) == 0
        return bus


@pytest.fixture
def phy(linux: Linux) -> Iterator[Phy]:
    """A PHY with a link of 1000 Mb/s, full duplex."""
    phy = Phy(linux)
    phy.set(
        BMCR=AUTONEGOTIATION, ADVERTISE=1, BMSR=BMSR_10_AND_100 | LINK | COMPLETE | CAPABLE | EXTENDED,
        PHYSID1=IDENTIFIER >> 16, PHYSID2=IDENTIFIER & 0xFFFF, LPA=ALL_10_AND_100, ESTATUS=ESTATUS_1000_FULL,
        STAT1000=PARTNER_1000_FULL,
    )  # fmt: skip
    yield phy
    assert phy.loader.unload("libphy", forced=True) == []
    linux.free(phy.registers)
    linux.free(phy.name)


def test_the_generic_driver_takes_a_phy_and_tells_its_link(linux: Linux, phy: Phy) -> None:
    bus = phy.register()
    device = Obj(linux.types, "phy_device", phy.call("mdiobus_get_phy", bus, 0))
    assert device.phy_id == IDENTIFIER
    assert linux.string(device.mdio.dev.kobj.name) == "test:00"
    assert not device.mdio.dev.driver, "no driver claims the id"
    gmii = linux.types.enumerator("PHY_INTERFACE_MODE_GMII")
    assert phy.call_int("phy_attach_direct", 0, device, 0, gmii) == 0
    assert linux.string(device.mdio.dev.driver.name) == "Generic PHY"
    # What it can do by its registers: 10 and 100 Mb/s both ways, 1000 Mb/s full duplex only.
    assert phy.call_int("__genphy_config_aneg", device, 0) == 0
    assert phy.get(ADVERTISE) == ALL_10_AND_100
    assert phy.get(BMCR) & RESTART
    phy.set(BMCR=AUTONEGOTIATION)  # a PHY clears the bit by itself
    assert phy.call_int("genphy_read_status", device) == 0
    assert (device.link, device.speed, device.duplex) == (1, 1000, 1)
    phy.set(STAT1000=0, LPA=0x0081)  # the partner offers 100 Mb/s, half duplex, and nothing else
    device.link = 0  # what is known of a link stays as it is while autonegotiation keeps it up
    assert phy.call_int("genphy_read_status", device) == 0
    assert (device.link, device.speed, device.duplex) == (1, 100, 0)
    phy.set(BMSR=BMSR_10_AND_100 | CAPABLE | EXTENDED)
    assert phy.call_int("genphy_update_link", device) == 0
    assert device.link == 0
    with pytest.raises(UsageError, match="module libphy is in use"):
        phy.loader.unload("libphy")
    phy.call("phy_detach", device)
    assert not device.mdio.dev.driver
    phy.call("mdiobus_unregister", bus)
    phy.call("mdiobus_free", bus)


def test_an_empty_bus_has_no_phy(linux: Linux, phy: Phy) -> None:
    phy.set(PHYSID1=0xFFFF, PHYSID2=0xFFFF)
    bus = phy.register()
    assert phy.call("mdiobus_get_phy", bus, 0) == 0
    phy.call("mdiobus_unregister", bus)
    phy.call("mdiobus_free", bus)
