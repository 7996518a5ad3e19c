"""The 82540EM model at its registers, and the model platform around it.

Independent here: the arithmetic. Checksums are checked by adding 16-bit words one by one (RFC 1071's own
example and a published IPv4 header vouch for that), multicast hashes by the example in Linux's e1000_hw.c.
The other side of the registers is a test bench of ours: Debian's e1000.ko, which is not, has its own tests.
"""

from __future__ import annotations

import selectors
import socket
import struct
import zlib
from collections.abc import Iterator, Sequence
from itertools import pairwise

import pytest

from tests.vmkernel_core.hardware import level, until
from vmkernel_core.bus import Space
from vmkernel_core.errors import UsageError
from vmkernel_core.memory import MachineMemory
from vmkernel_core.platform.base import PciAddress
from vmkernel_core.platform.device_model import power_management
from vmkernel_core.platform.e1000_model import IO_BAR, REGISTER_BAR, E1000Model
from vmkernel_core.platform.e1000_offload import ones_complement_sum
from vmkernel_core.platform.e1000_registers import BY_NAME, Ctrl, Icr, Rctl, Rxcsum, RxStatus, Status, Tctl
from vmkernel_core.platform.model import ModelPlatform

MAC = b"\x52\x54\x00\xab\xcd\xef"
PEER = b"\x02\x00\x00\x00\x00\x01"
ALL_CAUSES = 0x1FFFF
TX_RING, RX_RING, TX_BUFFERS, RX_BUFFERS = 0x1000, 0x8000, 0x20000, 0x80000
RING = 64
# Transmit descriptor commands, shifted into the upper half of the second dword.
EOP, IFCS, IC, TSE, RS, DEXT, VLE = (1 << bit for bit in (24, 25, 26, 26, 27, 29, 30))
DATA = 1 << 20


def word_sum(data: bytes) -> int:
    """RFC 1071's sum, word by word."""
    total = 0
    for (word,) in struct.iter_unpack(">H", data + b"\0" * (len(data) & 1)):
        total += word
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def ethernet(payload: bytes = b"", *, to: bytes = MAC, kind: int = 0x88B5) -> bytes:
    return to + PEER + kind.to_bytes(2, "big") + payload


def ipv4(payload: bytes, *, protocol: int, identification: int = 0x1234, flags: int = 0x4000) -> bytes:
    header = struct.pack(
        ">BBHHHBBH4s4s",
        *(0x45, 0, 20 + len(payload), identification, flags, 64, protocol, 0),
        bytes([192, 0, 2, 1]),
        bytes([198, 51, 100, 2]),
    )
    checksum = word_sum(header) ^ 0xFFFF
    return header[:10] + checksum.to_bytes(2, "big") + header[12:] + payload


def pseudo_header(packet: bytes) -> bytes:
    if packet[0] >> 4 == 6:
        return packet[8:40] + struct.pack(">II", len(packet) - 40, packet[6])
    return packet[12:20] + struct.pack(">BBH", 0, packet[9], len(packet) - 20)


def transport_is_good(packet: bytes) -> bool:
    start = 40 if packet[0] >> 4 == 6 else 20
    return word_sum(pseudo_header(packet) + packet[start:]) == 0xFFFF


class Bench:
    """A model on memory of its own, a wire that collects, and a driver's habits."""

    def __init__(self, model: E1000Model) -> None:
        self.model = model
        self.memory = memoryview(bytearray(1 << 20))
        self.level = False
        self.sent: list[bytes] = []
        self.room = 1 << 30
        self.changes = 0
        model.connect(self.take, self.changed)
        model.start(self.memory, self.set_line)
        model.config_write(0x10, 4, 0xC000_0000)
        model.config_write(0x18, 4, 0x1000)
        model.config_write(0x04, 2, 0x0007)
        self.tail = 0
        self.clean = 0

    def set_line(self, level: bool) -> None:
        self.level = level

    def line(self) -> bool:
        return self.level

    def changed(self) -> None:
        self.changes += 1

    def take(self, frames: Sequence[bytes]) -> int:
        taken = frames[: self.room]
        self.room -= len(taken)
        self.sent += taken
        return len(taken)

    def read(self, name: str, index: int = 0) -> int:
        return self.model.bar_read(REGISTER_BAR, BY_NAME[name].offset + 4 * index, 4)

    def write(self, name: str, value: int, index: int = 0) -> None:
        self.model.bar_write(REGISTER_BAR, BY_NAME[name].offset + 4 * index, 4, value)

    def phy(self, register: int, value: int | None = None) -> int:
        operation = 2 << 26 if value is None else 1 << 26 | value
        self.write("MDIC", operation | register << 16 | 1 << 21)
        answer = self.read("MDIC")
        assert answer >> 28 & 1
        assert not answer >> 30 & 1
        return answer & 0xFFFF

    def up(self, *, rctl: int = Rctl.BAM, ctrl: int = 0, buffers: int = RING - 1) -> None:
        """Set link up, both rings of 64, ``buffers`` receive buffers of 2048 bytes."""
        self.write("CTRL", Ctrl.SLU | Ctrl.FD | ctrl)
        self.write("IMS", ALL_CAUSES)
        for ring, base in (("TD", TX_RING), ("RD", RX_RING)):
            self.write(f"{ring}BAL", base)
            self.write(f"{ring}LEN", RING * 16)
        for slot in range(RING):
            struct.pack_into("<QQ", self.memory, RX_RING + 16 * slot, RX_BUFFERS + 4096 * slot, 0)
        self.write("TCTL", Tctl.EN | Tctl.PSP)
        self.write("RCTL", Rctl.EN | rctl)
        self.write("RDT", buffers)
        self.read("ICR")

    def descriptor(self, low: int, high: int) -> None:
        struct.pack_into("<QQ", self.memory, TX_RING + 16 * self.tail, low, high)
        self.tail = (self.tail + 1) % RING

    def data(self, packet: bytes, flags: int, upper: int = 0, *, parts: Sequence[int] = ()) -> None:
        """Descriptors for a packet cut at ``parts``; ``upper`` is their last dword."""
        cuts = [0, *parts, len(packet)]
        for start, end in pairwise(cuts):
            place = TX_BUFFERS + 4096 * self.tail
            self.memory[place : place + end - start] = packet[start:end]
            last = EOP | RS if end == len(packet) else 0
            self.descriptor(place, end - start | flags | IFCS | last | upper << 32)

    def send(self) -> list[bytes]:
        self.write("TDT", self.tail)
        sent, self.sent = self.sent, []
        return sent

    def received(self) -> list[tuple[bytes, int, int, int]]:
        """What the driver finds done: data, status, errors, special; the descriptors are given back."""
        found: list[tuple[bytes, int, int, int]] = []
        while True:
            place = RX_RING + 16 * self.clean
            address, length, checksum, status, errors, special = struct.unpack_from(
                "<QHHBBH", self.memory, place
            )
            if not status & RxStatus.DD:
                return found
            assert checksum == 0
            found.append((bytes(self.memory[address : address + length]), status, errors, special))
            struct.pack_into("<Q", self.memory, place + 8, 0)
            self.clean = (self.clean + 1) % RING

    def frames(self) -> list[bytes]:
        """Received frames without padding to speak of, their FCS checked and cut off."""
        frames = []
        for data, status, _, _ in self.received():
            assert status & RxStatus.EOP
            assert zlib.crc32(data[:-4]) == int.from_bytes(data[-4:], "little")
            frames.append(data[:-4])
        return frames


