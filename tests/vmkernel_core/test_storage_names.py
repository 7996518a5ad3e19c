"""Names and errors of storage devices, from data as SPC-4 shows it and as real disks sent it.

Independent of us: the bytes, which are examples of the standard and pages read from disks by sg_vpd and sg_raw.
"""

from __future__ import annotations

import pytest

from vmkernel_core.errors import DeviceGone, NotSupported
from vmkernel_core.storage.command import Completion, HostStatus
from vmkernel_core.storage.errors import (
    IllegalRequest,
    MediumError,
    PathLost,
    ScsiError,
    Sense,
    WriteProtected,
    error_for,
)
from vmkernel_core.storage.naming import designators, device_name

#: A SAS disk's page: the unit's NAA name, the port's NAA name, a relative port.
SAS = bytes.fromhex(
    "0083001c 01030008 5000c50015ea71ac 61930008 5000c50015ea71ad 61140004 00000001".replace(" ", "")
)
#: A page with a T10 name only: vendor "ATA", then text.
T10 = b"\x00\x83\x00\x1c\x02\x01\x00\x18ATA     QEMU HARDDISK 42"
EUI = bytes.fromhex("0083000c 01020008 0011223344556677".replace(" ", ""))
INQUIRY = b"\0\0\5\2\x1f\0\0\2LSI     MR9261-8i       2.13"


def test_the_unit_names_itself_and_not_its_port() -> None:
    assert [found.association for found in designators(SAS)] == [0, 1, 1]
    assert device_name(SAS, b"", INQUIRY) == "naa.5000c50015ea71ac"


@pytest.mark.parametrize(
    ("page", "serial", "name"),
    [
        (EUI, b"", "eui.0011223344556677"),
        (T10, b"", "t10.ATA_____QEMU_HARDDISK_42"),
        (b"", b"\0\x80\0\x040815", "t10.LSI_MR9261-8i_0815"),
        (b"", b"", ""),
        (b"\0\x83\0\x0c\1\3\0\x20short", b"", "naa.73686f7274"),
    ],
)
def test_names_in_their_order_of_worth(page: bytes, serial: bytes, name: str) -> None:
    assert device_name(page, serial, INQUIRY) == name


def test_sense_data_in_both_formats() -> None:
    fixed = bytes.fromhex("f00003000003e80a00000000110000000000")
    assert Sense.parse(fixed) == Sense(3, 0x11, 0, 1000)
    described = bytes.fromhex("720311000000000c000a800000000000000003e8")
    assert Sense.parse(described) == Sense(3, 0x11, 0, 1000)
    assert str(Sense(3, 0x11, 0, 1000)) == (
        "medium error: unrecovered read error (key 0x3, asc 0x11, ascq 0x00) at block 1000"
    )
    assert Sense.parse(b"") is None
    assert Sense.parse(bytes(18)) is None


@pytest.mark.parametrize(
    ("completion", "kind", "words"),
    [
        (
            Completion(0, 2, sense=bytes.fromhex("700003000000000a00000000110000000000")),
            MediumError,
            "unrecovered read",
        ),
        (
            Completion(0, 2, sense=bytes.fromhex("700005000000000a00000000200000000000")),
            IllegalRequest,
            "operation code",
        ),
        (
            Completion(0, 2, sense=bytes.fromhex("700007000000000a00000000270000000000")),
            WriteProtected,
            "write protected",
        ),
        (Completion(HostStatus.NO_CONNECT, 0), PathLost, "no connect"),
        (Completion(0, 0x18), ScsiError, "reservation conflict"),
        (Completion(0x77, 0), ScsiError, "0x77"),
    ],
)
def test_each_end_has_its_exception(completion: Completion, kind: type[ScsiError], words: str) -> None:
    error = error_for(completion, "read of 1 blocks at 0", "naa.1")
    assert type(error) is kind
    assert words in str(error)
    assert not completion.good


def test_what_they_are_besides() -> None:
    assert issubclass(PathLost, DeviceGone)
    assert issubclass(IllegalRequest, NotSupported)
    assert Completion(0, 0).good
    assert Completion(0, 4).good
