"""The list that is shipped.

Independent side: ESX 3.5's own PCI maps and table and Broadcom's bcm5700 source, from which the ids come. The
numbers of rows here were counted in those, and the single devices are known ones (pci.ids, QEMU, lspci
listings of real machines).
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import hcl
from hcl.reading import DRIVERS, shipped

FOLDERS = sorted(path.parent for path in DRIVERS.glob("*/*/driver.toml"))


def rows_of(folder: Path) -> list[list[str]]:
    """Driver, ids, class and its mask, the modules of both kernels, source, and whether ours knows the devices."""
    file = folder / "ids.tsv"
    lines = [line.split("\t") for line in file.read_text().splitlines()] if file.exists() else []
    return [
        [f"{folder.parent.name}/{folder.name}", *line[:8], line[-1], str("native" in line)]
        for line in lines[1:]
    ]


ROWS = [row for folder in FOLDERS for row in rows_of(folder)]

ROWS_BY_DRIVER = {
    "net/e100": 33,
    "net/e1000": 61,
    "net/bcm5700": 108,
    "net/bnx2": 9,
    "net/tg3": 60,
    "net/forcedeth": 23,
    "net/pcnet32": 3,
    "block/cciss": 20,
    "scsi/adp94xx": 8,
    "scsi/aic7xxx": 87,
    "scsi/aic79xx": 22,
    "scsi/ips": 3,
    "scsi/lpfcdd-v732": 32,
    "scsi/megaraid2": 22,
    "scsi/mptscsi_2xx": 15,
    "scsi/qla2200-v7.07": 10,
    "scsi/megaraid_sas": 5,
    "scsi/qla4010": 1,
    "scsi/qla4022": 2,
    "scsi/aacraid_esx30": 63,
    "scsi/lpfcdd-v7xx": 32,
    "scsi/qla2200-v7xx": 10,
}
ROWS_BY_ESX_MAP = {
    "aacraid_esx30": 63,
    "adp94xx": 8,
    "aic7xxx": 2,
    "aic79xx": 2,
    "bnx2": 9,
    "cciss": 20,
    "e100": 33,
    "e1000": 61,
    "forcedeth": 23,
    "ips": 3,
    "lpfc_740": 32,
    "lpfcdd_732": 32,
    "megaraid_sas": 5,
    "qla2200_707": 1,
    "qla2300_707": 9,
    "qla2300_707_vmw": 10,
    "tg3": 60,
}
KERNELS = st.sampled_from(["6.1", "6.1.0-56-amd64", "6.12", "6.12.107+deb13-amd64"])


def test_every_row_of_the_sources_is_there() -> None:
    listed = [row for row in ROWS if row[9] != "native_drivers"]
    assert len(listed) == 629
    assert Counter(row[0] for row in listed) == ROWS_BY_DRIVER
    maps = Counter(
        row[9].removeprefix("esx3.5-pcimap:") for row in ROWS if row[9].startswith("esx3.5-pcimap:")
    )
    assert maps == ROWS_BY_ESX_MAP


def test_rows_of_our_own_are_of_devices_that_our_drivers_know() -> None:
    ours = [row for row in ROWS if row[9] == "native_drivers"]
    assert {row[10] for row in ours} == {"True"}
    assert Counter(row[0] for row in ours) == {"net/e100": 9, "net/e1000": 1, "scsi/megaraid_sas": 2}


def test_the_23_drivers_are_declared() -> None:
    drivers = shipped().drivers
    assert set(drivers) == {*ROWS_BY_DRIVER, "scsi/vmkiscsi"}
    assert [driver.name for driver in drivers.values() if driver.software] == ["scsi/vmkiscsi"]
    assert Counter(driver.device_class for driver in drivers.values()) == {"net": 7, "block": 1, "scsi": 15}


def test_engines() -> None:
    both = {driver.name for driver in shipped().drivers.values() if driver.engines == ("linux", "native")}
    assert both == {"net/e1000", "net/e100", "net/pcnet32", "scsi/megaraid_sas", "scsi/mptscsi_2xx"}
    assert shipped().drivers["scsi/vmkiscsi"].engines == ("native",)
    assert hcl.lookup(0x8086, 0x100E, 0, 0, 0x020000).engines == ("linux", "native")
    assert hcl.lookup(0x14E4, 0x1648, 0, 0, 0x020000).engines == ("linux",)
    assert hcl.lookup(0xFEED, 0x0001, 0, 0, 0x020000).engines == ()


def test_no_status_says_more_than_was_seen() -> None:
    seen = {
        (driver.name, name): support.status
        for driver in shipped().drivers.values()
        for name, support in driver.modules.items()
        if support.status is not hcl.Status.UNKNOWN
    }
    assert seen == dict.fromkeys(
        [
            ("net/e100", "e100"),
            ("net/e1000", "e1000"),
            ("net/e1000", "e1000e"),
            ("net/pcnet32", "pcnet32"),
            ("scsi/mptscsi_2xx", "mptsas"),
            ("scsi/megaraid_sas", "megaraid_sas"),
        ],
        hcl.Status.COMPATIBLE,
    )


@pytest.mark.parametrize("row", ROWS, ids=lambda row: "-".join(row[:7]).replace("/", "."))
@pytest.mark.parametrize(("kernel", "column"), [("6.1", 7), ("6.12", 8)])
def test_every_row_is_found(row: list[str], kernel: str, column: int) -> None:
    """A device that fits the row gets its driver, or another that has the row's driver among the losers."""
    vendor, device, subvendor, subdevice = (0xFEED if field == "*" else int(field, 16) for field in row[1:5])
    pci_class = 0xFF0000 if row[5] == "-" else int(row[5], 16)
    verdict = hcl.lookup(vendor, device, subvendor, subdevice, pci_class, kernel=kernel, engine="linux")
    rung = "exact" if row[4] != "*" else "vendor:device" if row[2] != "*" else "class"
    assert verdict.rung == rung
    module = None if row[column] == "-" else row[column].rpartition(":")[2]
    found = {(verdict.driver, verdict.module), *((loser.driver, loser.module) for loser in verdict.losers)}
    assert (row[0], module) in found


