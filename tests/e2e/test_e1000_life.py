"""An e1000's driver comes and goes: loaded again and again in one host, and hosts one after another in one process.

Independent: Debian's driver, where the engine is Linux, and QEMU's e1000, where the platform is QEMU.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.e2e.cards import MAC
from tests.e2e.conftest import exchange
from tests.e2e.packets import PEER, sized
from vmkernel_core.boot import VMkernel
from vmkernel_core.errors import DeviceGone, VmkError

ROUNDS = {"qemu": 20, "model": 3}


def test_loaded_and_unloaded_many_times(boot: Callable[..., VMkernel], platform_name: str) -> None:
    with boot() as host:
        (adapter,) = (adapter for adapter in host.adapters if adapter.uplink)
        for _ in range(ROUNDS[platform_name]):
            gone = host.uplinks["vmnic0"]
            assert host.unload("e1000") == []
            assert (host.uplinks, adapter.uplink) == ({}, None)
            with pytest.raises(DeviceGone):
                gone.open()
            host.bind(adapter)
            assert list(host.uplinks) == ["vmnic0"]
            with host.uplinks["vmnic0"] as nic:
                assert nic.mac == MAC
        exchange(host)
    assert host.leaks == []


def test_one_host_after_another(boot: Callable[..., VMkernel]) -> None:
    with boot() as host:
        nic = host.uplinks["vmnic0"]
        nic.open()
        nic.set_multicast(["01:00:5e:00:00:fb"])
    assert host.leaks == [], "an open uplink is closed by stop()"
    with pytest.raises(DeviceGone):
        nic.transmit([sized(PEER, 100, 1)])
    with boot() as host:
        with pytest.raises(VmkError, match="this process has a machine already"):
            boot().start()
        exchange(host)
    host.stop()
    assert host.leaks == []
