"""e1000.ko comes and goes: loaded again and again in one host, hosts one after another, a wire nobody reads.

Independent: Debian's driver, and QEMU's e1000 where the platform is QEMU.
"""

from __future__ import annotations

from collections.abc import Callable


import pytest

from tests.e2e.conftest import LIMIT, MAC, Peer, exchange
from tests.e2e.packets import PEER, raw_address, sized
from vmkernel_core.boot import VMkernel
from vmkernel_core.errors import DeviceGone

ROUNDS = 20


def test_twenty_times_loaded_and_unloaded(boot: Callable[..., VMkernel]) -> None:
    with boot() as host:
        (adapter,) = (adapter for adapter in host.adapters if adapter.uplink)
        for _ in range(ROUNDS):
            gone = host.uplinks["vmnic0"]
            assert host.unload("e1000") == []
            assert (host.uplinks, adapter.uplink) == ({}, None)
            with pytest.raises(DeviceGone):
                gone.open()
            host.bind(adapter)
            assert list(host.uplinks) == ["vmnic0"]
            assert host.uplinks["vmnic0"].mac == MAC
            with host.uplinks["vmnic0"]:
                pass
        exchange(host)
    assert host.leaks == []


def test_a_host_after_another(boot: Callable[..., VMkernel]) -> None:
    for _ in range(2):
        with boot() as host:
            exchange(host)
        assert host.leaks == []
        host.stop()


def test_two_hosts_at_once_are_refused(boot: Callable[..., VMkernel]) -> None:
    with boot() as host:
        with pytest.raises(Exception, match="only one|other machine") as caught:
            boot().start()
        assert type(caught.value).__name__ in {"OutOfMachineMemory", "VmkError"}
        exchange(host)
    assert host.leaks == []


def test_an_open_uplink_is_closed_by_stop(boot: Callable[..., VMkernel]) -> None:
    with boot() as host:
        nic = host.uplinks["vmnic0"]
        nic.open()
        nic.wait_link(timeout=LIMIT)
        nic.set_multicast(["01:00:5e:00:00:fb"])
        nic.transmit([sized(PEER, 100, 1)])
    assert host.leaks == []
    with pytest.raises(DeviceGone):
        nic.transmit([sized(PEER, 100, 1)])
