"""The other way to use a driver: an ordinary Linux guest in QEMU (TCG), with the same kernel, modules and card.

It runs as fast as it can: no limit but its own; frames come from pktgen in the kernel, with ``xmit_more`` where the
driver allows.
"""

from __future__ import annotations

import os
import re
import socket
import tempfile
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING

from bench.initramfs import initramfs
from bench.native import load
from vmkernel_core.errors import TimedOut, VmkError
from vmkernel_core.platform.qemu_process import QemuProcess
from vmklinux import kernels

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType

    from vmklinux.kernels import Kernel

#: Seconds until the guest is up, and until it has sent what it was told to.
BOOT_LIMIT, RUN_LIMIT = 90.0, 60.0
#: ns after which the far end of the wire takes it that nothing more comes.
SILENCE = 2_000_000_000
#: pktgen's ``burst``: one frame at a time, and 32 before the doorbell. The better one counts.
BURSTS = (1, 32)
#: Bytes of the FCS, which pktgen counts and a frame on the wire here has not.
FCS = 4
_RATE = re.compile(rb"(\d+)pps")


#: Says "ready", then runs pktgen once for each line "count size burst" and answers with pktgen's own result.
#: A driver that keeps the skb that it is given refuses clone_skb and burst; pktgen then makes each frame anew.
_SCRIPT = """ip link set eth0 up
tries=0
while [ "$(cat /sys/class/net/eth0/carrier)" != 1 ] && [ $tries -lt 100 ]; do sleep 0.1; tries=$((tries + 1)); done
echo add_device eth0 >/proc/net/pktgen/kpktgend_0
echo ready
while read count size burst; do
    for setting in "delay 0" "dst_mac ff:ff:ff:ff:ff:ff" "dst 192.0.2.1" "clone_skb 0" "burst 1" "count $count" \\
        "pkt_size $size"; do
        echo "$setting" >/proc/net/pktgen/eth0
    done
    if [ $burst != 1 ]; then
        echo "clone_skb 1000" >/proc/net/pktgen/eth0
        echo "burst $burst" >/proc/net/pktgen/eth0
    fi 2>/dev/null
    echo start >/proc/net/pktgen/pgctrl
    echo result $(grep pps /proc/net/pktgen/eth0)
done
"""


class Guest:
    """A guest that is told what to do on its serial line; a context manager for those that boot one."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def boot(
        self, kernel: Kernel, archive: bytes, arguments: Sequence[str], descriptors: Sequence[int] = ()
    ) -> None:
        """Boot a kernel with an initramfs on a machine with the devices of ``arguments``, until it says "ready"."""
        self.serial, serial = self.pair(socket.SOCK_STREAM)
        self.serial.settimeout(BOOT_LIMIT)
        with tempfile.NamedTemporaryFile(prefix="bench-initramfs-") as file:
            file.write(archive)
            file.flush()
            qemu = QemuProcess(
                "qemu-system-x86_64",
                [
                    *("-nodefaults", "-no-user-config", "-display", "none", "-vga", "none", "-no-reboot"),
                    *("-machine", "q35,accel=tcg", "-m", "512M"),
                    *("-kernel", str(kernel.vmlinuz), "-initrd", file.name),
                    *("-append", "console=ttyS0 quiet ipv6.disable=1 panic=-1"),
                    *("-chardev", f"socket,id=serial,fd={serial.fileno()}", "-serial", "chardev:serial"),
                    *("-global", "driver=pci-device,property=romfile,value="),
                    *arguments,
                ],
                [*descriptors, serial.fileno()],
            )
            self._stack.callback(qemu.stop)
            serial.close()
            self.until(b"ready")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        self._stack.close()

    def pair(self, kind: socket.SocketKind) -> tuple[socket.socket, socket.socket]:
        """Two ends of a socket; ours comes first, and is closed at the end."""
        ours, other = socket.socketpair(socket.AF_UNIX, kind)
        self._stack.enter_context(ours)
        return ours, self._stack.enter_context(other)

    def ask(self, line: str) -> bytes:
        """What it answers to a line: its own line that begins with "result"; VmkError when it says nothing."""
        self.serial.settimeout(RUN_LIMIT)
        self.serial.sendall(line.encode() + b"\n")
        return self.until(b"result")

    def until(self, word: bytes) -> bytes:
        """The line of the guest's console that begins with the word; VmkError when it does not come."""
        said = b""
        while not (found := re.search(rb"^%s.*?\r?\n" % word, said, re.MULTILINE)):
            try:
                more = self.serial.recv(4096)
            except TimeoutError:
                more = b""
            if not more:
                raise VmkError(f"the Linux guest never said {word.decode()}", where=repr(said[-500:]))
            said += more
        return found.group()


class GuestSide(Guest):
    """A booted guest with a network card. ``tx`` tells its best rate; a context manager."""

    def __init__(self, native: Path, kernel: str, device: str, modules: Sequence[str]) -> None:
        """``device`` is QEMU's, on wire0; ``modules`` are loaded in that order."""
        super().__init__()
        self.ffi, self.lib = load(native)
        self._kernel, self._device, self._modules = kernels.find(kernel), device, modules

    def __enter__(self) -> GuestSide:
        """Boot it and wait until its card has a link."""
        self.wire, wire = self.pair(socket.SOCK_DGRAM)
        netdev = f"dgram,id=wire0,local.type=fd,local.str={wire.fileno()}"
        archive = initramfs(self._kernel, [*self._modules, "pktgen"], _SCRIPT)
        self.boot(self._kernel, archive, ["-netdev", netdev, "-device", self._device], [wire.fileno()])
        wire.close()
        return self

    def tx(self, count: int, size: int) -> float:
        """Frames a second at its best, of ``count`` frames of ``size`` bytes each way of sending; all must arrive."""
        return max(self._run(count, size, burst) for burst in BURSTS)

    def _run(self, count: int, size: int, burst: int) -> float:
        arrived: list[int] = []
        credit = self.ffi.new("struct wire_credit *")
        sink = threading.Thread(
            target=lambda: arrived.append(self.lib.wire_sink(self.wire.fileno(), count, credit, SILENCE))
        )
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        sink.start()
        said = self.ask(f"{count} {size - FCS} {burst}")
        sink.join()
        rate = _RATE.search(said)
        if rate is None:
            raise VmkError("pktgen gave no result", where=repr(said))
        if arrived[0] < count:  # its network stack may send a few of its own
            raise TimedOut(f"{arrived} of {count} frames of the guest arrived", where=self._device)
        return float(rate.group(1))
