"""``hcl inventory``, ``validate`` and ``watch`` of a machine that runs.

Independent side: umockdev simulates the machine; libudev and libusb read it; Debian's lsusb agrees on what is there.
"""

from __future__ import annotations

import json
import select
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

from tests.hcl.mock import HCL, MACHINE, run_in

#: Seconds for a program to start and to say something.
LIMIT = 60.0

#: Run by Debian's python3, for which umockdev's bindings are packaged: add a card, later take it out.
BENCH = """
import subprocess, sys
from gi.repository import UMockdev
bed = UMockdev.Testbed.new()
bed.add_from_file(sys.argv[1])
child = subprocess.Popen(sys.argv[2:], stdout=subprocess.PIPE, text=True)
sys.stdin.readline()
card = bed.add_device(
    "pci", "0000:00:05.0", None,
    ["vendor", "0x8086", "device", "0x10d3", "subsystem_vendor", "0x8086", "subsystem_device", "0xa01f",
     "class", "0x020000", "revision", "0x00"],
    ["PCI_ID", "8086:10D3"],
)
print(child.stdout.readline(), end="", flush=True)
bed.uevent(card, "remove")
print(child.stdout.readline(), end="", flush=True)
child.terminate()
child.wait()
"""


def test_an_inventory_of_this_machine() -> None:
    run = run_in(MACHINE, *HCL, "inventory")
    assert run.returncode == 0, run.stderr
    inventory = json.loads(run.stdout)
    assert inventory["source"] == "live: pyudev"
    assert inventory["model"] == "Example Server 1"
    assert "notes" not in inventory
    by_place = {device.get("address") or device["port"]: device for device in inventory["devices"]}
    assert sorted(by_place) == ["0000:00:02.0", "1-1", "1-2", "usb1"]
    assert by_place["0000:00:02.0"]["driver"] == "e1000"
    assert by_place["1-1"]["interfaces"] == [{"number": 0, "usb_class": "080650", "driver": "usb-storage"}]
    # The kernel has not configured it: only its descriptors, which libusb reads, tell what it is.
    assert by_place["1-2"]["interfaces"] == [{"number": 0, "usb_class": "020600", "driver": ""}]
    listed = run_in(MACHINE, "lsusb").stdout
    assert all(f"{d['vendor']}:{d['product']}" in listed for d in by_place.values() if d["bus"] == "usb")


def test_the_verdict_on_this_machine() -> None:
    run = run_in(MACHINE, *HCL, "validate", "--kernel", "6.1", "--format", "json")
    assert run.returncode == 1, run.stderr
    [machine] = json.loads(run.stdout)["machines"]
    found = {device["place"]: (device["status"], device["module"]) for device in machine["devices"]}
    assert found == {
        "0000:00:02.0": ("certified", "e1000"),
        "usb usb1": ("skipped", None),
        "usb 1-1": ("unsupported", "usb-storage"),
        "usb 1-2": ("unsupported", "cdc_ether"),
    }


def test_a_missing_libusb_and_an_absent_bus_are_told_apart(tmp_path: Path) -> None:
    without = (
        "import usb.backend.libusb0, usb.backend.libusb1, usb.backend.openusb, sys;"
        "[setattr(one, 'get_backend', lambda *_, **__: None) for one in "
        "(usb.backend.libusb0, usb.backend.libusb1, usb.backend.openusb)];"
        "from hcl.console.main import main; main(['inventory'])"
    )
    missing = json.loads(run_in(MACHINE, sys.executable, "-c", without).stdout)
    assert ["libusb is missing" in note for note in missing["notes"]] == [True]
    assert [d.get("interfaces") for d in missing["devices"] if d.get("port") == "1-2"] == [None]
    card = tmp_path / "card.umockdev"
    card.write_text(MACHINE.read_text().partition("P: /devices/pci0000:00/0000:00:1d.0/usb1")[0])
    absent = json.loads(run_in(card, *HCL, "inventory").stdout)
    assert absent["notes"] == ["this machine has no USB bus"]


@pytest.mark.parametrize("options", [(), ("--json",)], ids=["text", "json"])
def test_a_device_that_comes_and_goes(options: tuple[str, ...]) -> None:
    command = [*HCL, "-v", "watch", "--kernel", "6.1", *options]
    with subprocess.Popen(
        ["umockdev-wrapper", "/usr/bin/python3", "-c", BENCH, MACHINE, *command],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as bench:  # fmt: skip
        assert bench.stdin is not None
        assert bench.stderr is not None
        # It says so when it listens.
        while "listening" not in _line(bench.stderr):
            pass
        bench.stdin.write("\n")
        bench.stdin.close()
        bench.stdin = None
        said, _ = bench.communicate(timeout=LIMIT)
    came, went = said.splitlines()
    if options:
        assert json.loads(came)["report"]["module"] == "e1000e"
        assert json.loads(went) == {"action": "remove", "place": "0000:00:05.0", "report": None}
    else:
        assert came.startswith("0000:00:05.0: 8086:10d3 compatible: ")
        assert went == "0000:00:05.0: gone"


def _line(stream: IO[str]) -> str:
    ready, _, _ = select.select([stream], [], [], LIMIT)
    line = stream.readline() if ready else ""
    assert line, "the program ended, or said nothing"
    return line
