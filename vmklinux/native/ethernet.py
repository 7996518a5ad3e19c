"""What drivers of network cards on PCI have in common: how a card is opened, reset, put to sleep and looked at."""

from __future__ import annotations

import logging
from abc import abstractmethod
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from vmkernel_core.errors import DeviceGone, VmkError
from vmkernel_core.memory import OutOfMachineMemory
from vmklinux.native.irq import request_irq
from vmklinux.native.netdevice import (
    NetDeviceOps,
    napi_disable,
    napi_enable,
    netif_carrier_off,
    netif_device_attach,
    netif_device_detach,
    netif_wake_queue,
    register_netdev,
)
from vmklinux.native.pci import PciDriver
from vmklinux.native.timer import Timer, mod_timer, timer_delete
from vmklinux.native.workqueue import Workqueue

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vmklinux.native.devres import Release
    from vmklinux.native.ring import RxRing, TxRing

log = logging.getLogger(__name__)

#: Seconds between two calls of ``watch``.
WATCH = 2.0


class EthernetDriver(NetDeviceOps, PciDriver):
    """A driver of cards that can be stopped and started at any time: open, sleep, a reset and other rings are that.

    Its ``probe`` ends with ``register``. ``rx_slots`` and ``tx_slots`` are the sizes of the rings that the card has
    while it is open. ``work`` is for what has to sleep.
    """

    rx_slots: int
    tx_slots: int
    work: Workqueue

    # ---- what a driver does ----

    @abstractmethod
    def make_rings(self) -> None:
        """Of ``rx_slots`` and ``tx_slots``, in place of those that there are. OutOfMachineMemory: these stay."""

    @property
    @abstractmethod
    def rings(self) -> Sequence[TxRing[Any] | RxRing[Any]]:
        """Those that ``make_rings`` made last."""

    @abstractmethod
    def interrupt(self) -> bool:
        """The handler."""

    @abstractmethod
    def start(self) -> None:
        """The card, which was stopped, gets all its settings and empty rings; it does not interrupt yet."""

    @abstractmethod
    def run(self) -> None:
        """After ``start``: it may interrupt, frames come and go, and its link is looked at for the first time."""

    @abstractmethod
    def stop(self) -> None:
        """No DMA and no interrupt any more; rings stay. DeviceGone: there is nothing left to do."""

    @abstractmethod
    def watch(self) -> None:
        """Now and then while it runs: look after its link and its counters. It must not sleep."""

    # ---- life ----

    def register(self) -> None:
        """The end of probe: ``netdev`` is complete."""
        self.work = Workqueue(self.pdev)
        self._timer = Timer(self.pdev, self._look)
        register_netdev(self.netdev)

    def suspend(self) -> None:
        """Stop. A card that does not stop stays awake, and is reset."""
        netif_device_detach(self.netdev)
        try:
            if self.netdev.running:
                self.down()
        except VmkError:
            netif_device_attach(self.netdev)
            self.schedule_restart()
            raise

    def resume(self) -> None:
        """Begin anew."""
        if self.netdev.running:
            self.up()
        netif_device_attach(self.netdev)

    def shutdown(self) -> None:
        """As for sleep: the machine may be woken."""
        self.suspend()

    # ---- open and closed ----

    def ndo_open(self) -> None:
        """Make rings, start everything."""
        self.make_rings()
        self._irq: Release = request_irq(self.pdev, self.interrupt)
        self.up()

    def ndo_stop(self) -> None:
        """Stop everything; a card that sleeps is stopped, and may be armed to wake the machine."""
        if self.netdev.present:
            self.down()

    def up(self) -> None:
        """With rings there: the card runs, or is stopped again when that fails."""
        try:
            self.start()
            napi_enable(self.netdev)
            netif_wake_queue(self.netdev)
            self.run()
        except BaseException:
            self.down()
            raise
        mod_timer(self._timer, WATCH)

    def down(self) -> None:
        """The card does nothing; rings stay."""
        timer_delete(self._timer)
        napi_disable(self.netdev)
        netif_carrier_off(self.netdev)
        try:
            self.stop()
        except DeviceGone as error:
            log.debug("%s has gone before it was stopped: %s", self.netdev.name, error)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Around what needs the card stopped, with rings there and its interrupts nobody's. Then all is as before."""
        if not self.netdev.running:
            self.make_rings()
            try:
                yield
            finally:
                _free(self.rings)
            return
        self.down()
        self._irq.now()
        try:
            yield
        finally:
            self._irq = request_irq(self.pdev, self.interrupt)
            self.up()

    def resize_rings(self, rx: int, tx: int) -> None:
        """Rings of so many descriptors from now on. OutOfMachineMemory: all is as before."""
        before, self.rx_slots, self.tx_slots = (self.rx_slots, self.tx_slots), rx, tx
        if self.netdev.running:
            with self.paused():
                rings = self.rings
                try:
                    self.make_rings()
                except OutOfMachineMemory:
                    self.rx_slots, self.tx_slots = before
                    raise
                _free(rings)

    # ---- when something is wrong ----

    def restart(self) -> None:
        """Stop a card that runs, and start it again; under the RTNL."""
        if self.netdev.running and self.netdev.present:
            self.down()
            self.up()

    def schedule_restart(self) -> None:
        """Do it soon: nobody waits for it."""
        self.work.schedule_work(self._restart)

    def ndo_tx_timeout(self) -> None:
        """The card sends nothing more: reset it."""
        self.schedule_restart()

    def _restart(self) -> None:
        with self.netdev.rtnl.lock():
            self.restart()

    def _look(self) -> None:
        self.watch()
        mod_timer(self._timer, WATCH)


def _free(rings: Sequence[TxRing[Any] | RxRing[Any]]) -> None:
    for ring in rings:
        ring.free()
