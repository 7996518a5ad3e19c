"""A SCSI host without hardware: Debian's own scsi_debug, which is device and driver in one, below the mid-layer.

Independent of us: scsi_debug, which keeps the blocks, counts commands, and fails them as it is told to. All its LUNs
share one store, so what one of them wrote is read through another.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import count
from random import Random
from threading import Barrier

import pytest

from tests.vmkernel_core.hardware import until
from vmkernel_core.boot import VMkernel
from vmkernel_core.errors import DeviceGone, VmkError
from vmkernel_core.platform.model import ModelPlatform
from vmkernel_core.storage.command import Direction, HostStatus, Status
from vmkernel_core.storage.device import StorageDevice
from vmkernel_core.storage.errors import CommandTimedOut, MediumError, ScsiError, WriteProtected
from vmklinux.errors import DriverStopped
from vmklinux.hrtimer import HrTimers
from vmklinux.kernels import Kernel
from vmklinux.kobject import Obj
from vmklinux.scsi import Scsi

#: Seconds until what was to come has failed to come.
LIMIT = 60.0
#: What scsi_debug's ``opts`` inject, every ``every_nth`` command, or at once (Linux drivers/scsi/scsi_debug.c).
MEDIUM, TIMEOUT, RECOVERED, TRANSPORT, RARE_FULL, HOST_BUSY, ABORT = 2, 4, 8, 0x10, 0x800, 0x8000, 0x10000
#: The first of the ten blocks that have a medium error then.
BAD, BAD_COUNT = 0x1234, 10
#: Ways in which commands end: a high resolution timer after a tick, one after some microseconds, a work item, at once.
ENDINGS = {"tick": "delay=1", "timer": "ndelay=50000", "work": "delay=-1", "at once": "delay=0"}

Boot = Callable[..., VMkernel]


@pytest.fixture
def boot(kernel: Kernel) -> Iterator[Boot]:
    """Boots a host and loads scsi_debug with some settings; at the end nothing may be left."""
    hosts = []
    with ExitStack() as stack:

        def start(*settings: str, modules: tuple[str, ...] = (), cpus: int = 1) -> VMkernel:
            host = VMkernel(
                ModelPlatform([]),
                kernel=kernel.release,
                settings={"scsi_debug": ("dev_size_mb=8", *settings)},
                cpus=cpus,
            )
            hosts.append(stack.enter_context(host))
            for module in (*modules, "scsi_debug"):
                host.load(module)
            return host

        yield start
    assert [host.leaks for host in hosts if host.leaks] == []


def only(host: VMkernel) -> StorageDevice:
    """The one device of a host."""
    [device] = host.storage.values()
    return device


def read_10(lba: int, count: int = 1) -> bytes:
    """The CDB that reads blocks."""
    return struct.pack(">BBIBHB", 0x28, 0, lba, 0, count, 0)


@pytest.mark.parametrize("ending", ENDINGS)
def test_blocks(boot: Boot, ending: str) -> None:
    disk = only(boot(ENDINGS[ending]))
    assert (disk.vendor, disk.model, disk.block_size, disk.blocks) == ("Linux", "scsi_debug", 512, 16384)
    noise = Random(815).randbytes(300 * 512)  # a pattern, no secret
    disk.write(77, noise)
    disk.flush()
    assert disk.read(77, 300) == noise
    requests = [disk.start_read(77 + n, 1)[0] for n in range(200)]
    for n, request in enumerate(requests):
        request.result(LIMIT)
        assert request.buffer is not None
        assert bytes(request.buffer.view) == noise[n * 512 : (n + 1) * 512]
    assert disk.stats().in_flight == 0


def test_hosts_targets_and_units(boot: Boot) -> None:
    host = boot("add_host=2", "num_tgts=2", "max_luns=4")
    assert list(host.storage_adapters) == ["vmhba0", "vmhba1"]
    paths = {device.path for device in host.storage.values()}
    assert paths == {f"vmhba{h}:C0:T{t}:L{u}" for h in range(2) for t in range(2) for u in range(4)}
    assert all(name.startswith("naa.3") for name in host.storage)
    first, *_, last = host.storage.values()
    first.write(3, b"\xa5" * 512)
    assert last.read(3, 1) == b"\xa5" * 512, "all units share one store"


def test_units_without_the_first(boot: Boot) -> None:
    paths = [device.path for device in boot("no_lun_0=1", "max_luns=3").storage.values()]
    assert paths == ["vmhba0:C0:T0:L1", "vmhba0:C0:T0:L2"]


def test_units_of_a_target_that_reports_none(boot: Boot) -> None:
    """A target of SCSI-2 knows no REPORT LUNS: its units are looked for one after the other."""
    paths = [device.path for device in boot("scsi_level=2", "max_luns=5").storage.values()]
    assert paths == [f"vmhba0:C0:T0:L{unit}" for unit in range(5)]


def test_more_units_than_a_byte_counts(boot: Boot) -> None:
    """With so many scsi_debug uses another format of address (flat space, SAM-5, 4.7.7.3); Linux shows it like that."""
    devices = list(boot("max_luns=300").storage.values())
    assert [d.path for d in devices] == [f"vmhba0:C0:T0:L{n and 0x4000 + n}" for n in range(300)]
    devices[299].write(1, b"\x77" * 512)
    assert devices[0].read(1, 1) == b"\x77" * 512


def test_more_blocks_than_32_bits_count(boot: Boot) -> None:
    disk = only(boot("virtual_gb=4096"))
    assert disk.blocks == 4096 << 21
    disk.write(disk.blocks - 2, b"\x44" * 1024)
    disk.flush()
    assert disk.read(disk.blocks - 2, 2) == b"\x44" * 1024


@pytest.mark.parametrize(("settings", "most"), [(("max_queue=4",), 4), (("host_max_queue=3",), 3)])
def test_no_more_commands_than_the_host_takes(boot: Boot, settings: tuple[str, ...], most: int) -> None:
    """scsi_debug refuses what is too much with an error that is not tried again; with four hardware queues."""
    disk = only(boot("submit_queues=4", "ndelay=200000", *settings, cpus=4))
    disk.queue_depth = 64
    for request in [disk.start_read(n, 1)[0] for n in range(300)]:
        request.result(LIMIT)
    assert disk.stats().in_flight_most == most


def test_tags_that_a_driver_takes_for_itself(boot: Boot) -> None:
    host = boot("max_queue=4")
    linux, disk = host.linux, only(host)
    [scsi_host] = linux.state(Scsi).hosts.values()
    [device] = scsi_host.devices.values()
    take, give = linux.entry("blk_mq_alloc_request"), linux.entry("blk_mq_free_request")
    queue = device.obj.request_queue
    with linux.baton():
        taken = [Obj(linux.types, "request", linux.call(take, queue, 0, 0)) for _ in range(4)]
        assert sorted(request.tag for request in taken) == [0, 1, 2, 3]
        assert linux.call(take, queue, 0, 0) == (1 << 64) - errno.EWOULDBLOCK
        linux.call(give, taken.pop())
    assert disk.read(0, 1) == bytes(512), "one tag is left"
    for request in taken:
        linux.call(give, request)
    with pytest.raises(DriverStopped, match="misused"):
        linux.call(give, request)


def test_large_blocks(boot: Boot) -> None:
    disk = only(boot("sector_size=4096"))
    assert (disk.block_size, disk.blocks) == (4096, 2048)
    noise = Random(4096).randbytes(5 * 4096)  # a pattern, no secret
    disk.write(2043, noise)
    assert disk.read(2043, 5) == noise


def test_protected_blocks(boot: Boot) -> None:
    """A unit formatted with protection information serves commands that do not ask for it."""
    disk = only(boot("dif=1", "dix=1"))
    disk.write(9, b"\x5a" * 1024)
    assert disk.read(9, 2) == b"\x5a" * 1024


def test_discarded_blocks_are_zero(boot: Boot) -> None:
    disk = only(boot("lbpu=1", "unmap_max_blocks=64"))
    disk.write(0, b"\xff" * 512 * 300)
    disk.discard(10, 200)
    assert disk.read(0, 300) == b"\xff" * 5120 + bytes(200 * 512) + b"\xff" * 90 * 512


def test_write_protected(boot: Boot) -> None:
    disk = only(boot("wp=1"))
    with pytest.raises(WriteProtected):
        disk.write(0, bytes(512))
    assert disk.read(0, 1) == bytes(512)


def test_a_medium_error_is_told_with_its_block(boot: Boot) -> None:
    disk = only(boot(f"opts={MEDIUM}"))
    with pytest.raises(MediumError, match="unrecovered read error") as told:
        disk.read(BAD - 4, 8)
    assert told.value.sense is not None
    assert told.value.sense.lba == BAD
    assert disk.read(BAD - 4, 4) == bytes(4 * 512)
    assert disk.read(BAD + BAD_COUNT, 4) == bytes(4 * 512)


@pytest.mark.parametrize(("opts", "counter"), [(RECOVERED, ""), (TRANSPORT, "retries"), (HOST_BUSY, "busy")])
def test_what_goes_over_is_not_told(boot: Boot, opts: int, counter: str) -> None:
    """Each seventh command ends with a recovered or a transport's error, or finds the host busy."""
    disk = only(boot(f"opts={opts}", "every_nth=7"))
    noise = Random(opts).randbytes(100 * 512)  # a pattern, no secret
    for n in range(100):
        disk.write(n, noise[n * 512 : (n + 1) * 512])
    assert disk.read(0, 100) == noise
    assert not counter or getattr(disk.stats(), counter) >= 14


