"""A host whose devices have drivers in Python: without any kernel, and beside Linux's on the same machine.

Independent side: QEMU's cards, controllers and disk images; Debian's modules where both engines are at work.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from native_drivers.net.e1000.driver import E1000
from tests.e2e.conftest import LIMIT, Peer, exchange
from tests.e2e.packets import PEER, ethernet, raw_address
from tests.e2e.storage import blank
from vmkernel_core.adapter import Adapter
from vmkernel_core.boot import VMkernel
from vmkernel_core.engine import EngineName
from vmkernel_core.errors import NoDriver, UsageError, VmkError
from vmkernel_core.net.uplink import UplinkEvent
from vmkernel_core.platform.e1000_model import E1000Model
from vmkernel_core.platform.model import ModelPlatform
from vmkernel_core.platform.qemu import QemuPlatform
from vmklinux import kernels
from vmklinux.errors import DriverStopped
from vmklinux.kernels import Kernel, NoKernel
from vmklinux.module.errors import BadParameter

E1000_IDS, RTL8139_IDS, MEGASAS_IDS = (0x8086, 0x100E), (0x10EC, 0x8139), (0x1000, 0x0060)
NEVER = "6.99"  # a machine may have a kernel of its own, but not this one

#: What a program on a host without kernels does; it forgets to stop. The driver's last words are its uplink's event.
PROGRAM = f"""
from pathlib import Path
from tests.e2e.conftest import exchange
from vmkernel_core.boot import VMkernel
from vmkernel_core.platform.qemu import QemuPlatform

