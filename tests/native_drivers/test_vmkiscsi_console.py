"""vmkiscsi by commands: parameters, loading, sessions, devices. Independent of us: tgt."""

from __future__ import annotations

from pathlib import Path

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
            session = {"adapter": "vmhba0", "target_id": 0, "target": name, "portal": tgt.portal}
            fine = session | {"state": "online", "logins": 1, "error": None}
            assert running.json("iscsi", "session", "list", "-A", "vmhba0") == [fine]
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
