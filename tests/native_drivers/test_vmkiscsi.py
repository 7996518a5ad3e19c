"""vmkiscsi finds targets, with all that it may be told. Independent of us: tgt, and its account of who is logged in."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from native_drivers.scsi.vmkiscsi.library import load
from native_drivers.scsi.vmkiscsi.portal import Portal
from tests.native_drivers.iscsi import MIB, NAME, disk, host_with, image, naa, on_disk, the_iscsi, wait_for
from tests.native_drivers.relay import Relay
from tests.native_drivers.tgt import Target, Tgt, free_port
from vmkernel_core.boot import VMkernel
from vmkernel_core.errors import NotSupported, UsageError, VmkError
from vmkernel_core.platform.model import ModelPlatform
from vmklinux.module.errors import BadParameter


@pytest.fixture(scope="module")
def backing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The backing file of the first unit."""
    return image(tmp_path_factory.mktemp("images") / "a")


@pytest.fixture(scope="module")
def tgt(backing: Path) -> Iterator[Tgt]:
    """Two targets."""
    digests = {"HeaderDigest": "CRC32C,None", "DataDigest": "CRC32C,None"}
    one = Target(NAME.format("one"), {1: backing}, settings=digests)
    two = Target(NAME.format("two"), {1: image(backing.with_name("b"))})
    with Tgt(one, two) as running:
        yield running


def test_a_rescan_finds_targets_that_came(tmp_path: Path) -> None:
    with (
        Tgt(Target(NAME.format("first"), {1: image(tmp_path / "first")})) as tgt,
        host_with(f"portal={tgt.portal}") as host,
    ):
        assert list(host.storage) == [naa(1, 1)]
        tgt.add(Target(NAME.format("second"), {1: image(tmp_path / "second")}))
        host.storage_adapters["vmhba0"].rescan()
        assert list(host.storage) == [naa(1, 1), naa(2, 1)]
        assert disk(host, 2).read(0, 64) == on_disk(tmp_path / "second", 0, 64)


def test_a_rescan_finds_units_that_came_to_a_target_that_had_none(tmp_path: Path) -> None:
    with Tgt(Target(NAME.format("empty"), {})) as tgt, host_with(f"portal={tgt.portal}") as host:
        assert host.storage == {}
        tgt.add_unit(1, 1, image(tmp_path / "came"))
        host.storage_adapters["vmhba0"].rescan()
        assert disk(host).read(0, 64) == on_disk(tmp_path / "came", 0, 64)


def test_a_rescan_while_a_target_is_away_does_not_wait_for_it(tgt: Tgt, tmp_path: Path) -> None:
    there = Tgt(Target(NAME.format("other"), {1: image(tmp_path / "other", 2 * MIB)}))
    with there as other, host_with(f"portal={tgt.portal},{other.portal}") as host:
        before, device = (
            set(host.storage),
            next(one for one in host.storage.values() if one.capacity == 2 * MIB),
        )
        other.kill()
        wait_for(lambda: device.state == "blocked")
        began = time.monotonic()
        host.storage_adapters["vmhba0"].rescan()
        assert time.monotonic() - began < 15
        assert set(host.storage) == before


def test_ipv6(tmp_path: Path) -> None:
    backing = image(tmp_path / "six", MIB)
    listening = Tgt(Target(NAME.format("six"), {1: backing}), host="[::1]")
    with listening as tgt, host_with(f"portal={tgt.portal}") as host:
        assert disk(host).read(0, 64) == on_disk(backing, 0, 64)
        [session] = the_iscsi(host).sessions()
        assert session.portal == tgt.portal


