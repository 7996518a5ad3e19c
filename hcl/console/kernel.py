"""The kernel whose drivers are judged: its modules where they are here, else what the list says of its series."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hcl.judging import KernelModules
    from vmklinux.kernels import Kernel


class Modules:
    """A kernel's modules, as the judge asks of them."""

    def __init__(self, kernel: Kernel) -> None:
        self.release = kernel.release
        self._kernel = kernel
        self._built_in: dict[str, bool] = {}

    def claimants(self, modalias: str) -> Sequence[str]:
        """The modules that claim a device, the nearest first."""
        return self._kernel.claimants(modalias)

    def firmware(self, module: str) -> Sequence[str] | None:
        """Firmware files that a module may ask for; None when the release has no such module."""
        return self._kernel.firmware(module)

    def obstacle(self, module: str) -> str:
        """A clause that says why a module cannot be run here; "" when it can be."""
        return self._kernel.obstacle(module)

    def patterns(self, module: str) -> Sequence[str] | None:
        """The patterns by which a module claims devices; None when the release has no such module."""
        from vmklinux.kernels import ModuleNotFound

        if not self.builds_in(module):
            try:
                self._kernel.find_module(module)
            except ModuleNotFound:
                return None
        return self._patterns.get(_plain(module), ())

    def builds_in(self, module: str) -> bool:
        """Whether a module is built in: then not all is told that it claims."""
        if module not in self._built_in:
            self._built_in[module] = self._kernel.builds_in(module)
        return self._built_in[module]

    @cached_property
    def _patterns(self) -> dict[str, list[str]]:
        patterns: dict[str, list[str]] = {}
        for bucket in self._kernel.aliases.buckets.values():
            for alias in bucket:
                patterns.setdefault(_plain(alias.module), []).append(alias.pattern)
        return patterns


def _plain(module: str) -> str:
    return module.replace("-", "_")


def find(release: str | None) -> tuple[str, KernelModules | None]:
    """The kernel of a release, or its beginning: how it is called in verdicts, and its modules where they are here."""
    from vmklinux.kernels import DEFAULT_SERIES, NoKernel
    from vmklinux.kernels import find as find_kernel

    try:
        kernel = find_kernel(release)
    except NoKernel:
        return release or DEFAULT_SERIES, None
    return kernel.release, Modules(kernel)


def here() -> list[Modules]:
    """The modules of all kernels that are here, the newest first."""
    from vmklinux.kernels import kernels

    return [Modules(kernel) for kernel in kernels() if kernel.usable]