@pytest.fixture
def bench() -> Bench:
    return Bench(E1000Model(MAC))


# ---- configuration space -----------------------------------------------------------------------------------


def test_configuration_space_names_an_82540em(bench: Bench) -> None:
    read = bench.model.config_read
    assert (read(0, 2), read(2, 2), read(8, 4) >> 8) == (0x8086, 0x100E, 0x020000)
    assert (read(0x2C, 2), read(0x3D, 1), read(0x0E, 1)) == (0x8086, 1, 0)
    assert read(0x06, 2) & 0x10
    assert read(read(0x34, 1), 2) == 0x0001
    assert read(0x100, 4) == 0xFFFF_FFFF
    bench.model.config_write(0, 4, 0)
    assert read(0, 4) == 0x100E_8086


def test_bars_answer_the_size_probe_and_decode_as_told(bench: Bench) -> None:
    model = bench.model
    windows = {(window.space, window.start, window.end) for window in model.windows()}
    assert windows == {(Space.MEMORY, 0xC000_0000, 0xC002_0000), (Space.IO, 0x1000, 0x1040)}
    for offset, mask in ((0x10, 0xFFFE_0000), (0x14, 0), (0x18, 0xFFFF_FFC1), (0x1C, 0), (0x24, 0)):
        model.config_write(offset, 4, 0xFFFF_FFFF)
        assert model.config_read(offset, 4) == mask
    model.config_write(0x04, 2, 0)
    assert model.windows() == []


def test_d3hot_stops_decoding_and_dma_and_coming_back_resets(bench: Bench) -> None:
    bench.up()
    bench.model.config_write(0xDC + 4, 2, 3)
    assert bench.model.windows() == []
    assert len(bench.model.dma) == 0
    bench.model.config_write(0xDC + 4, 2, 0)
    assert len(bench.model.windows()) == 2
    assert bench.read("RCTL") == 0
    assert power_management(0xDC).id == 1


def test_without_bus_mastering_there_is_no_dma_but_a_master_abort(bench: Bench) -> None:
    bench.up()
    bench.model.config_write(0x04, 2, 0x0003)
    bench.data(ethernet(bytes(100)), 0)
    assert bench.send() == []
    assert bench.model.config_read(0x06, 2) & 1 << 13
    bench.model.config_write(0x06, 2, 1 << 13)
    assert not bench.model.config_read(0x06, 2) & 1 << 13


def test_dma_outside_memory_reads_ones_and_writes_nothing(bench: Bench) -> None:
    bench.up()
    bench.descriptor(len(bench.memory) - 8, 64 | EOP | IFCS | RS)
    assert bench.send() == [b"\xff" * 64]
    struct.pack_into("<Q", bench.memory, RX_RING, 1 << 40)
    assert bench.model.receive([ethernet(bytes(50))]) == 1
    assert bench.read("RDH") == 1
    bench.write("TDBAL", len(bench.memory) - 16)
    bench.data(ethernet(bytes(100)), 0)
    assert bench.send() == []


# ---- registers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "mask"),
    [
        ("FCAL", 0xFFFFFFFF),
        ("FCAH", 0xFFFF),
        ("FCT", 0xFFFF),
        ("VET", 0xFFFF),
        ("RDTR", 0xFFFF),
        ("RDBAL", 0xFFFFFFF0),
        ("RDBAH", 0xFFFFFFFF),
        ("RDLEN", 0x000FFF80),
        ("RDH", 0xFFFF),
        ("TDLEN", 0x000FFF80),
        ("TIPG", 0x3FFFFFFF),
        ("RCTL", 0x06DFB3FE),
        ("STATUS", 0),
    ],
)
def test_only_defined_bits_are_kept(bench: Bench, name: str, mask: int) -> None:
    for pattern in (0x5A5A5A5A, 0xA5A5A5A5, 0, 0xFFFFFFFF):
        before = bench.read(name)
        bench.write(name, pattern)
        assert bench.read(name) == (pattern & mask if mask else before)


def test_access_sizes_and_holes(bench: Bench) -> None:
    model, ral = bench.model, BY_NAME["RA"].offset
    assert model.bar_read(REGISTER_BAR, ral + 1, 1) == MAC[1]
    assert model.bar_read(REGISTER_BAR, ral + 2, 2) == MAC[2] | MAC[3] << 8
    assert model.bar_read(REGISTER_BAR, ral, 8).to_bytes(8, "little")[:6] == MAC
    model.bar_write(REGISTER_BAR, ral, 2, 0)
    assert bench.read("RA") == int.from_bytes(MAC[:4], "little")
    model.bar_write(REGISTER_BAR, ral, 8, 0x8000_FFFF_0102_0304)
    assert (bench.read("RA"), bench.read("RA", 1)) == (0x01020304, 0x8000FFFF)
    model.bar_write(REGISTER_BAR, 0x1F000, 4, 1)
    assert model.bar_read(REGISTER_BAR, 0x1F000, 4) == 0


def test_registers_through_the_io_window(bench: Bench) -> None:
    model = bench.model
    model.bar_write(IO_BAR, 0, 4, BY_NAME["VET"].offset)
    model.bar_write(IO_BAR, 4, 4, 0x8100)
    assert model.bar_read(IO_BAR, 0, 4) == BY_NAME["VET"].offset
    assert model.bar_read(IO_BAR, 4, 4) == bench.read("VET") == 0x8100
    model.bar_write(IO_BAR, 0, 4, BY_NAME["CTRL"].offset)
    model.bar_write(IO_BAR, 4, 4, Ctrl.RST)
    assert bench.read("VET") == 0


