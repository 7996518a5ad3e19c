"""``vmk storage bench``: what it says that it did is what was done. How fast that was is measured, not tested.

Independent side: QEMU's block layer, which counts what reaches it, and the image file.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.vmkernel_core.console.running import Running
from tests.vmkernel_core.console.vmk_command import said, vmk
from vmkernel_core.boot import VMkernel
from vmkernel_core.console.storage_bench import Bench, BenchResult, bench
from vmkernel_core.console.storage_operations import DeviceFilter, device_stats_get
from vmkernel_core.console.target import InProcess
from vmkernel_core.errors import DeviceGone, UsageError
from vmkernel_core.platform.qemu import QemuPlatform
from vmkernel_core.storage.errors import ScsiError
from vmklinux.kernels import Kernel

NAME, SIZE = "naa.3000000000000001", 4 << 20
#: Seconds until a disk has failed to appear.
LIMIT = 60.0


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A file that holds the same byte everywhere."""
    image = tmp_path / "disk.raw"
    image.write_bytes(b"\xa5" * SIZE)
    return image


@pytest.fixture(params=["megasas", "mptsas1068"])
def host(request: pytest.FixtureRequest, kernel: Kernel, image: Path) -> Iterator[VMkernel]:
    """A host with a disk made of it."""
    with VMkernel(QemuPlatform([request.param], disks=[str(image)]), kernel=kernel.release) as host:
        host.wait_storage(timeout=LIMIT)
        yield host
    assert host.leaks == []


def _counted(host: VMkernel) -> tuple[dict[str, int], dict[str, int]]:
    """What the vmkernel and QEMU have counted."""
    [ours] = InProcess(host).call(device_stats_get, DeviceFilter(NAME))
    blocks: Any = host.platform.monitor("query-blockstats")  # type: ignore[attr-defined]  # QEMU's platform has one
    [theirs] = [block["stats"] for block in blocks if block["device"] == "disk0"]
    assert ours.in_flight == 0
    done = ours.successful_commands
    return (
        {
            "commands": done,
            "read": ours.bytes_read,
            "write": ours.bytes_written,
            "failed": ours.failed_commands,
        },
        {
            "commands": theirs["rd_operations"] + theirs["wr_operations"],
            "read": theirs["rd_bytes"],
            "write": theirs["wr_bytes"],
            "failed": theirs["failed_rd_operations"] + theirs["failed_wr_operations"],
        },
    )


def _holds(result: BenchResult, wanted: Bench, each: int) -> None:
    """Figures that follow from each other; ``each`` transfer is so many commands."""
    assert (result.device, result.operation, result.order) == (NAME, wanted.operation, wanted.order)
    assert result.transfers >= wanted.depth
    assert result.commands == each * result.transfers
    assert result.bytes == result.transfers * wanted.block_size
    assert result.seconds >= wanted.seconds
    assert result.iops == pytest.approx(result.transfers / result.seconds, rel=1e-3)
    assert result.mb_per_second == pytest.approx(result.bytes / result.seconds / 1e6, rel=1e-3, abs=1e-3)
    latency = result.latency_us
    ordered = [latency.minimum, latency.p50, latency.p90, latency.p99, latency.p999, latency.maximum]
    assert ordered == sorted(ordered)
    assert latency.minimum <= latency.mean <= latency.maximum <= result.seconds * 1e6
    # Little's law: no more are under way on average than were to be.
    assert latency.mean * result.iops / 1e6 <= wanted.depth * 1.01


