"""A root file system for a Linux guest: busybox, the driver's modules, and a script that does what it is told."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from vmkernel_core.errors import VmkError
from vmklinux.kernels.compressed import read_module
from vmklinux.module.elf import ModuleFile
from vmklinux.resolve import dependencies

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from vmklinux.kernels import Kernel

_DIRECTORY, _PROGRAM, _FILE, _LINK = 0o040755, 0o100755, 0o100644, 0o120777
_APPLETS = ("sh", "mount", "insmod", "ip", "cat", "echo", "stty", "sleep", "grep")

#: What a script begins with: file systems, the serial line as its console, the modules.
_PREPARE = """#!/bin/sh
mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev
exec </dev/ttyS0 >/dev/ttyS0 2>&1
stty raw -echo
for module in $(cat /modules); do insmod /lib/$module.ko; done
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
        needed = [*dependencies(ModuleFile.read(path), kernel, without=()), wanted]
        for name in needed:
            if name not in done:
                done.add(name)
                yield name, read_module(kernel.find_module(name))


def initramfs(kernel: Kernel, modules: Iterable[str], script: str, programs: Sequence[Path] = ()) -> bytes:
    """The archive, for a kernel and the modules that it shall load before the script; VmkError without busybox.

    ``programs`` lie in /bin; they need no libraries.
    """
    busybox = shutil.which("busybox")
    if busybox is None:
        raise VmkError("there is no busybox for the Linux guest", remedy="apt-get install busybox-static")
    loaded = dict(_modules(kernel, modules))
    members = [(name, _DIRECTORY, b"") for name in ("bin", "lib", "proc", "sys", "dev")]
    members += [(f"bin/{applet}", _PROGRAM, Path(busybox).read_bytes()) for applet in _APPLETS[:1]]
    members += [(f"bin/{applet}", _LINK, b"sh") for applet in _APPLETS[1:]]
    members += [(f"bin/{program.name}", _PROGRAM, program.read_bytes()) for program in programs]
    members += [(f"lib/{name}.ko", _FILE, content) for name, content in loaded.items()]
    members += [
        ("modules", _FILE, "\n".join(loaded).encode()),
        ("init", _PROGRAM, (_PREPARE + script).encode()),
    ]
    members.append(("TRAILER!!!", 0, b""))
    return b"".join(_entry(*member, number) for number, member in enumerate(members, 1))