def test_reset_keeps_the_packet_buffer_partition_and_the_phy(bench: Bench) -> None:
    bench.up()
    bench.write("PBA", 40)
    bench.phy(16, 0x0808)
    bench.write("ICS", Icr.RXO)
    assert bench.line()
    bench.write("CTRL", Ctrl.RST)
    assert not bench.line()
    assert bench.read("PBA") == 24 << 16 | 40
    assert bench.phy(16) == 0x0808
    assert (bench.read("IMS"), bench.read("ICR"), bench.read("RCTL"), bench.read("TDBAL")) == (0, 0, 0, 0)
    assert bench.read("RA").to_bytes(4, "little") + bench.read("RA", 1).to_bytes(4, "little")[:2] == MAC
    assert bench.read("RA", 1) >> 31


def test_interrupt_line_follows_cause_and_mask(bench: Bench) -> None:
    for bit in range(10):
        bench.write("ICS", 1 << bit)
        assert not bench.line()
        bench.write("IMS", 1 << bit)
        assert bench.line()
        assert bench.model.config_read(0x06, 2) & 8
        bench.write("IMC", 1 << bit)
        assert not bench.line()
        assert bench.read("ICR") == 1 << bit
        assert bench.read("ICR") == 0
    bench.write("IMS", Icr.LSC)
    bench.write("ICS", Icr.LSC)
    bench.model.config_write(0x04, 2, 0x0407)
    assert not bench.line()
    bench.model.config_write(0x04, 2, 0x0007)
    assert bench.line()
    bench.write("ICR", Icr.LSC)
    assert not bench.line()


# ---- EEPROM and PHY ----------------------------------------------------------------------------------------


