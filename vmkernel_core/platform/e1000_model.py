"""The Intel 82540EM (PRO/1000 MT Desktop) as a device model: Linux's e1000.ko works on it unmodified.

Facts come from Intel's "PCI/PCI-X Family of Gigabit Ethernet Controllers Software Developer's Manual" (SDM);
numbers in parentheses below are its sections.

What differs from the chip:

- Nothing takes time. Interrupts are not moderated (ITR, RDTR, RADV, TIDV and TADV are stored and mean
  nothing), and TXD_LOW is never raised.
- PAUSE is the wire's back-pressure. While the receive FIFO is above FCRTH the other end is held, and XOFFTXC
  and XONTXC count; a wire that takes no frames sets STATUS.TXOFF. PAUSE frames that arrive are counted, not
  obeyed.
- No wake-up, management, flash, MSI or source address filter (RAH.ASEL), and no 82542-compatible
  aliases of registers. The packet checksum of a receive descriptor is 0.
- Frames on the wire carry no FCS, so none arrives damaged. A frame sent with an FCS of its own (IFCS clear)
  is lost when that FCS is wrong. Short frames that arrive are padded to the minimum.
"""

from __future__ import annotations

import zlib
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence

from vmkernel_core.bus import Space
from vmkernel_core.errors import UsageError
from vmkernel_core.platform import e1000_eeprom
from vmkernel_core.platform.device_model import Bar, NetworkModel, PciIdentity, power_management
from vmkernel_core.platform.e1000_offload import OffloadContext, insert_checksum, received_checksums
from vmkernel_core.platform.e1000_phy import M88E1011
from vmkernel_core.platform.e1000_registers import (
    ALL,
    BY_NAME,
    REGISTERS,
    Access,
    Ctrl,
    Eecd,
    Eerd,
    Icr,
    Mdic,
    Rctl,
    RxStatus,
    Status,
    Tctl,
    TxCommand,
    offsets,
)

IDENTITY = PciIdentity(
    vendor=0x8086,
    device=0x100E,
    revision=0x02,
    class_code=0x020000,
    subsystem_vendor=0x8086,
    subsystem=0x001E,
)
REGISTER_BAR, IO_BAR = 0, 2
_BARS = (Bar(REGISTER_BAR, 128 << 10, Space.MEMORY), Bar(IO_BAR, 64, Space.IO))
#: Status register after reset: capable of 66 MHz, medium DEVSEL timing.
_PCI_STATUS = 0x0220
_IOADDR, _IODATA = 0, 4
_PHY_ADDRESS = 1

# Registers that the code names.
CTRL, CTRL_DUP, STATUS, EECD, EERD, MDIC = offsets("CTRL", "CTRL_DUP", "STATUS", "EECD", "EERD", "MDIC")
VET, FCAL, FCAH, PBA, ICR, IMS = offsets("VET", "FCAL", "FCAH", "PBA", "ICR", "IMS")
RCTL, FCRTL, FCRTH, RXCSUM, MTA, RA, VFTA = offsets("RCTL", "FCRTL", "FCRTH", "RXCSUM", "MTA", "RA", "VFTA")
RDBAL, RDBAH, RDLEN, RDH, RDT = offsets("RDBAL", "RDBAH", "RDLEN", "RDH", "RDT")
TCTL, TDBAL, TDBAH, TDLEN, TDH, TDT = offsets("TCTL", "TDBAL", "TDBAH", "TDLEN", "TDH", "TDT")
#: Packets by size (64, …127, …255, …511, …1023, …1522 bytes), received and transmitted.
_SIZE_LIMITS = (64, 127, 255, 511, 1023)
_PRC = offsets("PRC64", "PRC127", "PRC255", "PRC511", "PRC1023", "PRC1522")
_PTC = offsets("PTC64", "PTC127", "PTC255", "PTC511", "PTC1023", "PTC1522")

_MASKS = {offset: register.writable for register in REGISTERS for offset in register.offsets}
_RESETS = {offset: register.reset for register in REGISTERS for offset in register.offsets}
#: The odd words of RA: RAH has AV, the address select and 16 address bits.
_MASKS.update({RA + 8 * entry + 4: 0x8003_FFFF for entry in range(16)})
_RAH_VALID = 1 << 31
_XONE = 1 << 31
_THRESHOLD = 0xFFF8

