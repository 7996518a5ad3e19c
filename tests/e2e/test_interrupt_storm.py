"""A device that raises its line and is never served, beside an uplink that goes on working. Independent: QEMU's edu,
whose level stays up until it is acknowledged; Debian's e1000.ko on QEMU's e1000."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import exchange
from tests.e2e.interrupt_bench import EDU_ACKNOWLEDGE, EDU_RAISE, Bench, counts_to, counts_to_at_least
from vmkernel_core.boot import VMkernel
from vmkernel_core.memory import load
from vmkernel_core.platform.qemu import QemuPlatform
from vmklinux.kernels import Kernel
from vmklinux.pci import PciDevice

#: Seconds for the 100,000 interrupts after which Linux gives a line up.
GIVES_UP = 60.0


@pytest.fixture
def bench(kernel: Kernel) -> Iterator[Bench]:
    with VMkernel(QemuPlatform(["e1000,netdev=wire0,addr=5", "edu,addr=6"]), kernel=kernel.release) as host:
        yield Bench(host)
    assert host.leaks == []


@pytest.fixture
def edu(bench: Bench) -> PciDevice:
    device = bench.device(0x11E8)
    bench.enable(device)
    assert device.obj.irq != bench.device(0x100E).obj.irq
    return device


def test_a_line_that_nobody_serves(bench: Bench, edu: PciDevice, caplog: pytest.LogCaptureFixture) -> None:
    irq = edu.obj.irq
    counter = bench.listen(irq, bench.careless)
    bench.write(edu, EDU_RAISE, 1)
    counts_to_at_least(counter, 1)
    exchange(bench.host)
    with bench.host.uplinks["vmnic0"] as nic:
        deadline = time.monotonic() + GIVES_UP
        while not bench.lines()[irq].disabled:
            assert time.monotonic() < deadline, f"{load(counter, 4)} interrupts"
            for _ in range(1000):
                nic.receive()
    calls = load(counter, 4)
    # Linux judges each 100,000, and a pause of a tenth of a second, as on a busy machine, begins the count anew.
    assert calls >= 100_000
    assert calls % 100_000 == 0
    assert f"irq {irq}: nobody cared" in caplog.text
    exchange(bench.host)
    assert (load(counter, 4), bench.lines()[irq].count) == (calls, calls), "it is called no more"
    bench.unlisten(irq, counter)


def test_a_handler_that_does_not_silence_its_device(bench: Bench, edu: PciDevice) -> None:
    """A storm: as soon as the handler returns, the level calls it again. Others take their turns."""
    irq = edu.obj.irq
    counter = bench.listen(irq)
    bench.write(edu, EDU_RAISE, 1)
    counts_to_at_least(counter, 1000)
    exchange(bench.host)
    assert not bench.lines()[irq].disabled
    bench.write(edu, EDU_ACKNOWLEDGE, 1)
    bench.read(edu, EDU_ACKNOWLEDGE)
    bench.call("synchronize_irq", irq)
    seen = load(counter, 4)
    exchange(bench.host)
    counts_to(counter, seen)
    bench.unlisten(irq, counter)
