"""vmxnet3.ko comes and goes, and uses several queues. Independent: Debian's driver and QEMU's vmxnet3."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from tests.e2e.conftest import LIMIT, Peer, exchange
from tests.e2e.engines import on_each
from tests.e2e.packets import PEER, unfinished
from vmkernel_core.boot import VMkernel
from vmklinux.irq import Interrupts

driven = on_each("vmxnet3")


def test_loaded_and_unloaded_many_times(boot: Callable[..., VMkernel]) -> None:
    with boot() as host:
        (adapter,) = (adapter for adapter in host.adapters if adapter.uplink)
        for _ in range(5):
            assert host.unload("vmxnet3") == []
            host.bind(adapter)
            exchange(host)
    assert host.leaks == []


def test_a_queue_for_each_cpu(boot: Callable[..., VMkernel], pool: ThreadPoolExecutor) -> None:
    """Flows spread over the transmit queues, each with a vector of its own; nothing is lost or changed."""
    frame = unfinished(PEER, b"flow".ljust(60))
    flows = [frame[:34] + (1024 + port).to_bytes(2, "big") + frame[36:] for port in range(64)]
    with boot(cpus=4) as host:
        nic = host.uplinks["vmnic0"]
        with nic:
            nic.wait_link(timeout=LIMIT)
            names = [name for line in host.linux.state(Interrupts).lines() for name in line.names]
            assert names == ["eth0-rxtx-0", "eth0-rxtx-1", "eth0-rxtx-2", "eth0-rxtx-3", "eth0-event-4"]
            peer = Peer(host.platform.wires[0].socket, pool)
            assert sorted(peer.sent_by(nic, flows)) == sorted(flows)
            counters = nic.stats.driver
            sent = [counters["  ucast pkts tx" + queue] for queue in ("", " [2]", " [3]", " [4]")]
            assert sum(sent) == len(flows)
            assert all(sent), "64 flows leave none of four queues empty"
        exchange(host)
    assert host.leaks == []
