"""Several queues: virtio_net makes a pair for each CPU that is presented, QEMU serves each from a queue of a TAP device,
and the host's kernel chooses among those by flow.

Independent: Debian's driver, QEMU's device, the host's TAP driver; frames are judged on the host's side of that.
Needs root and /dev/net/tun.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.e2e.cards import MAC
from tests.e2e.conftest import LIMIT
from tests.e2e.packets import PEER, ethernet, pattern, raw_address
from vmkernel_core.boot import VMkernel
from vmkernel_core.net.uplink import Uplink
from vmkernel_core.platform.qemu import QemuPlatform
from vmklinux.irq import Interrupts
from vmklinux.kernels import Kernel
from vmklinux.netdevice import NetDevices

QUEUES = 3
FLOWS = 64
ETH_P_IP = 0x0800
TAP = f"vmkq{os.getpid()}"


def udp(to: bytes, source: bytes, flow: int) -> bytes:
    """A UDP packet of a flow of its own: 192.0.2.1 to 192.0.2.2, the port tells the flow."""
    payload = pattern(64 + flow, flow)
    header = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 28 + len(payload), 0, 0, 64, 17, 0, bytes([192, 0, 2, 1]),
                         bytes([192, 0, 2, 2]))  # fmt: skip
    return ethernet(to, header + struct.pack(">4H", 1024 + flow, 9, 8 + len(payload), 0) + payload,
                    kind=ETH_P_IP, source=source)  # fmt: skip


@pytest.fixture
def host(kernel: Kernel) -> Iterator[VMkernel]:
    back_end = f"tap,id=lan,ifname={TAP},queues={QUEUES},script=no,downscript=no"
    device = f"virtio-net-pci,netdev=lan,mac={MAC},mq=on,vectors={2 * QUEUES + 2}"
    platform = QemuPlatform([device], arguments=["-netdev", back_end])
    with VMkernel(platform, kernel=kernel.release, cpus=QUEUES) as host:
        Path(f"/proc/sys/net/ipv6/conf/{TAP}/disable_ipv6").write_text("1")  # it would speak unasked
        subprocess.run(["/sbin/ip", "link", "set", TAP, "up", "promisc", "on"], check=True, timeout=LIMIT)
        yield host
    assert host.leaks == []


@pytest.fixture
def nic(host: VMkernel) -> Iterator[Uplink]:
    with host.uplinks["vmnic0"] as nic:
        nic.wait_link(timeout=LIMIT)
        yield nic


@pytest.fixture
def far(nic: Uplink) -> Iterator[socket.socket]:
    """The host's side of the TAP device."""
    with closing(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_IP))) as far:
        far.bind((TAP, ETH_P_IP))
        yield far


def moved(after: dict[str, int], before: dict[str, int], way: str) -> list[int]:
    """By how much each queue's count of doorbells grew (6.1 and 6.12 name it differently)."""
    names = [
        f"{way}_queue_{n}_kicks" if f"{way}_queue_{n}_kicks" in after else f"{way}{n}_kicks"
        for n in range(QUEUES)
    ]
    return [after[name] - before[name] for name in names]


def interrupts(host: VMkernel) -> dict[str, int]:
    """How often each receive queue's interrupt came."""
    lines = host.linux.state(Interrupts).lines()
    return {name: line.count for line in lines for name in line.names if "input" in name}


def test_a_pair_for_each_cpu(host: VMkernel, nic: Uplink) -> None:
    (device,) = host.linux.state(NetDevices).registered.values()
    assert (device.obj.real_num_tx_queues, device.obj.real_num_rx_queues) == (QUEUES, QUEUES)
    names = [
        name for line in host.linux.state(Interrupts).lines() if line.kind == "msi-x" for name in line.names
    ]
    assert {f"virtio0-{way}.{n}" for way in ("input", "output") for n in range(QUEUES)} <= set(names)


def test_flows_out_use_every_queue(nic: Uplink, far: socket.socket) -> None:
    before = dict(nic.stats.driver)
    frames = [udp(PEER, raw_address(MAC), flow) for flow in range(FLOWS)]
    nic.transmit_all(frames, timeout=LIMIT)
    arrived: list[bytes] = []
    while len(arrived) < FLOWS:
        assert select.select([far], [], [], LIMIT)[0], f"{len(arrived)} frames came"
        arrived.append(far.recv(2048))
    assert sorted(arrived) == sorted(frames)
    assert all(moved(dict(nic.stats.driver), before, "tx"))


def test_flows_in_come_by_every_queue(host: VMkernel, nic: Uplink, far: socket.socket) -> None:
    before = interrupts(host)
    frames = [udp(raw_address(MAC), PEER, flow) for flow in range(FLOWS)]
    for frame in frames:
        far.send(frame)
    received: list[bytes] = []
    deadline = time.monotonic() + LIMIT
    while len(received) < FLOWS:
        assert nic.wait(rx=True, timeout=max(deadline - time.monotonic(), 0)), f"{len(received)} frames came"
        received += nic.receive()
    assert sorted(received) == sorted(frames)
    assert all(count > before[name] for name, count in interrupts(host).items())
