"""The judge: three verdicts on a device, what is not told, profiles, rules, overrides.

The list is judged by without the evidence that comes with it.

Independent side: the ids are those of real devices; which of them a kernel's modules claim is said by Debian's modules.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hcl import judging, native
from hcl.console.kernel import Modules
from hcl.errors import BadRule
from hcl.evidence import Check, Enclosed, Evidence, Run
from hcl.inventory import Device, Inventory, PciDevice, Unidentified, UsbDevice, UsbInterface
from hcl.judging import Judge
from hcl.reading import DRIVERS, HERE, installed, read, shipped
from hcl.report import Profile
from hcl.rules import Exclusion, parse_overrides
from hcl.verdict import Engine, Rung, Status
from vmklinux import kernels

E1000 = PciDevice(
    address="0000:02:00.0",
    vendor="8086",
    device="100e",
    subvendor="1af4",
    subdevice="1100",
    pci_class="020000",
)
BRIDGE = PciDevice(address="0000:00:1f.0", vendor="8086", device="2918", pci_class="060100")
NOBODYS = PciDevice(address="0000:06:00.0", vendor="dead", device="beef", pci_class="020000")
TG3 = PciDevice(
    address="0000:07:00.0",
    vendor="14e4",
    device="1645",
    subvendor="1028",
    subdevice="feed",
    pci_class="020000",
)
BNX2 = PciDevice(address="0000:08:00.0", vendor="14e4", device="1639", pci_class="020000")
NVME = PciDevice(address="0000:03:00.0", vendor="1b36", device="0010", pci_class="010802")
NIC_ON_USB = UsbDevice(port="1-1", vendor="0bda", product="8153")
NAMELESS = Unidentified(place="lspci.txt:3", reason="it shows names only; lspci -nn prints ids")


@pytest.fixture(scope="module")
def modules() -> Modules:
    return Modules(kernels.find("6.1"))


@pytest.fixture
def judge(modules: Modules) -> Judge:
    return Judge(read(DRIVERS), modules.release, modules)


def test_a_device_that_fits(judge: Judge) -> None:
    report = judge.device(E1000)
    assert (report.status, report.rung, report.module) == (Status.COMPATIBLE, Rung.VENDOR_DEVICE, "e1000")
    assert (report.esx_driver, report.engine) == ("net/e1000", "linux")
    assert report.hardware.status is Status.COMPATIBLE
    assert report.driver.status is Status.COMPATIBLE
    assert report.firmware.status is Status.SKIPPED
    assert "QEMU" in report.reason


def test_not_supported_and_not_known_are_told_apart(judge: Judge) -> None:
    """No module of the kernel claims the one; the other is listed, but nobody has run its module."""
    nobodys, untried = judge.device(NOBODYS), judge.device(TG3)
    assert nobodys.status is Status.UNSUPPORTED
    assert "no module of Linux" in nobodys.reason
    assert untried.status is Status.UNKNOWN
    assert "Nobody has run tg3" in untried.reason
    assert [loser.driver for loser in untried.losers] == ["net/bcm5700"]


def test_a_module_that_cannot_be_run_here_drives_nothing(judge: Judge) -> None:
    """Nobody here serves Linux's block layer, which nvme needs."""
    report = judge.device(NVME)
    assert (report.status, report.module) == (Status.UNSUPPORTED, "nvme")
    assert report.hardware.status is report.driver.status is Status.UNSUPPORTED
    for reason in (report.reason, report.driver.reason):
        assert re.search(r"nvme \(with .*nvme_core\) needs \d+ functions that nobody serves: \w+", reason)


def virtio(device: str, subdevice: str | None, pci_class: str) -> PciDevice:
    subvendor = "1af4" if subdevice else None
    return PciDevice(
        address="0000:04:00.0", vendor="1af4", device=device, subvendor=subvendor, subdevice=subdevice,
        pci_class=pci_class,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("device", "function", "status"),
    [
        (virtio("1000", "0001", "020000"), "virtio_net", Status.COMPATIBLE),
        (virtio("1041", "1100", "020000"), "virtio_net", Status.COMPATIBLE),
        (virtio("1004", "0008", "010000"), "virtio_scsi", Status.COMPATIBLE),
        (virtio("1048", "1100", "010000"), "virtio_scsi", Status.COMPATIBLE),
        (virtio("1001", "0002", "010000"), "virtio_blk", Status.UNSUPPORTED),
        (virtio("1042", "1100", "010000"), "virtio_blk", Status.UNSUPPORTED),
        (virtio("1001", None, "010000"), "virtio_blk", Status.UNSUPPORTED),
        (virtio("1000", "0008", "010000"), "virtio_scsi", Status.COMPATIBLE),
        (virtio("1044", "1100", "00ff00"), None, Status.SKIPPED),
        (virtio("1050", "1100", "030000"), None, Status.SKIPPED),
    ],
    ids=["net", "net, modern", "scsi", "scsi, modern", "blk", "blk, modern", "untold", "subsystem", "rng", "gpu"],
)  # fmt: skip
def test_virtio_devices_are_judged_by_what_they_are(
    judge: Judge, device: PciDevice, function: str | None, status: Status
) -> None:
    report = judge.device(device)
    assert (report.function, report.status) == (function, status)
    assert report.module == ("virtio_pci" if function else None)
    if function:
        assert function in report.reason