@pytest.mark.parametrize(
    ("device", "answer"),
    [
        # QEMU's e1000, e1000-82545em and e1000-82544gc
        ("8086:100e 1af4:1100 020000", "vendor:device net/e1000 e1000 certified"),
        ("8086:100f 1af4:1100 020000", "vendor:device net/e1000 e1000 compatible"),
        ("8086:100c 1af4:1100 020000", "vendor:device net/e1000 e1000 compatible"),
        # 82571EB: ESX's e1000, Linux's e1000e
        ("8086:105e 8086:115e 020000", "vendor:device net/e1000 e1000e compatible"),
        # 82574L (QEMU's e1000e): younger than ESX 3.5, so none of its drivers listed it, but ours knows it
        ("8086:10d3 8086:0000 020000", "vendor:device net/e1000 e1000e compatible"),
        # QEMU's pcnet, mptsas1068 and megasas
        ("1022:2000 0000:0000 020000", "vendor:device net/pcnet32 pcnet32 certified"),
        ("1000:0054 1000:8000 010000", "vendor:device scsi/mptscsi_2xx mptsas certified"),
        ("1000:0060 1000:1013 010400", "vendor:device scsi/megaraid_sas megaraid_sas certified"),
        # The same ids with the class of a network card and of a sound card (Trident 4DWave DX)
        ("1023:2000 1023:2000 020000", "vendor:device net/pcnet32 pcnet32 compatible"),
        ("1023:2000 1023:2000 040100", "unknown None None unknown"),
        # nForce MCP55 NICs call themselves bridges, a NetServer's MegaRAID an I2O controller
        ("10de:0372 1043:8239 068000", "vendor:device net/forcedeth forcedeth unknown"),
        ("10de:0373 1043:8239 068000", "vendor:device net/forcedeth forcedeth unknown"),
        ("8086:1960 103c:10c6 0e0001", "exact scsi/megaraid2 megaraid unknown"),
        # A Smart Array that is not listed, but has vendor and class of one
        ("103c:323a 103c:3241 010400", "class block/cciss hpsa unknown"),
        ("103c:323a 103c:3241 0104ff", "class block/cciss hpsa unknown"),
        ("103c:323a 103c:3241 010700", "unknown None None unknown"),
        # Listed by ESX, served by no module of today's
        ("14e4:167c 14e4:167c 020000", "vendor:device net/tg3 None unsupported"),
        ("1af4:1000 1af4:0001 020000", "unknown None None unknown"),
    ],
)
@pytest.mark.parametrize("kernel", ["6.1", "6.12"])
def test_known_devices(device: str, answer: str, kernel: str) -> None:
    vendor, number, subvendor, subdevice, pci_class = (
        int(each, 16) for each in device.replace(":", " ").split()
    )
    verdict = hcl.lookup(vendor, number, subvendor, subdevice, pci_class, kernel=kernel)
    assert f"{verdict.rung} {verdict.driver} {verdict.module} {verdict.status}" == answer
    assert f"{verdict.device} {verdict.subsystem} {verdict.pci_class}" == device
    assert verdict.kernel == kernel
    assert verdict.reason.startswith(f"{verdict.device} ")


