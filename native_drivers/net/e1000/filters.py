"""Which frames the chip takes: by address, exact and by hash, and by VLAN (SDM 10.1, 13.5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from native_drivers.net.e1000.registers import MTA, RAH, RAL, VFTA

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vmklinux.native.register import Registers


def hash_of(address: bytes) -> int:
    """The number of a multicast address's bit in MTA, with RCTL.MO 0: bits 47 to 36 of the address (SDM 13.5.1)."""
    return (address[5] << 8 | address[4]) >> 4 & 0xFFF


class Filters:
    """The tables of a chip, of which only what changes is written; ``restore`` writes all after a reset."""

    def __init__(self, registers: Registers) -> None:
        """Nothing passes yet."""
        self._registers = registers
        self._mac = bytes(6)
        self._exact: list[bytes] = []
        self._hashed = [0] * MTA.count
        self._vlans = [0] * VFTA.count

    def restore(self) -> None:
        """Write all tables anew."""
        self._write_addresses(range(RAL.count))
        for index, word in enumerate(self._hashed):
            self._registers.write(MTA[index](word))
        for index, word in enumerate(self._vlans):
            self._registers.write(VFTA[index](word))

    def set_mac(self, mac: bytes) -> None:
        """The station's address."""
        self._mac = mac
        self._write_addresses(range(1))

    def set_multicast(self, groups: Sequence[bytes]) -> None:
        """The groups to take: the first 15 exactly, more by their hashes."""
        exact, rest = list(groups[: RAL.count - 1]), groups[RAL.count - 1 :]
        changed = max(len(exact), len(self._exact)) + 1
        self._exact = exact
        self._write_addresses(range(1, changed))
        hashed = [0] * MTA.count
        for number in map(hash_of, rest):
            hashed[number >> 5] |= 1 << (number & 31)
        for index, (word, before) in enumerate(zip(hashed, self._hashed, strict=True)):
            if word != before:
                self._registers.write(MTA[index](word))
        self._hashed = hashed

    def set_vlan(self, vid: int, through: bool) -> None:
        """Let a VLAN id through, or not."""
        mask = 1 << (vid & 31)
        word = self._vlans[vid >> 5]
        self._vlans[vid >> 5] = word | mask if through else word & ~mask
        self._registers.write(VFTA[vid >> 5](self._vlans[vid >> 5]))

    def _write_addresses(self, entries: range) -> None:
        addresses = [self._mac, *self._exact]
        for entry in entries:
            self._registers.write(RAH[entry]())  # not valid while it changes
            if entry < len(addresses):
                low, high = (
                    int.from_bytes(part, "little") for part in (addresses[entry][:4], addresses[entry][4:])
                )
                self._registers.write(RAL[entry](low))
                self._registers.write(RAH[entry](RAH=high, AV=1))
            else:
                self._registers.write(RAL[entry]())
