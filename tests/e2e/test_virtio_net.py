"""Debian's virtio_net drives QEMU's virtio-net-pci, through Debian's virtio, virtio_ring and virtio_pci: modules in 6.1,
built into the image in 6.12. Split and packed rings, modern and legacy devices, MSI-X and the pin.

Independent: both sides, Debian's drivers and QEMU's device; frames are judged at the far end of the wire.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.e2e.cards import MAC
from tests.e2e.conftest import LIMIT, Peer
from tests.e2e.packets import PEER, raw_address, sized
from tests.e2e.virtio import adapter_of, boot_with
from tests.vmkernel_core.hardware import until
from vmkernel_core.boot import VMkernel
from vmkernel_core.net.uplink import Uplink
from vmklinux.irq import Interrupts
from vmklinux.kernels import Kernel

ME = raw_address(MAC)
GROUP, OTHER_GROUP = "01:00:5e:00:00:fb", "33:33:00:00:00:16"
SIZES = sorted(
    {60, 61, 64, 65, 127, 128, 129, 255, 256, 511, 512, 1023, 1024, 1513, 1514, *range(66, 1514, 181)}
)
JUMBO_MTU = 9000
JUMBO_SIZES = [60, 1514, 1515, 2048, 4096, 4097, 8192, 9013, 9014]

#: A device of QEMU's, and the interrupts that its driver gets.
DEVICES = {
    "transitional": ("virtio-net-pci", "msi-x"),
    "modern": ("virtio-net-pci-non-transitional", "msi-x"),
    "legacy": ("virtio-net-pci,disable-modern=on,disable-legacy=off", "msi-x"),
    "packed": ("virtio-net-pci-non-transitional,packed=on", "msi-x"),
    "small-buffers": ("virtio-net-pci,mrg_rxbuf=off", "msi-x"),
    "dma-api": ("virtio-net-pci-non-transitional,iommu_platform=on", "msi-x"),
    "pin": ("virtio-net-pci,vectors=0", "pin"),
}


@pytest.fixture(scope="module", params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def host(kernel: Kernel, device: str) -> Iterator[VMkernel]:
    with boot_with(kernel, DEVICES[device][0]) as host:
        assert [adapter.error for adapter in host.adapters if adapter.error] == []
        yield host
    assert host.leaks == []


@pytest.fixture
def mergeable(device: str) -> bool:
    return device != "small-buffers"


def to_peer(length: int, seed: int) -> bytes:
    return sized(PEER, length, seed, source=ME)


def to_me(length: int, seed: int) -> bytes:
    return sized(ME, length, seed)


def test_probe(host: VMkernel, nic: Uplink, device: str, kernel: Kernel) -> None:
    adapter = adapter_of(host)
    assert (adapter.verdict.module, adapter.uplink) == ("virtio_pci", nic)
    assert (nic.mac, nic.driver_name, nic.mtu) == (MAC, "virtio_net", 1500)
    built_in = host.kernel.builds_in("virtio_pci")
    assert built_in == ("virtio_pci" not in host.loader.modules)
    assert host.loader.builtins.started == (["virtio", "virtio_pci"] if built_in else [])
    assert {"virtio_net", "net_failover", "failover"} <= set(host.loader.modules)


def test_interrupts(host: VMkernel, nic: Uplink, wire: Peer, device: str) -> None:
    assert wire.received_by(nic, [to_me(60, 1)]) == [to_me(60, 1)]
    lines = [line for line in host.linux.state(Interrupts).lines() if line.count]
    assert {line.kind for line in lines} == {DEVICES[device][1]}
    assert all(not line.disabled and not line.unhandled for line in lines)


def test_link_follows_the_cable(host: VMkernel, nic: Uplink, wire: Peer) -> None:
    address = adapter_of(host).function.address
    host.platform.set_link(address, False)
    nic.wait_link(False, timeout=LIMIT)
    host.platform.set_link(address, True)
    nic.wait_link(True, timeout=LIMIT)
    wire.listens(nic)


def test_sizes_out(nic: Uplink, wire: Peer) -> None:
    frames = [to_peer(size, size) for size in SIZES]
    assert wire.sent_by(nic, frames) == frames


def test_sizes_in(nic: Uplink, wire: Peer) -> None:
    frames = [to_me(size, size) for size in SIZES]
    assert wire.received_by(nic, frames) == frames


def test_more_than_the_rings_hold(nic: Uplink, wire: Peer) -> None:
    out = [to_peer(60 + seed % 1455, seed) for seed in range(700)]
    back = [to_me(60 + seed % 1455, seed) for seed in range(700)]
    assert wire.sent_by(nic, out) == out
    assert wire.received_by(nic, back) == back


def test_jumbo(nic: Uplink, wire: Peer, mergeable: bool) -> None:
    nic.mtu = JUMBO_MTU
    try:
        frames = [to_peer(size, size) for size in JUMBO_SIZES]
        assert wire.sent_by(nic, frames) == frames
        if mergeable:  # without, the device has no room for a frame of more than 1514 bytes
            frames = [to_me(size, size) for size in JUMBO_SIZES]
            assert wire.received_by(nic, frames) == frames
    finally:
        nic.mtu = 1500


def test_promiscuous_and_multicast(nic: Uplink, wire: Peer) -> None:
    strange = sized(bytes.fromhex("020000000099"), 80, 8)
    group, other = (sized(raw_address(address), 80, 5) for address in (GROUP, OTHER_GROUP))
    asked, mine = [strange, group, other, to_me(80, 9)], to_me(80, 9)

    def hears(*frames: bytes) -> Callable[[], bool]:
        return lambda: wire.received_by(nic, asked) == list(frames)

    # 6.12 sets the filters in a work item: they come into force a moment after they were asked for.
    until("what is for it, and nothing else", hears(mine))
    nic.set_multicast([GROUP])
    until("its group, and no other", hears(group, mine))
    nic.set_multicast([])
    until("no group any more", hears(mine))
    nic.set_promiscuous(True)
    until("everything", hears(*asked))
    nic.set_promiscuous(False)
    until("not everything any more", hears(mine))


def test_statistics(nic: Uplink, wire: Peer) -> None:
    before = nic.stats
    out, back = [to_peer(100 + n, n) for n in range(20)], [to_me(200 + n, n) for n in range(10)]
    assert wire.sent_by(nic, out) == out
    assert wire.received_by(nic, back) == back
    after = nic.stats
    assert after.tx_frames - before.tx_frames == len(out)
    assert after.rx_frames - before.rx_frames == len(back) + 1  # and the marker
    # The driver's own counters, which 6.12 names otherwise: it tells the device of many frames at once.
    kicks = "tx_queue_0_kicks" if "tx_queue_0_kicks" in after.driver else "tx0_kicks"
    assert 1 <= after.driver[kicks] - before.driver[kicks] < len(out)


def test_close_and_open_again(nic: Uplink, wire: Peer) -> None:
    nic.close()
    nic.open()
    nic.wait_link(timeout=LIMIT)
    wire.listens(nic)
    frames = [to_peer(60, seed) for seed in range(4)]
    assert wire.sent_by(nic, frames) == frames