def test_a_virtio_device_of_a_type_that_nobody_knows(judge: Judge) -> None:
    report = judge.device(virtio("107f", "1100", "020000"))
    assert report.status is Status.UNSUPPORTED
    assert "no module of Linux" in report.reason
    assert "virtio:d0000003F" in report.reason


def test_without_the_kernel_what_only_its_modules_know_is_unknown(judge: Judge) -> None:
    blind = Judge(read(DRIVERS), "6.1")
    assert blind.device(NOBODYS).status is Status.UNKNOWN
    assert "vmk kernel fetch 6.1" in blind.device(NOBODYS).reason
    listed = blind.device(E1000)
    assert listed.hardware.status is Status.COMPATIBLE
    assert (listed.driver.status, listed.status) == (Status.UNKNOWN, Status.UNKNOWN)


def test_what_is_no_network_or_storage_device_is_skipped(judge: Judge) -> None:
    assert judge.device(BRIDGE).status is Status.SKIPPED


def test_a_listed_device_of_an_odd_class_is_judged(judge: Judge) -> None:
    """nForce MCP55 network controllers report themselves as bridges."""
    mcp55 = PciDevice(address="0000:00:08.0", vendor="10de", device="0373", pci_class="068000")
    assert judge.device(mcp55).esx_driver == "net/forcedeth"


def test_firmware_that_a_driver_may_ask_for_is_named(judge: Judge) -> None:
    firmware = judge.device(BNX2).firmware
    assert firmware.status is Status.UNKNOWN
    assert "bnx2/" in firmware.reason
    told = judge.device(msgspec.structs.replace(BNX2, firmware="bc 5.2.3")).firmware
    assert "The device runs bc 5.2.3." in told.reason


def test_firmware_that_nobody_told_of_takes_no_certificate_away(modules: Modules) -> None:
    """e100 may load firmware for some of its chips; its certification run had what it needed."""
    i82557 = PciDevice(address="0000:08:00.0", vendor="8086", device="1229", pci_class="020000")
    strict = Judge(installed(), modules.release, modules, profile=Profile.STRICT).device(i82557)
    assert (strict.status, strict.firmware.status) == (Status.CERTIFIED, Status.UNKNOWN)


def test_a_subsystem_that_was_not_told_matters_where_the_list_asks_for_it(judge: Judge) -> None:
    """ESX 3.5's map tells 82540EM cards apart by nothing, but cciss controllers by their subsystems."""
    assert (
        judge.device(msgspec.structs.replace(E1000, subvendor=None, subdevice=None)).status
        is Status.COMPATIBLE
    )
    cciss = PciDevice(address="0000:09:00.0", vendor="0e11", device="0046", pci_class="010400")
    report = judge.device(cciss)
    assert report.status is Status.UNKNOWN
    assert "the subsystem" in report.reason


def test_a_class_that_was_not_told(judge: Judge) -> None:
    short = judge.device(msgspec.structs.replace(E1000, pci_class="0200"))
    assert short.status is Status.COMPATIBLE
    none = judge.device(msgspec.structs.replace(NOBODYS, pci_class=None))
    assert none.status is Status.UNKNOWN
    assert "does not tell its class" in none.reason


def test_a_device_without_ids_cannot_be_determined(judge: Judge) -> None:
    report = judge.device(NAMELESS)
    assert (report.status, report.place) == (Status.UNKNOWN, "lspci.txt:3")
    assert report.reason.startswith("Cannot determine")


