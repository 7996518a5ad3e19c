"""What a program may ask of a host by mistake: an error that says so, and the host goes on.

Independent side: none; the model of the card and the driver in Python stand for any.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.conftest import exchange
from tests.e2e.engines import Engine, with_engines
from vmkernel_core.boot import VMkernel
from vmkernel_core.errors import TimedOut, UsageError, VmkError
from vmkernel_core.net.uplink import LinkDown
from vmkernel_core.platform.e1000_model import E1000Model
from vmkernel_core.platform.model import ModelPlatform
from vmklinux import kernels
from vmklinux.kernels import Kernel, NoKernel
from vmklinux.module.errors import BadParameter

NEVER = "6.99"  # a machine may have a kernel of its own, but not this one


def vmkernel(**options: Any) -> VMkernel:
    return VMkernel(ModelPlatform([E1000Model()]), **{"engine": "native", "kernel": NEVER} | options)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"engine": "bsd"}, "there is no engine bsd; use linux or native"),
        (
            {"engines": {"net/nothing": "native"}},
            "'net/nothing' names neither a device nor a driver of the list",
        ),
        (
            {"engines": {"net/tg3": "native"}},
            "net/tg3 cannot be had with the engine native .engines.; it has linux",
        ),
        ({"modules": {"net/e1000": "e1000"}}, "'net/e1000' names no device .modules.; write a PCI address"),
        ({"settings": {"e1000": "TxDescriptors=80"}}, "settings are a list of texts, not the text"),
        ({"settings": {"bsd:e1000": []}}, "'bsd:e1000' names no module"),
        ({"policy": "paranoid"}, "there is no policy 'paranoid'; use default or strict"),
    ],
)
def test_a_host_that_cannot_be(options: dict[str, Any], error: str) -> None:
    with pytest.raises(UsageError, match=error):
        vmkernel(**options)


@pytest.mark.parametrize("memory", [-5, 0, 1 << 20, (64 << 20) + 1])
def test_memory_that_cannot_be(memory: int) -> None:
    with pytest.raises(UsageError, match=f"{memory} bytes cannot be machine memory; use whole pages"):
        vmkernel(memory=memory).start()


def test_one_host_at_a_time() -> None:
    with vmkernel() as host:
        with pytest.raises(
            UsageError, match="this process has a machine already, and can have one at a time; stop"
        ):
            vmkernel().start()
        with pytest.raises(UsageError, match="the host runs already"):
            host.start()
        exchange(host)
    with vmkernel() as host:
        exchange(host)


@pytest.mark.parametrize(
    ("mistake", "error"),
    [
        (lambda host: host.bind(host.adapters[-1]), "has a driver, e1000; unload that module first"),
        (lambda host: host.load("e1000"), "module e1000 is loaded already; unload it first"),
        (
            lambda host: host.load("tg3", engine="native"),
            "no driver tg3 in Python; there are e100, e1000, meg",
        ),
        (
            lambda host: host.load("e1000", engine="linux"),
            "this takes a module of a Linux kernel, and no kernel",
        ),
        (lambda host: host.load("e1000", engine="bsd"), "there is no engine bsd"),
        (lambda host: host.set_parameters("e1000", "debug=1"), "settings are a list of texts"),
    ],
)
def test_a_host_that_runs(mistake: Callable[[VMkernel], None], error: str) -> None:
    with vmkernel() as host:
        with pytest.raises(VmkError, match=error):
            mistake(host)
        exchange(host)


@with_engines("native", "kernel612")
def test_an_uplink_that_is_closed(engine: Engine) -> None:
    with VMkernel(ModelPlatform([E1000Model()]), **engine.options) as host:
        nic = host.uplinks["vmnic0"]
        with pytest.raises(LinkDown, match=r"vmnic0 is closed; open.. it first"):
            nic.transmit([bytes(60)])
        with pytest.raises(
            TimedOut, match=r"the link of vmnic0 did not go up within 0.01 s; it is closed: open"
        ):
            nic.wait_link(timeout=0.01)
        with pytest.raises(UsageError, match=r"an MTU of 99999 is out of range .vmnic0.; use "):
            nic.mtu = 99999
        with pytest.raises(
            TimedOut, match=r"0 of 1 storage devices appeared in 0.01 s; no device has a storage driver"
        ):
            host.wait_storage(timeout=0.01)


def test_what_a_host_and_its_devices_are_told_as() -> None:
    host = vmkernel()
    assert repr(host) == "<VMkernel on model: not started, 0 devices>"
    with host:
        assert repr(host) == "<VMkernel on model: native, 1 devices>"
        assert repr(host.adapters) == "[<Adapter 0000:00:01.0 [8086:100e]: e1000 (native)>]"
        host.unload("e1000")
        assert repr(host.adapters) == "[<Adapter 0000:00:01.0 [8086:100e]: no driver>]"


def test_a_host_that_was_not_started() -> None:
    with pytest.raises(UsageError, match="the host was not started; call start"):
        vmkernel().load("e1000")


def test_what_the_driver_does_not_take_is_told_and_not_that_there_is_no_kernel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def find(release: str | None = None) -> Kernel:
        raise NoKernel("no kernel here")

    monkeypatch.setattr(kernels, "find", find)
    with vmkernel(engine=None, kernel=None, settings={"e1000": ["debug=16"]}) as host:
        (card,) = host.adapters
        assert isinstance(card.error, BadParameter)
        assert card.error.module == "native:e1000"
