"""A machine that umockdev simulates, and programs that are run in it.

``machine.umockdev`` is of our own making, in the form in which umockdev-record records: a network card, a USB root hub,
behind it a memory stick, and a network adapter that nobody has configured. The descriptors are there twice: for
/dev/bus/usb (N:), where libusb reads them, and for /sys (H:).
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

MACHINE = Path(__file__).with_name("machine.umockdev")
HCL = (sys.executable, "-m", "hcl.console.main")


def run_in(machine: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a program in the machine; libudev, libusb and whoever reads /sys there see its devices."""
    return subprocess.run(
        ["umockdev-run", "--device", machine, "--", *command],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
