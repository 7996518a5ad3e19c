"""A host whose only driver is vmkiscsi, for its tests: no hardware, no kernel."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

from vmkernel_core.boot import VMkernel
from vmkernel_core.platform.model import ModelPlatform
from vmkernel_core.storage.device import StorageDevice
from vmkernel_core.storage.iscsi import IscsiControls

#: Seconds until what was to come has failed to come.
LIMIT = 60.0
NAME = "iqn.2026-01.test:{}"
BLOCK, MIB = 512, 1 << 20


def image(path: Path, size: int = 8 * MIB) -> Path:
    """A backing file with noise in it that its name decides."""
    path.write_bytes(Random(path.name).randbytes(size))  # a pattern, no secret
    return path


def naa(target: int, lun: int) -> str:
    """The name of a unit of tgt's: of the target's number, counted from 1, and the LUN."""
    return f"naa.3{target:07x}{lun:08x}"


@contextmanager
def host_with(*settings: str, memory: int = 96 * MIB) -> Iterator[VMkernel]:
    """A host, with the driver loaded with settings ``name=value``; raises what loading raises."""
    with VMkernel(ModelPlatform([]), engine="native", memory=memory) as host:
        host.load("vmkiscsi", settings)
        yield host


def disk(host: VMkernel, target: int = 1, lun: int = 1) -> StorageDevice:
    """A unit by target and LUN."""
    return host.storage[naa(target, lun)]


def on_disk(path: Path, lba: int, count: int) -> bytes:
    """Blocks as the backing file has them."""
    with path.open("rb") as file:
        return os.pread(file.fileno(), count * BLOCK, lba * BLOCK)


def the_iscsi(host: VMkernel) -> IscsiControls:
    """What the host's only adapter can be asked and told."""
    (adapter,) = host.storage_adapters.values()
    assert adapter.iscsi is not None
    return adapter.iscsi


def wait_for(condition: Callable[[], bool]) -> None:
    """Look for it until it is so."""
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)  # a look, no wait for something to be over by then
