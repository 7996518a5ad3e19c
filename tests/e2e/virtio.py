"""Machines with a virtio network device of QEMU's, for the tests of Debian's virtio drivers."""

from __future__ import annotations

from tests.e2e.cards import MAC
from vmkernel_core.adapter import Adapter
from vmkernel_core.boot import VMkernel
from vmkernel_core.platform.qemu import QemuPlatform
from vmklinux.kernels import Kernel


def boot_with(kernel: Kernel, device: str, **options: object) -> VMkernel:
    """A machine with that device, not started yet; ``options`` are VMkernel's."""
    platform = QemuPlatform([f"{device},netdev=wire0,addr=5,mac={MAC}"])
    return VMkernel(platform, kernel=kernel.release, **options)  # type: ignore[arg-type]  # VMkernel's own


def adapter_of(host: VMkernel) -> Adapter:
    """Its virtio device."""
    (adapter,) = (adapter for adapter in host.adapters if adapter.function.vendor == 0x1AF4)
    return adapter