#: Receive buffer size in bytes by RCTL's BSEX and BSIZE; with BSEX, BSIZE 0 is reserved.
_BUFFER_SIZES = {
    0x0000_0000: 2048,
    0x0001_0000: 1024,
    0x0002_0000: 512,
    0x0003_0000: 256,
    Rctl.BSEX | 0x0000_0000: 16384,
    Rctl.BSEX | 0x0001_0000: 16384,
    Rctl.BSEX | 0x0002_0000: 8192,
    Rctl.BSEX | 0x0003_0000: 4096,
}
#: Which bits of a multicast address select the MTA bit, by RCTL.MO: the shift of bytes 4 and 5.
_MULTICAST_SHIFT = (4, 3, 2, 0)
#: STATUS.SPEED by Mb/s.
_SPEEDS = {10: 0, 100: 1, 1000: 2}

_BROADCAST = b"\xff" * 6
_MAC_CONTROL = b"\x88\x08"
_PAUSE = b"\x00\x01"
_SMALLEST, _FCS = 60, 4
_LONGEST, _LONGEST_LPE = 1522 - _FCS, 16384 - _FCS

_PACKET_BUFFER_KB = 64
_TX_BATCH = 64
_DD = 1


class E1000Model(NetworkModel):
    """An 82540EM with a 93C46 EEPROM and its M88E1011 PHY; ``mac`` is its station address, six bytes.

    The link comes up with the card; the cable is plugged.
    """

    def __init__(self, mac: bytes = b"\x52\x54\x00\x12\x34\x56") -> None:
        """Raises UsageError when ``mac`` is no station address."""
        if len(mac) != 6 or mac[0] & 1:
            raise UsageError(
                f"{mac.hex(':')!r} is not a station address", remedy="six bytes, the first one even"
            )
        super().__init__(IDENTITY, _BARS, (power_management(0xDC),), status=_PCI_STATUS)
        self.eeprom = e1000_eeprom.MicrowireEeprom(
            e1000_eeprom.image(
                mac,
                vendor=IDENTITY.vendor,
                device=IDENTITY.device,
                subsystem_vendor=IDENTITY.subsystem_vendor,
                subsystem=IDENTITY.subsystem,
            )
        )
        self.phy = M88E1011()
        self._io_address = 0
        self._readers = self._read_effects()
        self._writers = self._write_effects()
        self.power_on()

    def _read_effects(self) -> dict[int, Callable[[int], int]]:
        kinds = {
            Access.RC: self._read_counter,
            Access.RC_LOW: self._read_counter_low,
            Access.RC_HIGH: self._read_counter_high,
            Access.WO: self._read_write_only,
        }
        effects = {
            register.offset: kinds[register.access] for register in REGISTERS if register.access in kinds
        }
        return effects | {ICR: self._read_icr, EECD: self._read_eecd}

    def _write_effects(self) -> dict[int, Callable[[int, int], None]]:
        effects: dict[str, Callable[[int, int], None]] = {
            "CTRL": self._write_ctrl,
            "CTRL_DUP": self._write_ctrl,
            "EECD": self._write_eecd,
            "EERD": self._write_eerd,
            "MDIC": self._write_mdic,
            "PBA": self._write_pba,
            "ICR": self._write_icr,
            "ICS": self._write_ics,
            "IMS": self._write_ims,
            "IMC": self._write_imc,
            "RCTL": self._write_rctl,
            "RDT": self._write_rdt,
            "RA": self._write_ra,
            "TCTL": self._write_transmit,
            "TDT": self._write_transmit,
        }
        return {offset: effect for name, effect in effects.items() for offset in BY_NAME[name].offsets}

    # ---- life cycle ----

    def power_on(self) -> None:
        """All state as after power-on; what the EEPROM holds and where the cable is plugged remain."""
        self.phy.reset()
        self._values = dict(_RESETS)
        self.reset()

    def reset(self) -> None:
        """CTRL.RST: all but the PHY and the packet buffer's partition, which takes effect now."""
        self._values = _RESETS | {PBA: self._values[PBA]}
        words = self.eeprom.words
        self._values[RA] = words[0] | words[1] << 16
        self._values[RA + 4] = words[2] | _RAH_VALID
        self._station_addresses: frozenset[bytes] | None = None
        self._buffer_size = 2048
        self._fifo: deque[tuple[bytes, int]] = deque()
        self._fifo_bytes = 0
        self._receive_paused = False
        self._unsent: list[bytes] = []
        self._contexts: dict[bool, OffloadContext] = {}
        self._packet = bytearray()
        self._packet_command = self._packet_options = 0
        self._update_status()
        self.set_interrupt(False)
        self.wire_changed()

    # ---- access ----

    def bar_read(self, bar: int, offset: int, size: int) -> int:
        """Read a register. Registers are 32 bits wide: narrower reads see a part, 8 bytes are two reads."""
        if size == 8:
            return self.bar_read(bar, offset, 4) | self.bar_read(bar, offset + 4, 4) << 32
        aligned, shift = offset & ~3, (offset & 3) * 8
        if bar == REGISTER_BAR:
            value = self._read(aligned)
        elif aligned == _IODATA:
            value = self._read(self._io_address)
        else:
            value = self._io_address if aligned == _IOADDR else 0
        return value >> shift & (1 << size * 8) - 1

    def bar_write(self, bar: int, offset: int, size: int, value: int) -> None:
        """Write a register. Writes narrower than 32 bits are dropped, 8 bytes are two writes."""
        if size == 8:
            self.bar_write(bar, offset, 4, value & ALL)
            self.bar_write(bar, offset + 4, 4, value >> 32)
        elif size == 4 and not offset & 3:
            if bar == REGISTER_BAR:
                self._write(offset, value)
            elif offset == _IOADDR:
                self._io_address = value & (128 << 10) - 4
            elif offset == _IODATA:
                self._write(self._io_address, value)

    def _read(self, offset: int) -> int:
        reader = self._readers.get(offset)
        return reader(offset) if reader else self._values.get(offset, 0)

    def _write(self, offset: int, value: int) -> None:
        mask = _MASKS.get(offset, 0)
        value &= mask
        writer = self._writers.get(offset)
        if writer:
            writer(offset, value)
        elif mask:
            self._values[offset] = value

    def _read_write_only(self, _offset: int) -> int:
        return 0

    # ---- statistics (13.7) ----

    def _read_counter(self, offset: int) -> int:
        value, self._values[offset] = self._values[offset], 0
        return min(value, ALL)

    def _read_counter_low(self, offset: int) -> int:
        return self._values[offset] & ALL

    def _read_counter_high(self, offset: int) -> int:
        # Both halves are kept in the low one, so that counting is one addition.
        value, self._values[offset - 4] = self._values[offset - 4] >> 32, 0
        return value & ALL

    def _count(self, name: str, by: int = 1) -> None:
        self._values[BY_NAME[name].offset] += by

    # ---- interrupts (13.4.17 and on) ----

    def _cause(self, causes: int) -> None:
        self._values[ICR] |= causes
        self.set_interrupt(bool(self._values[ICR] & self._values[IMS]))

    def _read_icr(self, _offset: int) -> int:
        causes, self._values[ICR] = self._values[ICR], 0
        self.set_interrupt(False)
        return causes

    def _write_icr(self, _offset: int, value: int) -> None:
        self._values[ICR] &= ~value
        self._cause(0)

    def _write_ics(self, _offset: int, value: int) -> None:
        self._cause(value)

    def _write_ims(self, _offset: int, value: int) -> None:
        self._values[IMS] |= value
        self._cause(0)

    def _write_imc(self, _offset: int, value: int) -> None:
        self._values[IMS] &= ~value
        self._cause(0)

    # ---- control and link ----

    def _write_ctrl(self, _offset: int, value: int) -> None:
        if value & Ctrl.RST:
            self.reset()
            return
        before, after = self._values[CTRL], value
        self._values[CTRL] = self._values[CTRL_DUP] = after
        reset_phy = after & ~before & Ctrl.PHY_RST
        self._link_event(self.phy.reset() if reset_phy else False)

    def set_link(self, up: bool) -> None:
        """Plug or pull the network cable; LSC is raised when the MAC sees the change."""
        self._link_event(self.phy.set_cable(up))

    def _link_event(self, negotiated: bool) -> None:
        """STATUS follows the PHY. A new negotiation is a loss of link, however short."""
        was_up = self._link_up
        self._update_status()
        if (negotiated and was_up) or self._link_up != was_up:
            self._cause(Icr.LSC)
        if not self._link_up:
            self._hold([])
        self._transmit()

    @property
    def _link_up(self) -> bool:
        return bool(self._values[STATUS] & Status.LU)

    def _update_status(self) -> None:
        """STATUS: CTRL.SLU lets the MAC see the PHY's link (8.6.2.1); CTRL can force speed and duplex."""
        control = self._values[CTRL]
        resolved = _SPEEDS[self.phy.speed]
        speed = (control & Ctrl.SPEED) >> 8 if control & Ctrl.FRCSPD else resolved
        full_duplex = bool(control & Ctrl.FD) if control & Ctrl.FRCDPX else self.phy.full_duplex
        self._values[STATUS] = (
            (Status.FD if full_duplex else 0)
            | (Status.LU if self.phy.link and control & Ctrl.SLU else 0)
            | (Status.TXOFF if self._unsent else 0)
            | speed << Status.SPEED_SHIFT
            | resolved << Status.ASDV_SHIFT
        )

    def _write_pba(self, _offset: int, value: int) -> None:
        # Software gives the receive FIFO's KiB; the transmit FIFO has the rest (13.4.16).
        self._values[PBA] = value | (_PACKET_BUFFER_KB - value & 0x7F) << 16

    # ---- EEPROM (EECD, EERD) and PHY (MDIC) access ----

    def _read_eecd(self, _offset: int) -> int:
        value = self._values[EECD] | Eecd.PRES
        if not value & Eecd.FWE:
            value |= Eecd.FWE_DISABLED
        if value & Eecd.REQ:
            value |= Eecd.GNT
        return value | (Eecd.DO if self.eeprom.data_out else 0)

    def _write_eecd(self, _offset: int, value: int) -> None:
        self._values[EECD] = value
        self.eeprom.drive(value >> 1 & 1, value & 1, value >> 2 & 1)

    def _write_eerd(self, _offset: int, value: int) -> None:
        address = value >> Eerd.ADDRESS_SHIFT & 0xFF
        if value & Eerd.START:
            value |= Eerd.DONE | self.eeprom.words[address % e1000_eeprom.WORDS] << Eerd.DATA_SHIFT
        self._values[EERD] = value & ~Eerd.START

    def _write_mdic(self, _offset: int, value: int) -> None:
        number = value >> Mdic.REGISTER_SHIFT & 0x1F
        if value >> Mdic.PHY_SHIFT & 0x1F != _PHY_ADDRESS:
            value |= Mdic.ERROR
        elif value & Mdic.OP_READ:
            value = value & ~Mdic.DATA | self.phy.read(number)
        elif value & Mdic.OP_WRITE:
            self._link_event(self.phy.write(number, value & Mdic.DATA))
        self._values[MDIC] = value | Mdic.READY
        if value & Mdic.INTERRUPT:
            self._cause(Icr.MDAC)

    # ---- transmit ----

    @property
    def transmit_paused(self) -> bool:
        """Whether frames wait for the wire, as after the other end's XOFF."""
        return bool(self._unsent)

    def resume_transmit(self) -> None:
        """Send what waits, then go on in the ring."""
        self._put_on_wire(self._unsent)
        self._transmit()

    def _write_transmit(self, offset: int, value: int) -> None:
        self._values[offset] = value
        self._transmit()

    @property
    def _loopback(self) -> bool:
        return bool(self._values[RCTL] & Rctl.LBM) or self.phy.loopback

    def _transmit(self) -> None:
        """Work through the ring from TDH to TDT, as far as the wire takes frames."""
        values = self._values
        head, tail, count = values[TDH], values[TDT], values[TDLEN] >> 4
        base = values[TDBAL] | values[TDBAH] << 32
        ready = values[TCTL] & Tctl.EN and not self._unsent and (self._link_up or self._loopback)
        if head == tail or not ready or max(head, tail) >= count or not self.dma_reaches(base, count << 4):
            return
        words, memory, first = self.dma_words, self.dma, base >> 3
        frames: list[bytes] = []
        causes = 0
        while head != tail and not self._unsent:
            low, high = words[first + 2 * head], words[first + 2 * head + 1]
            command = high >> 24 & 0xFF
            if command & TxCommand.DEXT and not high >> 20 & 0xF:
                context = OffloadContext.decode(low, high)
                self._contexts[bool(command & TxCommand.TSE)] = context
            else:
                frames += self._take_data(low, high, command)
            if command & TxCommand.RS:
                memory[base + 16 * head + 12] = high >> 32 & 0xF | _DD
                causes |= Icr.TXDW
            head += 1
            if head == count:
                head = 0
            if len(frames) >= _TX_BATCH:
                self._send(frames)
                frames = []
        values[TDH] = head
        self._send(frames)
        if head == tail:
            causes |= Icr.TXQE
        self._cause(causes)

    def _take_data(self, low: int, high: int, command: int) -> Sequence[bytes]:
        """A data or legacy descriptor: nothing, or at the end of a packet the frames that it makes."""
        extended = command & TxCommand.DEXT
        data = self.dma_read(low, high & (0xF_FFFF if extended else 0xFFFF))
        if not self._packet:
            # What applies to the whole packet stands in its first descriptor (3.3.7.3).
            self._packet_command, self._packet_options = command, high >> 40 & 0xFF
        if not command & TxCommand.EOP:
            self._packet += data
            return ()
        if self._packet:
            data = bytes(self._packet + data)
            self._packet.clear()
        if extended:
            frames = self._offload(data)
        elif command & TxCommand.IC:
            frames = [_legacy_checksum(data, start=high >> 40 & 0xFF, offset=high >> 16 & 0xFF)]
        else:
            frames = [data]
        if command & TxCommand.VLE and self._values[CTRL] & Ctrl.VME:
            tag = self._values[VET].to_bytes(2, "big") + (high >> 48).to_bytes(2, "big")
            frames = [frame[:12] + tag + frame[12:] for frame in frames]
        if not command & TxCommand.IFCS:
            frames = [frame[:-_FCS] for frame in frames if frame[-_FCS:] == _fcs(frame[:-_FCS])]
        if self._values[TCTL] & Tctl.PSP:
            frames = [frame.ljust(_SMALLEST, b"\0") for frame in frames]
        return frames

    def _offload(self, packet: bytes) -> list[bytes]:
        segment = bool(self._packet_command & TxCommand.TSE)
        context = self._contexts.get(segment)
        if context is None:
            return [] if segment else [packet]
        if not segment:
            return [context.checksummed(bytearray(packet), self._packet_options)]
        frames = context.segments(packet, self._packet_options)
        self._count("TSCTC" if frames else "TSCTFC")
        return frames

    def _send(self, frames: list[bytes]) -> None:
        if not frames:
            return
        values = self._values
        octets = sum(map(len, frames)) + _FCS * len(frames)
        for name, by in (("GPTC", len(frames)), ("TPT", len(frames)), ("GOTCL", octets), ("TOTL", octets)):
            self._count(name, by)
        for frame in frames:
            values[_PTC[bisect_left(_SIZE_LIMITS, len(frame) + _FCS)]] += 1
            if frame[:1] and frame[0] & 1:
                self._count("BPTC" if frame.startswith(_BROADCAST) else "MPTC")
        if self._loopback:
            self._arrive(frames)
        else:
            self._put_on_wire(frames)

    def _put_on_wire(self, frames: list[bytes]) -> None:
        self._hold(frames[self.wire(frames) :])

    def _hold(self, frames: list[bytes]) -> None:
        """Keep what the wire did not take; STATUS.TXOFF says so."""
        changed = bool(frames) != bool(self._unsent)
        self._unsent = frames
        if changed:
            self._update_status()
            self.wire_changed()

    # ---- receive ----

    @property
    def receive_paused(self) -> bool:
        """Whether the FIFO is above its high water mark and the other end was sent XOFF."""
        return self._receive_paused

    def receive(self, frames: Sequence[bytes]) -> int:
        """Frames arrive at the port; a port without link lets them pass unseen."""
        if self.unplugged or not self._link_up or self._loopback:
            return len(frames)
        return self._arrive(frames)

    def _write_rctl(self, _offset: int, value: int) -> None:
        self._values[RCTL] = value
        self._buffer_size = _BUFFER_SIZES[value & (Rctl.BSEX | Rctl.BSIZE)]
        if not value & Rctl.EN:
            self._fifo.clear()
            self._fifo_bytes = 0
        self._empty_fifo()

    def _write_rdt(self, _offset: int, value: int) -> None:
        self._values[RDT] = value
        self._empty_fifo()

    def _write_ra(self, offset: int, value: int) -> None:
        self._values[offset] = value
        self._station_addresses = None

    def _arrive(self, frames: Sequence[bytes]) -> int:
        """Filter frames and store them; those without a descriptor wait in the FIFO. How many were taken."""
        if not self._values[RCTL] & Rctl.EN:
            return len(frames)
        causes = 0
        taken = 0
        for frame in frames:
            if self._receive_paused:
                break
            taken += 1
            if len(frame) < _SMALLEST:
                frame = frame.ljust(_SMALLEST, b"\0")  # noqa: PLW2901 - as the sender's MAC would have
            status = self._admit(frame)
            if status is None:
                continue
            stored = None if self._fifo else self._store(frame, status)
            if stored is not None:
                causes |= stored
            elif not self._queue(frame, status):
                causes |= Icr.RXO
                continue
            self._count_good(frame)
        self._cause(causes)
        return taken

    def _admit(self, frame: bytes) -> int | None:
        """The status bits of a frame that passes all filters, or None."""
        control = self._values[RCTL]
        self._count("TPR")
        self._count("TORL", len(frame) + _FCS)
        if frame[12:14] == _MAC_CONTROL and not self._admit_mac_control(frame):
            return None
        status = self._admit_address(frame)
        if status is None or not self._admit_vlan(frame):
            return None
        if len(frame) > (_LONGEST_LPE if control & Rctl.LPE else _LONGEST):
            self._count("ROC")
            self._count("RLEC")
            return None
        return status

    def _count_good(self, frame: bytes) -> None:
        """Count a frame that was neither filtered nor missed (13.7); flow control does not count."""
        if frame[12:14] == _MAC_CONTROL:
            return
        size = len(frame) + _FCS
        self._values[_PRC[bisect_left(_SIZE_LIMITS, size)]] += 1
        self._count("GPRC")
        self._count("GORCL", size)
        if frame[0] & 1:
            self._count("BPRC" if frame.startswith(_BROADCAST) else "MPRC")

    def _admit_address(self, frame: bytes) -> int | None:
        """Destination address filters: PIF marks what passed an inexact one."""
        control = self._values[RCTL]
        if self._station_addresses is None:
            self._station_addresses = self._valid_addresses()
        if frame[:6] in self._station_addresses:
            return 0
        if not frame[0] & 1:
            return RxStatus.PIF if control & Rctl.UPE else None
        if frame.startswith(_BROADCAST) and control & Rctl.BAM:
            return 0
        shift = _MULTICAST_SHIFT[control >> Rctl.MO_SHIFT & 3]
        bit = (frame[4] | frame[5] << 8) >> shift & 0xFFF
        hashed = self._values[MTA + 4 * (bit >> 5)] >> (bit & 0x1F) & 1
        return RxStatus.PIF if hashed or control & Rctl.MPE else None

    def _valid_addresses(self) -> frozenset[bytes]:
        entries = range(RA, RA + 8 * 16, 8)
        return frozenset(self._address(at, at + 4) for at in entries if self._values[at + 4] & _RAH_VALID)

    def _is_tagged(self, frame: bytes) -> bool:
        return (frame[12] << 8 | frame[13]) == self._values[VET]

    def _admit_vlan(self, frame: bytes) -> bool:
        """VLAN filter: tagged frames whose VLAN is not in VFTA stay out, untagged ones pass."""
        control = self._values[RCTL]
        if not control & Rctl.VFE or not self._is_tagged(frame):
            return True
        tag = frame[14] << 8 | frame[15]
        cfi_differs = bool(tag >> 12 & 1) != bool(control & Rctl.CFI)
        if control & Rctl.CFIEN and cfi_differs:
            return False
        return bool(self._values[VFTA + 4 * (tag >> 5 & 0x7F)] >> (tag & 0x1F) & 1)

    def _admit_mac_control(self, frame: bytes) -> bool:
        """MAC control frames (8.7.4): PAUSE goes on unless RCTL.DPF is set, others with RCTL.PMCF only."""
        values = self._values
        if frame[14:16] != _PAUSE:
            return bool(values[RCTL] & Rctl.PMCF)
        if frame[:6] in (self._address(FCAL, FCAH), self._address(RA, RA + 4)):
            enabled = values[CTRL] & Ctrl.RFCE
            self._count("FCRUC" if not enabled else "XOFFRXC" if any(frame[16:18]) else "XONRXC")
        return not values[RCTL] & Rctl.DPF

    def _address(self, low: int, high: int) -> bytes:
        """The MAC address in a pair of registers."""
        return (self._values[low] | (self._values[high] & 0xFFFF) << 32).to_bytes(6, "little")

    def _store(self, frame: bytes, status: int) -> int | None:
        """Write a frame to the next descriptors; its interrupt causes, or None when they are too few."""
        values = self._values
        head, tail, count = values[RDH], values[RDT], values[RDLEN] >> 4
        base = values[RDBAL] | values[RDBAH] << 32
        if max(head, tail) >= count or not self.dma_reaches(base, count << 4):
            return None
        data = frame if values[RCTL] & Rctl.SECRC else frame + _fcs(frame)
        special = 0
        if values[CTRL] & Ctrl.VME and self._is_tagged(frame):
            special = frame[14] << 8 | frame[15]
            data = data[:12] + data[16:]
            status |= RxStatus.VP
        size = self._buffer_size
        needed = -(-len(data) // size)
        free = (tail - head) % count
        if needed > free:
            return None
        checksums, errors = received_checksums(data, values[RXCSUM])
        last = RxStatus.DD | RxStatus.EOP | status | checksums | errors << 8 | special << 16
        words, first = self.dma_words, base >> 3
        for start in range(0, len(data), size):
            part = data[start : start + size]
            self.dma_write(words[first + 2 * head], part)
            # One store, DD included: the driver, in another thread, sees all of it or nothing.
            flags = last if start + size >= len(data) else RxStatus.DD
            words[first + 2 * head + 1] = len(part) | flags << 32
            head += 1
            if head == count:
                head = 0
        values[RDH] = head
        threshold = count >> 1 + (values[RCTL] >> Rctl.RDMTS_SHIFT & 3)
        return Icr.RXT0 | (Icr.RXDMT0 if free - needed <= threshold < free else 0)

    def _queue(self, frame: bytes, status: int) -> bool:
        """No descriptor: the frame waits in the FIFO; False when that is full and the frame is lost."""
        values = self._values
        self._count("RNBC")
        if self._fifo_bytes + len(frame) > (values[PBA] & 0x7F) << 10:
            self._count("MPC")
            return False
        self._fifo.append((frame, status))
        self._fifo_bytes += len(frame)
        if values[CTRL] & Ctrl.TFCE and self._fifo_bytes > values[FCRTH] & _THRESHOLD:
            self._receive_paused = True
            self._count("XOFFTXC")
            self.wire_changed()
        return True

    def _empty_fifo(self) -> None:
        """Store what waits as far as there are descriptors, and let the other end go on below FCRTL."""
        causes = 0
        while self._fifo:
            stored = self._store(*self._fifo[0])
            if stored is None:
                break
            causes |= stored
            self._fifo_bytes -= len(self._fifo.popleft()[0])
        self._cause(causes)
        if self._receive_paused and self._fifo_bytes <= self._values[FCRTL] & _THRESHOLD:
            self._receive_paused = False
            self._count("XONTXC", 1 if self._values[FCRTL] & _XONE else 0)
            self.wire_changed()


def _fcs(frame: bytes) -> bytes:
    """The frame check sequence (IEEE 802.3 clause 3) as it stands in memory."""
    return zlib.crc32(frame).to_bytes(4, "little")


def _legacy_checksum(data: bytes, *, start: int, offset: int) -> bytes:
    """A legacy descriptor's IC: the checksum from CSS to the end, at CSO."""
    frame = bytearray(data)
    insert_checksum(frame, start, offset, 0)
    return bytes(frame)
