"""One network card with its driver in Python, and nothing else of a host: no list, no kernel image."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from tests.e2e.cards import MAC, AnyPlatform
from tests.e2e.conftest import LIMIT, Peer
from tests.e2e.packets import PEER, raw_address, sized
from vmkernel_core._core import lib
from vmkernel_core.errors import VmkError
from vmkernel_core.idle import IdleLoop
from vmkernel_core.memory import MachineMemory
from vmkernel_core.net.uplink import Uplink, UplinkDriver
from vmkernel_core.pci import scan
from vmklinux.native.device import baton
from vmklinux.native.ethernet import EthernetDriver
from vmklinux.native.pci import PciDev, PciDriver


@dataclass
class OneNic:
    """The uplink, the driver's object, the machine around it, and the far end of the wire."""

    uplink: Uplink
    driver: PciDriver
    platform: AnyPlatform
    peer: Peer

    def settle(self) -> None:
        """Wait until no reset waits nor is under way: its work items run one after the other."""
        assert isinstance(self.driver, EthernetDriver)
        done = threading.Event()
        with baton():
            self.driver.work.schedule_work(done.set)
        assert done.wait(LIMIT)


@contextmanager
def one_nic(kind: type[PciDriver], platform: AnyPlatform) -> Iterator[OneNic]:
    """Boot the machine and have the driver probe its card; at the end nothing that it took may be left."""
    uplinks: list[Uplink] = []

    def name(driver: UplinkDriver) -> Uplink:
        uplinks.append(Uplink("vmnic0", driver))
        return uplinks[0]

    with MachineMemory(64 << 20) as memory, ThreadPoolExecutor(2, thread_name_prefix="peer") as pool:
        lib.vmk_irq_reset()
        idle = IdleLoop(lambda _event: None, lambda: None)
        platform.start(memory)
        buses = [bus for bus in (platform.bus, platform.messages) if bus is not None]
        for bus in buses:
            lib.vmk_idle_watch(bus.handle)
        idle.start()
        pdev = None
        try:
            function = next(found for found in scan(platform) if kind.claims(found))
            pdev = PciDev(function, platform, kind.name, memory, idle)
            pdev.on_uplink = name
            driver = pdev.driver = kind(pdev, {})
            with baton():
                driver.probe()
            yield OneNic(uplinks[0], driver, platform, Peer(platform.wires[0].socket, pool))
        finally:
            if pdev:
                with baton():
                    pdev.devres.release_all()
            idle.stop()
            for bus in buses:
                lib.vmk_idle_unwatch(bus.handle)
            platform.stop()
        assert len(pdev.devres) == 0


def crosses(card: OneNic, nic: Uplink) -> bool:
    """Whether frames go both ways."""
    me = raw_address(MAC)
    out = [sized(PEER, 60 + 30 * seed, seed, source=me) for seed in range(40)]
    back = [sized(me, 60 + 30 * seed, seed) for seed in range(40)]
    nic.wait_link(timeout=LIMIT)
    card.peer.listens(nic)
    return card.peer.sent_by(nic, out) == out and card.peer.received_by(nic, back) == back


def restarted(nic: Uplink) -> None:
    """Wait until the link is there again after a change that began everything anew."""
    if nic.error:
        raise VmkError(str(nic.error))
    nic.wait_link(timeout=10)
