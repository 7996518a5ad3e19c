"""Blocks at random places, many at a time, with logins anew in between: each is where it belongs.

Independent of us: tgt, and qemu-img, which compares its backing file with a reference that the test writes by itself.

``VMK_INTEGRITY_MIB=1024`` writes a gigabyte, ``VMK_INTEGRITY_SEED`` repeats a run that failed.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from random import Random

from tests.e2e.test_storage_integrity import Reference, Run, compare
from tests.native_drivers.iscsi import MIB, NAME, disk, host_with
from tests.native_drivers.tgt import Target, Tgt

#: MiB that are written, a quarter of which the unit has.
WRITTEN = int(os.environ.get("VMK_INTEGRITY_MIB", "64"))


def test_every_block_is_where_it_belongs(tmp_path: Path) -> None:
    backing = tmp_path / "unit.raw"
    reference = Reference(tmp_path / "reference.raw", WRITTEN // 4 * MIB)
    backing.write_bytes(reference.path.read_bytes())
    seed = int(os.environ.get("VMK_INTEGRITY_SEED", "0")) or Random().getrandbits(32)
    try:
        tgt = Tgt(Target(NAME.format("integrity"), {1: backing}))
        with tgt, host_with(f"portal={tgt.portal}", memory=256 * MIB) as host:
            device = disk(host)
            run = Run(host.storage_adapters["vmhba0"], device, reference, backing, seed)
            began = time.perf_counter()
            run.go(WRITTEN * MIB)
            took = time.perf_counter() - began
            stats = device.stats()
            assert run.resets >= 1
            assert stats.in_flight_most >= 16
            assert stats.timeouts == 0
        compare(reference.path, backing)
    except BaseException as error:
        error.add_note(f"VMK_INTEGRITY_SEED={seed} repeats it")
        raise
    finally:
        reference.close()
    print(
        f"\n{run.written / 1e6:.0f} MB written, {run.read / 1e6:.0f} MB read, {stats.commands} commands, up to "
        f"{stats.in_flight_most} in flight, {run.resets} resets, {stats.retries} retries, {took:.1f} s"
    )
