"""QEMU as a hardware lab: its device models on a q35 board whose processor is halted, driven from here.

QEMU runs no guest. The qtest socket gives access to registers and reports interrupt pins; message interrupts come as
eventfds (qemu_doorbell.py); the RAM is our machine memory (shared), so DMA arrives by itself. Everything that QEMU
needs is handed over as an open descriptor: nothing is left on disk, and no name can clash.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from vmkernel_core._core import ffi, lib
from vmkernel_core.bus import QtestBus, Space
from vmkernel_core.errors import DeviceGone, TimedOut, UsageError
from vmkernel_core.platform.base import WIRE_BUFFER, Apertures, PciAddress, Wire
from vmkernel_core.platform.qemu_disk import disk_arguments
from vmkernel_core.platform.qemu_doorbell import ADDRESS as DOORBELL
from vmkernel_core.platform.qemu_doorbell import Doorbell
from vmkernel_core.platform.qemu_process import QemuFailed, QemuProcess

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from vmkernel_core.memory import MachineMemory
    from vmkernel_core.platform.messages import MessageInterrupts

#: Seconds from the start of QEMU to its first reply.
START_LIMIT = 10.0
#: q35 puts RAM beyond this size above 4 GiB, where a DMA address would no longer be an offset into it.
MOST_MEMORY = 0xB000_0000
#: Bytes of the firmware (firmware.c), and how often its processor looks for work before it halts: some 0.15 ms.
FIRMWARE_SIZE = 1 << 16
SPIN = 30_000

#: Nanoseconds for vmk_windows_dead: whoever finds out that the device has gone sets a limit.
NO_LIMIT = 1 << 62

#: QEMU's disks. By default they stop the whole machine, without a word to us, when the host's file system is full: a
#: command would hang for as long as nobody makes room. Ours report it, as a disk does.
DISKS = ("scsi-hd", "scsi-cd", "scsi-block", "ide-hd", "ide-cd", "virtio-blk-device", "usb-storage")

# The 3 series host bridge's PCIEXBAR (Intel 3 Series datasheet 316966, 5.1.14): base | enable, 256 MiB.
_PCIEXBAR = 0x60
_CONFIG_BASE = 0xB000_0000
_CONFIG_ADDRESS, _CONFIG_DATA = 0xCF8, 0xCFC

# Between MMCONFIG and the I/O APIC at 0xfec00000; I/O above what the ICH9 and the ACPI blocks use.
_APERTURES = Apertures(memory=(0xC000_0000, 0x3000_0000), io=(0x1000, 0xF000))


class QemuPlatform:
    """QEMU's device models as hardware. ``devices`` are what QEMU's ``-device`` takes, such as
    ``"e1000,netdev=wire0"``: each ``netdev=NAME`` becomes a Wire, in this order in ``wires`` after ``start``.

    ``disks`` are files that disks are made of, ``"disk.raw,wwn=0x5000c50015ea71ac"``: each hangs at the last of the
    controllers that has room, unless its option ``bus`` names another. Options are those of QEMU's ``scsi-hd`` (``bus``,
    ``scsi-id``, ``lun``, ``serial``, ``wwn`` …), ``type`` for another of its disks, and those of its ``-drive``
    (``format``, raw if not given, ``readonly``, ``cache``, ``discard``, ``throttling.…``). Disk N has the id ``diskN``
    and, if no other is given, a ``wwn`` of its own.

    ``arguments`` go to QEMU as they are, for what devices refer to (``-blockdev``, ``-global``). Disks report every
    error (``werror=report``), unless a ``-device`` or a ``-global`` among them says otherwise. A NAME that a ``-netdev``
    among them defines, such as ``-netdev tap,id=wire0,ifname=tap0``, becomes no Wire.

    With ``processor`` QEMU's own processor does register accesses that come in bursts: ten times faster for drivers that
    touch registers for each frame, but it takes a core while it is awake. It is young: off unless asked for.

    While a card does not receive yet, QEMU takes one frame out of its wire beforehand, and some of its models
    drop that one while their driver sets them up. When a wire is full of frames that nobody took, QEMU keeps
    10,000 more and then drops what its card sends: its models know no back-pressure on this side.
    """

    name = "qemu"
    apertures = _APERTURES
    bus: QtestBus

    def __init__(
        self,
        devices: Sequence[str],
        *,
        disks: Sequence[str] = (),
        binary: str = "qemu-system-x86_64",
        arguments: Sequence[str] = (),
        processor: bool = False,
    ) -> None:
        """Note what the machine shall have; ``start`` looks for QEMU."""
        self._devices = [_with_id(device, index) for index, device in enumerate(devices)]
        self._disks = list(disks)
        self._binary = binary
        self._processor = processor
        self._arguments = list(arguments)
        self._process: QemuProcess | None = None
        self.messages: MessageInterrupts | None = None
        self._plugged = 0
        self.wires: list[Wire] = []

    def start(self, memory: MachineMemory) -> None:
        """Start QEMU on this memory; raises QemuMissing, UnknownDevice, QemuFailed, UsageError (its size)."""
        if memory.size > MOST_MEMORY or memory.size % (1 << 20):
            raise UsageError(
                f"QEMU's q35 board cannot have {memory.size} bytes of machine memory",
                remedy=f"whole MiB, at most {MOST_MEMORY >> 20}",
            )
        try:
            self._launch(memory)
        except OSError as error:
            self.stop()
            raise QemuFailed(f"cannot start QEMU: {error.strerror}", where=self._binary) from error
        except BaseException:
            self.stop()
            raise

    def _launch(self, memory: MachineMemory) -> None:
        with contextlib.closing(Doorbell()) as doorbell:
            # QEMU's ends are closed here once it has them: only then is it seen when it ends at once.
            with contextlib.ExitStack() as theirs:
                registers, registers_fd = _pair(theirs, socket.SOCK_STREAM)
                self.bus = QtestBus(registers)
                firmware = os.memfd_create("firmware", os.MFD_CLOEXEC)
                theirs.callback(os.close, firmware)
                os.write(firmware, bytes(ffi.buffer(lib.vmk_firmware(), FIRMWARE_SIZE)))
                ram = f"memory-backend-file,id=ram,size={memory.size},share=on,mem-path={_path(memory.fd)}"
                arguments = [
                    *("-nodefaults", "-no-user-config", "-display", "none", "-vga", "none"),
                    *("-machine", "q35,accel=tcg,memory-backend=ram,hpet=off,i8042=off,vmport=off"),
                    *("-machine", "pit=off,sata=off,smbus=off,usb=off"),
                    *("-object", ram, "-m", f"{memory.size >> 20}M", "-bios", _path(firmware)),
                    *("-chardev", f"socket,id=qtest,fd={registers_fd}"),
                    *("-object", "qtest,id=server,chardev=qtest,log=none"),
                    # Nobody runs an option ROM here, and its file is in a package of its own.
                    *("-global", "driver=pci-device,property=romfile,value="),
                    # Slots are hot-plugged the way of PCI Express; by default q35 would do it through ACPI methods.
                    *("-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off"),
                    *(part for disk in DISKS for part in ("-global", f"{disk}.werror=report")),
                    *doorbell.arguments,
                ]
                descriptors = [memory.fd, firmware, registers_fd, doorbell.descriptor]
                for name in _wire_names(self._devices, self._arguments):
                    ours, wire_fd = _pair(theirs, socket.SOCK_DGRAM)  # ours is closed by stop()
                    self.wires.append(Wire(name, ours))
                    descriptors.append(wire_fd)
                    arguments += ["-netdev", f"dgram,id={name},local.type=fd,local.str={wire_fd}"]
                for device in self._devices:
                    arguments += ["-device", device]
                arguments += disk_arguments(self._disks)
                self._process = QemuProcess(self._binary, [*arguments, *self._arguments], descriptors)
            try:
                self.bus.command("irq_intercept_in ioapic", START_LIMIT)
                self.bus.write(Space.IO, _CONFIG_ADDRESS, 4, 1 << 31 | _PCIEXBAR)
                self.bus.write(Space.IO, _CONFIG_DATA, 4, _CONFIG_BASE | 1)
                self.use_processor(memory, self._processor)
                self.messages = doorbell.connect(self.bus, _config_address(DOORBELL, 0))
            except (DeviceGone, TimedOut) as error:
                raise self._process.failure("starting it") from error

    def stop(self) -> None:
        """End QEMU, close the bus and the wires. Close windows on the bus first. May be called twice."""
        if self._process is not None:
            self._process.stop()
            self._process = None
        if self.messages is not None:
            self.messages.close()
            self.messages = None
        if hasattr(self, "bus"):
            self.bus.close()
        for wire in self.wires:
            wire.socket.close()
        self.wires.clear()

    @property
    def pid(self) -> int:
        """QEMU's process id; DeviceGone when it does not run."""
        return self._running().pid

    def monitor(self, command: str, **arguments: object) -> object:
        """Run a command of QEMU's monitor (QMP) and return its result.

        Raises UsageError when QEMU refuses it, DeviceGone when QEMU has gone, TimedOut.
        """
        return self._running().execute(command, **arguments)

    def functions(self) -> list[PciAddress]:
        """All places on the board's root bus, but for the doorbell that message interrupts go through."""
        places = (PciAddress(0, 0, device, function) for device in range(32) for function in range(8))
        return [place for place in places if place != DOORBELL]

    def config_read(self, address: PciAddress, offset: int, size: int) -> int:
        """Read 1, 2 or 4 bytes of the 4096 of configuration space; all ones where nothing answers."""
        return self.bus.read(Space.MEMORY, _config_address(address, offset), size)

    def config_write(self, address: PciAddress, offset: int, size: int, value: int) -> None:
        """Write 1, 2 or 4 bytes of configuration space."""
        self.bus.write(Space.MEMORY, _config_address(address, offset), size, value)

    def interrupt_line(self, address: PciAddress, pin: int) -> int:
        """The I/O APIC input of a pin 1…4, as q35 wires it: PIRQA…H are inputs 16…23.

        Devices 25…29 and 31 follow the ICH9's routing registers, which map INTA…D to PIRQA…D after reset;
        30 (its PCI bridge) goes to PIRQE…H; from device to device the others rotate through PIRQE…H.
        """
        if not 1 <= pin <= 4:
            raise UsageError(
                f"there is no interrupt pin {pin}", where=str(address), remedy="1 is INTA, 4 INTD"
            )
        match address.device:
            case 25 | 26 | 27 | 28 | 29 | 31:
                return 16 + pin - 1
            case 30:
                return 20 + pin - 1
            case device:
                return 20 + (device + pin - 1) % 4

    def set_link(self, address: PciAddress, up: bool) -> None:
        """Pull or plug the cable of the network device there; UsageError when there is none."""
        self.monitor("set_link", name=self._device_id(address), up=up)

    def plug(self, device: str) -> PciAddress:
        """Put a device into a hot-plug slot: what ``-device`` takes, with ``bus=`` a root port; where it is then.

        A ``netdev=`` that is new becomes a Wire, the last of ``wires``. Whoever looks after the slot is told by its
        port, and has to switch it on. Raises UsageError when QEMU refuses it, DeviceGone, TimedOut.
        """
        self._plugged += 1
        device = _with_id(device, len(self._devices) + self._plugged - 1)
        for name in _wire_names([device], self._arguments):
            if all(wire.name != name for wire in self.wires):
                self._plug_wire(name)
        driver, *settings = device.split(",")
        arguments = dict(setting.partition("=")[::2] for setting in settings)
        self.monitor("device_add", driver=driver, **arguments)
        return self._address(arguments["id"])

    def use_processor(self, memory: MachineMemory, on: bool) -> None:
        """Whether QEMU's processor may do register accesses that come in bursts: not where it shares our only core."""
        lib.vmk_qtest_processor(self.bus.handle, memory.base, SPIN if on else 0)

    def _plug_wire(self, name: str) -> None:
        with contextlib.ExitStack() as theirs:
            ours, wire_fd = _pair(theirs, socket.SOCK_DGRAM)  # ours is closed by stop()
            self.wires.append(Wire(name, ours))
            self._running().hand_over(wire_fd, name)
        self.monitor("netdev_add", type="dgram", id=name, local={"type": "fd", "str": name})

    def unplug(self, address: PciAddress) -> None:
        """Ask for the device to be taken out, as by the button of its slot, and wait until it has gone.

        Whoever looks after the slot has to switch it off: TimedOut when that does not happen. A device that is in no
        slot (q35's root bus) is taken away at once: ``pull``.
        """
        device = self._device_id(address)
        try:
            self._running().execute_until("DEVICE_DELETED", device, "device_del", id=device)
        except UsageError:  # QEMU: the bus does not support hot-plugging
            self.pull(address)

    def pull(self, address: PciAddress) -> None:
        """Take the device away at once, without asking it: configuration reads give all ones from then on.

        So do reads of its memory BARs, as on hardware; QEMU's own empty address space would give 0, which some drivers
        take for news without end.
        """
        device = self._device_id(address)
        for start, size in self._memory_bars(device):
            lib.vmk_windows_dead(self.bus.handle, start, size, NO_LIMIT)
        self.monitor("qom-set", path=f"/machine/peripheral/{device}", property="realized", value=False)
        if self.config_read(address, 0, 2) != 0xFFFF:
            raise TimedOut(f"QEMU did not take {device} away", where=str(address))

    def _running(self) -> QemuProcess:
        if self._process is None:
            raise DeviceGone("QEMU is not running", remedy="start the platform")
        return self._process

    def _device_id(self, address: PciAddress) -> str:
        found = next((name for name, place in self._places() if place == address and name), None)
        if found is None:
            raise UsageError("no device of the platform's is there", where=str(address))
        return found

    def _address(self, device: str) -> PciAddress:
        found = next((place for name, place in self._places() if name == device), None)
        if found is None:
            raise UsageError(f"{device} is on no PCI bus that was scanned")
        return found

    def _memory_bars(self, device: str) -> list[tuple[int, int]]:
        """Where the memory BARs of a device begin that has them placed, and how long they are."""
        return [
            (region["address"], region["size"])
            for found in self._pci_devices()
            if found["qdev_id"] == device
            for region in found["regions"]
            if region["type"] == "memory" and region["address"] >= 0
        ]

    def _pci_devices(self) -> list[dict[str, Any]]:
        buses: Any = self.monitor("query-pci")
        return [device for bus in buses for device in _flatten(bus["devices"])]

    def _places(self) -> list[tuple[str, PciAddress]]:
        """The ids and addresses of all PCI devices that QEMU has."""
        return [
            (device["qdev_id"], PciAddress(0, device["bus"], device["slot"], device["function"]))
            for device in self._pci_devices()
        ]


