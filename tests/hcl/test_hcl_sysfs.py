"""The reader of /sys trees.

Independent side: pciutils' lspci and the running kernel's own /sys; the trees built here have what the kernel's
documentation says of them.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from hcl.errors import BadInventory
from hcl.inventory import PciDevice, UsbDevice, UsbInterface
from hcl.readers import read, read_text


def write(directory: Path, **attributes: str) -> Path:
    directory.mkdir(parents=True)
    for name, value in attributes.items():
        (directory / name).write_text(f"{value}\n")
    return directory


def card(top: Path, address: str = "0000:02:00.0", **more: str) -> Path:
    values = {
        "vendor": "0x8086", "device": "0x100e", "subsystem_vendor": "0x1af4", "subsystem_device": "0x1100",
        "class": "0x020000", "revision": "0x03", **more,
    }  # fmt: skip
    return write(top / "bus/pci/devices" / address, **values)


def test_this_machine_is_read_as_lspci_reads_it() -> None:
    printed = subprocess.run(["lspci", "-Dvmmnnk"], check=True, capture_output=True, text=True).stdout
    fields = ("address", "vendor", "device", "pci_class", "driver")
    ours = [device for device in read(Path("/sys")).devices if isinstance(device, PciDevice)]
    theirs = read_text(printed, "lspci").devices if printed else ()
    # lspci says nothing of a driver where a device has none.
    assert [tuple(getattr(d, f) or "" for f in fields) for d in ours] == [
        tuple(getattr(d, f) or "" for f in fields) for d in theirs
    ]


def test_a_pci_device(tmp_path: Path) -> None:
    device = card(tmp_path)
    driver = write(tmp_path / "bus/pci/drivers/e1000")
    write(driver / "module", version="7.3.21-k8-NAPI")
    (device / "driver").symlink_to(driver)
    write(tmp_path / "bus/pci/slots/3-1", address="0000:02:00")
    write(tmp_path / "class/dmi/id", sys_vendor="QEMU", product_name="Standard PC")
    inventory = read(tmp_path)
    assert inventory.model == "QEMU Standard PC"
    assert inventory.devices == (
        PciDevice(
            address="0000:02:00.0", vendor="8086", device="100e", subvendor="1af4", subdevice="1100",
            pci_class="020000", revision="03", driver="e1000", driver_version="7.3.21-k8-NAPI", slot="3-1",
        ),
    )  # fmt: skip


def test_a_copy_without_links_tells_the_driver_by_its_text(tmp_path: Path) -> None:
    card(tmp_path / "sys", uevent="DRIVER=e1000\nPCI_CLASS=20000")
    card(tmp_path / "sys", "0000:03:00.0", label="Onboard LAN")
    bound, free = read(tmp_path).devices
    assert isinstance(bound, PciDevice)
    assert isinstance(free, PciDevice)
    assert (bound.driver, free.driver, free.slot) == ("e1000", "", "Onboard LAN")


def test_usb_devices_and_their_interfaces(tmp_path: Path) -> None:
    devices = tmp_path / "bus/usb/devices"
    hub = {"idVendor": "1d6b", "idProduct": "0002", "bDeviceClass": "09", "bcdDevice": "0601"}
    write(devices / "usb1", **hub)
    write(devices / "1-0:1.0", bInterfaceNumber="00", bInterfaceClass="09")
    stick = {
        "idVendor": "0781",
        "idProduct": "5581",
        "bcdDevice": "0100",
        "manufacturer": "SanDisk",
        "product": "Ultra",
    }
    write(devices / "1-1.2", **stick, bDeviceClass="00", bDeviceSubClass="00", bDeviceProtocol="00")
    write(
        devices / "1-1.2:1.0", bInterfaceNumber="00", bInterfaceClass="08", bInterfaceSubClass="06",
        bInterfaceProtocol="50", uevent="DRIVER=usb-storage",
    )  # fmt: skip
    by_port = {device.port: device for device in read(tmp_path).devices if isinstance(device, UsbDevice)}
    assert by_port["usb1"].interfaces == (UsbInterface(number=0, usb_class="090000", driver=""),)
    assert by_port["1-1.2"] == UsbDevice(
        port="1-1.2", vendor="0781", product="5581", release="0100", usb_class="000000", name="SanDisk Ultra",
        interfaces=(UsbInterface(number=0, usb_class="080650", driver="usb-storage"),),
    )  # fmt: skip


@pytest.mark.parametrize("attribute", ["vendor", "device"])
@pytest.mark.parametrize("value", ["", "0x", "0x12", "zz", "0x123456"])
def test_a_malformed_attribute_is_named(tmp_path: Path, attribute: str, value: str) -> None:
    card(tmp_path, **{attribute: value})
    with pytest.raises(BadInventory, match=rf"\$\.{attribute}.*0000:02:00\.0"):
        read(tmp_path)


def test_a_directory_that_is_no_tree(tmp_path: Path) -> None:
    with pytest.raises(BadInventory, match="no tree of /sys"):
        read(tmp_path)
