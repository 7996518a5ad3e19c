"""``make demo`` where neither QEMU nor a kernel package can be had: it does without, and says so.

Independent side: none; the demo has its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIMIT = 120.0
#: A vmk for which there is a kernel, or none can be had.
VMK = """#!/bin/sh
test "$1 $2" = "kernel fetch" && exit {status}
PYTHONPATH={root} exec {python} -m vmkernel_core.console.main "$@"
"""
NO_QEMU = "QEMU cannot be had here: the card is a model of it in Python"
NO_KERNEL = "no kernel package can be had here: the driver is the one in Python"


def test_a_machine_without_apt(tmp_path: Path) -> None:
    run = subprocess.run(
        ["/bin/sh", str(ROOT / "tools/apt-install"), "gcc", "nosuch"],
        env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False, timeout=LIMIT,
    )  # fmt: skip
    assert run.returncode == 1
    assert "there is no apt-get here for these Debian packages: gcc nosuch\n" in run.stderr


@pytest.mark.parametrize("qemu", [False, True])
def test_a_machine_without_kernel_packages(tmp_path: Path, qemu: bool) -> None:
    vmk, programs = tmp_path / "vmk", tmp_path / "bin"
    vmk.write_text(VMK.format(status=1, root=ROOT, python=sys.executable))
    vmk.chmod(0o755)
    programs.mkdir()
    environment = os.environ | {"VMK_KERNELS": str(tmp_path / "none")}
    run = subprocess.run(
        ["/bin/sh", str(ROOT / "tools/demo"), str(vmk)],
        env=environment if qemu else environment | {"PATH": str(programs)},
        capture_output=True, text=True, check=False, timeout=LIMIT,
    )  # fmt: skip
    assert run.returncode == 0
    assert (NO_QEMU in run.stdout, NO_KERNEL in run.stdout) == (not qemu, True)
    for text in (f"e1000 on {'qemu' if qemu else 'model'}", "a driver in Python, no kernel", "every byte"):
        assert text in run.stdout
