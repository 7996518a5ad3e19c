"""A root file system for a Linux guest: busybox, the driver's modules, and a script that runs pktgen on demand."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from vmkernel_core.errors import VmkError
from vmklinux.kernels.compressed import read_module
from vmklinux.module.elf import ModuleFile
from vmklinux.resolve import dependencies

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from vmklinux.kernels import Kernel

_DIRECTORY, _PROGRAM, _FILE, _LINK = 0o040755, 0o100755, 0o100644, 0o120777
_APPLETS = ("sh", "mount", "insmod", "ip", "cat", "echo", "stty", "sleep", "grep")

#: Says "ready", then runs pktgen once for each line "count size burst" and answers with pktgen's own result.
#: A driver that keeps the skb that it is given refuses clone_skb and burst; pktgen then makes each frame anew.
_INIT = """#!/bin/sh
mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev
exec </dev/ttyS0 >/dev/ttyS0 2>&1
stty raw -echo
for module in $(cat /modules); do insmod /lib/$module.ko; done
ip link set eth0 up
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


def _entry(name: str, mode: int, content: bytes, number: int) -> bytes:
    """One member of a cpio archive (Linux Documentation/driver-api/early-userspace/buffer-format.rst)."""
    path = name.encode() + b"\0"
    fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(path), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + path
    return head.ljust(-(-len(head) // 4) * 4, b"\0") + content.ljust(-(-len(content) // 4) * 4, b"\0")


def _modules(kernel: Kernel, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """Those modules, each once and after what it depends on: name and content."""
    done: set[str] = set()
    for wanted in names:
        path = kernel.find_module(wanted)
        needed = [*dependencies(ModuleFile.read(path), kernel), wanted]
        for name in needed:
            if name not in done:
                done.add(name)
                yield name, read_module(kernel.find_module(name))


def initramfs(kernel: Kernel, modules: Iterable[str]) -> bytes:
    """The archive, for a kernel and the modules that it shall load; VmkError without busybox."""
    busybox = shutil.which("busybox")
    if busybox is None:
        raise VmkError("there is no busybox for the Linux guest", remedy="apt-get install busybox-static")
    loaded = dict(_modules(kernel, modules))
    members = [(name, _DIRECTORY, b"") for name in ("bin", "lib", "proc", "sys", "dev")]
    members += [(f"bin/{applet}", _PROGRAM, Path(busybox).read_bytes()) for applet in _APPLETS[:1]]
    members += [(f"bin/{applet}", _LINK, b"sh") for applet in _APPLETS[1:]]
    members += [(f"lib/{name}.ko", _FILE, content) for name, content in loaded.items()]
    members += [("modules", _FILE, "\n".join(loaded).encode()), ("init", _PROGRAM, _INIT.encode())]
    members.append(("TRAILER!!!", 0, b""))
    return b"".join(_entry(*member, number) for number, member in enumerate(members, 1))
