"""Fixtures for tests of the emulated API: a booted kernel image, and functions of a few bytes of machine code."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from vmkernel_core._core import ffi, lib
from vmkernel_core.idle import IdleLoop
from vmkernel_core.memory import MachineMemory, store_bytes
from vmklinux import kernels
from vmklinux.linux import Linux
from vmklinux.workqueue import Workqueues

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vmklinux.kernels import Kernel
    from vmklinux.kobject import Obj

CODE = 0x7F10_0000


@pytest.fixture(scope="module", params=["6.1", "6.12"])
def linux(request: pytest.FixtureRequest) -> Iterator[Linux]:
    """A booted kernel, each in turn, with a page for machine code."""
    kernel: Kernel = request.getfixturevalue("kernel61" if request.param == "6.1" else "kernel612")
    with MachineMemory(64 << 20) as memory:
        idle = IdleLoop(lambda event: booted.event(event), lambda: None)  # noqa: PLW0108 - booted comes later
        booted = Linux(kernel, memory, idle, kernels.image_dir())
        idle.start()
        booted.map_at(CODE, 4096, 7)
        yield booted
        booted.state(Workqueues).stop()
        idle.stop()
        booted.close()


@pytest.fixture
def scratch(linux: Linux) -> Iterator[int]:
    """512 bytes of machine memory."""
    address = linux.allocate(512)
    yield address
    linux.free(address)


def objects() -> int:
    """How many allocations there are in machine memory."""
    stats = ffi.new("struct vmk_memory_stats *")
    lib.vmk_memory_stats(stats)
    return int(stats.objects)


def code(*parts: bytes) -> int:
    """A function of machine code below 2 GiB."""
    store_bytes(CODE, b"".join(parts) + b"\xc3")
    return CODE


def call_with_seven(linux: Linux, function: int, *arguments: int | Obj) -> int:
    """Call a function of kernel code whose seventh argument, 31 bits, lies on the stack; its result, unsigned."""
    # push $seventh; mov $function,%eax; call *%rax; add $8,%rsp; ret
    store_bytes(
        CODE + 4000,
        b"\x68" + int(arguments[6]).to_bytes(4, "little") + b"\xb8" + function.to_bytes(4, "little")
        + b"\xff\xd0\x48\x83\xc4\x08\xc3",
    )  # fmt: skip
    return linux.call(CODE + 4000, *arguments[:6])
