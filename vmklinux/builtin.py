"""Drivers that the kernel has built in (modules.builtin): their init functions are run when a device needs them.

Linux runs every initcall when it boots; here none is, but those of a driver whose device is there. It is found by
the name that the build gave it (``__initcall__kmod_virtio_pci__580_823_virtio_pci_driver_init6``, include/linux/init.h).

Unlike in Linux such a driver can be taken out again: its exit function is in the image too, where nothing calls it.
Its code and data stay, so that it can be started anew. What it took counts from its start on: an allocation belongs to
the code that asked for it, and what the image asks for while a module's code runs counts for that module.
"""

from __future__ import annotations

import logging
import os
import re
from typing import TYPE_CHECKING

from vmkernel_core.errors import UsageError
from vmklinux.bus import Buses
from vmklinux.errors import DriverRefused

if TYPE_CHECKING:
    from vmklinux.linux import Linux

log = logging.getLogger(__name__)

#: Buses of the image, and the built-in module whose init function registers each.
BUSES = {"virtio_bus": "virtio"}
#: Functions of Linux's boot that only fill in data of the image which drivers read: run at each boot.
PREPARED = ("init_default_flow_dissectors", "btree_module_init", "firmware_init")
_INITCALL = re.compile(r"__initcall__kmod_\w+__\d+_\d+_(?P<function>\w+?)(early|con|rootfs|\ds?)")


def prepare(linux: Linux) -> None:
    """Fill in what drivers read."""
    for function in PREPARED:
        if (address := linux.image.kallsyms.address(function)) is not None:
            linux.call(address)


class BuiltIns:
    """The built-in modules that were started, in that order."""

    def __init__(self, linux: Linux) -> None:
        """None is started; one whose bus is asked for will be."""
        self.linux = linux
        self.started: list[str] = []
        self.dead = False  # one was stopped: no code of the image is run as a driver again
        linux.state(Buses).on_unknown = self._start_bus

    def range(self) -> tuple[int, int]:
        """Where the code and data of all of them lie: in the image."""
        image = self.linux.image
        return image.base, image.base + image.size

    def start(self, name: str) -> None:
        """Run the init functions of a module, if it is not started. UsageError, DriverRefused, DriverStopped."""
        if name in self.started:
            return
        functions = self._functions(name)
        if not functions:
            raise UsageError(
                f"the kernel image does not tell of an init function of {name}",
                where=f"kernel {self.linux.image.release}",
                remedy="use a kernel that has it as a module",
            )
        for function in functions:
            error = self.linux.call_int(self._address(function))
            if error:
                raise DriverRefused(f"the init of {name} failed: {os.strerror(-error)}", -error)
        self.started.append(name)
        log.info("started %s, which is built in", name)

    def stop(self, name: str) -> None:
        """Run the exit functions of a module that was started; its devices are unbound."""
        self.started.remove(name)
        for function in reversed(self._functions(name)):
            leave = self.linux.image.kallsyms.address(function.removesuffix("_init") + "_exit")
            if leave is not None and not self.dead:
                self.linux.call(leave)

    def _functions(self, name: str) -> list[str]:
        symbols = self.linux.image.kallsyms.beginning(f"__initcall__kmod_{name}__")
        return [found["function"] for symbol in symbols if (found := _INITCALL.fullmatch(symbol))]

    def _address(self, symbol: str) -> int:
        address = self.linux.image.kallsyms.address(symbol)
        if address is None:
            raise UsageError(f"the kernel image has no {symbol}", where=f"kernel {self.linux.image.release}")
        return address

    def _start_bus(self, bus: int) -> None:
        for symbol, name in BUSES.items():
            if self.linux.image.kallsyms.address(symbol) == bus and name not in self.started:
                self.start(name)
                self.started.insert(0, self.started.pop())  # whoever asked for it leaves before it
