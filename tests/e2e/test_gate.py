"""The gate: what the list says is unsupported is left alone, whatever could be loaded for it; what an operator overrides
is let through, and told.

Independent side: Debian's modules, QEMU's devices, openssl's key.
"""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

import hcl
from hcl import evidence, native, signing
from hcl.evidence import Check, Evidence, Run
from hcl.reading import DRIVERS, read
from hcl.report import Profile
from hcl.verdict import Status
from tests.e2e.conftest import exchange
from vmkernel_core.adapter import UNGUARDED, UNRESOLVED, Adapter
from vmkernel_core.boot import VMkernel
from vmkernel_core.console.hcl_operations import hcl_get
from vmkernel_core.console.protocol import Nothing
from vmkernel_core.errors import NoDriver
from vmkernel_core.platform.e1000_model import E1000Model
from vmkernel_core.platform.model import ModelPlatform
from vmkernel_core.platform.qemu import QemuPlatform
from vmklinux.kernels import Kernel


def host_of(kernel: Kernel, *devices: str, **more: object) -> VMkernel:
    platform = QemuPlatform(list(devices)) if devices else ModelPlatform([E1000Model()])
    return VMkernel(platform, kernel=kernel.release, **more)  # type: ignore[arg-type]  # a test's options


def adapter(host: VMkernel, vendor: int, device: int) -> Adapter:
    (found,) = (
        one for one in host.adapters if (one.function.vendor, one.function.device) == (vendor, device)
    )
    return found


@pytest.fixture
def certify(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Kernel | None, bool], None]:
    """Writes a signed run of e1000 of a kernel, or in Python, passed or failed, for a list that trusts its key, and has
    that asked.
    """
    private, public = tmp_path / "private.key", tmp_path / "public.pem"
    for command in (
        ["genpkey", "-algorithm", "ed25519", "-out", private],
        ["pkey", "-in", private, "-pubout", "-out", public],
    ):
        subprocess.run(["openssl", *map(str, command)], check=True, capture_output=True)

    def write(kernel: Kernel | None, passed: bool) -> None:
        run = Run(
            suite="nic", suite_version=1, vendor="8086", device="100e", subvendor="8086", subdevice="001e",
            pci_class="020000", engine="linux" if kernel else "native", module="e1000", module_sha256="0" * 64,
            kernel=kernel.release if kernel else "", vmklinux=msgspec.UNSET if kernel else native.version(),
            counterpart="a model", started=datetime(2026, 11, 20, 12, tzinfo=UTC), seconds=70.5,
            checks=(Check("traffic", passed),),
        )  # fmt: skip
        evidence.write(run, signing.private_key(private), tmp_path)
        registry = read(DRIVERS, Evidence([tmp_path], [public]))
        monkeypatch.setattr("hcl.reading.installed", lambda: registry)

    return write


def validated(host: VMkernel, one: Adapter) -> Status:
    """What ``hcl validate`` says of a device under the host's profile."""
    report = hcl_get(host, Nothing())
    assert report.profile is host.policy
    (status,) = (device.status for device in report.devices if device.place == str(one.function.address))
    return status