@pytest.mark.parametrize(
    "wanted",
    [
        Bench(NAME, seconds=0.3),
        Bench(NAME, "read", "sequential", 512, 1, 0.1),
        Bench(NAME, "write", "random", 8192, 7, 0.1, destroy_data=True),
        Bench(NAME, "write", "sequential", 1 << 19, 3, 0.1, destroy_data=True),
        Bench(NAME, "read", "random", SIZE, 2, 0.1),
    ],
    ids=lambda wanted: f"{wanted.operation}-{wanted.order}-{wanted.block_size}-{wanted.depth}",
)
def test_it_does_what_it_says(host: VMkernel, image: Path, wanted: Bench) -> None:
    [disk] = host.storage.values()
    each = -(-wanted.block_size // disk.limits.transfer)
    before = _counted(host)
    result = InProcess(host).call(bench, wanted)
    after = _counted(host)
    _holds(result, wanted, each)
    for ours, theirs in zip(before, after, strict=True):
        more = {key: theirs[key] - ours[key] for key in ours}
        done = {"commands": result.commands, wanted.operation: result.bytes}
        assert more == {"read": 0, "write": 0, "failed": 0} | done
    disk.flush()
    content = image.read_bytes()
    assert len(content) == SIZE
    if wanted.operation == "read":
        assert content == b"\xa5" * SIZE
    elif wanted.order == "sequential":
        written = min(result.bytes, SIZE)
        assert b"\xa5" * 512 not in content[:written]
        assert content[written:] == b"\xa5" * (SIZE - written)


def test_what_cannot_be(host: VMkernel, image: Path) -> None:
    caller = InProcess(host)
    before = _counted(host)
    for wanted, what in (
        (Bench(NAME, "write"), "writing destroys what is on naa.3000000000000001; say --yes-destroy-data"),
        (
            Bench(NAME, block_size=1000),
            r"a block size of 1000 bytes cannot be \(naa.3000000000000001\); use a mult",
        ),
        (Bench(NAME, block_size=0), "a block size of 0"),
        (Bench(NAME, block_size=2 * SIZE), "a block size of 8388608"),
        (
            Bench("vmhba9:C0:T0:L0"),
            "there is no storage device vmhba9:C0:T0:L0; use one of naa.3000000000000001",
        ),
    ):
        with pytest.raises(UsageError, match=what):
            caller.call(bench, wanted)
    assert _counted(host) == before
    assert image.read_bytes() == b"\xa5" * SIZE


def test_what_fails_ends_it(kernel61: Kernel, image: Path) -> None:
    """The device takes no writes; nothing is left in flight, and the device can be read."""
    platform = QemuPlatform(["pvscsi"], disks=[f"{image},readonly=on"])
    with VMkernel(platform, kernel=kernel61.release) as host:
        caller = InProcess(host)
        with pytest.raises(ScsiError, match="write of 8 blocks at"):
            caller.call(bench, Bench(NAME, "write", seconds=20.0, destroy_data=True))
        [disk] = host.storage.values()
        assert disk.in_flight == 0
        assert caller.call(bench, Bench(NAME, seconds=0.1)).transfers
        os.kill(platform.pid, signal.SIGKILL)
        # It notices the end in the middle of it, or finds no device any more.
        with pytest.raises((DeviceGone, UsageError)):
            caller.call(bench, Bench(NAME, seconds=20.0))


def test_the_command(tmp_path: Path, image: Path, kernel61: Kernel) -> None:
    text = f'kernel = "{kernel61.release}"\n[platform]\ndevices = ["pvscsi"]\ndisks = ["{image}"]'
    base = ("storage", "bench", "-d", NAME, "--seconds", "0.2")
    with Running(text, tmp_path) as running:
        assert "latency" in running.table(*base)
        result = running.json(*base, "--block-size", "64k", "--depth", "4", "--sequential")
        assert (result["operation"], result["order"], result["block_size"], result["depth"]) == (
            "read", "sequential", 65536, 4,
        )  # fmt: skip
        refused = running.vmk(*base, "--write")
        assert refused.returncode == 3
        assert "--yes-destroy-data" in said(refused)
        assert image.read_bytes() == b"\xa5" * SIZE
        assert running.json(*base, "--write", "--yes-destroy-data")["operation"] == "write"
        assert image.read_bytes() != b"\xa5" * SIZE
        for options, what in (
            (("--block-size", "many"), "'many' is no number of bytes; use 4096, 4K or 1M"),
            (("--depth", "0"), "a depth of 0 cannot be; use 1 to 1024"),
            (("--seconds", "31"), "31 seconds cannot be; use more than 0, at most 30"),
        ):
            wrong = running.vmk(*base, *options)
            assert (wrong.returncode, said(wrong)) == (3, what)
        assert running.end() == 0


def test_a_vmkernel_for_the_call(kernel61: Kernel) -> None:
    run = vmk(
        "storage", "bench", "-d", NAME, "--seconds", "0.2", "--json",
        "--device", "megasas", "--disk", "null-co://", "--kernel", kernel61.release,
    )  # fmt: skip
    assert (run.returncode, run.stderr) == (0, "")
    assert json.loads(run.stdout)["transfers"] >= 32