@pytest.mark.parametrize(
    ("device", "rung", "module"),
    [
        (NIC_ON_USB, Rung.VENDOR_DEVICE, "r8152"),
        (
            UsbDevice(
                port="2-1", vendor="0781", product="5581", usb_class="000000",
                interfaces=(UsbInterface(number=0, usb_class="080650"),),
            ),
            Rung.CLASS, "usb-storage",
        ),
        (
            UsbDevice(
                port="2-2", vendor="0fe6", product="9700", release="0101", usb_class="000000",
                interfaces=(UsbInterface(number=0, usb_class="000000"),),
            ),
            Rung.COMPATIBLE, "sr9700",
        ),
    ],
    ids=["product", "class", "claimed"],
)  # fmt: skip
def test_usb_network_and_storage_devices_are_unsupported(
    judge: Judge, device: UsbDevice, rung: Rung, module: str
) -> None:
    report = judge.device(device)
    assert (report.status, report.rung, report.module) == (Status.UNSUPPORTED, rung, module)
    assert "no USB bus" in report.reason


def test_other_usb_devices(judge: Judge) -> None:
    keyboard = UsbDevice(
        port="1-2", vendor="046d", product="c31c", usb_class="000000",
        interfaces=(UsbInterface(number=0, usb_class="030101"),),
    )  # fmt: skip
    assert judge.device(keyboard).status is Status.SKIPPED
    untold = UsbDevice(port="bus 1 device 2", vendor="046d", product="c31c")
    assert judge.device(untold).status is Status.UNKNOWN


def test_a_machine(judge: Judge) -> None:
    report = judge.machine(Inventory(host="n1", devices=(E1000, BRIDGE)))
    assert report.exit_code == 0
    assert report.counts == {"certified": 0, "compatible": 1, "unsupported": 0, "unknown": 0, "skipped": 1}


@pytest.mark.parametrize(
    ("devices", "code"), [((E1000, NOBODYS), 1), ((NOBODYS, NAMELESS), 2), ((E1000, TG3), 2), ((), 0)]
)
def test_exit_codes(judge: Judge, devices: tuple[Device, ...], code: int) -> None:
    assert judge.machine(Inventory(host="n1", devices=devices)).exit_code == code


def test_the_strict_profile_asks_for_certification(modules: Modules) -> None:
    strict = Judge(read(DRIVERS), modules.release, modules, profile=Profile.STRICT)
    report = strict.device(
        PciDevice(address="0000:05:00.0", vendor="1af4", device="1000", pci_class="020000")
    )
    assert report.status is Status.UNSUPPORTED
    assert "certification" in report.reason


@pytest.mark.parametrize(
    "rule", ["8086:100e", "8086:*", "class=02", "class=020000", "place=0000:02:*", "bus=pci"]
)
def test_a_rule_leaves_a_device_out(modules: Modules, rule: str) -> None:
    judge = Judge(read(DRIVERS), modules.release, modules, exclusions=[Exclusion.parse(rule)])
    report = judge.device(E1000)
    assert report.status is Status.SKIPPED
    assert rule in report.reason
    assert judge.device(NIC_ON_USB).status is Status.UNSUPPORTED


@pytest.mark.parametrize(
    "rule", ["", "8086", "8086:10", "class=", "class=2", "bus=isa", "vendor=8086", "place="]
)
def test_a_rule_that_says_nothing(rule: str) -> None:
    with pytest.raises(BadRule, match="VENDOR:DEVICE"):
        Exclusion.parse(rule)


def test_an_override_taints_the_report(modules: Modules) -> None:
    overrides = parse_overrides(["0000:02:00.0=e1000e"])
    report = Judge(read(DRIVERS), modules.release, modules, overrides=overrides).machine(
        Inventory(host="n1", devices=(E1000, BRIDGE))
    )
    assert report.tainted == ("0000:02:00.0 is given e1000e by an operator",)
    assert report.devices[0].module == "e1000e"
    assert report.devices[0].status is Status.UNSUPPORTED
    with pytest.raises(BadRule):
        parse_overrides(["e1000"])


# ---- drivers in Python ----


class Proofs(Evidence):
    """Evidence that the driver in Python of E1000 passed, or failed, as ``code`` of the driver."""

    def __init__(self, passed: bool, code: str) -> None:
        super().__init__()
        self.run = Run(
            suite="nic", suite_version=1, vendor="8086", device="100e", subvendor="1af4", subdevice="1100",
            pci_class="020000", engine="native", module="e1000", module_sha256=code, vmklinux=native.version(),
            counterpart="a card", started=datetime(2026, 11, 20, tzinfo=UTC), seconds=60,
            checks=(Check("link", passed),),
        )  # fmt: skip

    def newest(
        self, vendor: str, device: str, engine: Engine, module: str, series: str
    ) -> tuple[Path, Run] | None:
        mine = (self.run.vendor, self.run.device, self.run.engine, self.run.module)
        return (Path("run.json"), self.run) if (vendor, device, engine, module) == mine else None


