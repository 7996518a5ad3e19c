"""The engine of drivers in Python: a driver's life on a device, whatever the driver does.

Independent of us: QEMU's edu device (docs/specs/edu.txt of QEMU), which interrupts, and whose registers tell whether it
is reached.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import ClassVar

import pytest

from vmkernel_core._core import lib
from vmkernel_core.engine import Seat
from vmkernel_core.errors import NoDriver, UsageError, VmkError
from vmkernel_core.idle import IdleLoop
from vmkernel_core.memory import MachineMemory
from vmkernel_core.net.uplinks import Uplinks
from vmkernel_core.pci import PciFunction, scan
from vmkernel_core.platform.qemu import QemuPlatform
from vmkernel_core.storage.inventory import Inventory
from vmklinux.errors import DriverStopped
from vmklinux.module.errors import BadParameter
from vmklinux.module.param import TYPES, Parameter
from vmklinux.native.device import Device, baton
from vmklinux.native.engine import Driver, NativeEngine
from vmklinux.native.irq import request_irq
from vmklinux.native.pci import PciDriver, Window, pci_enable_device, pci_iomap, pci_read_config
from vmklinux.native.timer import msleep
from vmklinux.native.workqueue import Workqueue

LIVENESS, RAISE, ACKNOWLEDGE, STATUS_OF_INTERRUPTS = 0x04, 0x60, 0x64, 0x24
COMMAND, DECODES = 0x04, 0x2
LIMIT = 20.0


class Edu(PciDriver):
    """The driver of these tests; ``lives`` has its instances, ``calls`` what happened to them."""

    name = "edu"
    known_parameters: ClassVar[Sequence[Parameter]] = (
        Parameter("edu", "cookie", TYPES["param_ops_uint"], "what the liveness register gets (default 1)"),
        Parameter("edu", "loud", TYPES["param_ops_bool"], "whether it says so (default no)"),
    )  # fmt: skip
    lives: list[Edu]
    calls: list[str]
    registers: Window

    @classmethod
    def claims(cls, function: PciFunction) -> bool:
        return (function.vendor, function.device) == (0x1234, 0x11E8)

    def probe(self) -> None:
        pci_enable_device(self.pdev)
        self.registers = pci_iomap(self.pdev, 0)
        self.registers.write(LIVENESS, 4, int(self.parameters.get("cookie", "1")))
        self.asked = threading.Event()
        request_irq(self.pdev, self.interrupt)
        self.pdev.devres.add(lambda: self.calls.append("given back"))
        self.lives.append(self)

    def interrupt(self) -> bool:
        reasons = self.registers.read(STATUS_OF_INTERRUPTS, 4)
        self.registers.write(ACKNOWLEDGE, 4, reasons)
        self.asked.set()
        return bool(reasons)

    def remove(self) -> None:
        self.calls.append("removed")

    def shutdown(self) -> None:
        self.calls.append("shut down")


class Initiator:
    """A driver without hardware."""

    name: ClassVar[str] = "initiator"
    known_parameters: ClassVar[Sequence[Parameter]] = (
        Parameter("initiator", "portal", TYPES["param_ops_charp"], "whom to ask"),
    )
    calls: list[str]

    def __init__(self, device: Device, given: Mapping[str, str]) -> None:
        self.device, self.given = device, given

    def probe(self) -> None:
        if "portal" not in self.given:
            raise UsageError("no portal is given")
        self.calls.append(self.given["portal"])
        self.device.devres.add(lambda: self.calls.append("given back"))


@pytest.fixture(autouse=True)
def calls() -> list[str]:
    """What the drivers tell, anew for each test."""
    Edu.lives = []
    Edu.calls = Initiator.calls = told = list[str]()
    return told


class Bench:
    """An engine on a machine with an edu device."""

    def __init__(self, memory: MachineMemory, idle: IdleLoop, platform: QemuPlatform) -> None:
        self.drivers: dict[str, Driver] = {"edu": Edu}
        self.drivers["initiator"] = Initiator
        self.settings: dict[str, list[str]] = {}
        self.uplinks = Uplinks(lambda _uplink, _function: None)
        self.platform = platform
        self.engine = NativeEngine(
            Seat(
                platform, memory, idle, self.uplinks, Inventory(),
                lambda _engine, name, _: self.settings.get(name, []),
                lambda _function, _error: None, {}, [],
            ),
            self.drivers.get, ["edu", "initiator"],
        )  # fmt: skip
        functions = scan(platform)
        self.edu = next(one for one in functions if one.vendor == 0x1234)
        self.other = next(one for one in functions if one is not self.edu)

    def bind(self) -> Edu:
        """Have the driver take the device."""
        assert self.engine.bind(self.edu, ["edu"]) == "edu"
        return Edu.lives[-1]

    @property
    def decodes(self) -> bool:
        """Whether the device was left switched on."""
        return bool(self.platform.config_read(self.edu.address, COMMAND, 2) & DECODES)


@pytest.fixture
def bench() -> Iterator[Bench]:
    """A machine that runs; at the end nothing is loaded."""
    with MachineMemory(64 << 20) as memory:
        idle = IdleLoop(lambda _event: None, lambda: None)
        platform = QemuPlatform(["edu"])
        lib.vmk_irq_reset()
        platform.start(memory)
        lib.vmk_idle_watch(platform.bus.handle)
        idle.start()
        bench = Bench(memory, idle, platform)
        bench.engine.start()
        yield bench
        while (name := bench.engine.next_to_unload()) is not None:
            assert bench.engine.unload(name) == []
        bench.engine.stop()
        idle.stop()
        lib.vmk_idle_unwatch(platform.bus.handle)
        platform.stop()


def raised(bench: Bench) -> DriverStopped:
    """Why the driver of the device was stopped, once it was."""
    deadline = time.monotonic() + LIMIT
    while Edu.lives[-1].pdev.stopped is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return Edu.lives[-1].pdev.stopped


def test_a_driver_takes_a_device_and_lets_go_of_it(bench: Bench, calls: list[str]) -> None:
    edu = bench.bind()
    assert bench.engine.has(bench.edu)
    assert not bench.engine.has(bench.other)
    [module] = bench.engine.modules()
    assert (module.engine, module.name, module.size, module.is_stopped) == ("native", "edu", 0, False)
    assert edu.registers.read(LIVENESS, 4) == ~1 & 0xFFFF_FFFF
    edu.registers.write(RAISE, 4, 1)
    assert edu.asked.wait(LIMIT)
    assert bench.engine.unload("edu") == []
    assert calls == ["removed", "given back"]
    assert not bench.engine.has(bench.edu)
    assert not bench.decodes
    assert bench.engine.modules() == []


def test_parameters_reach_the_driver(bench: Bench) -> None:
    bench.settings["edu"] = ["cookie=0x10", "loud"]
    edu = bench.bind()
    assert edu.parameters == {"cookie": "16", "loud": "1"}
    assert edu.registers.read(LIVENESS, 4) == ~16 & 0xFFFF_FFFF
    told = [(one.name, one.type) for one in bench.engine.parameters("edu")]
    assert told == [("cookie", "uint"), ("loud", "bool")]


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ("cooky=1", "did you mean cookie?"),
        ("cookie=much", "does not take 'much'"),
        ("cookie=-1", "from 0 to"),
    ],
)
def test_a_parameter_that_the_driver_does_not_take(bench: Bench, setting: str, text: str) -> None:
    with pytest.raises(BadParameter, match=text):
        bench.engine.check("edu", [setting])
    bench.settings["edu"] = [setting]
    with pytest.raises(BadParameter):
        bench.engine.bind(bench.edu, ["edu"])
    assert not bench.engine.has(bench.edu)
    assert not bench.decodes


def test_a_device_that_the_driver_does_not_know(bench: Bench) -> None:
    with pytest.raises(NoDriver, match="the driver edu in Python does not know the device"):
        bench.engine.bind(bench.other, ["edu"])
    with pytest.raises(UsageError, match="no driver moon in Python"):
        bench.engine.bind(bench.edu, ["moon"])
    with pytest.raises(UsageError, match="edu in Python is not loaded"):
        bench.engine.unload("edu")


def test_a_probe_that_refuses_leaves_nothing(bench: Bench, calls: list[str]) -> None:
    class Refuses(Edu):
        def probe(self) -> None:
            super().probe()
            raise VmkError("the chip is of another kind")

    bench.drivers["edu"] = Refuses
    with pytest.raises(VmkError, match="of another kind"):
        bench.engine.bind(bench.edu, ["edu"])
    assert calls == ["given back"]
    assert not bench.engine.has(bench.edu)
    assert not bench.decodes


def test_a_probe_that_fails_stops_the_driver(bench: Bench, calls: list[str]) -> None:
    class Fails(Edu):
        def probe(self) -> None:
            super().probe()
            raise ZeroDivisionError("by a register's value")

    bench.drivers["edu"] = Fails
    with pytest.raises(DriverStopped, match=r"edu was stopped: ZeroDivisionError.*Fails\.probe"):
        bench.engine.bind(bench.edu, ["edu"])
    assert calls == ["given back"]
    assert not bench.decodes
    bench.drivers["edu"] = Edu
    assert bench.bind().registers.read(LIVENESS, 4) == ~1 & 0xFFFF_FFFF


def test_an_interrupt_handler_that_fails_stops_the_driver(bench: Bench, calls: list[str]) -> None:
    class Fails(Edu):
        def interrupt(self) -> bool:
            super().interrupt()
            raise LookupError("no such descriptor")

    bench.drivers["edu"] = Fails
    edu = bench.bind()
    edu.registers.write(RAISE, 4, 1)
    assert (raised(bench).reason, raised(bench).module) == ("python", "edu")
    [module] = bench.engine.modules()
    assert module.is_stopped
    assert bench.engine.unload("edu") == []
    assert calls == ["given back"], "a driver that was stopped is not asked to remove anything"
    assert not bench.decodes


def test_a_remove_that_fails_takes_all_back(bench: Bench, calls: list[str]) -> None:
    class Fails(Edu):
        def remove(self) -> None:
            raise RuntimeError("what was it")

    bench.drivers["edu"] = Fails
    bench.bind()
    with pytest.raises(DriverStopped, match="what was it"):
        bench.engine.unbind(bench.edu, surprise=False)
    assert calls == ["given back"]
    assert not bench.engine.has(bench.edu)
    bench.bind()
    assert bench.engine.unload("edu") == []


def test_a_device_that_has_gone(bench: Bench, calls: list[str]) -> None:
    edu = bench.bind()
    bench.engine.gone(bench.edu)
    assert edu.pdev.gone
    assert edu.registers.read(LIVENESS, 4) == 0xFFFF_FFFF
    assert bench.engine.unbind(bench.edu, surprise=True) == []
    assert calls == ["removed", "given back"]
    assert bench.engine.unbind(bench.edu, surprise=True) == []


def test_a_driver_that_waits_for_a_device_that_has_gone_is_hurried(bench: Bench, calls: list[str]) -> None:
    class Waits(Edu):
        def remove(self) -> None:
            msleep(60_000)
            super().remove()

    bench.drivers["edu"] = Waits
    bench.bind()
    began = time.monotonic()
    assert bench.engine.unbind(bench.edu, surprise=True) == []
    assert time.monotonic() - began < 30
    assert calls == ["removed", "given back"]


def test_work_that_waits_for_a_device_that_has_gone_is_hurried(bench: Bench, calls: list[str]) -> None:
    """The remover waits for it."""

    class Works(Edu):
        def probe(self) -> None:
            super().probe()
            self.begun = threading.Event()
            Workqueue(self.pdev).schedule_work(self.work)

        def work(self) -> None:
            self.begun.set()
            msleep(60_000)
            self.calls.append("worked")

    bench.drivers["edu"] = Works
    edu = bench.bind()
    assert isinstance(edu, Works)
    assert edu.begun.wait(LIMIT)
    began = time.monotonic()
    assert bench.engine.unbind(bench.edu, surprise=True) == []
    assert time.monotonic() - began < 20
    assert calls == ["removed", "worked", "given back"]


def test_nobody_configures_it_while_it_is_shut_down(bench: Bench, calls: list[str]) -> None:
    class Exclusive(Edu):
        def probe(self) -> None:
            super().probe()
            self.pdev.exclusive = self.lock

        @contextmanager
        def lock(self) -> Iterator[None]:
            self.calls.append("locked")
            yield
            self.calls.append("unlocked")

    bench.drivers["edu"] = Exclusive
    bench.bind()
    bench.engine.stop()
    assert calls == ["locked", "shut down", "unlocked", "given back"]


def test_a_driver_without_hardware(bench: Bench, calls: list[str]) -> None:
    with pytest.raises(UsageError, match="no portal is given"):
        bench.engine.load("initiator")
    assert bench.engine.modules() == []
    bench.settings["initiator"] = ["portal=127.0.0.1:3260"]
    bench.engine.load("initiator")
    assert [module.name for module in bench.engine.modules()] == ["initiator"]
    bench.engine.all_gone()
    assert bench.engine.unload("initiator") == []
    assert calls == ["127.0.0.1:3260", "given back"]


def test_a_host_that_goes_down_with_drivers_at_work(bench: Bench, calls: list[str]) -> None:
    class Fails(Edu):
        def shutdown(self) -> None:
            super().shutdown()
            raise ValueError("a register of another chip")

    for driver in (Edu, Fails):
        bench.drivers["edu"] = driver
        edu = bench.bind()
        with baton():
            assert pci_read_config(edu.pdev, COMMAND, 2) & DECODES
        bench.engine.stop()
        assert not bench.decodes
        assert not bench.engine.has(bench.edu)
    assert calls == 2 * ["shut down", "given back"]
