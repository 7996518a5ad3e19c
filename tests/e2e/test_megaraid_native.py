"""megaraid_sas in Python: what is its own, beyond what every storage driver does.

Independent of us: QEMU's controllers of both generations, whose firmware state is read from their registers, and the
image files. QEMU tells no event of its own, so the one here is written into the driver's frame by the test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import SimpleQueue

import pytest

from native_drivers.scsi.megaraid_sas import driver as driver_module
from native_drivers.scsi.megaraid_sas.driver import MegaraidSas
from native_drivers.scsi.megaraid_sas.firmware import MfiError, State
from native_drivers.scsi.megaraid_sas.frames import EventDetail
from native_drivers.scsi.megaraid_sas.registers import IDB, OSP0
from tests.e2e.storage import LIMIT, NAA, WWN, blank, only_disk
from tests.vmkernel_core.hardware import until
from vmkernel_core.boot import VMkernel
from vmkernel_core.bus import Space
from vmkernel_core.errors import NotSupported, TimedOut, VmkError
from vmkernel_core.pci_function import COMMAND, COMMAND_MEMORY, BarKind
from vmkernel_core.platform.qemu import QemuPlatform
from vmkernel_core.storage.command import Command, Direction, HostStatus
from vmkernel_core.storage.device import StorageDevice
from vmkernel_core.storage.events import StorageEvent
from vmklinux.errors import DriverStopped
from vmklinux.native.device import baton
from vmklinux.native.pci import PciDev
from vmklinux.native.power import resume, suspend
from vmklinux.native.scsi import scsi_hosts
from vmklinux.native.scsi_cmnd import ScsiCmnd

READ_ONE = bytes([0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0])
GENERATIONS = ("megasas", "megasas-gen2")


@pytest.fixture(params=GENERATIONS)
def device(request: pytest.FixtureRequest) -> str:
    """QEMU's controller of each generation."""
    return str(request.param)


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    """The files behind two disks."""
    return [blank(tmp_path / "first.raw"), blank(tmp_path / "second.raw")]


@contextmanager
def boot(device: str, images: list[Path], options: str = "") -> Iterator[VMkernel]:
    """A host with a controller, and a disk for each image at every second target."""
    devices, arguments = [f"{device},id=hba"], []
    for number, image in enumerate(images):
        devices.append(
            f"scsi-hd,id=disk{number},drive=hd{number},bus=hba.0,scsi-id={2 * number},wwn={WWN + number:#x}"
        )
        arguments += ["-drive", f"if=none,id=hd{number},file={image},format=raw{options}"]
    with VMkernel(QemuPlatform(devices, arguments=arguments), engine="native") as host:
        host.wait_storage(len(images), timeout=LIMIT)
        yield host
    assert host.leaks == []


def driver_of(host: VMkernel) -> MegaraidSas:
    """The driver's instance."""
    [scsi_host] = scsi_hosts.hosts
    assert isinstance(scsi_host.template, MegaraidSas)
    return scsi_host.template


def reader(host: VMkernel) -> Callable[[], int]:
    """Reads the state of the firmware from the register, past the driver, which may have switched the BARs off."""
    [adapter] = (a for a in host.adapters if a.function.vendor == 0x1000)
    [bar] = (bar for bar in adapter.function.bars if bar.kind is not BarKind.IO and bar.size == 0x4000)
    platform, address = host.platform, adapter.function.address

    def read() -> int:
        command = platform.config_read(address, COMMAND, 2)
        platform.config_write(address, COMMAND, 2, command | COMMAND_MEMORY)
        value = platform.bus.read(Space.MEMORY, bar.address + OSP0.offset, 4)
        platform.config_write(address, COMMAND, 2, command)
        return OSP0(value).STATE

    return read


def test_the_adapter_tells_of_its_logical_drives_and_their_members(device: str, images: list[Path]) -> None:
    with boot(device, images) as host:
        adapter = host.storage_adapters["vmhba0"]
        assert adapter.model.startswith("LSI MegaRAID SAS")
        for word in ("LD 0 RAID 0 optimal (slot 0 online)", "LD 2 RAID 0 optimal (slot 2 online)"):
            assert word in adapter.model
        assert [disk.path for disk in host.storage.values()] == ["vmhba0:C2:T0:L0", "vmhba0:C2:T2:L0"]
        assert next(iter(host.storage)) == NAA
        # As many segments as QEMU's firmware takes: Linux's driver stops at 60.
        assert scsi_hosts.hosts[0].sg_tablesize == 80
        assert adapter.queue_depth > 900


