"""Several CPUs: hosts make hardware queues for them, and what threads write at the same time arrives.

Independent of us: QEMU's controllers, Debian's modules, which say how many queues there are and to which CPUs they
belong, and the image file.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from threading import Barrier

import pytest

from tests.e2e.storage import CONTROLLERS, LIMIT, blank, leaks, only_disk, raw_drive, request_of_tag
from vmkernel_core.boot import VMkernel
from vmkernel_core.memory import load
from vmkernel_core.platform.model import ModelPlatform
from vmkernel_core.storage.device import Request, StorageDevice
from vmklinux.kernels import Kernel
from vmklinux.kobject import Obj
from vmklinux.scsi import Scsi

CPUS = 4
PART = 64 * 512


def crowd(disk: StorageDevice) -> bytes:
    """A thread for each CPU writes a part of its own, with several commands in flight; what the disk has to hold."""
    together = Barrier(CPUS)
    parts = [Random(number).randbytes(PART) for number in range(CPUS)]

    def write(number: int) -> None:
        together.wait(LIMIT)
        for _ in range(4):
            requests = [
                request
                for block in range(64)
                for request in disk.start_write(
                    number * 64 + block, parts[number][block * 512 : block * 512 + 512]
                )
            ]
            for request in requests:
                request.result(LIMIT)

    with ThreadPoolExecutor(CPUS) as threads:
        for end in [threads.submit(write, number) for number in range(CPUS)]:
            end.result()
    return b"".join(parts)


@pytest.mark.parametrize("name", ["megasas", "megasas-gen2", "mptsas1068", "pvscsi", "virtio-scsi"])
def test_threads_write_at_the_same_time(kernel: Kernel, tmp_path: Path, name: str) -> None:
    image, controller = blank(tmp_path / "disk.raw"), CONTROLLERS[name]
    with VMkernel(controller.platform("hd", *raw_drive(image)), kernel=kernel.release, cpus=CPUS) as host:
        disk = only_disk(host)
        expected = crowd(disk)
        disk.flush()
        assert image.read_bytes()[: len(expected)] == expected
        assert disk.read(0, len(expected) // 512) == expected
    assert leaks(host, controller) == []


@pytest.mark.parametrize("shared", [False, True])
def test_queues_have_tags_of_their_own_or_share_them(kernel: Kernel, shared: bool) -> None:
    """scsi_debug knows both (host_tagset); its commands take a second here, so that those of all threads are there."""
    settings = [f"submit_queues={CPUS}", "max_luns=4", "ndelay=999999999", *["host_max_queue=64"] * shared]
    with VMkernel(
        ModelPlatform([]), kernel=kernel.release, cpus=CPUS, settings={"scsi_debug": settings}
    ) as host:
        host.load("scsi_debug")
        host.wait_storage(CPUS, timeout=2 * LIMIT)
        linux, together = host.linux, Barrier(CPUS)

        def read(disk: StorageDevice) -> list[Request]:
            together.wait(LIMIT)
            return disk.start_read(0, 1)

        with ThreadPoolExecutor(CPUS) as threads:
            started = [request for part in threads.map(read, host.storage.values()) for request in part]
        with linux.baton():
            [scsi_host] = linux.state(Scsi).hosts.values()
            tag_set = scsi_host.obj.tag_set
            assert (tag_set.nr_hw_queues, scsi_host.obj.host_tagset) == (CPUS, shared)
            first = [request_of_tag(linux, load(tag_set.tags + 8 * queue, 8), 0) for queue in range(CPUS)]
            queues = [Obj(linux.types, "request", request).mq_hctx.queue_num for request in first if request]
        assert len(set(first)) == (1 if shared else CPUS)
        assert len(queues) == CPUS
        assert shared or queues == [*range(CPUS)]
        for request in started:
            request.result(LIMIT)
    assert host.leaks == []