@pytest.mark.parametrize(("opts", "counter"), [(TRANSPORT, "retries"), (HOST_BUSY, "busy")])
def test_no_block_is_lost_while_commands_fail(boot: Boot, opts: int, counter: str) -> None:
    """Each eleventh command fails, with many in flight; what was acknowledged is what another unit reads."""
    host = boot(f"opts={opts}", "every_nth=11", "ndelay=20000", "max_luns=3", "random=1")
    units = list(host.storage.values())
    random = Random(11)  # a pattern, no secret
    content = bytearray(units[0].read(0, 4096))
    for _ in range(40):
        requests = []
        for start in range(0, 4096, 128):
            lba, count = start + random.randrange(64), random.randrange(1, 64)
            data = random.randbytes(count * 512)
            requests += random.choice(units).start_write(lba, data)
            content[lba * 512 : (lba + count) * 512] = data
        for request in requests:
            request.result(LIMIT)
    for unit in units:
        assert unit.read(0, 4096) == content
    stats = [unit.stats() for unit in units]
    assert sum(getattr(each, counter) for each in stats) > 10
    assert all(not each.in_flight for each in stats)


def test_a_device_that_calls_itself_full(boot: Boot) -> None:
    """scsi_debug counts the commands that the mid-layer gives it, and ends every third one that fills the queue.

    With the host status that it chooses (abort) the command is not sent again, as in Linux.
    """
    disk = only(boot(f"opts={RARE_FULL}", "every_nth=3", "ndelay=2000000"))
    disk.queue_depth = 8
    requests = [disk.start_read(n, 1)[0] for n in range(400)]
    ended = [request.wait(LIMIT) for request in requests]
    refused = [completion for completion in ended if not completion.good]
    assert {(c.host, c.status) for c in refused} == {(HostStatus.ABORT, Status.TASK_SET_FULL)}
    assert len(refused) > 10
    assert disk.stats().in_flight_most == 8