def test_disks_that_are_passed_through(device: str, images: list[Path]) -> None:
    with boot(f"{device},use_jbod=on", images) as host:
        assert [disk.path for disk in host.storage.values()] == ["vmhba0:C0:T0:L0", "vmhba0:C0:T2:L0"]
        for disk, image in zip(host.storage.values(), images, strict=True):
            assert disk.read(8, 8) == image.read_bytes()[4096:8192]
            disk.write(0, b"passed  " * 64)
            disk.flush()
            assert image.read_bytes()[:512] == b"passed  " * 64


def test_it_goes_down_in_order(device: str, images: list[Path]) -> None:
    """Removed, the firmware is where it was before the driver came; the driver finds it there again."""
    with boot(device, images) as host:
        state = reader(host)
        assert state() == State.OPERATIONAL
        for disk in host.storage.values():
            disk.write(3, b"cached  " * 64)
        host.unload("megaraid_sas")
        assert state() == State.READY
        assert [image.read_bytes()[1536:2048] for image in images] == [b"cached  " * 64] * 2
        host.load("megaraid_sas")
        assert state() == State.OPERATIONAL
        assert len(host.storage) == 2


def fails(commands: Sequence[ScsiCmnd]) -> int:
    """What a driver does that is wrong."""
    return len(commands) // 0


def test_a_firmware_that_nobody_stopped_is_taken_over(device: str, images: list[Path]) -> None:
    """A driver that fails is stopped, without a word to the firmware, which still works when the next one comes."""
    with boot(device, images) as host:
        state, driver = reader(host), driver_of(host)
        disk = host.storage[NAA]
        driver.queuecommand = fails  # type: ignore[method-assign]
        assert disk.submit(bytes(6)).wait(LIMIT).host == HostStatus.NO_CONNECT
        with pytest.raises(DriverStopped):
            disk.read(0, 1)
        assert state() == State.OPERATIONAL
        host.unload("megaraid_sas")
        host.load("megaraid_sas")
        assert host.storage[NAA].read(0, 8) == images[0].read_bytes()[:4096]


def test_a_firmware_with_a_fault_is_reset(
    device: str, images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver_module, "FAULT_LOOK", 3600.0)  # nobody else is to find it
    with boot(device, images) as host:
        state, firmware = reader(host), driver_of(host).firmware
        adapter = host.storage_adapters["vmhba0"]
        with baton():
            firmware.registers.write(IDB(STOP_ADP=1))
            firmware.window.flush()
        assert state() == State.FAULT
        with baton(), ExitStack() as stack:
            if device == "megasas":
                stack.enter_context(pytest.raises(NotSupported))
            firmware.reset_adapter()
        assert state() == (State.FAULT if device == "megasas" else State.READY)
        # To mask all interrupts resets QEMU's firmware, of either generation.
        adapter.reset()
        assert (state(), adapter.state) == (State.OPERATIONAL, "online")
        assert host.storage[NAA].read(0, 8) == images[0].read_bytes()[:4096]


def test_a_fault_is_found_and_mended(device: str, images: list[Path]) -> None:
    """Nobody asks for it: the driver looks at the state each second."""
    with boot(device, images) as host:
        state, firmware, errors = reader(host), driver_of(host).firmware, scsi_hosts.hosts[0].errors
        with baton():
            firmware.registers.write(IDB(STOP_ADP=1))
            firmware.window.flush()
        until("the controller is reset", lambda: errors.resets == 1, LIMIT)
        assert host.storage[NAA].read(0, 8) == images[0].read_bytes()[:4096]
        assert state() == State.OPERATIONAL