def by_python(modules: Modules | None, evidence: Evidence | None = None, **more: Any) -> Judge:
    kernel = modules.release if modules else "6.1"
    return Judge(read(DRIVERS, evidence), kernel, modules, engine="native", **more)


@pytest.mark.parametrize("with_kernel", [True, False])
def test_a_driver_in_python_is_judged_by_itself(modules: Modules, with_kernel: bool) -> None:
    """Whether a kernel is here or not."""
    report = by_python(modules if with_kernel else None).device(E1000)
    assert (report.engine, report.module, report.driven_by) == ("native", "e1000", "e1000 in Python")
    assert (report.status, report.driver.status) == (Status.COMPATIBLE, Status.COMPATIBLE)
    assert report.driver.reason == f"e1000 in Python of vmklinux {native.version()} knows the device."
    assert report.firmware.status is Status.SKIPPED


def test_what_no_driver_in_python_knows_is_linuxs(modules: Modules) -> None:
    judge = by_python(modules)
    report = judge.device(TG3)
    assert (report.engine, report.module, report.status) == ("linux", "tg3", judge.device(TG3).status)
    assert judge.machine(Inventory(host="n1", source="a test", devices=(TG3, E1000))).engine == "native"


def test_what_a_run_of_a_driver_in_python_says(modules: Modules) -> None:
    here = native.sources_sha256(DRIVERS / "net" / "e1000")
    version = native.version()
    good = by_python(modules, Proofs(True, here), profile=Profile.STRICT).device(E1000)
    assert (good.status, good.proof_age is not None) == (Status.CERTIFIED, True)
    assert good.driver.reason == f"e1000 in Python of vmklinux {version} was certified."
    changed = by_python(modules, Proofs(True, "0" * 64)).device(E1000)
    assert changed.status is Status.CERTIFIED
    assert (
        f"its code has changed since, this is that of {version}, of the same series" in changed.driver.reason
    )
    failed = by_python(modules, Proofs(False, here)).device(E1000)
    assert (failed.status, failed.proof and failed.proof.failed) == (Status.UNSUPPORTED, ("link",))
    # Linux's module, on which nobody made a run, is what it was.
    for evidence in (Proofs(True, here), Proofs(False, here)):
        linux = Judge(read(DRIVERS, evidence), modules.release, modules, profile=Profile.DEFAULT)
        assert linux.device(E1000).status is Status.COMPATIBLE


def test_strict_asks_a_driver_in_python_for_a_run_of_its_own(modules: Modules) -> None:
    """E1000's module of Linux's is certified by the evidence that comes with the list, in its series."""
    assert Judge(installed(), modules.release, modules, profile=Profile.STRICT).device(E1000).status is (
        Status.CERTIFIED
    )
    linuxs = tuple(each for each in shipped().evidence.counting() if each.run.engine == "linux")
    only = Evidence((), [HERE / "keys"], Enclosed(Path("runs"), linuxs, ()))
    report = by_python(modules, only, profile=Profile.STRICT).device(E1000)
    assert report.status is Status.UNSUPPORTED
    assert "the profile strict asks for a certification run that passed, and there is none" in report.reason


def test_an_operator_who_names_a_module_wants_linuxs(modules: Modules) -> None:
    judge = by_python(modules, overrides={"8086:100e": "e1000"})
    assert (judge.device(E1000).engine, judge.device(E1000).status) == ("linux", Status.COMPATIBLE)


def test_engines_of_some_devices(modules: Modules) -> None:
    other = msgspec.structs.replace(E1000, address="0000:03:00.0")
    judge = Judge(read(DRIVERS), modules.release, modules, engines={E1000.address: "native"})
    assert (judge.device(E1000).engine, judge.device(other).engine) == ("native", "linux")


def test_a_list_that_knows_of_a_driver_in_python_which_is_not_here(
    modules: Modules, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(judging, "DRIVERS", tmp_path)
    report = by_python(modules).device(E1000)
    assert (report.status, report.driver.reason) == (
        Status.UNSUPPORTED,
        f"vmklinux {native.version()} has no driver e1000 in Python.",
    )