@pytest.mark.parametrize(
    ("ids", "pci_class", "winner", "loser"),
    [
        ((0x14E4, 0x1645, 0x1028, 0xFEED), 0x020000, "net/tg3", "net/bcm5700"),
        ((0x9005, 0x1234, 0x9005, 0x1234), 0x010000, "scsi/aic7xxx", "scsi/aic79xx"),
        ((0x10DF, 0xF900, 0x10DF, 0xF900), 0x0C0400, "scsi/lpfcdd-v7xx", "scsi/lpfcdd-v732"),
        ((0x1077, 0x2312, 0x1077, 0x0100), 0x0C0400, "scsi/qla2200-v7xx", "scsi/qla2200-v7.07"),
    ],
)
def test_overlaps_are_decided_by_priority(
    ids: tuple[int, int, int, int], pci_class: int, winner: str, loser: str
) -> None:
    verdict = hcl.lookup(*ids, pci_class)
    assert verdict.driver == winner
    (lost,) = verdict.losers
    assert (lost.driver, lost.rung) == (loser, verdict.rung)
    assert lost.reason == f"{winner} has priority 10 over 0: {shipped().drivers[winner].priority_reason}"


def test_losers_name_the_rung_they_matched() -> None:
    verdict = hcl.lookup(0x101E, 0x1960, 0x1028, 0x0471, 0x010400)
    assert verdict.rung == "exact"
    assert [(each.driver, each.rung, each.reason) for each in verdict.losers] == [
        ("scsi/megaraid2", "vendor:device", "exact goes before vendor:device")
    ]
    # The rung goes before the priority: bcm5700 names this card's subsystem, tg3 does not.
    verdict = hcl.lookup(0x14E4, 0x1645, 0x14E4, 0x0007, 0x020000)
    assert (verdict.rung, verdict.driver) == ("exact", "net/bcm5700")
    assert [(each.driver, each.rung) for each in verdict.losers] == [
        ("net/tg3", "vendor:device"),
        ("net/bcm5700", "vendor:device"),
    ]


def test_the_limits_of_a_modules_claim_are_told() -> None:
    smart_array = hcl.lookup(0x103C, 0x3230, 0x103C, 0x3223, 0x010400)
    assert (smart_array.module, "by vendor and class only" in smart_array.reason) == ("hpsa", True)
    aic7890 = hcl.lookup(0x9004, 0x7890, 0x9004, 0x7890, 0x010000)
    assert (aic7890.module, "some of its subsystems only" in aic7890.reason) == ("aic7xxx", True)
    assert "only with another subsystem" in hcl.lookup(0x8086, 0x1960, 1, 1, 0x010400).reason


ID = st.integers(0, 0xFFFF)


@given(st.tuples(ID, ID, ID, ID), st.integers(0, 0xFFFFFF), KERNELS)
def test_any_device_gets_a_verdict(ids: tuple[int, int, int, int], pci_class: int, kernel: str) -> None:
    verdict = hcl.lookup(*ids, pci_class, kernel=kernel)
    assert (verdict.rung == "unknown") == (verdict.driver is None)
    assert verdict.driver is not None or (verdict.module is None and verdict.status == "unknown")


@pytest.mark.parametrize("kernel", ["6", "6.", "6.10", "6.120", "5.10.0-1-amd64", "", "v6.1"])
def test_a_kernel_that_the_list_does_not_cover(kernel: str) -> None:
    with pytest.raises(hcl.UnknownKernel, match=r"does not cover Linux .*; it covers 6\.1, 6\.12"):
        hcl.lookup(0x8086, 0x100E, 0, 0, 0x020000, kernel=kernel)


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("value", [-1, 0x10000])
def test_ids_out_of_range(place: int, value: int) -> None:
    vendor, device, subvendor, subdevice = (value if each == place else 1 for each in range(4))
    with pytest.raises(hcl.BadIds, match=f"16 bits; got .*{value:#x}"):
        hcl.lookup(vendor, device, subvendor, subdevice, 0x020000)


@pytest.mark.parametrize("value", [-1, 0x1000000])
def test_class_out_of_range(value: int) -> None:
    with pytest.raises(hcl.BadIds, match=f"24 bits; got {value:#x}"):
        hcl.lookup(0x8086, 0x100E, 0, 0, value)