def test_a_sleep_that_fails_leaves_it_awake(
    device: str, images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with boot(device, images) as host:
        driver, disk = driver_of(host), host.storage[NAA]

        def refuse() -> None:
            raise MfiError("CTRL_CACHE_FLUSH", 0x15, where="here")

        with monkeypatch.context() as patch:
            patch.setattr(driver, "_flush", refuse)
            with baton(), pytest.raises(MfiError):
                driver.suspend()
        assert disk.read(0, 8) == images[0].read_bytes()[:4096]
        assert driver.events.slot >= 0
        host.storage_adapters["vmhba0"].reset()


def test_a_command_that_no_frame_carries_ends_at_once(device: str, images: list[Path]) -> None:
    with boot(device, images) as host:
        disk = host.storage[NAA]
        assert disk.submit(bytes([0x7F, *bytes(31)])).wait(LIMIT).host == HostStatus.ABORT
        assert disk.read(0, 8) == images[0].read_bytes()[:4096]


def test_a_read_of_more_blocks_than_there_is_room_for_harms_nobody(device: str, images: list[Path]) -> None:
    """It goes as a CDB with the length of its data, since the firmware's own read would be told of the blocks alone."""
    with boot(device, images) as host:
        disk = host.storage[NAA]
        with disk.buffer(1024) as buffer:
            buffer.view[:] = b"\xee" * 1024
            two = bytes([0x28, *bytes(7), 2, 0])
            [request] = disk.start([Command(two, Direction.FROM_DEVICE, buffer, 0, 512, retries=0)])
            request.wait(LIMIT)
            assert bytes(buffer.view[512:]) == b"\xee" * 512
        assert disk.read(0, 8) == images[0].read_bytes()[:4096]


def test_an_event_whose_scan_fails_stops_nobody(
    device: str, images: list[Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A reset may take the commands of the scan."""
    with boot(device, images) as host:
        driver = driver_of(host)

        def fails() -> None:
            raise VmkError("LD_GET_LIST was forgotten in a reset")

        monkeypatch.setattr(driver, "scan_start", fails)
        with baton():
            driver.events.look()
        until("it was tried", lambda: "forgotten in a reset" in caplog.text, LIMIT)
        assert host.storage[NAA].read(0, 8) == images[0].read_bytes()[:4096]


def test_commands_wait_while_it_sleeps(device: str, images: list[Path]) -> None:
    with boot(device, images) as host:
        state, pdev, disk = reader(host), driver_of(host).pdev, host.storage[NAA]
        assert isinstance(pdev, PciDev)
        with baton():
            suspend(pdev)
        request = disk.submit(READ_ONE, Direction.FROM_DEVICE, 512)
        with pytest.raises(TimedOut):
            request.wait(0.2)
        with baton():
            resume(pdev)
        request.result(LIMIT)
        assert request.buffer is not None
        assert bytes(request.buffer.view) == images[0].read_bytes()[:512]
        assert state() == State.OPERATIONAL
        disk.write(5, b"x" * 512)
        disk.flush()
        assert images[0].read_bytes()[5 * 512 : 6 * 512] == b"x" * 512


def slow(disk: StorageDevice) -> Command:
    """A read whose time is up before the throttle lets it through."""
    return Command(READ_ONE, Direction.FROM_DEVICE, disk.buffer(512), 0, 512, timeout=1.0, retries=0)


def test_a_command_that_takes_too_long_is_aborted(device: str, images: list[Path]) -> None:
    """The disk is throttled so that the command waits for some seconds; QEMU cancels it, and says nothing meanwhile."""
    with boot(device, images[:1], ",throttling.iops-total=1,throttling.iops-size=4096") as host:
        disk = only_disk(host)
        disk.read(0, 48)  # QEMU counts it as six requests
        [request] = disk.start([slow(disk)])
        assert request.wait(2 * LIMIT).host == HostStatus.TIME_OUT
        assert disk.stats().timeouts == 1
        assert disk.in_flight == 0
        assert host.storage_adapters["vmhba0"].state == "online"
        assert scsi_hosts.hosts[0].errors.resets == 0
        assert disk.read(0, 1) == images[0].read_bytes()[:512]


def test_an_event_has_the_drives_looked_for(device: str, images: list[Path], tmp_path: Path) -> None:
    with boot(device, images) as host:
        driver, platform = driver_of(host), host.platform
        file = {"driver": "file", "filename": str(blank(tmp_path / "new.raw"))}
        platform.monitor("blockdev-add", **{"driver": "raw", "node-name": "new", "file": file})  # type: ignore[attr-defined]  # QEMU's
        platform.monitor(  # type: ignore[attr-defined]  # likewise
            "device_add", driver="scsi-hd", drive="new", bus="hba.0", wwn=WWN + 7, **{"scsi-id": 5}
        )
        told: SimpleQueue[StorageEvent] = SimpleQueue()
        host.watch_storage(told.put)
        slot = driver.events.slot
        with baton():
            EventDetail.at(driver.firmware.data(slot)).set(seq=9, code=0x5B, description=b"inserted")
            driver.firmware.table[slot].cmd_status = 0
            assert driver.firmware.answered(slot)
            driver.events.answered(slot)
        kinds = [told.get(timeout=LIMIT).kind for _ in range(4)]
        assert kinds == ["appeared", "changed", "changed", "changed"]
        assert "LD 5" in host.storage_adapters["vmhba0"].model
        assert host.storage[f"naa.{WWN + 7:x}"].read(0, 1) == (tmp_path / "new.raw").read_bytes()[:512]
        assert driver.events.slot >= 0  # it waits for the next one
