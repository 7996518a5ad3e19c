"""A driver that needs another module, outside the list of ESX's drivers. Both sides are independent: Debian's
unmodified 8139cp.ko and mii.ko, QEMU's rtl8139."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from tests.e2e.conftest import exchange
from vmkernel_core.boot import VMkernel
from vmkernel_core.errors import UsageError
from vmkernel_core.platform.qemu import QemuPlatform

if TYPE_CHECKING:
    from vmklinux.kernels import Kernel


def test_an_operator_may_choose_a_module_and_what_it_needs_comes_along(
    kernel: Kernel, caplog: pytest.LogCaptureFixture
) -> None:
    host = VMkernel(
        QemuPlatform(["rtl8139,netdev=wire0"]), kernel=kernel.release, modules={"10ec:8139": "8139cp"}
    )
    with caplog.at_level(logging.WARNING), host:
        card = next(adapter for adapter in host.adapters if adapter.uplink)
        assert card.verdict.status == "unsupported"
        assert "an operator chose 8139cp" in caplog.text
        assert list(host.loader.modules) == ["mii", "8139cp"]
        exchange(host)
        with pytest.raises(UsageError, match="module mii is in use by 8139cp"):
            host.unload("mii")
        exchange(host)
    assert host.leaks == []
    assert not host.uplinks