def test_a_name_with_several_addresses_is_reached_by_the_one_that_answers(
    tgt: Tgt, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As of a host that has addresses of both kinds, while the target listens at one.
    addresses = [Portal("::1", tgt.port), Portal("127.0.0.1", tgt.port)]
    monkeypatch.setattr(Portal, "resolve", lambda _self: addresses)
    name = NAME.format("one")
    with host_with(f"portal=both.invalid:{tgt.port}", f"target={name}") as host:
        assert len(disk(host).read(0, 8)) == 8 * 512


def test_an_address_that_says_nothing_leaves_time_for_the_next(
    tgt: Tgt, monkeypatch: pytest.MonkeyPatch
) -> None:
    # TEST-NET-1 (RFC 5737): nobody answers, or there is no way to it.
    addresses = [Portal("192.0.2.1", tgt.port), Portal("127.0.0.1", tgt.port)]
    monkeypatch.setattr(Portal, "resolve", lambda _self: addresses)
    settings = (f"target={NAME.format('one')}", "login_timeout=4")
    with host_with(f"portal=both.invalid:{tgt.port}", *settings) as host:
        assert len(disk(host).read(0, 8)) == 8 * 512


def test_a_name_service_that_does_not_answer_keeps_no_session_waiting(
    tgt: Tgt, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer, resolve = threading.Event(), Portal.resolve

    def slow(portal: Portal) -> list[Portal]:
        answer.wait(60)
        return resolve(portal)

    monkeypatch.setattr(Portal, "resolve", slow)
    portals = f"portal=slow.invalid:{tgt.port},{tgt.portal}"
    with host_with(portals, "login_timeout=5", "noop_interval=1", "noop_timeout=5") as host:
        session = the_iscsi(host).sessions()[0]
        assert session.portal == tgt.portal
        for _ in range(3):
            assert len(disk(host).read(0, 8)) == 8 * 512
        host.unload("vmkiscsi")  # does not wait for the name either
    answer.set()


def test_several_sessions_are_several_paths(tgt: Tgt) -> None:
    with host_with(f"portal={tgt.portal}", f"target={NAME.format('one')}", "sessions=3") as host:
        paths = {device.path for device in host.storage.values()}
        assert {f"vmhba0:C0:T{target}:L1" for target in range(3)} <= paths
        assert {device.name for device in host.storage.values()} == {naa(1, 1)}
        assert len(host.storage) == 3
        assert tgt.show().count("I_T nexus:") == 3
        reads = {bytes(device.read(100, 8)) for device in host.storage.values() if device.path.endswith("L1")}
        assert len(reads) == 1


def test_several_portals_have_their_targets(tgt: Tgt, tmp_path: Path) -> None:
    there = Target(NAME.format("other"), {1: image(tmp_path / "other", 2 * MIB)})
    with Tgt(there) as other, host_with(f"portal={tgt.portal},{other.portal}") as host:
        assert {device.capacity for device in host.storage.values()} == {8 * MIB, 2 * MIB}


@pytest.mark.parametrize(("digest", "agreed"), [("crc32c", b"CRC32C"), ("none", b"None")])
def test_header_digests_are_agreed_on(tgt: Tgt, backing: Path, digest: str, agreed: bytes) -> None:
    settings = (f"target={NAME.format('one')}", f"header_digest={digest}")
    with Relay(tgt.port) as relay, host_with(f"portal={relay.portal}", *settings) as host:
        disk(host).write(5, bytes(range(256)) * 512)
        assert on_disk(backing, 5, 256) == bytes(range(256)) * 512
        assert b"HeaderDigest=" + agreed + b"\0" in relay.heard["target"]


def test_data_digests_are_agreed_on_where_the_library_has_them(tgt: Tgt, backing: Path) -> None:
    settings = (f"target={NAME.format('one')}", "data_digest=crc32c")
    if not load().data_digest:  # Debian 12's
        with (
            pytest.raises(NotSupported, match="no checksums on data"),
            host_with(f"portal={tgt.portal}", *settings),
        ):
            pass
        return
    with Relay(tgt.port) as relay, host_with(f"portal={relay.portal}", *settings) as host:
        disk(host).write(5, bytes(range(256)) * 512)
        assert on_disk(backing, 5, 256) == bytes(range(256)) * 512
        assert b"DataDigest=CRC32C\0" in relay.heard["target"]


def test_parameters_are_a_table_with_descriptions() -> None:
    with VMkernel(ModelPlatform([]), engine="native") as host:
        table = {one.name: one for one in host.parameters("vmkiscsi")}
        assert {"portal", "target", "chap_secret_file", "replacement_timeout"} <= table.keys()
        assert all(one.description for one in table.values())
        assert table["sessions"].type == "uint"
        for setting in ("portals=x", "sessions=many"):
            with pytest.raises(BadParameter):
                host.set_parameters("vmkiscsi", [setting])
        with pytest.raises(UsageError, match="no portal is given"):
            host.load("vmkiscsi")
        assert host.modules() == []


def test_a_library_that_is_not_there_is_told_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("native_drivers.scsi.vmkiscsi.library._SONAMES", {"libiscsi.so.0": {}})
    with VMkernel(ModelPlatform([]), engine="native") as host:
        with pytest.raises(Exception, match="Debian 12's package is libiscsi7") as error:
            host.load("vmkiscsi", [f"portal=127.0.0.1:{free_port()}"])
        assert getattr(error.value, "exit_code", 0) == 4


def test_a_portal_that_tells_of_no_target_is_told() -> None:
    closed = Tgt(Target(NAME.format("closed"), {}, allowed="192.0.2.1"))
    settings = "initiator=iqn.2026-01.test:me"
    with closed, pytest.raises(VmkError) as error, host_with(f"portal={closed.portal}", settings):
        pass
    assert "tell of no target" in error.value.what
    assert "iqn.2026-01.test:me" in error.value.remedy


def test_nothing_is_logged_as_an_error_in_an_ordinary_life(
    tgt: Tgt, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), host_with(f"portal={tgt.portal}") as host:
        disk(host).read(0, 8)
    assert [record.getMessage() for record in caplog.records] == []
