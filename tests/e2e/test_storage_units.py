"""Several units behind one controller: disks with small and large blocks, a second LUN, a disk that takes no writes,
a CD, and a drive whose medium comes and goes.

Independent of us: QEMU's controllers and units, Debian's modules for them, and the files behind the units.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from tests.e2e.engines import Engine, on_each
from tests.e2e.storage import CONTROLLERS, LIMIT, Controller, leaks
from vmkernel_core.boot import VMkernel
from vmkernel_core.errors import UsageError
from vmkernel_core.platform.qemu import QemuPlatform
from vmkernel_core.storage.device import StorageDevice
from vmkernel_core.storage.errors import WriteProtected

SIZE = 1 << 20


@dataclass(frozen=True)
class Unit:
    """A unit: QEMU's device, its target and LUN, whether it has a medium, and options of unit and drive."""

    device: str
    target: int
    lun: int = 0
    medium: bool = True
    block_size: int = 512
    options: str = ""
    drive: str = ""

    @property
    def name(self) -> str:
        """Its world wide name, as the vmkernel has it."""
        return f"naa.5000c50015ea7{self.target:02x}{self.lun}"


UNITS = {
    "first": Unit("scsi-hd", 0),
    "second": Unit("scsi-hd", 1),
    "second LUN": Unit("scsi-hd", 1, lun=1),
    "large blocks": Unit("scsi-hd", 2, block_size=4096, options=",logical_block_size=4096,physical_block_size=4096"),
    "protected": Unit("scsi-hd", 3, drive=",readonly=on"),
    "CD": Unit("scsi-cd", 4, block_size=2048, drive=",readonly=on"),
    "empty": Unit("scsi-cd", 5, medium=False),
}  # fmt: skip
#: Controllers whose model in QEMU knows LUNs.
WITH_LUNS = ("am53c974", "virtio-scsi")


#: Each kind of controller that takes SCSI units; a RAID controller of QEMU's has no names for its disks.
driven = on_each("megasas", "mptsas1068", "lsi53c895a", "lsi53c810", "am53c974", "virtio-scsi", "pvscsi")


@pytest.fixture(scope="module")
def units(controller: Controller) -> dict[str, Unit]:
    """What is behind it."""
    luns = controller in [CONTROLLERS[name] for name in WITH_LUNS]
    return {name: unit for name, unit in UNITS.items() if luns or not unit.lun}


@pytest.fixture(scope="module")
def images(
    engine: Engine, units: dict[str, Unit], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """The files of the units, each with noise of its own; that of the empty drive is not in it yet."""
    folder = tmp_path_factory.mktemp("units")
    for number, name in enumerate(units):
        (folder / name).write_bytes(Random(number).randbytes(SIZE))
    return {name: folder / name for name in units}


@pytest.fixture(scope="module")
def host(
    controller: Controller, engine: Engine, units: dict[str, Unit], images: dict[str, Path]
) -> Iterator[VMkernel]:
    """A host with all of them; at its end nothing may have leaked."""
    devices, arguments = [f"{controller.device},id=hba"], []
    for number, (name, unit) in enumerate(units.items()):
        wwn = f"wwn=0x{unit.name.removeprefix('naa.')}"
        place = f"scsi-id={unit.target},lun={unit.lun},id=unit{number}"
        drive = f",drive=hd{number}" if unit.medium else ""
        devices.append(f"{unit.device},bus=hba.0,{place},{wwn}{drive}{unit.options}")
        if unit.medium:
            arguments += ["-drive", f"if=none,id=hd{number},file={images[name]},format=raw{unit.drive}"]
    with VMkernel(QemuPlatform(devices, arguments=arguments), **engine.options) as host:
        host.wait_storage(len(units), timeout=LIMIT)
        yield host
    assert leaks(host, controller) == []


@pytest.fixture(scope="module")
def devices(host: VMkernel, units: dict[str, Unit]) -> dict[str, StorageDevice]:
    """The units as the vmkernel shows them."""
    by_place = {device.path.partition(":T")[2]: device for device in host.storage.values()}
    assert len(by_place) == len(units)
    return {name: by_place[f"{unit.target}:L{unit.lun}"] for name, unit in units.items()}


def test_each_unit_says_what_it_is(
    controller: Controller, units: dict[str, Unit], devices: dict[str, StorageDevice]
) -> None:
    for name, unit in units.items():
        device = devices[name]
        assert device.kind == (5 if unit.device == "scsi-cd" else 0), name
        assert device.removable == (unit.device == "scsi-cd"), name
        assert device.read_only == (name in ("protected", "CD", "empty")), name
        assert device.medium == unit.medium, name
        if unit.medium:
            assert (device.block_size, device.capacity) == (unit.block_size, SIZE), name
        if controller.wwn:
            assert device.name == unit.name


def test_each_unit_has_its_own_blocks(devices: dict[str, StorageDevice], images: dict[str, Path]) -> None:
    for name, device in devices.items():
        if device.medium:
            assert device.read(0, device.blocks) == images[name].read_bytes(), name


def test_each_unit_takes_writes_for_itself(
    devices: dict[str, StorageDevice], images: dict[str, Path]
) -> None:
    """All at once, and several blocks of each."""
    before = {name: image.read_bytes() for name, image in images.items()}
    writable = {name: device for name, device in devices.items() if not device.read_only}
    parts = {name: Random(name).randbytes(16 * device.block_size) for name, device in writable.items()}
    requests = [request for name, part in parts.items() for request in writable[name].start_write(7, part)]
    for request in requests:
        request.result()
    for name, part in parts.items():
        writable[name].flush()
        at, expected = 7 * writable[name].block_size, before[name]
        assert images[name].read_bytes() == expected[:at] + part + expected[at + len(part) :], name


def test_what_is_protected_stays(devices: dict[str, StorageDevice], images: dict[str, Path]) -> None:
    before = images["protected"].read_bytes()
    with pytest.raises(WriteProtected):
        devices["protected"].write(0, bytes(512))
    assert images["protected"].read_bytes() == before


def test_a_medium_comes_and_goes(
    host: VMkernel, units: dict[str, Unit], devices: dict[str, StorageDevice], images: dict[str, Path]
) -> None:
    drive = devices["empty"]
    with pytest.raises(UsageError, match="no medium"):
        drive.read(0, 1)
    unit = f"unit{list(units).index('empty')}"
    host.platform.monitor(  # type: ignore[attr-defined]  # QEMU's platform has it
        "blockdev-change-medium", id=unit, filename=str(images["empty"]), format="raw"
    )
    drive.refresh()
    assert (drive.medium, drive.blocks, drive.block_size) == (True, SIZE // 2048, 2048)
    assert drive.read(0, drive.blocks) == images["empty"].read_bytes()
    host.platform.monitor("eject", id=unit, force=True)  # type: ignore[attr-defined]  # likewise
    drive.refresh()
    assert (drive.medium, drive.blocks) == (False, 0)
