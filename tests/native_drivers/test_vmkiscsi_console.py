"""vmkiscsi by commands: parameters, loading, portals, targets, sessions, devices. Independent of us: tgt."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.native_drivers.iscsi import MIB, NAME, image, naa
from tests.native_drivers.tgt import Target, Tgt
from tests.vmkernel_core.console.running import Running
from tests.vmkernel_core.console.vmk_command import said

MACHINE = """
engine = "native"

[platform]
type = "model"

[parameters]
vmkiscsi = "portal={portal} target={target}"
"""


def test_a_running_vmkernel_logs_in_and_tells_of_its_sessions(tmp_path: Path) -> None:
    name = NAME.format("console")
    with Tgt(Target(name, {1: image(tmp_path / "unit", 2 * MIB)})) as tgt:
        machine = MACHINE.format(portal=tgt.portal, target=name)
        with Running(machine, tmp_path) as running:
            parameters = {
                one["name"]: one
                for one in running.json("system", "module", "parameters", "list", "-m", "vmkiscsi")
            }
            assert parameters["portal"]["value"] == tgt.portal
            assert "host[:port]" in parameters["portal"]["description"]
            assert running.json("iscsi", "session", "list") == []
            running.json("system", "module", "load", "-m", "vmkiscsi")
            [session] = running.json("iscsi", "session", "list", "-A", "vmhba0")
            place = (session["adapter"], session["target_id"], session["target"], session["portal"])
            assert place == ("vmhba0", 0, name, tgt.portal)
            assert (session["state"], session["logins"], session["error"]) == ("online", 1, None)
            [device] = running.json("storage", "core", "device", "list")
            assert (device["name"], device["size"], device["state"]) == (naa(1, 1), 2 * MIB, "active")
            tgt.kill()
            running.expect("its transport has lost it for now")
            [session] = running.json("iscsi", "session", "list")
            assert (session["state"], session["logins"]) == ("blocked", 1)
            tgt.start()
            running.expect("it takes commands again")
            [session] = running.json("iscsi", "session", "list")
            assert (session["state"], session["logins"], session["error"]) == ("online", 2, None)
            running.json("system", "module", "unload", "-m", "vmkiscsi")
            assert running.json("storage", "core", "adapter", "list") == []
            tgt.kill()
            refused = running.vmk("system", "module", "load", "-m", "vmkiscsi")
            assert refused.returncode == 5
            assert f"portal {tgt.portal} cannot be reached: Connection refused" in said(refused)
            assert running.end() == 0


#: What tgt agrees to, given the settings below.
AGREED = {
    "state": "online", "authentication_method": "CHAP", "header_digest": "CRC32C", "data_digest": "None",
    "first_burst_length": 32768, "max_burst_length": 65536, "target_portal_group_tag": 1, "error_recovery_level": 0,
}  # fmt: skip
SETTINGS = {"HeaderDigest": "CRC32C,None", "FirstBurstLength": "32768", "MaxBurstLength": "65536"}
TOLD = NAME.format("told")


@pytest.fixture
def tgt(tmp_path: Path) -> Iterator[Tgt]:
    """A target with CHAP."""
    unit = image(tmp_path / "unit")
    with Tgt(Target(TOLD, {1: unit}, account=("me", "initiator-secret"), settings=SETTINGS)) as running:
        yield running


@pytest.fixture
def running(tgt: Tgt, tmp_path: Path) -> Iterator[Running]:
    """A vmkernel with two sessions with it."""
    secret = tmp_path / "secret"
    secret.write_text("initiator-secret")
    secret.chmod(0o600)
    chap = f"chap_name=me chap_secret_file={secret} header_digest=crc32c,none sessions=2"
    with Running(MACHINE.format(portal=tgt.portal, target=f"{TOLD} {chap}"), tmp_path) as vmkernel:
        vmkernel.json("system", "module", "load", "-m", "vmkiscsi")
        yield vmkernel
        assert vmkernel.end() == 0
        assert "initiator-secret" not in "\n".join(vmkernel.rest())


def test_sessions_are_told_with_what_was_agreed_on(running: Running, tgt: Tgt) -> None:
    [adapter] = running.json("iscsi", "adapter", "list")
    assert (adapter["adapter"], adapter["driver"], adapter["state"]) == ("vmhba0", "vmkiscsi", "online")
    assert adapter["uid"] in adapter["description"]
    first, second = running.json("iscsi", "session", "list")
    for session in (first, second):
        assert {key: session[key] for key in AGREED} == AGREED
    assert first["isid"] != second["isid"]
    assert adapter["uid"] in tgt.show()
    assert "CRC32C" in running.table("iscsi", "session", "list")
    [known] = running.json("iscsi", "adapter", "target", "list")
    assert known == {
        "adapter": "vmhba0", "target": TOLD, "alias": "", "discovery_method": "STATIC", "last_error": None
    }  # fmt: skip
    uni = running.json("iscsi", "adapter", "auth", "chap", "get", "-A", "vmhba0")
    assert uni == {"adapter": "vmhba0", "direction": "uni", "name": "me", "level": "chapPreferred"}
    mutual = running.json("iscsi", "adapter", "auth", "chap", "get", "-A", "vmhba0", "-d", "mutual")
    assert (mutual["direction"], mutual["name"], mutual["level"]) == ("mutual", "", "chapProhibited")


def test_a_session_is_removed_and_added(running: Running, tgt: Tgt) -> None:
    def paths() -> list[str]:
        return [path for one in running.json("storage", "core", "device", "list") for path in one["paths"]]

    _, second = running.json("iscsi", "session", "list")
    one_of = ("-A", "vmhba0", "-n", TOLD, "-s", second["isid"])
    [removed] = running.json("iscsi", "session", "remove", *one_of)
    assert (removed["state"], removed["target_id"], removed["header_digest"]) == ("closed", 1, None)
    assert tgt.show().count("I_T nexus:") == 1
    assert paths() == ["vmhba0:C0:T0:L1"]
    running.json("storage", "core", "adapter", "rescan", "--all")
    [same] = running.json("iscsi", "session", "list", "-s", second["isid"])
    assert same["state"] == "closed"
    [added] = running.json("iscsi", "session", "add", *one_of)
    assert (added["state"], added["logins"], added["authentication_method"]) == ("online", 2, "CHAP")
    assert paths() == ["vmhba0:C0:T0:L1", "vmhba0:C0:T1:L1"]


def test_a_portal_is_added_and_removed(running: Running, tmp_path: Path) -> None:
    other, portals = NAME.format("other"), ("iscsi", "adapter", "discovery", "sendtarget")
    with Tgt(Target(other, {1: image(tmp_path / "other")})) as there:
        here = ("-A", "vmhba0", "-a", there.portal)
        assert running.json(*portals, "list") == []  # the parameters name a target
        asked = [{"adapter": "vmhba0", "sendtarget": there.portal}]
        assert running.json(*portals, "add", *here) == asked
        assert running.json(*portals, "list", "-A", "vmhba0") == asked
        running.json("storage", "core", "adapter", "rescan", "-A", "vmhba0")
        [found] = running.json("iscsi", "adapter", "target", "list", "-n", other)
        assert (found["discovery_method"], found["last_error"]) == ("SENDTARGETS", None)
        session, _ = running.json("iscsi", "session", "list", "-n", other)
        assert (session["state"], session["authentication_method"]) == ("online", "None")
        assert running.json(*portals, "remove", *here) == []
        assert len(running.json("iscsi", "session", "list", "-n", other)) == 2  # they stay
        running.json("iscsi", "session", "remove", "-A", "vmhba0", "-n", other)


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("adapter discovery sendtarget remove -A vmhba0 -a 192.0.2.1", "portal 192.0.2.1:3260 is not asked"),
        ("adapter discovery sendtarget add -A vmhba0 -a a:b:c", "'a:b:c' is no portal"),
        ("session add -A vmhba0 -n iqn.x", "there is no session with iqn.x"),
        ("session list -A vmhba7", "there is no storage adapter vmhba7"),
    ],
)
def test_what_is_not_there_is_told(running: Running, command: str, why: str) -> None:
    wrong = running.vmk("iscsi", *command.split())
    assert wrong.returncode == 3
    assert why in said(wrong)


def test_a_session_that_cannot_be_added_says_why(tmp_path: Path) -> None:
    name = NAME.format("away")
    with Tgt(Target(name, {1: image(tmp_path / "one")})) as tgt:
        machine = MACHINE.format(portal=tgt.portal, target=name)
        with Running(machine, tmp_path) as running:
            running.json("system", "module", "load", "-m", "vmkiscsi")
            running.json("iscsi", "session", "remove", "-A", "vmhba0", "-n", name)
            assert running.json("storage", "core", "device", "list") == []
            tgt.kill()
            refused = running.vmk("iscsi", "session", "add", "-A", "vmhba0", "-n", name)
            assert refused.returncode == 5
            assert "Connection refused" in said(refused)
            [known] = running.json("iscsi", "adapter", "target", "list")
            assert "Connection refused" in known["last_error"]
            tgt.start()
            running.json("storage", "core", "adapter", "rescan", "--all")  # tries again what was wanted
            [session] = running.json("iscsi", "session", "list")
            assert session["state"] == "online"
            assert [one["name"] for one in running.json("storage", "core", "device", "list")] == [naa(1, 1)]
            assert running.end() == 0
