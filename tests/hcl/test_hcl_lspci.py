"""The lspci reader.

Independent side: pciutils' own lspci, which prints, in each of its forms, a machine that it is given as a dump of
configuration space.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hcl.errors import BadInventory
from hcl.inventory import Inventory, PciDevice, Unidentified
from hcl.readers import lspci, read, read_text

HEX4 = st.integers(0x0001, 0xFFFE).map("{:04x}".format)
HEX2 = st.integers(0, 0xFF).map("{:02x}".format)


def dump(device: PciDevice) -> str:
    """Its configuration header (PCI Local Bus 3.0, 6.1) as `lspci -x` prints it."""
    space = bytearray(64)
    for at, text in (
        (0x00, device.vendor), (0x02, device.device), (0x2C, device.subvendor), (0x2E, device.subdevice),
        (0x08, device.revision), (0x09, str(device.pci_class)[4:]), (0x0A, str(device.pci_class)[:4]),
    ):  # fmt: skip
        raw = bytes.fromhex(text or "0000")[::-1]
        space[at : at + len(raw)] = raw
    rows = (space[at : at + 16].hex(" ") for at in range(0, 64, 16))
    return f"{device.address} x\n" + "".join(
        f"{n:02x}: {row}\n" for n, row in zip(range(0, 64, 16), rows, strict=True)
    )


def printed(devices: list[PciDevice], directory: Path, *options: str) -> str:
    (directory / "dump").write_text("\n".join(map(dump, devices)))
    run = subprocess.run(
        ["lspci", "-F", directory / "dump", *options], check=True, capture_output=True, text=True
    )
    return run.stdout


MACHINE = [
    PciDevice(
        address=address, vendor=vendor, device=device, subvendor=subvendor, subdevice=subdevice, pci_class=pci_class,
        revision=revision,
    )
    for address, vendor, device, subvendor, subdevice, pci_class, revision in (
        ("0000:00:00.0", "8086", "29c0", "1af4", "1100", "060000", "00"),
        ("0000:00:08.0", "10de", "0373", "1043", "8239", "068000", "a3"),
        ("0000:02:00.1", "8086", "100e", "1af4", "1100", "020000", "03"),
        ("10000:e1:1f.7", "1000", "0060", "1028", "1f0c", "010400", "04"),
        ("0000:05:00.0", "8086", "2922", None, None, "010601", "02"),
        ("0000:06:00.0", "fffe", "fffe", "fffe", "0001", "ff0000", "00"),
    )
]  # fmt: skip


def told(inventory: Inventory, *fields: str) -> list[tuple[str | None, ...]]:
    return [tuple(getattr(device, field) for field in fields) for device in inventory.devices]


def expected(*fields: str) -> list[tuple[str | None, ...]]:
    """lspci prints the devices in the order of their addresses."""
    machine = sorted(MACHINE, key=lambda one: (int(one.address.split(":")[0], 16), one.address))
    return [tuple(getattr(device, field) for field in fields) for device in machine]


@pytest.mark.parametrize("options", [("-Dvmmnn",), ("-Dvmmn",), ("-Dmmnn",), ("-Dmmn",)], ids=" ".join)
def test_forms_for_machines_tell_all(tmp_path: Path, options: tuple[str, ...]) -> None:
    path = tmp_path / "n1.txt"
    path.write_text(printed(MACHINE, tmp_path, *options))
    inventory = read(path)
    fields = ("address", "vendor", "device", "subvendor", "subdevice", "pci_class")
    assert told(inventory, *fields) == expected(*fields)
    assert [each.revision or "00" for each in inventory.devices if isinstance(each, PciDevice)] == [
        revision for (revision,) in expected("revision")
    ]
    assert inventory.host == "n1"


@pytest.mark.parametrize("options", [("-Dn",), ("-Dnn",)], ids=" ".join)
def test_short_forms_leave_subsystem_and_interface_open(tmp_path: Path, options: tuple[str, ...]) -> None:
    inventory = read_text(printed(MACHINE, tmp_path, *options), "n1")
    assert told(inventory, "address", "vendor", "device", "subvendor") == [
        (address, vendor, device, None) for address, vendor, device in expected("address", "vendor", "device")
    ]
    classes = [pci_class for (pci_class,) in expected("pci_class")]
    assert all(
        str(got).startswith(str(want)[:4]) and str(want).startswith(str(got))
        for (got,), want in zip(told(inventory, "pci_class"), classes, strict=True)
    )


@pytest.mark.parametrize("options", [("-Dnnv",), ("-Dnv",), ("-Dnnvvx",)], ids=" ".join)
def test_verbose_forms_tell_the_subsystem(tmp_path: Path, options: tuple[str, ...]) -> None:
    inventory = read_text(printed(MACHINE, tmp_path, *options), "n1")
    fields = ("address", "vendor", "device", "subvendor", "subdevice")
    assert told(inventory, *fields) == expected(*fields)


@pytest.mark.parametrize("options", [("-D",), ("-Dmm",), ("-Dvmm",), ("-Dv",)], ids=" ".join)
def test_names_are_not_taken_for_ids(tmp_path: Path, options: tuple[str, ...]) -> None:
    known = MACHINE[:5]
    inventory = read_text(printed(known, tmp_path, *options), "n1")
    assert len(inventory.devices) == len(known)
    assert all(isinstance(device, Unidentified) for device in inventory.devices)
    assert {"82540EM" in (device.name or "") for device in inventory.devices} == {True, False}


def test_drivers_in_use() -> None:
    """As lspci -nnk prints them on a machine; a dump of configuration space has none."""
    text = (
        "00:02.0 Ethernet controller [0200]: Intel Corporation 82540EM [8086:100e] (rev 03)\n"
        "\tDeviceName: Onboard LAN\n"
        "\tSubsystem: Red Hat, Inc. QEMU Virtual Machine [1af4:1100]\n"
        "\tKernel driver in use: e1000\n"
        "\tKernel modules: e1000, e1000_old\n"
        "00:03.0 Ethernet controller [0200]: Intel Corporation 82574L [8086:10d3]\n"
        "\tKernel modules: e1000e\n"
    )
    bound, free = read_text(text, "n1").devices
    assert isinstance(bound, PciDevice)
    assert (bound.driver, bound.modules, bound.slot) == ("e1000", ("e1000", "e1000_old"), "Onboard LAN")
    assert (bound.subvendor, bound.subdevice) == ("1af4", "1100")
    assert bound.name == "Intel Corporation 82540EM"
    assert isinstance(free, PciDevice)
    assert (free.driver, free.modules) == ("", ("e1000e",))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("00:02.0 0200: 8086:100e\nrubbish\n", 2),
        ("00:02.0 0200: 8086:100e\n00:03.0\n", 2),
        ('00:02.0 "0200" "8086" "100e"\n00:03.0 "0200" "8086\n', 2),
        ('00:02.0 "0200" "8086"\n', 1),
        ("Slot:\t00:02.0\nClass:\t0200\nVendor:\t8086\nDevice:\t100e\n\nSlot:\t00:03.0\nClass:\t0200\n", 6),
        ("Slot:\t00:02.0\nrubbish\n", 2),
        ("Slot:\t00:02.0\nClass:\t0200\nVendor:\t8086\nDevice:\t82540EM\n", 1),
    ],
)
def test_what_lspci_does_not_print_is_named_by_its_line(text: str, line: int) -> None:
    with pytest.raises(BadInventory, match=rf"n1:{line}\)"):
        read_text(text, "n1")


ADDRESSES = st.builds(
    "{:04x}:{:02x}:{:02x}.{}".format,
    st.integers(0, 0xFFFF), st.integers(0, 255), st.integers(0, 31), st.integers(0, 7),
)  # fmt: skip
DEVICES = st.builds(
    PciDevice, address=ADDRESSES, vendor=HEX4, device=HEX4, pci_class=st.builds("{}{}".format, HEX4, HEX2),
    revision=HEX2, subvendor=HEX4, subdevice=HEX4, driver=st.sampled_from(["e1000", "megaraid_sas"]),
    modules=st.just(("e1000",)),
)  # fmt: skip
RECORD = """Slot:\t{d.address}
Class:\tX [{base}]
Vendor:\tY [{d.vendor}]
Device:\tZ [1] [{d.device}]
SVendor:\tV [{d.subvendor}]
SDevice:\tW [{d.subdevice}]
Rev:\t{d.revision}
ProgIf:\t{interface}
Driver:\t{d.driver}
Module:\te1000
"""


@given(st.lists(DEVICES))
def test_whatever_machine_is_printed_is_read(devices: list[PciDevice]) -> None:
    text = "\n".join(
        RECORD.format(d=d, base=str(d.pci_class)[:4], interface=str(d.pci_class)[4:]) for d in devices
    )
    again = lspci.read(text, "n1").devices
    fields = (
        "address", "vendor", "device", "subvendor", "subdevice", "pci_class", "revision", "driver", "modules",
    )  # fmt: skip
    assert [[getattr(d, f) for f in fields] for d in again] == [
        [getattr(d, f) for f in fields] for d in devices
    ]


@given(st.text())
def test_any_text_is_an_inventory_or_an_error_with_its_place(text: str) -> None:
    try:
        inventory = lspci.read(text, "n1")
    except BadInventory as error:
        where = error.where
    else:
        where = inventory.source.removeprefix("lspci: ")
    assert where.startswith("n1")