class Microwire:
    """A 93C46's master, after the chip's data sheet, on the pins in EECD."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench

    def pins(self, *, select: int, clock: int = 0, out: int = 0) -> int:
        self.bench.write("EECD", 1 << 6 | out << 2 | select << 1 | clock)
        return self.bench.read("EECD") >> 3 & 1

    def shift(self, value: int, bits: int) -> int:
        answer = 0
        for bit in reversed(range(bits)):
            out = value >> bit & 1
            self.pins(select=1, out=out)
            answer = answer << 1 | self.pins(select=1, clock=1, out=out)
            self.pins(select=1, out=out)
        return answer

    def command(self, opcode: int, address: int, *, data: int | None = None, reads: int = 0) -> list[int]:
        self.pins(select=1)
        self.shift(1 << 8 | opcode << 6 | address, 9)
        if data is not None:
            self.shift(data, 16)
        words = [self.shift(0, 16) for _ in range(reads)]
        self.pins(select=0)
        assert self.pins(select=1) == 1  # ready
        self.pins(select=0)
        return words


def test_eeprom_over_microwire(bench: Bench) -> None:
    bench.write("EECD", 1 << 6)
    assert bench.read("EECD") & (1 << 7 | 1 << 8) == 1 << 7 | 1 << 8
    chip = Microwire(bench)
    words = chip.command(0b10, 0, reads=64)
    assert sum(words) & 0xFFFF == 0xBABA
    assert struct.pack("<3H", *words[:3]) == MAC
    assert words[0x0B:0x0F] == [0x001E, 0x8086, 0x100E, 0x8086]
    assert chip.command(0b10, 0x3F, reads=1) == [words[0x3F]]
    for address in (0x0D, 0x3F):
        bench.write("EERD", address << 8 | 1)
        assert bench.read("EERD") == words[address] << 16 | address << 8 | 1 << 4


def test_eeprom_writes_need_the_enable_command(bench: Bench) -> None:
    chip = Microwire(bench)
    chip.command(0b01, 5, data=0xBEEF)
    assert chip.command(0b10, 5, reads=1) == [0]
    chip.command(0b00, 0b110000)
    chip.command(0b01, 5, data=0xBEEF)
    assert chip.command(0b10, 5, reads=1) == [0xBEEF]
    chip.command(0b11, 5)
    assert chip.command(0b10, 5, reads=1) == [0xFFFF]
    chip.command(0b00, 0b010000, data=0x0102)
    assert chip.command(0b10, 0, reads=64) == [0x0102] * 64
    chip.command(0b00, 0b000000)
    chip.command(0b00, 0b100000)
    assert chip.command(0b10, 7, reads=1) == [0x0102]
    bench.write("CTRL", Ctrl.RST)
    assert bench.read("RA") == 0x0102_0102


def test_phy_identity_and_access_errors(bench: Bench) -> None:
    assert (bench.phy(2), bench.phy(3)) == (0x0141, 0x0C20)
    bench.phy(2, 0xFFFF)
    assert bench.phy(2) == 0x0141
    bench.write("MDIC", 2 << 26 | 2 << 16 | 2 << 21)
    assert bench.read("MDIC") & (1 << 30 | 1 << 28) == 1 << 30 | 1 << 28
    bench.write("IMS", Icr.MDAC)
    bench.write("MDIC", 1 << 29 | 2 << 26 | 2 << 16 | 1 << 21)
    assert bench.line()


@pytest.mark.parametrize(
    ("advertised", "gigabit", "speed", "full"),
    [
        (0x0DE1, 0x0300, 1000, True),
        (0x0DE1, 0x0000, 100, True),
        (0x00A1, 0x0000, 100, False),
        (0x0061, 0x0000, 10, True),
        (0x0021, 0x0000, 10, False),
    ],
)
def test_negotiation(bench: Bench, advertised: int, gigabit: int, speed: int, full: bool) -> None:
    bench.write("CTRL", Ctrl.SLU)
    bench.phy(4, advertised)
    bench.phy(9, gigabit)
    bench.phy(0, 0x1340)
    bench.phy(1)
    code = {10: 0, 100: 1, 1000: 2}[speed]
    assert bench.phy(1) & 0x24 == 0x24
    assert bench.phy(17) & 0xEC00 == code << 14 | full << 13 | 0x0C00
    status = bench.read("STATUS")
    assert status & 3 == 2 | full
    assert status >> 6 & 3 == code
    assert bench.phy(5) & 0x05E0 == 0x05E0


def test_nothing_in_common_is_no_link(bench: Bench) -> None:
    bench.write("CTRL", Ctrl.SLU)
    bench.phy(4, 0x0001)
    bench.phy(9, 0)
    bench.phy(0, 0x1340)
    assert not bench.phy(1) & 4
    assert not bench.read("STATUS") & Status.LU


def test_the_mac_sees_the_link_only_with_set_link_up(bench: Bench) -> None:
    assert not bench.read("STATUS") & Status.LU
    bench.write("CTRL", Ctrl.SLU)
    assert bench.read("STATUS") & Status.LU
    assert bench.read("ICR") == Icr.LSC


def test_a_pulled_cable_is_seen_everywhere_and_comes_back(bench: Bench) -> None:
    bench.up()
    bench.phy(1)
    bench.model.set_link(False)
    assert bench.line()
    assert bench.read("ICR") == Icr.LSC
    assert not bench.read("STATUS") & Status.LU
    assert (bench.phy(1) & 4, bench.phy(17) & 0x0400, bench.phy(10), bench.phy(5)) == (0, 0, 0, 0)
    bench.model.set_link(False)
    assert bench.read("ICR") == 0
    assert bench.model.receive([ethernet(bytes(100))]) == 1
    assert bench.frames() == []
    bench.data(ethernet(bytes(100)), 0)
    assert bench.send() == []
    assert bench.read("TDH") == 0
    bench.model.set_link(True)
    assert bench.read("ICR") & Icr.LSC
    assert bench.phy(1) & 4
    assert len(bench.sent) == 1
    assert bench.read("TDH") == 1


def test_link_status_latches_low_until_read(bench: Bench) -> None:
    bench.up()
    bench.model.set_link(False)
    bench.model.set_link(True)
    assert not bench.phy(1) & 4
    assert bench.phy(1) & 4


def test_phy_power_down_and_reset(bench: Bench) -> None:
    bench.up()
    bench.phy(0, 0x1940)
    assert not bench.read("STATUS") & Status.LU
    bench.phy(16, 0x0868)
    bench.phy(0, 0x9140)
    assert bench.phy(0) == 0x1140
    assert bench.phy(16) == 0x0868
    assert bench.read("STATUS") & Status.LU
    bench.write("CTRL", bench.read("CTRL") | Ctrl.PHY_RST)
    assert bench.phy(16) == 0x0360


# ---- transmit ----------------------------------------------------------------------------------------------


def test_rfc1071_arithmetic_of_both_sides() -> None:
    example = bytes.fromhex("0001f203f4f5f6f7")  # RFC 1071, section 3
    assert ones_complement_sum(example) == word_sum(example) == 0xDDF2
    header = bytes.fromhex("45000073000040004011b861c0a80001c0a800c7")
    assert ones_complement_sum(header) == word_sum(header) == 0xFFFF
    for data in (b"", b"\0\0", b"\xff\xff", b"\xff\xfe\x00\x01", b"\x12", bytes(range(256)) * 6 + b"x"):
        assert ones_complement_sum(data) == word_sum(data)


def test_legacy_descriptors_pad_count_and_report(bench: Bench) -> None:
    bench.up()
    short, long = ethernet(b"short"), ethernet(bytes(range(256)) * 5, to=b"\x01\x00\x5e\x00\x00\x01")
    bench.data(short, 0)
    bench.data(long, 0, parts=(14, 700))
    bench.data(ethernet(bytes(50), to=b"\xff" * 6), 0)
    assert bench.send() == [short.ljust(60, b"\0"), long, ethernet(bytes(50), to=b"\xff" * 6)]
    done = [bench.memory[TX_RING + 16 * slot + 12] & 1 for slot in range(6)]
    assert done == [1, 0, 0, 1, 1, 0]
    assert bench.line()
    assert bench.read("ICR") == Icr.TXDW | Icr.TXQE
    assert bench.read("TDH") == bench.tail
    octets = 64 + len(long) + 4 + 68
    assert (bench.read("GPTC"), bench.read("TPT")) == (3, 3)
    assert (bench.read("GOTCL"), bench.read("GOTCL"), bench.read("GOTCH"), bench.read("GOTCL")) == (
        octets,
        octets,
        0,
        0,
    )
    assert [bench.read(name) for name in ("PTC64", "PTC127", "PTC1522", "MPTC", "BPTC")] == [1, 1, 1, 1, 1]
    assert bench.read("GPTC") == 0


def test_a_ring_wraps_and_waits_for_the_transmitter(bench: Bench) -> None:
    bench.up()
    for round_ in range(5):
        expected = [ethernet(bytes([round_, index]) * 40) for index in range(40)]
        for frame in expected:
            bench.data(frame, 0)
        assert bench.send() == expected
    bench.write("TCTL", 0)
    bench.data(ethernet(bytes(60)), 0)
    assert bench.send() == []
    bench.write("TCTL", Tctl.EN)
    assert len(bench.sent) == 1
    assert bench.read("TDH") == bench.tail


def test_a_frame_with_its_own_fcs(bench: Bench) -> None:
    bench.up()
    frame = ethernet(bytes(100))
    fcs = zlib.crc32(frame).to_bytes(4, "little")
    for place, sealed in ((TX_BUFFERS, frame + fcs), (TX_BUFFERS + 4096, frame + b"oops")):
        bench.memory[place : place + len(sealed)] = sealed
        bench.descriptor(place, len(sealed) | EOP | RS)
    assert bench.send() == [frame]


def test_legacy_checksum_insertion(bench: Bench) -> None:
    bench.up()
    header = bytes.fromhex("450000730000400040110000c0a80001c0a800c7")
    frame = ethernet(header, kind=0x0800)
    bench.memory[TX_BUFFERS : TX_BUFFERS + len(frame)] = frame
    bench.descriptor(TX_BUFFERS, len(frame) | (14 + 10) << 16 | EOP | IFCS | IC | 14 << 40)
    (sent,) = bench.send()
    assert sent[24:26] == b"\xb8\x61"


def test_vlan_tags_are_inserted_with_vme_only(bench: Bench) -> None:
    bench.up()
    bench.write("VET", 0x8100)
    frame = ethernet(bytes(100))
    bench.data(frame, VLE, 0x6064 << 16)
    assert bench.send() == [frame]
    bench.write("CTRL", bench.read("CTRL") | Ctrl.VME)
    bench.data(frame, VLE, 0x6064 << 16)
    assert bench.send() == [frame[:12] + b"\x81\x00\x60\x64" + frame[12:]]


def context(
    bench: Bench, flags: int, *, l3: int = 14, l4: int = 34, at: int = 16, header: int = 0, mss: int = 0
) -> None:
    """A context descriptor: ``at`` is the checksum's place in the transport header."""
    low = l3 | (l3 + 10) << 8 | (l4 - 1) << 16 | l4 << 32 | (l4 + at) << 40
    bench.descriptor(low, DEXT | flags | header << 40 | mss << 48)


TUCMD_TCP, TUCMD_IPV4 = 1 << 24, 1 << 25
IXSM, TXSM = 1 << 8, 2 << 8


@pytest.mark.parametrize("size", [0, 1, 100, 1001])
def test_udp_and_ip_checksums_in_data_descriptors(bench: Bench, size: int) -> None:
    bench.up()
    udp = struct.pack(">HHHH", 53, 5353, 8 + size, 0) + bytes(range(256)) * 4
    good = ipv4(udp[: 8 + size], protocol=17)
    packet = bytearray(good)
    packet[10:12] = b"\0\0"
    packet[26:28] = word_sum(pseudo_header(good)).to_bytes(2, "big")
    context(bench, TUCMD_IPV4, at=6)
    bench.data(ethernet(bytes(packet), kind=0x0800), DEXT | DATA, IXSM | TXSM, parts=(14, 34))
    (sent,) = bench.send()
    answer = sent[14 : 14 + len(good)]
    assert word_sum(answer[:20]) == 0xFFFF
    assert transport_is_good(answer)
    assert answer[:10] == good[:10]