host = VMkernel(QemuPlatform(["e1000,netdev=wire0"]), engine="native", kernel="{NEVER}")
host.start()
exchange(host)
[card] = [adapter for adapter in host.adapters if adapter.bound]
print(host.engines, card.engine, card.module, [module.name for module in host.modules()])
print([line for line in Path("/proc/self/maps").read_text().splitlines() if "vmlinux" in line])
host.subscribe(lambda event: print(event.kind, flush=True))
"""


def test_a_process_with_no_kernel_on_its_machine(tmp_path: Path) -> None:
    none = tmp_path / "none"
    none.mkdir()
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | {"VMK_KERNELS": str(none)},
        capture_output=True, text=True, check=False, timeout=6 * LIMIT,
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.splitlines() == ["('native',) native e1000 ['e1000']", "[]", "removed"]
    assert list(none.iterdir()) == []


@pytest.fixture
def no_kernel(monkeypatch: pytest.MonkeyPatch) -> NoKernel:
    """A machine on which there is no kernel."""
    error = NoKernel("no kernel here", where="/none", remedy="run: vmk kernel fetch 6.1")

    def find(release: str | None = None) -> Kernel:
        raise error

    monkeypatch.setattr(kernels, "find", find)
    return error


def adapter(host: VMkernel, ids: tuple[int, int]) -> Adapter:
    (found,) = (one for one in host.adapters if (one.function.vendor, one.function.device) == ids)
    return found


def model() -> ModelPlatform:
    return ModelPlatform([E1000Model()])


@pytest.mark.parametrize(
    "platform", [model, lambda: QemuPlatform(["e1000,netdev=wire0"])], ids=["model", "qemu"]
)
def test_without_a_kernel_drivers_in_python_are_taken(
    platform: Callable[[], ModelPlatform | QemuPlatform], no_kernel: NoKernel
) -> None:
    with VMkernel(platform()) as host:
        card = adapter(host, E1000_IDS)
        assert (card.choice.engine, card.choice.policy, card.choice.override) == ("native", "linux", None)
        assert (card.bound, card.error, host.taints) == (True, None, ())
        exchange(host)
        with pytest.raises(NoKernel):
            _ = host.kernel
    assert host.leaks == []


@pytest.mark.parametrize(
    "options", [{"engine": "linux"}, {"engines": {"net/e1000": "linux"}}, {"kernel": NEVER}]
)
def test_whoever_wants_linux_is_told_that_no_kernel_is_there(
    options: dict[str, Any], no_kernel: NoKernel
) -> None:
    with pytest.raises(NoKernel, match="vmk kernel fetch"):
        VMkernel(model(), **options).start()


def test_a_host_that_could_drive_nothing_is_told_that_no_kernel_is_there(no_kernel: NoKernel) -> None:
    with pytest.raises(NoKernel):
        VMkernel(QemuPlatform(["rtl8139"])).start()


@pytest.mark.parametrize("engine", ["native", None])
def test_a_device_that_only_linux_could_drive_is_left_alone(
    engine: EngineName | None, no_kernel: NoKernel
) -> None:
    with VMkernel(QemuPlatform(["e1000,netdev=wire0", "rtl8139"]), engine=engine) as host:
        left = adapter(host, RTL8139_IDS)
        assert not left.bound
        assert isinstance(left.error, NoDriver)
        assert "no kernel is here" in str(left.error)
        assert left.error.remedy == no_kernel.remedy
        exchange(host)


def test_an_engine_that_there_is_not() -> None:
    with pytest.raises(UsageError, match="no engine windows; use linux or native"):
        VMkernel(model(), engine="windows")  # type: ignore[arg-type]  # that is the test
    with pytest.raises(UsageError, match="no engine bsd"):
        VMkernel(model(), engines={"net/e1000": "bsd"})  # type: ignore[dict-item]  # likewise


# ---- beside Linux ----


@pytest.mark.parametrize(
    ("options", "card", "raid"),
    [
        ({}, ("linux", None), ("linux", None)),
        ({"engine": "linux"}, ("linux", "linux"), ("linux", "linux")),
        ({"engine": "native"}, ("native", "native"), ("native", "native")),
        ({"engines": {"net/e1000": "native"}}, ("native", "native"), ("linux", None)),
        ({"engines": {"1000:0060": "native"}}, ("linux", None), ("native", "native")),
        (
            {"engine": "native", "engines": {"0000:00:01.0": "linux"}},
            ("linux", "linux"),
            ("native", "native"),
        ),
        # Whoever names a module of Linux's wants Linux.
        ({"engine": "native", "modules": {"8086:100e": "e1000"}}, ("linux", None), ("native", "native")),
    ],
)
def test_who_drives_a_device(
    kernel61: Kernel, options: Mapping[str, Any], card: tuple[str, str | None], raid: tuple[str, str | None]
) -> None:
    with VMkernel(
        QemuPlatform(["e1000,netdev=wire0", "megasas"]), kernel=kernel61.release, **options
    ) as host:
        for ids, told in ((E1000_IDS, card), (MEGASAS_IDS, raid)):
            found = adapter(host, ids)
            assert (found.bound, found.error) == (True, None)
            assert (found.choice.engine, found.choice.override, found.choice.policy) == (
                *told,
                "linux",
            )
        exchange(host)
        assert list(host.storage_adapters) == ["vmhba0"]
        engines = {module.name: module.engine for module in host.modules()}
        assert (engines["e1000"], engines["megaraid_sas"]) == (card[0], raid[0])
        assert set(host.engines) >= {card[0], raid[0]}
    assert host.leaks == []


def test_a_device_that_the_driver_in_python_does_not_know_is_linuxs(
    kernel61: Kernel, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with VMkernel(
        QemuPlatform(["rtl8139", "e1000,netdev=wire0"]), kernel=kernel61.release, engine="native"
    ) as host:
        other = adapter(host, RTL8139_IDS)
        assert (other.choice.engine, other.choice.override, other.bound) == ("linux", "native", True)
        assert "Linux is to drive it: the list names no driver for it" not in caplog.text
        assert adapter(host, E1000_IDS).engine == "native"
        assert set(host.uplinks) == {"vmnic0", "vmnic1"}
        assert host.linux is not None
    assert host.leaks == []


def test_adapters_of_both_engines_have_names_of_one_row(kernel61: Kernel, tmp_path: Path) -> None:
    images = [blank(tmp_path / f"{number}.raw", 1 << 20) for number in range(2)]
    images[1].write_bytes(images[1].read_bytes()[::-1])
    platform = QemuPlatform(
        ["megasas,id=a,addr=4", "megasas,id=b,addr=5"],
        disks=[f"{image},bus={bus}.0" for image, bus in zip(images, "ab", strict=True)],
    )
    with VMkernel(platform, kernel=kernel61.release, engines={"0000:00:05.0": "native"}) as host:
        host.wait_storage(2)
        assert [(str(one.pci_address), one.state) for one in host.storage_adapters.values()] == [
            ("0000:00:04.0", "online"),
            ("0000:00:05.0", "online"),
        ]
        assert list(host.storage_adapters) == ["vmhba0", "vmhba1"]
        for disk in host.storage.values():
            image = images[int(disk.adapter.name[-1])]
            assert disk.read(0, disk.blocks) == image.read_bytes()
        with pytest.raises(UsageError, match="linux and native have a module megaraid_sas; say which"):
            host.unload("megaraid_sas")
        assert host.unload("megaraid_sas", engine="native") == []
        assert list(host.storage_adapters) == ["vmhba0"]
        assert [module.engine for module in host.modules() if module.name == "megaraid_sas"] == ["linux"]
        host.load("megaraid_sas", engine="native")
        assert list(host.storage_adapters) == ["vmhba0", "vmhba1"]
    assert host.leaks == []


def test_uplinks_of_both_engines_carry_frames(kernel61: Kernel) -> None:
    platform = QemuPlatform(["e1000,netdev=wire0", "e1000,netdev=wire1,mac=52:54:00:12:34:57"])
    with (
        ThreadPoolExecutor(2) as pool,
        VMkernel(platform, kernel=kernel61.release, engines={"0000:00:02.0": "native"}) as host,
    ):
        for adapter, wire in zip((one for one in host.adapters if one.bound), platform.wires, strict=True):
            nic, peer = adapter.uplink, Peer(wire.socket, pool)
            assert nic is not None
            with nic:
                nic.wait_link(timeout=LIMIT)
                peer.listens(nic)
                frames = [ethernet(PEER, bytes([n]) * 60, source=raw_address(nic.mac)) for n in range(100)]
                assert peer.sent_by(nic, frames) == frames
        assert {one.engine for one in host.adapters if one.uplink} == {"linux", "native"}
    assert host.leaks == []


def test_both_engines_share_an_interrupt_line(kernel61: Kernel) -> None:
    # QEMU's board leads the pins of slots that are four apart to the same line.
    platform = QemuPlatform(["e1000,netdev=wire0,addr=4", "e1000,netdev=wire1,addr=8,mac=52:54:00:12:34:57"])
    with (
        ThreadPoolExecutor(2) as pool,
        VMkernel(platform, kernel=kernel61.release, engines={"0000:00:08.0": "native"}) as host,
    ):
        cards = [one for one in host.adapters if one.bound]
        assert len({one.function.line for one in cards}) == 1
        assert [one.engine for one in cards] == ["linux", "native"]
        peers = [Peer(wire.socket, pool) for wire in platform.wires]
        for adapter in cards:
            assert adapter.uplink is not None
            adapter.uplink.open()
        for adapter, peer in zip(cards, peers, strict=True):
            assert adapter.uplink is not None
            adapter.uplink.wait_link(timeout=LIMIT)
            peer.listens(adapter.uplink)
        for number in range(20):
            for adapter, peer in zip(cards, peers, strict=True):
                assert adapter.uplink is not None
                frame = ethernet(raw_address(adapter.uplink.mac), bytes([number]) * 60)
                assert peer.received_by(adapter.uplink, [frame]) == [frame]
        assert host.unload("e1000", engine="linux") == []
        frame = ethernet(raw_address(host.uplinks["vmnic1"].mac), b"alone".ljust(60))
        assert peers[1].received_by(host.uplinks["vmnic1"], [frame]) == [frame]
    assert host.leaks == []


# ---- modules ----


def test_drivers_in_python_are_loaded_and_unloaded() -> None:
    events: list[UplinkEvent] = []
    with VMkernel(model(), engine="native", kernel=NEVER) as host:
        host.subscribe(events.append)
        card = adapter(host, E1000_IDS)
        assert host.unload("e1000") == []
        assert (card.bound, card.uplink, host.uplinks, host.modules()) == (False, None, {}, [])
        assert [event.kind for event in events] == ["removed"]
        with pytest.raises(UsageError, match="not loaded"):
            host.unload("e1000")
        host.load("e1000")
        assert (card.bound, list(host.uplinks)) == (True, ["vmnic0"])
        with pytest.raises(UsageError, match="loaded already"):
            host.load("e1000")
        with pytest.raises(BadParameter, match="has no parameter 'Speed'"):
            host.set_parameters("e1000", ["Speed=100"])
        host.set_parameters("e1000", ["TxDescriptors=512"])
        assert host.settings("e1000") == ("TxDescriptors=512",)
        about = host.module_info("e1000")
        assert (about.engine, about.kernel, about.license) == ("native", "", "GPL-2.0-or-later")
        assert about.file.endswith("native_drivers/net/e1000/__init__.py")
        with pytest.raises(VmkError, match="moon"):
            host.load("moon")
        exchange(host)


# ---- devices that go, drivers that fail ----


def test_a_device_is_taken_out_in_order() -> None:
    platform = QemuPlatform(["e1000,addr=4"])
    with VMkernel(platform, engine="native", kernel=NEVER) as host:
        nic = host.uplinks["vmnic0"]
        nic.open()
        host.unplug(adapter(host, E1000_IDS).function.address)
        assert host.uplinks == {}
        assert nic.error is not None
        assert not [one for one in host.adapters if one.bound]
    assert host.leaks == []


def test_hardware_that_vanishes() -> None:
    platform = QemuPlatform(["e1000,netdev=wire0", "megasas"])
    with VMkernel(platform, engine="native", kernel=NEVER) as host:
        nic, hba = host.uplinks["vmnic0"], host.storage_adapters["vmhba0"]
        nic.open()
        assert platform.pid is not None
        os.kill(platform.pid, 9)
        deadline = time.monotonic() + LIMIT
        while nic.error is None or hba.error is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert host.leaks == []


def test_a_driver_that_fails_stops_and_the_host_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[tuple[str, str]] = []
    platform = QemuPlatform(["e1000,netdev=wire0", "megasas"])

    def fails(self: E1000, batch: object) -> None:
        raise ZeroDivisionError("a ring of no slots")

    with VMkernel(platform, engine="native", kernel=NEVER) as host:
        host.subscribe(lambda event: events.append((event.uplink, event.kind)))
        nic = host.uplinks["vmnic0"]
        nic.open()
        nic.wait_link(timeout=LIMIT)
        with monkeypatch.context() as patch:
            patch.setattr(E1000, "ndo_start_xmit", fails)
            with pytest.raises(DriverStopped, match="ZeroDivisionError: a ring of no slots"):
                nic.transmit([bytes(60)])
        assert ("vmnic0", "stopped") in events
        assert isinstance(nic.error, DriverStopped)
        stopped = {module.name: module.is_stopped for module in host.modules()}
        assert stopped == {"e1000": True, "megaraid_sas": False}
        assert host.storage_adapters["vmhba0"].state == "online"
        assert host.unload("e1000") == []
        host.load("e1000")
        exchange(host)
    assert host.leaks == []
