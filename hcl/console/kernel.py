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

    def claimants(self, modalias: str) -> Sequence[str]:
        """The modules that claim a device, the nearest first."""
        return self._kernel.claimants(modalias)

    def firmware(self, module: str) -> Sequence[str] | None:
        """Firmware files that a module may ask for; None when the release has no such module."""
        need = self._kernel.needs.of(module)
        return None if need is None else need.firmware

    def obstacle(self, module: str) -> str:
        """A clause that says why a module cannot be run here; "" when it can be."""
        return self._kernel.needs.obstacle(module)


def find(release: str | None) -> tuple[str, KernelModules | None]:
    """The kernel of a release, or its beginning: how it is called in verdicts, and its modules where they are here."""
    from vmklinux.kernels import DEFAULT_SERIES, NoKernel
    from vmklinux.kernels import find as find_kernel

    try:
        kernel = find_kernel(release)
    except NoKernel:
        return release or DEFAULT_SERIES, None
    return kernel.release, Modules(kernel)