@pytest.mark.parametrize("policy", list(Profile))
def test_what_failed_its_certification_run_is_left_alone(
    kernel: Kernel,
    policy: Profile,
    certify: Callable[[Kernel | None, bool], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    certify(kernel, False)
    with host_of(kernel, policy=policy) as host:
        (card,) = host.adapters
        assert isinstance(card.error, NoDriver)
        assert "unsupported and left alone" in str(card.error)
        assert "certification run of 2026-11-20 FAILED" in str(card.error)
        assert str(card.error) in caplog.text
        assert (card.bound, host.uplinks, list(host.loader.modules)) == (False, {}, [])
        with pytest.raises(NoDriver, match="left alone"):
            host.load("e1000")
        assert host.taints == ()
        assert validated(host, card) is Status.UNSUPPORTED


@pytest.mark.parametrize("module", ["e1000", "e1000e"])
@pytest.mark.parametrize("way", ["8086:100e", "0000:00:05.0"])
def test_an_operator_gets_through_and_is_remembered(
    kernel61: Kernel, way: str, module: str, certify: Callable[[Kernel | None, bool], None]
) -> None:
    certify(kernel61, False)
    host = VMkernel(
        QemuPlatform(["e1000,netdev=wire0,addr=5"]),
        kernel=kernel61.release,
        modules={way: module},
        policy=Profile.STRICT,
    )
    with host:
        card = adapter(host, 0x8086, 0x100E)
        assert card.taint == f"{way} is given {module} by an operator"
        assert host.taints == (card.taint,)
        assert module in host.loader.modules
        assert (str(card.error) if card.error else "").startswith(
            "" if module == "e1000" else "e1000e does not claim"
        )
        report = hcl_get(host, Nothing())
        assert report.tainted == host.taints
        assert validated(host, card) is Status.UNSUPPORTED
        if module == "e1000":
            exchange(host)
        host.unplug(card.function.address)
        assert host.taints == (card.taint,), "it is not forgotten when the device goes"


def test_strict_drives_what_is_certified(
    kernel: Kernel, certify: Callable[[Kernel | None, bool], None]
) -> None:
    certify(kernel, True)
    with host_of(kernel, policy=Profile.STRICT) as host:
        (card,) = host.adapters
        assert card.verdict.status is hcl.Status.CERTIFIED
        assert validated(host, card) is Status.CERTIFIED
        exchange(host)


@pytest.mark.parametrize(
    ("device", "ids"),
    [("", (0x8086, 0x100E)), ("rtl8139,netdev=wire0,addr=5", (0x10EC, 0x8139))],
    ids=["listed", "claimed"],
)
def test_strict_leaves_what_is_only_compatible_alone(
    kernel61: Kernel,
    device: str,
    ids: tuple[int, int],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    registry = read(DRIVERS)  # without evidence
    monkeypatch.setattr("hcl.reading.installed", lambda: registry)
    with host_of(kernel61, *filter(None, [device]), policy="strict") as host:
        card = adapter(host, *ids)
        assert isinstance(card.error, NoDriver)
        assert "is compatible and left alone: the profile strict asks for a certification run" in str(
            card.error
        )
        assert str(card.error).endswith(f"the profile default lets {card.verdict.module} try")
        assert str(card.error) in caplog.text
        assert not host.loader.modules
        assert validated(host, card) is Status.UNSUPPORTED


def test_what_nobody_serves_is_left_alone(kernel: Kernel, caplog: pytest.LogCaptureFixture) -> None:
    """nvme and virtio_blk need Linux's block layer; the virtio card beside it is driven by the same virtio_pci."""
    with (
        caplog.at_level(logging.WARNING),
        host_of(
            kernel,
            "nvme-subsys,id=one",
            "nvme,subsys=one,serial=1",
            "virtio-net-pci,netdev=wire0",
            "virtio-scsi-pci",
        ) as host,
    ):
        disk, card, scsi = (
            adapter(host, *ids) for ids in ((0x1B36, 0x10), (0x1AF4, 0x1000), (0x1AF4, 0x1004))
        )
        assert isinstance(disk.error, NoDriver)
        assert "functions that nobody serves" in str(disk.error)
        assert str(disk.error) in caplog.text
        assert (disk.verdict.module, disk.verdict.status) == ("nvme", "unsupported")
        assert validated(host, disk) is Status.UNSUPPORTED
        assert "nvme" not in host.loader.modules
        assert (card.verdict.module, card.verdict.function, card.error) == ("virtio_pci", "virtio_net", None)
        assert (scsi.verdict.module, scsi.verdict.function, scsi.error) == ("virtio_pci", "virtio_scsi", None)
        exchange(host)
    assert host.leaks == []


def test_a_virtio_disk_is_left_alone(kernel: Kernel, tmp_path: Path) -> None:
    image = tmp_path / "disk.raw"
    image.write_bytes(bytes(1 << 20))
    arguments = ["-blockdev", f"driver=file,node-name=image,filename={image}"]
    platform = QemuPlatform(["virtio-blk-pci,drive=image"], arguments=arguments)
    with VMkernel(platform, kernel=kernel.release) as host:
        disk = adapter(host, 0x1AF4, 0x1001)
        assert isinstance(disk.error, NoDriver)
        assert "virtio_blk needs" in str(disk.error)
        assert disk.verdict.function == "virtio_blk"
        assert not host.loader.modules
        assert not host.loader.builtins.started


def test_who_allows_what_is_unresolved_is_remembered(kernel61: Kernel) -> None:
    with host_of(kernel61, allow_unresolved=True) as host:
        assert host.taints == (UNRESOLVED,)
        assert hcl_get(host, Nothing()).tainted == (UNRESOLVED,)
        exchange(host)


def test_a_device_that_failed_may_be_certified_again(
    kernel61: Kernel, certify: Callable[[Kernel | None, bool], None]
) -> None:
    certify(kernel61, False)
    with host_of(kernel61, gate=False) as host:
        assert host.taints == (UNGUARDED,)
        exchange(host)


# ---- drivers in Python ----

Certify = Callable[[Kernel | None, bool], None]


@pytest.mark.parametrize("policy", list(Profile))
def test_a_driver_in_python_that_failed_its_certification_run_leaves_the_device_alone(
    kernel61: Kernel, policy: Profile, certify: Certify
) -> None:
    """Though Linux's module passed."""
    certify(kernel61, True)
    certify(None, False)
    with host_of(kernel61, policy=policy, engine="native") as host:
        (card,) = host.adapters
        assert isinstance(card.error, NoDriver)
        assert "certification run of 2026-11-20 FAILED on a model, e1000 in Python" in str(card.error)
        assert (card.engine, card.bound, host.uplinks, host.modules()) == ("native", False, {}, [])
        assert validated(host, card) is Status.UNSUPPORTED
    with host_of(kernel61, policy=policy) as host:
        (card,) = host.adapters
        assert (card.engine, validated(host, card)) == ("linux", Status.CERTIFIED)
        exchange(host)


def test_strict_drives_by_python_what_is_certified_so(kernel61: Kernel, certify: Certify) -> None:
    """Though Linux's module failed."""
    certify(kernel61, False)
    certify(None, True)
    with host_of(kernel61, policy=Profile.STRICT, engine="native") as host:
        (card,) = host.adapters
        assert (card.engine, card.verdict.status) == ("native", hcl.Status.CERTIFIED)
        assert (validated(host, card), host.taints) == (Status.CERTIFIED, ())
        exchange(host)
    with host_of(kernel61, policy=Profile.STRICT) as host:
        (card,) = host.adapters
        assert (card.engine, card.bound) == ("linux", False)
        assert "FAILED on a model, kernel 6.1" in str(card.error)


def test_strict_asks_a_driver_in_python_for_a_run_of_its_own(kernel61: Kernel, certify: Certify) -> None:
    """That of Linux's module is none."""
    certify(kernel61, True)
    with host_of(kernel61, policy=Profile.STRICT, engine="native") as host:
        (card,) = host.adapters
        assert not card.bound
        assert "is compatible and left alone: the profile strict asks for a certification run" in str(
            card.error
        )
        assert validated(host, card) is Status.UNSUPPORTED


def test_strict_without_a_kernel(certify: Certify) -> None:
    """The list needs none to judge drivers in Python."""
    certify(None, True)
    with VMkernel(ModelPlatform([E1000Model()]), kernel="4.4", engine="native", policy="strict") as host:
        (card,) = host.adapters
        assert (card.engine, card.error, validated(host, card)) == ("native", None, Status.CERTIFIED)
        exchange(host)
