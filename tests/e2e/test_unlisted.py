"""Devices that no entry of the list names: a module of the kernel that claims one is tried, with a notice.

Both sides are independent: Debian's unmodified modules, QEMU's rtl8139.
"""

from __future__ import annotations

import errno
import logging

import pytest

from tests.e2e.conftest import exchange
from vmkernel_core.adapter import Adapter
from vmkernel_core.boot import VMkernel
from vmkernel_core.platform.qemu import QemuPlatform
from vmklinux.errors import DriverRefused
from vmklinux.kernels import Kernel


def _host(kernel: Kernel) -> VMkernel:
    return VMkernel(QemuPlatform(["rtl8139,netdev=wire0,addr=5"]), kernel=kernel.release)


def _card(host: VMkernel) -> Adapter:
    (card,) = (adapter for adapter in host.adapters if adapter.function.vendor == 0x10EC)
    return card


def test_a_module_that_claims_it_drives_it(kernel: Kernel, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), _host(kernel) as host:
        card = _card(host)
        assert (card.verdict.status, card.verdict.driver, card.verdict.module) == (
            "compatible",
            None,
            "8139cp",
        )
        (notice,) = (record.message for record in caplog.records if record.name == "vmkernel_core.devices")
        assert notice == f"{card.function}: not certified: {card.verdict.reason}"
        assert f"8139cp and 8139too of Linux {kernel.release} claim it" in notice
        others = [adapter.verdict for adapter in host.adapters if adapter is not card]
        assert others
        assert {verdict.module for verdict in others} == {None}, "a bridge is no device to drive"
        assert list(host.loader.modules) == ["mii", "8139cp"]
        exchange(host)
    assert host.leaks == []


def test_what_a_run_certified_needs_no_notice(kernel: Kernel, caplog: pytest.LogCaptureFixture) -> None:
    platform = QemuPlatform(["megasas-gen2,addr=5"])
    with caplog.at_level(logging.WARNING), VMkernel(platform, kernel=kernel.release) as host:
        (card,) = (adapter for adapter in host.adapters if adapter.verdict.module)
        assert (card.verdict.status, card.verdict.driver) == ("certified", "scsi/megaraid_sas")
        assert card.error is None
        assert not [record for record in caplog.records if record.name == "vmkernel_core.devices"]
    assert host.leaks == []


def test_who_refuses_it_makes_room_for_the_next(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """e1000 has no such id, and 8139too's probe returns ENODEV for a card of this revision: both go again."""
    monkeypatch.setattr(Kernel, "claimants", lambda self, modalias: ("e1000", "8139too", "8139cp"))
    with caplog.at_level(logging.INFO), _host(kernel) as host:
        verdict = _card(host).verdict
        assert (verdict.module, verdict.claimants) == ("8139cp", ("e1000", "8139too", "8139cp"))
        assert verdict.reason.endswith("8139cp took it, e1000 and 8139too did not.")
        assert f"8139too refused the device: error {errno.ENODEV}" in caplog.text
        assert list(host.loader.modules) == ["mii", "8139cp"]
        exchange(host)
        host.unload("8139cp")
        host.load("8139cp")
        assert list(host.loader.modules) == ["mii", "8139cp"]
        exchange(host)
    assert host.leaks == []


def test_another_module_that_knows_the_card_is_not_asked(kernel: Kernel) -> None:
    """Of two cards the second's driver is 8139cp too, though 8139too is there by then and knows its id."""
    cards = [f"rtl8139,netdev=wire{number},addr={5 + number}" for number in range(2)]
    overrides = {"0000:00:05.0": "8139too"}
    host = VMkernel(QemuPlatform(cards), kernel=kernel.release, modules=overrides)
    with host:
        first, second = (adapter for adapter in host.adapters if adapter.function.vendor == 0x10EC)
        assert isinstance(first.error, DriverRefused)
        assert list(host.loader.modules) == ["mii", "8139too", "8139cp"]
        assert second.verdict.module == "8139cp"
        first.verdict = second.verdict
        host.bind(first)
        assert sorted(host.uplinks) == ["vmnic0", "vmnic1"]


def test_nobody_takes_it(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Kernel, "claimants", lambda self, modalias: ("e1000",))
    with _host(kernel) as host:
        assert str(_card(host).error) == f"e1000 does not claim the device ({_card(host).function})"
        assert not host.loader.modules
    assert host.leaks == []


def test_modules_on_request(kernel: Kernel) -> None:
    """As Linux's request_module: those that claim it and are not there yet."""
    e1000 = "pci:v00008086d0000100Esv00001AF4sd00001100bc02sc00i00"
    with _host(kernel) as host:
        assert host.loader.request(e1000) == ["e1000"]
        assert host.loader.request(e1000) == []
        assert host.loader.request("nobody:knows") == []
    assert host.leaks == []
