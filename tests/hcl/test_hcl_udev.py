"""The readers of udev's database and of umockdev's recordings, and of lsusb's output.

Independent side: udevadm and lsusb, which print the machine that umockdev simulates.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hcl.errors import BadInventory
from hcl.inventory import PciDevice, UsbDevice, UsbInterface
from hcl.readers import lsusb, read, read_text, udev
from tests.hcl.mock import MACHINE, run_in

CARD = PciDevice(
    address="0000:00:02.0", vendor="8086", device="100e", subvendor="1af4", subdevice="1100", pci_class="020000",
    revision="03", driver="e1000",
)  # fmt: skip
STICK = UsbDevice(
    port="1-1", vendor="0781", product="5581", release="0100", usb_class="000000",
    interfaces=(UsbInterface(number=0, usb_class="080650", driver="usb-storage"),),
)  # fmt: skip


def test_a_recording() -> None:
    inventory = read(MACHINE)
    assert inventory.host == "machine"
    assert inventory.model == "Example Server 1"
    card, hub, stick, unconfigured = inventory.devices
    assert (card, stick) == (CARD, STICK)
    assert isinstance(hub, UsbDevice)
    assert (hub.port, hub.usb_class) == ("usb1", "090000")
    assert isinstance(unconfigured, UsbDevice)
    assert unconfigured.interfaces is None


def test_udevs_database() -> None:
    printed = run_in(MACHINE, "udevadm", "info", "--export-db")
    assert printed.returncode == 0
    inventory = read_text(printed.stdout, "n1")
    assert inventory.source == "udev: n1"
    # The database tells no revision.
    assert inventory.devices[0] == msgspec.structs.replace(CARD, revision=None)
    assert STICK in inventory.devices


def test_lsusb_without_descriptors() -> None:
    printed = run_in(MACHINE, "lsusb").stdout
    devices = {device.place: device for device in read_text(printed, "n1").devices}
    stick = devices["usb 001/002"]
    assert isinstance(stick, UsbDevice)
    assert (stick.vendor, stick.product, stick.interfaces) == ("0781", "5581", None)
    assert len(devices) == 3


def test_lsusb_with_descriptors() -> None:
    printed = run_in(MACHINE, "lsusb", "-v").stdout
    devices = {device.place: device for device in read_text(printed, "n1").devices}
    stick = devices["usb 001/002"]
    assert isinstance(stick, UsbDevice)
    assert (stick.release, stick.usb_class) == ("0100", "000000")
    assert stick.interfaces == (UsbInterface(number=0, usb_class="080650"),)
    unconfigured = devices["usb 001/003"]
    assert isinstance(unconfigured, UsbDevice)
    assert unconfigured.interfaces == (UsbInterface(number=0, usb_class="020600"),)


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("P: /devices/a\nrubbish\n", 2, "rubbish"),
        ("P: /devices/a\n\nE: SUBSYSTEM=pci\n", 3, "SUBSYSTEM"),
        ("P: /devices/a\nP: /devices/b\n", 2, "/devices/b"),
        ("\nP: /devices/a\nE: SUBSYSTEM=pci\n", 2, "PCI_ID"),
        ("P: /devices/0000:00:02.0\nE: SUBSYSTEM=pci\nE: PCI_ID=8086\nE: PCI_CLASS=20000\n", 1, "unpack"),
        ("P: /devices/0000:00:02.0\nE: SUBSYSTEM=pci\nE: PCI_ID=8086:xyz\nE: PCI_CLASS=20000\n", 1, "device"),
        ("P: /devices/1-1\nE: SUBSYSTEM=usb\nE: DEVTYPE=usb_device\nE: PRODUCT=1/2\n", 1, "unpack"),
        ("P: /devices/1-1\nE: SUBSYSTEM=usb\nE: DEVTYPE=usb_device\nE: PRODUCT=1/2/3\nE: TYPE=x\n", 1, "int"),
        (
            "P: /devices/1-1\nE: SUBSYSTEM=usb\nE: DEVTYPE=usb_device\nE: PRODUCT=1/2/3\n\n"
            "P: /devices/1-1/1-1:1.0\nE: SUBSYSTEM=usb\nE: DEVTYPE=usb_interface\n", 6, "INTERFACE",
        ),
    ],
)  # fmt: skip
def test_a_malformed_database_is_named_by_its_line(text: str, line: int, what: str) -> None:
    with pytest.raises(BadInventory, match=rf"{what}.*\(n1:{line}\)"):
        read_text(text, "n1")


def test_a_malformed_list_of_usb_devices() -> None:
    with pytest.raises(BadInventory, match=r"\(n1:2\)"):
        read_text("Bus 001 Device 002: ID 0781:5581 SanDisk\nBus 001 Device 2: ID rubbish\n", "n1")


@given(st.text(alphabet=st.sampled_from("PEAL: =/\n\\0x8f") | st.characters()))
def test_any_text_is_an_inventory_or_an_error_with_its_place(text: str) -> None:
    for reader in (udev, lsusb):
        try:
            inventory = reader.read(text, "n1")
        except BadInventory as error:
            where = error.where
        else:
            where = inventory.source.rpartition(" ")[2]
        assert where.startswith("n1")


@pytest.mark.parametrize("content", ["", "\n\n", "hello", "-----BEGIN", "<html>", "00:02 rubbish"])
def test_what_is_no_inventory_is_said_so(tmp_path: Path, content: str) -> None:
    path = tmp_path / "file.txt"
    path.write_text(content)
    with pytest.raises(BadInventory, match=r"nobody here can read this.*file\.txt"):
        read(path)


@pytest.mark.parametrize(
    ("content", "where", "what"),
    [
        ('{"host": "a", "devices": [\n{"bus": "pci"}]}', "", "missing required field"),
        ('{"host": "a",\n "devices": [}', ":2", "not JSON"),
        ('{"version": 2, "host": "a", "devices": []}', "", "version 1"),
        ('{"host": "a", "devices": [{"bus": "isa"}]}', "", "isa"),
        (
            '{"host": "a", "devices": [{"bus":"pci","address":"2.0","vendor":"8086","device":"1"}]}',
            "",
            "address",
        ),
    ],
)
def test_malformed_json_of_our_own(content: str, where: str, what: str) -> None:
    with pytest.raises(BadInventory, match=rf"{what}.*\(n1{where}\)"):
        read_text(content, "n1")


def test_a_file_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(BadInventory, match="No such file"):
        read(tmp_path / "absent")
    (tmp_path / "binary").write_bytes(b"00:02.0\n\xff\xfe")
    with pytest.raises(BadInventory, match=r"not UTF-8.*binary:2"):
        read(tmp_path / "binary")


SOUND = [
    MACHINE.read_text(),
    "00:02.0 Ethernet controller [0200]: Intel 82540EM [8086:100e] (rev 03)\n\tKernel driver in use: e1000\n",
    "Slot:\t0000:00:02.0\nClass:\tX [0200]\nVendor:\tY [8086]\nDevice:\tZ [100e]\nRev:\t03\n\n",
    '00:02.0 "0200" "8086" "100e" -r03 "1af4" "1100"\n',
    "Bus 001 Device 002: ID 0781:5581 SanDisk\nDevice Descriptor:\n  bDeviceClass            0 \n",
    '{"host": "n1", "devices": [{"bus": "pci", "address": "0000:00:02.0", "vendor": "8086", "device": "100e"}]}',
]


@given(st.sampled_from(SOUND), st.data())
def test_a_damaged_inventory_is_read_or_refused_with_its_place(text: str, data: st.DataObject) -> None:
    """Pieces are taken out, doubled, or replaced by rubbish, as copying and mailing do."""
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(at, min(at + 40, len(text))))
        between = data.draw(st.sampled_from(["", text[at:end] * 2, "\n", "\0", "\t:", "[ffff:", "\u2028"]))
        text = text[:at] + between + text[end:]
    try:
        where = read_text(text, "n1").source
    except BadInventory as error:
        where = error.where
    assert "n1" in where or text.lstrip().startswith("{")
