"""An unmodified driver on each kind of interrupt. Independent: Debian's e1000e.ko, which chooses by its
parameter IntMode; QEMU's e1000e, which sends the messages.

With IntMode=1 the driver first tries MSI out by a cause that QEMU 7.2's model does not let through (it keeps RXSEQ
out of IMS), gives its vector back and falls back to the pin, as it does in a guest: the way back is what is seen here.
"""

from __future__ import annotations

import pytest

from tests.e2e.conftest import exchange
from vmkernel_core.boot import VMkernel
from vmkernel_core.platform.qemu import QemuPlatform
from vmklinux.irq import Interrupts
from vmklinux.kernels import Kernel


@pytest.mark.parametrize(
    ("mode", "kind", "names"),
    [(0, "pin", {"eth0"}), (1, "pin", {"eth0"}), (2, "msi-x", {"eth0-rx-0", "eth0-tx-0", "eth0"})],
)
def test_e1000e_moves_frames_on_each_kind_of_interrupt(
    kernel: Kernel, mode: int, kind: str, names: set[str]
) -> None:
    platform = QemuPlatform(["e1000e,netdev=wire0,addr=5"])
    settings = {"e1000e": [f"IntMode={mode}"]}
    with VMkernel(platform, kernel=kernel.release, settings=settings) as host:
        assert [adapter.error for adapter in host.adapters if adapter.error] == []
        exchange(host)
        with host.uplinks["vmnic0"] as nic:
            nic.wait_link(timeout=10)
            lines = host.linux.state(Interrupts).lines()
            assert {line.kind for line in lines} == {kind}
            assert {name for line in lines for name in line.names} == names
            assert sum(line.count for line in lines) > 0
    assert host.leaks == []