def test_a_command_without_an_answer_is_aborted_and_sent_again(boot: Boot) -> None:
    disk = only(boot(f"opts={TIMEOUT}", "every_nth=40"))
    before = disk.stats()
    requests = [disk.submit(read_10(n), Direction.FROM_DEVICE, 512, timeout=0.5) for n in range(60)]
    for request in requests:
        request.result(LIMIT)
    stats = disk.stats()
    assert stats.timeouts >= 1
    assert stats.retries >= stats.timeouts
    assert stats.errors == before.errors


def test_a_device_that_never_answers(boot: Boot) -> None:
    """From a certain command on none is answered: each fails after its time, and nothing stays in flight."""
    disk = only(boot(f"opts={TIMEOUT}", "every_nth=-60"))
    failed = []
    for n in range(80):
        request = disk.submit(read_10(n), Direction.FROM_DEVICE, 512, timeout=0.3, retries=0)
        try:
            request.result(LIMIT)
        except CommandTimedOut as error:
            failed.append(error)
            if len(failed) == 3:
                break
    assert len(failed) == 3
    assert all(error.completion.host == HostStatus.TIME_OUT for error in failed)
    assert disk.stats().in_flight == 0


def test_a_request_that_its_driver_gives_up(boot: Boot) -> None:
    """scsi_debug has each ninth request's time end at once: unless it came back meanwhile, it is sent again."""
    disk = only(boot(f"opts={ABORT}", "every_nth=9", "delay=-1"))
    before = disk.stats()
    for n in range(5000):
        disk.read(n, 1)
        if (stats := disk.stats()).retries > before.retries:
            break
    assert stats.retries > before.retries
    assert stats.errors == before.errors


def test_a_host_reset_is_told_by_a_unit_attention_that_nobody_sees(boot: Boot) -> None:
    host = boot("num_tgts=2")
    disk, other = host.storage.values()
    disk.write(0, b"\x11" * 512)
    host.storage_adapters["vmhba0"].reset()
    assert disk.read(0, 1) == other.read(0, 1) == b"\x11" * 512
    assert disk.stats().unit_attentions >= 1
    assert other.stats().unit_attentions >= 1
    assert host.storage_adapters["vmhba0"].state == "online"


def test_a_device_that_becomes_ready_later(boot: Boot) -> None:
    disk = only(boot("tur_ms_to_ready=1"))
    assert disk.read(0, 1) == bytes(512)


