"""Programs that end without having stopped their vmkernel, each in a process of its own.

pytest enables faulthandler when it begins and disables it at its end: both take the signals of faults from the vmkernel,
whose drivers reach their hardware by them.

Independent: Debian's drivers with hardware of QEMU's that still has work; Python, which ends as it always does.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.storage import LIMIT, blank
from vmklinux.kernels import Kernel

PROGRAM = """
import faulthandler, sys
from pathlib import Path
from tests.e2e.storage import CONTROLLERS, VMkernel, load, only_disk, raw_drive

faulthandler.enable()
drive = raw_drive(Path(sys.argv[1]), ",throttling.iops-total=50")
host = VMkernel(CONTROLLERS["megasas"].platform("hd", *drive), kernel=sys.argv[2])
host.start()
load(only_disk(host), 100)
print(host.platform.pid, flush=True)
{end}
"""


@pytest.mark.parametrize(
    ("end", "status"),
    [
        ("", 0),
        ("raise SystemExit(3)", 3),
        ("faulthandler.disable()", 0),
    ],
    ids=["falls off", "exits", "signals taken"],
)
def test_a_program_that_forgets_to_stop_ends_well(
    kernel612: Kernel, tmp_path: Path, end: str, status: int
) -> None:
    image = blank(tmp_path / "disk.raw")
    program = [sys.executable, "-c", PROGRAM.format(end=end), str(image), kernel612.release]
    ended = subprocess.run(program, capture_output=True, text=True, check=False, timeout=4 * LIMIT)
    assert (ended.returncode, ended.stderr) == (status, "")
    assert not Path(f"/proc/{ended.stdout.strip()}").exists()