def test_a_udp_checksum_of_zero_is_sent_as_ones(bench: Bench) -> None:
    bench.up()
    good = ipv4(struct.pack(">HHHH", 0, 0, 10, 0) + b"\0\0", protocol=17)
    fill = word_sum(pseudo_header(good) + good[20:]) ^ 0xFFFF
    packet = good[:20] + struct.pack(">HHHHH", 0, 0, 10, word_sum(pseudo_header(good)), fill)
    context(bench, TUCMD_IPV4, at=6)
    bench.data(ethernet(packet, kind=0x0800), DEXT | DATA, TXSM)
    assert bench.send()[0][40:42] == b"\xff\xff"


def tcp(payload: bytes, flags: int, sequence: int) -> bytes:
    return struct.pack(">HHIIHHHH", 40000, 80, sequence, 7, 0x5000 | flags, 512, 0, 0) + payload


@pytest.mark.parametrize("size", [2900, 1448, 1449, 5000, 100])
@pytest.mark.parametrize("tag", [None, 0x0064])
def test_tcp_segmentation_over_ipv4(bench: Bench, size: int, tag: int | None) -> None:
    bench.up(ctrl=Ctrl.VME)
    bench.write("VET", 0x8100)
    payload = bytes(index * 7 & 0xFF for index in range(size))
    mss = 1448
    packet = bytearray(
        ethernet(ipv4(tcp(payload, 0x19, 0xFFFF_FF00), protocol=6, identification=0xFFFF), kind=0x0800)
    )
    packet[16:18] = packet[24:26] = b"\0\0"
    pseudo = packet[26:34] + b"\0\x06\0\0"
    packet[50:52] = word_sum(bytes(pseudo)).to_bytes(2, "big")
    context(bench, TUCMD_TCP | TUCMD_IPV4 | TSE | size, header=54, mss=mss)
    flags, upper = DEXT | DATA | TSE, IXSM | TXSM
    if tag is not None:
        flags, upper = flags | VLE, upper | tag << 16
    bench.data(bytes(packet), flags, upper, parts=[54, *range(2054, len(packet), 2000)])
    sent = bench.send()
    assert len(sent) == -(-size // mss)
    rebuilt = b""
    for index, frame in enumerate(sent):
        if tag is not None:
            assert frame[12:16] == b"\x81\x00" + tag.to_bytes(2, "big")
            frame = frame[:12] + frame[16:]  # noqa: PLW2901 - what follows looks at it without the tag
        assert frame[:12] == packet[:12]
        length, identification = struct.unpack_from(">HH", frame, 16)
        assert len(frame) == max(60 - 4 * (tag is not None), 14 + length)
        frame = frame[: 14 + length]  # noqa: PLW2901 - and without the padding
        assert identification == (0xFFFF + index) & 0xFFFF
        assert word_sum(frame[14:34]) == 0xFFFF
        assert transport_is_good(frame[14:])
        assert struct.unpack_from(">I", frame, 38)[0] == (0xFFFF_FF00 + len(rebuilt)) & 0xFFFF_FFFF
        assert frame[47] == (0x19 if index == len(sent) - 1 else 0x10)
        rebuilt += frame[54:]
    assert rebuilt == payload
    assert bench.read("TSCTC") == 1
    assert bench.read("GPTC") == len(sent)


def test_tcp_segmentation_over_ipv6(bench: Bench) -> None:
    bench.up()
    payload = bytes(index * 3 & 0xFF for index in range(4000))
    addresses = bytes.fromhex("20010db800000000000000000000000120010db8000000000000000000000002")
    header = struct.pack(">IHBB", 6 << 28, 0, 6, 64) + addresses
    packet = bytearray(ethernet(header + tcp(payload, 0x18, 1000), kind=0x86DD))
    packet[70:72] = word_sum(addresses + struct.pack(">II", 0, 6)).to_bytes(2, "big")
    context(bench, TUCMD_TCP | TSE | len(payload), l4=54, header=74, mss=1428)
    bench.data(bytes(packet), DEXT | DATA | TSE, TXSM, parts=(74, 3000))
    sent = bench.send()
    assert [len(frame) - 74 for frame in sent] == [1428, 1428, 1144]
    for frame in sent:
        assert struct.unpack_from(">H", frame, 18)[0] == len(frame) - 54
        assert transport_is_good(frame[14:])
    assert b"".join(frame[74:] for frame in sent) == payload


def test_contexts_that_do_not_fit_send_nothing(bench: Bench) -> None:
    bench.up()
    context(bench, TUCMD_TCP | TUCMD_IPV4 | TSE | 1000, header=20, mss=1000)
    bench.data(ethernet(bytes(1000)), DEXT | DATA | TSE, IXSM | TXSM)
    context(bench, TUCMD_TCP | TUCMD_IPV4 | TSE | 1000, header=54, mss=0)
    bench.data(ethernet(bytes(1000)), DEXT | DATA | TSE, IXSM | TXSM)
    assert bench.send() == []
    assert bench.read("TSCTFC") == 2
    assert bench.read("TDH") == bench.tail


def test_a_wire_that_takes_no_more_stops_the_ring(bench: Bench) -> None:
    bench.up()
    bench.room = 70
    frames = [ethernet(bytes([index]) * 60) for index in range(60)]
    for _ in range(2):
        for frame in frames[:50]:
            bench.data(frame, 0)
        bench.write("TDT", bench.tail)
    assert (bench.model.transmit_paused, bench.read("STATUS") & Status.TXOFF) == (True, Status.TXOFF)
    assert bench.changes
    bench.sent = []
    bench.room = 1000
    bench.model.resume_transmit()
    assert bench.sent == frames[20:50]
    assert (bench.model.transmit_paused, bench.read("STATUS") & Status.TXOFF) == (False, 0)
    assert bench.read("TDH") == bench.tail
    bench.room = 0
    bench.data(frames[0], 0)
    bench.send()
    bench.write("CTRL", Ctrl.RST)
    assert not bench.model.transmit_paused


# ---- receive -----------------------------------------------------------------------------------------------


def test_frames_arrive_with_fcs_padding_and_one_interrupt(bench: Bench) -> None:
    bench.up()
    frames = [ethernet(bytes([index]) * size) for index, size in enumerate((20, 46, 500, 1500))]
    assert bench.model.receive(frames) == 4
    assert bench.line()
    assert bench.read("ICR") == Icr.RXT0
    assert bench.frames() == [frame.ljust(60, b"\0") for frame in frames]
    assert bench.read("RDH") == 4
    octets = sum(max(len(frame), 60) + 4 for frame in frames)
    assert (bench.read("GPRC"), bench.read("TPR"), bench.read("GORCL"), bench.read("TORL")) == (
        4,
        4,
        octets,
        octets,
    )
    assert [bench.read(name) for name in ("PRC64", "PRC1023", "PRC1522")] == [2, 1, 1]


def test_the_fcs_can_be_stripped(bench: Bench) -> None:
    bench.up(rctl=Rctl.SECRC)
    frame = ethernet(bytes(80))
    bench.model.receive([frame])
    assert bench.received()[0][0] == frame


# The example of e1000_hw.c, by RCTL.MO. It prints the third as 0x5d8, which is not what its code computes.
MULTICAST = b"\x01\xaa\x00\x12\x34\x56"


@pytest.mark.parametrize(("offset", "hash_"), [(0, 0x563), (1, 0xAC6), (2, 0x58D), (3, 0x634)])
def test_the_multicast_hash_is_the_one_drivers_compute(bench: Bench, offset: int, hash_: int) -> None:
    bench.up(rctl=offset << 12)
    frame = ethernet(bytes(60), to=MULTICAST)
    bench.model.receive([frame])
    assert bench.frames() == []
    bench.write("MTA", 1 << (hash_ & 31), hash_ >> 5)
    bench.model.receive([frame])
    ((_, status, _, _),) = bench.received()
    assert status & RxStatus.PIF
    assert bench.read("MPRC") == 1


def test_address_filters(bench: Bench) -> None:
    bench.up(rctl=0)
    other, broadcast = b"\x02\xaa\xbb\xcc\xdd\xee", b"\xff" * 6

    def arrivals(rctl: int) -> list[tuple[bytes, bool]]:
        bench.write("RCTL", Rctl.EN | rctl)
        bench.model.receive([ethernet(bytes(60), to=to) for to in (MAC, other, MULTICAST, broadcast)])
        return [(data[:6], bool(status & RxStatus.PIF)) for data, status, _, _ in bench.received()]

    assert arrivals(0) == [(MAC, False)]
    assert arrivals(Rctl.BAM) == [(MAC, False), (broadcast, False)]
    assert arrivals(Rctl.UPE) == [(MAC, False), (other, True)]
    assert arrivals(Rctl.MPE) == [(MAC, False), (MULTICAST, True), (broadcast, True)]
    bench.write("RA", int.from_bytes(other[:4], "little"), 30)
    bench.write("RA", int.from_bytes(other[4:], "little") | 1 << 31, 31)
    assert arrivals(0) == [(MAC, False), (other, False)]
    bench.write("RA", 0, 31)
    bench.write("RA", 0, 1)
    assert arrivals(0) == []
    assert bench.read("TPR") == 24
    assert bench.read("GPRC") == 10


def test_vlan_filter_and_stripping(bench: Bench) -> None:
    bench.up(rctl=Rctl.VFE)
    bench.write("VET", 0x8100)
    bench.write("VFTA", 1 << 4, 100 >> 5)
    plain = ethernet(bytes(60))
    tagged = {vid: plain[:12] + b"\x81\x00" + vid.to_bytes(2, "big") + plain[12:] for vid in (100, 101)}
    bench.model.receive([plain, tagged[100], tagged[101]])
    assert bench.frames() == [plain, tagged[100]]
    bench.write("CTRL", bench.read("CTRL") | Ctrl.VME)
    bench.model.receive([tagged[100]])
    ((data, status, _, special),) = bench.received()
    assert data[:-4] == plain
    assert data[-4:] == zlib.crc32(tagged[100]).to_bytes(4, "little")
    assert status & RxStatus.VP
    assert special == 100


def test_long_frames_need_lpe_and_span_buffers(bench: Bench) -> None:
    bench.up()
    longest, jumbo = ethernet(bytes(1504)), ethernet(bytes(range(256)) * 35)
    bench.model.receive([longest, jumbo, ethernet(bytes(1505))])
    assert bench.frames() == [longest]
    assert bench.read("ROC") == 2
    bench.write("RCTL", Rctl.EN | Rctl.LPE)
    bench.model.receive([jumbo, ethernet(bytes(16384))])
    parts = bench.received()
    assert [len(part[0]) for part in parts] == [2048, 2048, 2048, 2048, len(jumbo) + 4 - 4 * 2048]
    assert [part[1] & RxStatus.EOP for part in parts] == [0, 0, 0, 0, RxStatus.EOP]
    assert b"".join(part[0] for part in parts)[:-4] == jumbo
    assert bench.read("ROC") == 1


@pytest.mark.parametrize(
    ("bits", "size"), [(1 << 16, 1024), (2 << 16, 512), (3 << 16, 256), (1 << 25 | 3 << 16, 4096)]
)
def test_buffer_sizes(bench: Bench, bits: int, size: int) -> None:
    bench.up(rctl=bits | Rctl.LPE)
    bench.model.receive([ethernet(bytes(4500))])
    assert bench.received()[0][0] == ethernet(bytes(4500))[:size]


def test_receive_checksums(bench: Bench) -> None:
    bench.up()
    bench.write("RXCSUM", Rxcsum.IPOFL | Rxcsum.TUOFL)
    segment = ipv4(tcp(b"payload" * 30, 0x18, 5), protocol=6)
    checksum = word_sum(pseudo_header(segment) + segment[20:]) ^ 0xFFFF
    good = segment[:36] + checksum.to_bytes(2, "big") + segment[38:]
    assert transport_is_good(good)
    no_udp_checksum = ipv4(struct.pack(">HHHH", 1, 2, 28, 0) + bytes(20), protocol=17)
    fragment = ipv4(good[20:], protocol=6, flags=0x2000)
    bad_ip = good[:8] + b"\x01" + good[9:]
    packets = [good, good[:-1] + b"X", bad_ip, no_udp_checksum, fragment]
    bench.model.receive([ethernet(packet, kind=0x0800) for packet in packets] + [ethernet(bytes(60))])
    both = RxStatus.IPCS | RxStatus.TCPCS
    checked = both | RxStatus.IXSM
    assert [(status & checked, errors) for _, status, errors, _ in bench.received()] == [
        (both, 0),
        (both, 0x20),
        (both, 0x40),
        (RxStatus.IPCS, 0),
        (RxStatus.IPCS, 0),
        (RxStatus.IXSM, 0),
    ]


def test_without_descriptors_frames_wait_in_the_fifo_then_are_missed(bench: Bench) -> None:
    bench.up(buffers=2)
    frames = [ethernet(bytes([index]) * 1400) for index in range(60)]
    assert bench.model.receive(frames) == 60
    fifo = 48 * 1024 // len(frames[0])
    assert bench.read("ICR") & Icr.RXO
    assert bench.read("MPC") == 60 - 2 - fifo
    assert bench.read("RNBC") == 58
    assert bench.read("GPRC") == 2 + fifo
    assert bench.frames() == frames[:2]
    bench.write("RDT", RING - 2)
    assert bench.frames() == frames[2 : 2 + fifo]
    assert bench.line()


def test_flow_control_holds_the_other_end_back(bench: Bench) -> None:
    bench.up(buffers=2, ctrl=Ctrl.TFCE)
    bench.write("FCRTH", 20000)
    bench.write("FCRTL", 1 << 31 | 4000)
    frames = [ethernet(bytes([index]) * 1400) for index in range(60)]
    taken = bench.model.receive(frames)
    assert 2 < taken < 20
    assert (bench.model.receive_paused, bench.model.receive(frames[taken:])) == (True, 0)
    assert bench.read("XOFFTXC") == 1
    assert bench.frames() == frames[:2]
    bench.write("RDT", RING - 2)
    assert not bench.model.receive_paused
    assert bench.read("XONTXC") == 1
    assert bench.model.receive(frames[taken:40]) == 40 - taken
    assert bench.frames() == frames[2:40]
    assert bench.read("MPC") == 0


def test_the_minimum_threshold_interrupt(bench: Bench) -> None:
    bench.up(rctl=1 << 8, buffers=20)  # a quarter of 64
    frame = ethernet(bytes(60))
    bench.model.receive([frame] * 3)
    assert bench.read("ICR") == Icr.RXT0
    bench.model.receive([frame])
    assert bench.read("ICR") == Icr.RXT0 | Icr.RXDMT0
    bench.model.receive([frame])
    assert bench.read("ICR") == Icr.RXT0


def test_pause_frames_are_counted_and_kept_from_the_host(bench: Bench) -> None:
    bench.up(rctl=Rctl.MPE | Rctl.DPF)
    pause = b"\x01\x80\xc2\x00\x00\x01" + PEER + b"\x88\x08\x00\x01"
    bench.write("FCAL", 0x00C28001)
    bench.write("FCAH", 0x0100)
    bench.model.receive([pause + b"\xff\xff"])
    bench.write("CTRL", bench.read("CTRL") | Ctrl.RFCE)
    bench.model.receive([pause + b"\xff\xff", pause + b"\0\0"])
    assert bench.frames() == []
    assert [bench.read(name) for name in ("FCRUC", "XOFFRXC", "XONRXC")] == [1, 1, 1]
    other = pause[:14] + b"\x00\x02"
    bench.write("RCTL", Rctl.EN | Rctl.MPE)
    bench.model.receive([MAC + pause[6:] + b"\0\0", other])
    assert [frame[:16] for frame in bench.frames()] == [MAC + pause[6:]]
    bench.write("RCTL", Rctl.EN | Rctl.MPE | Rctl.PMCF)
    bench.model.receive([other])
    assert [frame[:16] for frame in bench.frames()] == [other]
    assert bench.read("GPRC") == 0


@pytest.mark.parametrize("way", ["mac", "phy"])
def test_loopback_needs_no_cable(bench: Bench, way: str) -> None:
    bench.up(rctl=Rctl.BAM | (1 << 6 if way == "mac" else 0))
    if way == "phy":
        bench.phy(0, 0x4140)
    bench.model.set_link(False)
    frame = ethernet(bytes(1000), to=b"\xff" * 6)
    bench.data(frame, 0)
    assert bench.send() == []
    assert bench.frames() == [frame]


def test_a_station_address_must_be_one() -> None:
    with pytest.raises(UsageError, match="station address"):
        E1000Model(b"\x01\x00\x5e\x00\x00\x01")


# ---- the platform ------------------------------------------------------------------------------------------

SLOT1, SLOT2 = PciAddress(0, 0, 1, 0), PciAddress(0, 0, 2, 0)
BASE1, BASE2 = 0xC000_0000, 0xC002_0000


@pytest.fixture
def platform(memory: MachineMemory) -> Iterator[ModelPlatform]:
    platform = ModelPlatform([E1000Model(MAC), E1000Model(PEER)])
    platform.start(memory)
    for address, base in ((SLOT1, BASE1), (SLOT2, BASE2)):
        platform.config_write(address, 0x10, 4, base)
        platform.config_write(address, 0x04, 2, 0x0006)
    yield platform
    platform.stop()


def offset(name: str) -> int:
    return BY_NAME[name].offset


def bring_up(platform: ModelPlatform, base: int, ring: int, *, tfce: bool = False) -> None:
    """Registers of one card over the bus: link, transmit ring at ``ring``, receive ring of 64 behind it."""
    for name, value in (
        ("CTRL", Ctrl.SLU | (Ctrl.TFCE if tfce else 0)),
        ("FCRTH", 20000),
        ("FCRTL", 4000),
        ("TDBAL", ring),
        ("TDLEN", RING * 16),
        ("RDBAL", ring + 0x1000),
        ("RDLEN", RING * 16),
        ("TCTL", Tctl.EN),
        ("RCTL", Rctl.EN | Rctl.BAM | Rctl.SECRC),
        ("IMS", Icr.RXT0),
    ):
        platform.bus.write(Space.MEMORY, base + offset(name), 4, value)


def test_each_slot_is_a_card_on_the_bus(platform: ModelPlatform) -> None:
    assert platform.functions() == [SLOT1, SLOT2]
    assert platform.config_read(SLOT1, 0, 4) == 0x100E_8086
    assert platform.config_read(PciAddress(0, 0, 3, 0), 0, 4) == 0xFFFF_FFFF
    for base, mac in ((BASE1, MAC), (BASE2, PEER)):
        assert platform.bus.read(Space.MEMORY, base + offset("RA"), 8).to_bytes(8, "little")[:6] == mac
    assert platform.bus.read(Space.MEMORY, 0xC800_0000, 4) == 0xFFFF_FFFF
    lines = {platform.interrupt_line(slot, pin) for slot in (SLOT1, SLOT2) for pin in (1, 2, 3, 4)}
    assert len(lines) == 8
    with pytest.raises(UsageError, match="pin"):
        platform.interrupt_line(SLOT1, 0)


def test_frames_cross_the_wires(platform: ModelPlatform, memory: MachineMemory) -> None:
    bus, (wire, other) = platform.bus, platform.wires
    assert (wire.name, other.name) == ("wire0", "wire1")
    bring_up(platform, BASE1, 0x200000)
    frame = ethernet(bytes(200), to=PEER)
    memory.view[0x210000 : 0x210000 + len(frame)] = frame
    struct.pack_into("<QQ", memory.view, 0x200000, 0x210000, len(frame) | EOP | IFCS)
    bus.write(Space.MEMORY, BASE1 + offset("TDT"), 4, 1)
    wire.socket.settimeout(5)
    assert wire.socket.recv(2048) == frame

    for slot in range(RING):
        struct.pack_into("<QQ", memory.view, 0x201000 + 16 * slot, 0x220000 + 2048 * slot, 0)
    bus.write(Space.MEMORY, BASE1 + offset("RDT"), 4, RING - 1)
    line = platform.interrupt_line(SLOT1, 1)
    assert not level(line)
    wire.socket.send(ethernet(bytes(300)))
    until("interrupt for the frame", lambda: level(line))
    assert memory.view[0x220000 : 0x220000 + 314] == ethernet(bytes(300))
    assert bus.read(Space.MEMORY, BASE1 + offset("ICR"), 4) & Icr.RXT0
    assert not level(line)


def test_back_pressure_loses_nothing_either_way(platform: ModelPlatform, memory: MachineMemory) -> None:
    bus, wire = platform.bus, platform.wires[0].socket
    bring_up(platform, BASE1, 0x200000, tfce=True)
    wire.settimeout(5)
    # Out: far more than the socket holds, read only afterwards.
    total, sent, tail, held = 6000, 0, 0, False
    received: list[bytes] = []
    while len(received) < total:
        head = bus.read(Space.MEMORY, BASE1 + offset("TDH"), 4)
        while sent < total and (tail + 1) % RING != head:
            place = 0x210000 + 2048 * tail
            memory.view[place : place + 1500] = sent.to_bytes(4, "big") * 375
            struct.pack_into("<QQ", memory.view, 0x200000 + 16 * tail, place, 1500 | EOP | IFCS)
            tail, sent = (tail + 1) % RING, sent + 1
        bus.write(Space.MEMORY, BASE1 + offset("TDT"), 4, tail)
        paused = bus.read(Space.MEMORY, BASE1 + offset("STATUS"), 4) & Status.TXOFF
        held |= bool(paused)
        if paused or sent == total:
            received += [wire.recv(2048) for _ in range(min(50, total - len(received)))]
    assert received == [index.to_bytes(4, "big") * 375 for index in range(total)]
    assert held

    # In: the card has no descriptors at first, so the sender must come to a stand.
    frames = [ethernet(index.to_bytes(4, "big") * 350) for index in range(2000)]
    wire.setblocking(False)
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
    queued = got = clean = 0
    tail = 0
    stalled = False
    while got < len(frames):
        try:
            while queued < len(frames):
                wire.send(frames[queued])
                queued += 1
        except BlockingIOError:
            stalled = True
        while clean != bus.read(Space.MEMORY, BASE1 + offset("RDH"), 4):
            assert memory.view[0x240000 + 2048 * clean :][: len(frames[0])] == frames[got]
            clean, got = (clean + 1) % RING, got + 1
        if stalled or queued == len(frames):
            for _ in range((clean - 1 - tail) % RING):
                struct.pack_into("<QQ", memory.view, 0x201000 + 16 * tail, 0x240000 + 2048 * tail, 0)
                tail = (tail + 1) % RING
            bus.write(Space.MEMORY, BASE1 + offset("RDT"), 4, tail)
    assert stalled
    assert bus.read(Space.MEMORY, BASE1 + offset("MPC"), 4) == 0


def test_cable_and_card_can_be_pulled(platform: ModelPlatform) -> None:
    bus = platform.bus
    for base in (BASE1, BASE2):
        bus.write(Space.MEMORY, base + offset("IMS"), 4, Icr.LSC)
        bus.write(Space.MEMORY, base + offset("CTRL"), 4, Ctrl.SLU)
        bus.read(Space.MEMORY, base + offset("ICR"), 4)
    line = platform.interrupt_line(SLOT1, 1)
    platform.set_link(SLOT1, False)
    assert level(line)
    assert not bus.read(Space.MEMORY, BASE1 + offset("STATUS"), 4) & Status.LU
    platform.unplug(SLOT1)
    assert not level(line)
    assert platform.config_read(SLOT1, 0, 4) == 0xFFFF_FFFF
    assert bus.read(Space.MEMORY, BASE1 + offset("STATUS"), 4) == 0xFFFF_FFFF
    bus.write(Space.MEMORY, BASE1 + offset("TDT"), 4, 1)
    platform.wires[0].socket.send(ethernet(bytes(60)))
    assert bus.read(Space.MEMORY, BASE2 + offset("STATUS"), 4) & Status.LU
    with pytest.raises(UsageError, match="no device model"):
        platform.set_link(PciAddress(0, 0, 9, 0), True)


def test_stop_closes_everything_twice_and_start_begins_anew(memory: MachineMemory) -> None:
    platform = ModelPlatform([E1000Model(MAC)])
    for _ in range(2):
        platform.start(memory)
        far = platform.wires[0].socket
        platform.config_write(SLOT1, 0x10, 4, BASE1)
        platform.config_write(SLOT1, 0x04, 2, 0x0006)
        assert platform.bus.read(Space.MEMORY, BASE1 + offset("RCTL"), 4) == 0
        platform.bus.write(Space.MEMORY, BASE1 + offset("RCTL"), 4, Rctl.EN)
        platform.stop()
        platform.stop()
        assert far.fileno() == -1
        assert platform.config_read(SLOT1, 0, 4) == 0xFFFF_FFFF
    assert platform.wires == []


def test_a_peer_that_hung_up_loses_frames_and_stops_nobody(
    platform: ModelPlatform, memory: MachineMemory
) -> None:
    bring_up(platform, BASE1, 0x200000)
    platform.wires[0].socket.close()
    struct.pack_into("<QQ", memory.view, 0x200000, 0x210000, 100 | EOP | IFCS)
    platform.bus.write(Space.MEMORY, BASE1 + offset("TDT"), 4, 1)
    assert platform.bus.read(Space.MEMORY, BASE1 + offset("TDH"), 4) == 1
    assert not platform.bus.read(Space.MEMORY, BASE1 + offset("STATUS"), 4) & Status.TXOFF


def test_too_many_devices_are_refused() -> None:
    model = E1000Model(MAC)
    with pytest.raises(UsageError, match="slot"):
        ModelPlatform([model, model])
    with pytest.raises(UsageError, match="31"):
        ModelPlatform([E1000Model(MAC) for _ in range(32)])


def test_sockets_are_ordinary_ones(platform: ModelPlatform) -> None:
    with selectors.DefaultSelector() as selector:
        for wire in platform.wires:
            assert wire.socket.type == socket.SOCK_DGRAM
            selector.register(wire.socket, selectors.EVENT_READ)
        assert selector.select(0) == []
