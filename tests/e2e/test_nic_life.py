"""Network cards come and go: each variant that QEMU has is probed, carries frames and lets go of everything.

Independent: QEMU's cards; Debian's drivers, where the engine is Linux.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.cards import E100, MAC, Card
from tests.e2e.conftest import exchange
from tests.e2e.engines import LINUX, Engine, on_each, only
from vmkernel_core.boot import VMkernel
from vmkernel_core.bus import Space
from vmkernel_core.errors import VmkError
from vmkernel_core.net.uplink import Suspended
from vmklinux.errors import DriverRefused

#: Words of microcode in a file for e100.ko, behind which come three bytes: where it shall put its settings.
UCODE_WORDS = 134
#: e100.ko does not open this one without microcode: it repairs a fault of the hardware. Ours does without.
NEEDS_FIRMWARE = "i82551"


driven = on_each("82544gc", "82545em", "pcnet", "rtl8139", *E100)


@pytest.fixture
def firmware(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of the right form for e100: the real ones are not free, and QEMU's cards do not run them."""
    folder = tmp_path / "e100"
    folder.mkdir()
    for name in ("d101m", "d101s", "d102e"):
        (folder / f"{name}_ucode.bin").write_bytes(bytes(UCODE_WORDS * 4) + bytes([1, 2, 3]))
    monkeypatch.setenv("VMK_FIRMWARE", str(tmp_path))


def test_life(boot: Callable[..., VMkernel], card: Card, platform_name: str, engine: Engine) -> None:
    usable = platform_name != NEEDS_FIRMWARE or not engine.kernel
    with boot() as host:
        (adapter,) = (adapter for adapter in host.adapters if adapter.verdict.module)
        assert (adapter.function.vendor, adapter.function.device) == card.ids
        assert (adapter.verdict.module, adapter.error) == (card.module, None)
        if usable:
            exchange(host)
        assert host.unload(card.module) == []
        assert host.uplinks == {}
        host.bind(adapter)
        nic = host.uplinks["vmnic0"]
        assert nic.mac == MAC
        if usable:
            exchange(host)
    assert host.leaks == []


@only(NEEDS_FIRMWARE, engines=LINUX)
def test_without_its_firmware(boot: Callable[..., VMkernel]) -> None:
    with boot() as host:
        nic = host.uplinks["vmnic0"]
        with pytest.raises(
            DriverRefused, match=r"refused to open: No such file.*asked for firmware e100/d102e_ucode"
        ):
            nic.open()
        assert not nic.is_open
    assert host.leaks == []


@only(NEEDS_FIRMWARE, "i82558b", "i82559c", engines=LINUX)
def test_with_firmware(boot: Callable[..., VMkernel], platform_name: str, firmware: None) -> None:
    with boot() as host:
        exchange(host)
    # e100.ko never releases the file that it loaded (Linux's own fault, up to 6.12 at least).
    assert {leak.kind for leak in host.leaks} <= {"memory"}
    assert len(host.leaks) == (2 if platform_name == NEEDS_FIRMWARE else 0)


@only("i82557b", "i82559c")
def test_e100_by_ports(boot: Callable[..., VMkernel]) -> None:
    with boot(settings={"e100": ["use_io=1"]}) as host:
        exchange(host)
    assert host.leaks == []


@only("pcnet")
def test_pcnet_in_32_bit_mode(
    boot: Callable[..., VMkernel], caplog: pytest.LogCaptureFixture, engine: Engine
) -> None:
    with boot() as host:
        (adapter,) = (adapter for adapter in host.adapters if adapter.uplink)
        assert host.unload("pcnet32") == []
        ports = adapter.function.bars[0].address
        # A write of 32 bits to RDP switches the chip to DWIO (Am79C970A datasheet, BCR18 bit 7). pcnet32 then resets it
        # and goes on by 32 bits; but QEMU's chip, other than AMD's, falls back to 16 bits at that software reset. The
        # driver in Python looks once more.
        host.platform.bus.write(Space.IO, ports + 0x10, 4, 0)
        if engine.kernel:
            with pytest.raises(DriverRefused, match="pcnet32 refused the device: error 19"):
                host.bind(adapter)
            assert "No access methods" in caplog.text
        host.bind(adapter)
        exchange(host)
    assert host.leaks == []


@only("82545em", "i82559c", "pcnet", "rtl8139")
def test_a_closed_card_sleeps(boot: Callable[..., VMkernel]) -> None:
    with boot() as host:
        nic = host.uplinks["vmnic0"]
        nic.suspend()
        with pytest.raises(Suspended):
            nic.open()
        nic.resume()
        exchange(host)
    assert host.leaks == []


@only("82545em", "i82559c", "pcnet", "rtl8139")
def test_unloaded_in_its_sleep(boot: Callable[..., VMkernel], card: Card) -> None:
    with boot() as host:
        (adapter,) = (adapter for adapter in host.adapters if adapter.uplink)
        nic = host.uplinks["vmnic0"]
        nic.open()
        nic.suspend()
        assert host.unload(card.module) == []
        with pytest.raises(VmkError, match="vmnic0 has gone"):
            nic.resume()
        host.bind(adapter)
        exchange(host)
        with host.uplinks["vmnic0"] as again:
            again.suspend()
    assert host.leaks == []
