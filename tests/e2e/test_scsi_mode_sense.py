"""scsi_mode_sense, by which drivers read a mode page, from QEMU's disk behind Debian's mptsas.

Independent of us: QEMU's disk, whose caching page is asked for by a command of the test's own as well.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest

from tests.e2e.storage import CONTROLLERS, blank, only_disk, raw_drive
from vmkernel_core.boot import VMkernel
from vmkernel_core.memory import load_bytes
from vmkernel_core.storage.command import Direction
from vmklinux.kernels import Kernel
from vmklinux.kobject import Obj
from vmklinux.scsi import Scsi
from vmklinux.scsi_lib import scsi_mode_sense

CACHING, NO_DESCRIPTOR, NO_PAGE = 0x08, 8, 0x3E


@pytest.fixture(scope="module")
def host(kernel: Kernel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VMkernel]:
    """A host with a disk."""
    drive = raw_drive(blank(tmp_path_factory.mktemp("disk") / "disk.raw"))
    with VMkernel(CONTROLLERS["mptsas1068"].platform("hd", *drive), kernel=kernel.release) as host:
        only_disk(host)
        yield host
    assert host.leaks == []


@pytest.mark.parametrize(("ten", "length"), [(0, 64), (1, 64), (0, 512)])
@pytest.mark.parametrize("flags", [0, NO_DESCRIPTOR])
def test_a_page_is_where_it_says(host: VMkernel, ten: int, length: int, flags: int) -> None:
    linux, scsi, disk = host.linux, host.linux.state(Scsi), only_disk(host)
    asked = disk.submit(bytes([0x1A, NO_DESCRIPTOR, CACHING, 0, 64, 0]), Direction.FROM_DEVICE, 64)
    asked.result()
    assert asked.buffer is not None
    expected = bytes(asked.buffer.view[4:24])
    assert expected[0] & 0x3F == CACHING
    [device] = next(iter(scsi.hosts.values())).devices.values()
    device.obj.use_10_for_ms = ten
    buffer, sense = linux.allocate(length), linux.allocate(8)
    data = scsi.new("scsi_mode_data", 0, 0)
    subpage = [0] if "subpage" in parameters(host) else []
    with linux.baton():
        arguments = (buffer, length, 10 * linux.hz, 3, data, Obj(scsi.types, "scsi_sense_hdr", sense))
        assert scsi_mode_sense(linux, device.obj, flags, CACHING, *subpage, *arguments) == 0
        assert data.header_length == (8 if ten or length > 255 else 4)
        assert data.block_descriptor_length == (0 if flags else 8)
        at = buffer + data.header_length + data.block_descriptor_length
        assert load_bytes(at, 20) == expected
        assert data.length == data.header_length + data.block_descriptor_length + 20
        assert scsi_mode_sense(linux, device.obj, flags, NO_PAGE, *subpage, *arguments) == -errno.EIO
        short = (buffer, 3, *arguments[2:])
        assert scsi_mode_sense(linux, device.obj, flags, CACHING, *subpage, *short) == -errno.EINVAL
    for address in (buffer, sense, int(data)):
        linux.free(address)


def parameters(host: VMkernel) -> list[str]:
    """The names of the function's parameters in this kernel."""
    prototype = host.linux.state(Scsi).types.function("scsi_mode_sense")
    assert prototype is not None
    return [parameter.name for parameter in prototype.parameters]
