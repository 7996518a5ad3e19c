"""``hcl validate`` on one inventory starts at once: it brings in nothing that only other work needs.

Independent side: Python's own list of what was imported. (Figures are no test's: they are a machine's.)
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hcl.mock import HCL
from vmklinux.kernels import Kernel

#: What has no business in it, and who would need it.
IDLE = {
    "elftools": "reading a module for the first time",
    "capstone": "scanning it",
    "vmkernel_core._core": "running drivers",
    "vmkernel_core.boot": "booting",
    "vmklinux.api": "running drivers",
    "vmklinux.image": "reading a kernel image for the first time",
    "vmklinux.btf": "its types",
    "vmklinux.kernels.fetching": "fetching kernels",
    "multiprocessing": "fleets",
    "concurrent.futures.process": "fleets",
    "cryptography": "checking evidence, which there is none of for these devices",
    "pyudev": "this machine's own devices",
    "usb": "this machine's own devices",
    "rich": "tables",
    "hcl.formats.html": "pages",
    "asyncio": "vmk boot",
}
INVENTORY = """00:00.0 0600: 8086:29c0
00:03.0 0108: 1b36:0010 (rev 02) (prog-if 02)
00:05.0 0200: 10ec:8168
00:06.0 0200: dead:beef
"""
PROGRAM = """
import json, sys
from hcl.console.main import main
try:
    main(sys.argv[1:])
finally:
    print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    file = tmp_path / "n1.txt"
    file.write_text(INVENTORY)
    return file


def test_only_what_is_needed_is_imported(inventory: Path, kernel61: Kernel) -> None:
    command = ["validate", "--inventory", str(inventory), "--kernel", kernel61.release, "--format", "json"]
    # The first run looks at the modules, and keeps what it found.
    subprocess.run([*HCL, *command], capture_output=True, timeout=120, check=False)
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, *command], capture_output=True, text=True, timeout=120, check=False
    )
    report = json.loads(ran.stdout)
    assert [one["status"] for one in report["machines"][0]["devices"]] == [
        "skipped", "unsupported", "compatible", "unsupported",
    ]  # fmt: skip
    imported = json.loads(ran.stderr.splitlines()[-1])
    idle = {name: why for name, why in IDLE.items() if name in imported}
    assert not idle