def test_a_driver_that_is_stopped_during_its_scan(boot: Boot, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host goes with it; the rest goes on, and the module can be loaded again."""

    def fail(*_arguments: object) -> None:
        raise VmkError("a timer that cannot be set")

    host = boot()
    host.unload("scsi_debug")
    with monkeypatch.context() as patched:
        patched.setattr(HrTimers, "start", fail)
        host.load("scsi_debug")  # stopped by the first command that takes time, while units are looked for
    assert host.loader.modules["scsi_debug"].dead
    assert not [device for device in host.storage.values() if not device.error]
    host.unload("scsi_debug")
    host.load("scsi_debug")
    assert only(host).read(0, 1) == bytes(512)


def test_a_module_that_is_unloaded_under_load(boot: Boot) -> None:
    """Each program that writes is told, none waits for ever, and every write that was acknowledged was counted.

    6.1's scsi_debug forgets what it has when it goes; such a command ends when its time is up.
    """
    host = boot("ndelay=20000")
    disk = only(host)
    before = disk.stats().commands
    begun = Barrier(5)

    def write(first: int) -> int:
        begun.wait(LIMIT)
        for n in count():
            try:
                disk.write(first + n % 1000, bytes(512))
            except (DeviceGone, CommandTimedOut):
                return n
        raise AssertionError

    with ThreadPoolExecutor(4) as pool:
        writers = [pool.submit(write, 1000 * n) for n in range(4)]
        begun.wait(LIMIT)
        until("nothing was written", lambda: disk.stats().commands > before + 100)
        host.unload("scsi_debug")
        assert sum(writer.result(LIMIT) for writer in writers) >= 100
    assert not host.storage
    host.load("scsi_debug")
    assert only(host).read(0, 1) == bytes(512)


def test_illegal_commands(boot: Boot) -> None:
    disk = only(boot())
    with pytest.raises(ScsiError, match="block address out of range"):
        disk.submit(read_10(disk.blocks), Direction.FROM_DEVICE, 512).result(LIMIT)
    with pytest.raises(ScsiError, match="invalid command operation code"):
        disk.submit(bytes([0xC0, *bytes(9)])).result(LIMIT)


def test_a_device_handler_is_asked(boot: Boot) -> None:
    """scsi_debug tells of asymmetric access (TPGS), so Debian's scsi_dh_alua takes its unit and judges sense data."""
    host = boot("vpd_use_hostno=0", modules=("scsi_dh_alua",))
    disk = only(host)
    [scsi_host] = host.linux.state(Scsi).hosts.values()
    [device] = scsi_host.devices.values()
    assert host.linux.string(device.obj.handler.name) == "alua"
    disk.write(0, b"\x33" * 512)
    host.storage_adapters[
        "vmhba0"
    ].reset()  # a unit attention follows, after which alua looks at the path again
    assert disk.read(0, 1) == b"\x33" * 512
    with pytest.raises(VmkError, match="in use"):
        host.unload("scsi_dh_alua")
    host.loader.silence("scsi_dh_alua")  # as when it is stopped: the device goes on without it
    assert not device.obj.handler
    host.storage_adapters["vmhba0"].reset()
    assert disk.read(0, 1) == b"\x33" * 512
    host.unload("scsi_dh_alua")


@pytest.mark.parametrize(("driver", "kind"), [("ch", 8), ("ses", 13)])
@pytest.mark.parametrize("first", ["driver", "device"])
def test_drivers_of_upper_level(boot: Boot, driver: str, kind: int, first: str) -> None:
    """Debian's drivers of media changers and of enclosures take a unit of their kind, and leave a disk alone."""
    host = boot(f"ptype={kind}", modules=(driver,) if first == "driver" else ())
    if first == "device":
        host.load(driver)
    [scsi_host] = host.linux.state(Scsi).hosts.values()
    [device] = scsi_host.devices.values()
    assert host.linux.string(device.obj.sdev_gendev.driver.name) == driver
    assert not host.storage
    host.unload(driver)
    assert not device.obj.sdev_gendev.driver


def test_a_stopped_disk_is_started_by_error_handling(boot: Boot) -> None:
    """Linux starts a disk that says that it is one of ATA and that it waits for it, and sends the command again."""
    disk = only(boot("inq_vendor=ATA"))
    assert disk.vendor == "ATA"
    disk.write(5, b"\x3c" * 512)
    disk.submit(bytes([0x1B, 0, 0, 0, 0, 0])).result(LIMIT)
    assert disk.read(5, 1) == b"\x3c" * 512
    assert disk.stats().retries >= 1


def test_another_disk_that_is_stopped_stays_so(boot: Boot) -> None:
    disk = only(boot())
    disk.submit(bytes([0x1B, 0, 0, 0, 0, 0])).result(LIMIT)
    with pytest.raises(ScsiError) as told:
        disk.read(5, 1)
    assert told.value.sense is not None
    assert (told.value.sense.key, told.value.sense.asc, told.value.sense.ascq) == (2, 4, 2)
