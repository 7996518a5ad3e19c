"""Another command in a failed one's place (scsi_eh_prep_cmnd), on both kernels.

No independent side here: what libata makes of failed commands is in tests/e2e/test_storage_ata.py.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest

from vmkernel_core.memory import load_bytes, store_bytes
from vmklinux.kobject import Obj, addressof
from vmklinux.scsi import Scsi

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vmklinux.linux import Linux


@pytest.fixture
def cmnd(linux: Linux) -> Iterator[Obj]:
    """A command of noise to LUN 3 of a SCSI-2 device, with a sense buffer of 96 bytes."""
    scsi = linux.state(Scsi)
    cmnd, device, sense = scsi.new("scsi_cmnd", 0, 0), scsi.new("scsi_device", 0, 0), linux.allocate(96)
    store_bytes(int(cmnd), Random(6).randbytes(scsi.types.sizeof("scsi_cmnd")))  # a pattern, no secret
    store_bytes(sense, b"\x70" * 96)
    device.scsi_level, device.lun, cmnd.cmd_len = 3, 3, 10
    cmnd.device, cmnd.sense_buffer = device, sense
    yield cmnd
    for ours in (cmnd, device, sense):
        linux.free(ours)


def whole(linux: Linux, cmnd: Obj) -> bytes:
    return load_bytes(int(cmnd), linux.state(Scsi).types.sizeof("scsi_cmnd"))


def test_sense_data_is_asked_for_and_the_command_comes_back(linux: Linux, cmnd: Obj) -> None:
    save, before = linux.state(Scsi).new("scsi_eh_save", 0, 0), whole(linux, cmnd)
    linux.call(linux.entry("scsi_eh_prep_cmnd"), cmnd, save, 0, 0, 64)
    assert load_bytes(addressof(cmnd, "cmnd"), 32) == bytes([3, 0x60, 0, 0, 64]) + bytes(27)
    assert (cmnd.cmd_len, cmnd.sc_data_direction, cmnd.sdb.length, cmnd.result) == (6, 2, 64, 0)
    entry = cmnd.sdb.table.sgl
    assert (cmnd.sdb.table.nents, entry.length) == (1, 64)
    assert load_bytes(cmnd.sense_buffer, 96) == bytes(96)
    linux.call(linux.entry("scsi_eh_restore_cmnd"), cmnd, save)
    assert whole(linux, cmnd) == before
    linux.free(save)


def test_a_command_of_the_driver_s_own(linux: Linux, cmnd: Obj, scratch: int) -> None:
    save, before = linux.state(Scsi).new("scsi_eh_save", 0, 0), whole(linux, cmnd)
    store_bytes(scratch, bytes([0x1B, 0, 0, 0, 1, 0]))
    linux.call(linux.entry("scsi_eh_prep_cmnd"), cmnd, save, scratch, 6, 0)
    assert load_bytes(addressof(cmnd, "cmnd"), 32) == bytes([0x1B, 0x60, 0, 0, 1]) + bytes(27)
    assert (cmnd.cmd_len, cmnd.sc_data_direction, cmnd.sdb.length) == (6, 3, 0)
    linux.call(linux.entry("scsi_eh_restore_cmnd"), cmnd, save)
    assert whole(linux, cmnd) == before
    linux.free(save)