def _flatten(devices: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for device in devices:
        yield device
        yield from _flatten(device.get("pci_bridge", {}).get("devices", []))


def _pair(theirs: contextlib.ExitStack, kind: socket.SocketKind) -> tuple[socket.socket, int]:
    """A connected pair: our end, and the descriptor of QEMU's, which is closed here once QEMU has it."""
    ours, other = socket.socketpair(socket.AF_UNIX, kind)
    theirs.enter_context(other)
    if kind == socket.SOCK_DGRAM:
        for end in (ours, other):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, WIRE_BUFFER)
    return ours, other.fileno()


def _path(descriptor: int) -> str:
    return f"/proc/self/fd/{descriptor}"


def _config_address(address: PciAddress, offset: int) -> int:
    return _CONFIG_BASE | address.bus << 20 | address.devfn << 12 | offset


def _with_id(device: str, index: int) -> str:
    """The device with an id, by which the monitor knows it."""
    return device if re.search(r",id=", device) else f"{device},id=device{index}"


def _wire_names(devices: Iterable[str], arguments: Sequence[str]) -> list[str]:
    """The network back ends that devices name, but for those that the arguments define."""
    defined = {
        name
        for option, value in pairwise(arguments)
        if option.lstrip("-") == "netdev"
        for name in re.findall(r",id=([^,]+)", value)
    }
    named = [name for device in devices for name in re.findall(r",netdev=([^,]+)", device)]
    return [name for name in named if name not in defined]
