"""The kernel whose drivers are judged: its modules where they are here, else what the list says of its series."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hcl.judging import KernelModules
    from vmklinux.kernels import Kernel


class Modules:
    """A kernel's modules, as the judge asks of them."""

    def __init__(self, kernel: Kernel) -> None:
        self.release = kernel.release
        self._kernel = kernel
        self._firmware: dict[str, tuple[str, ...] | None] = {}

    def claimants(self, modalias: str) -> Sequence[str]:
        """The modules that claim a device, the nearest first."""
        return self._kernel.claimants(modalias)

    def firmware(self, module: str) -> Sequence[str] | None:
        """Firmware files that a module may ask for; None when the release has no such module."""
        if module not in self._firmware:
            self._firmware[module] = self._wanted(module)
        return self._firmware[module]

    def _wanted(self, module: str) -> tuple[str, ...] | None:
        from vmklinux.kernels import ModuleNotFound
        from vmklinux.module.elf import ModuleFile

        if self._kernel.builds_in(module):
            return ()
        try:
            file = self._kernel.find_module(module)
        except ModuleNotFound:
            return None
        return ModuleFile.read(file).info.firmware


def find(release: str | None) -> tuple[str, KernelModules | None]:
    """The kernel of a release, or its beginning: how it is called in verdicts, and its modules where they are here."""
    from vmklinux.kernels import DEFAULT_SERIES, NoKernel
    from vmklinux.kernels import find as find_kernel

    try:
        kernel = find_kernel(release)
    except NoKernel:
        return release or DEFAULT_SERIES, None
    return kernel.release, Modules(kernel)
