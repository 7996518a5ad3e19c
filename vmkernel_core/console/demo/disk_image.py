"""The image behind the demo's disk: made by the usual tools, and looked at from outside.

It lies in memory, in a file without a name (memfd): nothing can be left behind, and no disk be full.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from vmkernel_core.console.demo.block_pattern import BEFORE, BLOCK, BlockPattern
from vmkernel_core.console.demo.ext4 import Superblock
from vmkernel_core.console.demo.gpt import Gpt, Partition
from vmkernel_core.errors import TimedOut, VmkError
from vmkernel_core.platform.base import PlatformError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

#: The programs that make it, and Debian's packages of them.
TOOLS: Final = {"qemu-img": "qemu-utils", "sfdisk": "fdisk", "mkfs.ext4": "e2fsprogs"}
#: Where an ordinary user's PATH does not lead, but some of them are.
_SBIN: Final = "/usr/sbin:/sbin"
#: Seconds for a tool.
_TOOL_LIMIT: Final = 30.0

_MIB: Final = 1 << 20
#: Blocks of a MiB; partitions begin at multiples of it. The first MiB and the last are the partition table's.
_ALIGNMENT: Final = _MIB // BLOCK
#: MiB of the file system, and its name. As its blocks are of 1 KiB, it has more metadata to look at.
_FILE_SYSTEM_MIB, _LABEL, _FILE_SYSTEM_BLOCK = 16, "vmk demo", 1024


class ToolMissing(PlatformError):
    """A program that makes the disk image is not installed."""


class DiskImage:
    """A file for a disk, ``path``, with a GPT, an ext4 file system, and a partition for a pattern of so many MiB.

    ``table`` and ``superblock`` are what the tools were told to write. What they did not write holds ``pattern`` in its
    generation BEFORE. Use it as a context manager. Raises ToolMissing; VmkError when a tool fails, or memory is short.
    """

    def __init__(self, pattern_mib: int) -> None:
        tools = _tools()
        self.pattern = BlockPattern("the demo's disk")
        file_system = Partition("files", _ALIGNMENT, _FILE_SYSTEM_MIB * _ALIGNMENT)
        self.target = Partition("pattern", file_system.lba + file_system.count, pattern_mib * _ALIGNMENT)
        self.blocks = self.target.lba + self.target.count + _ALIGNMENT
        self.table = Gpt(uuid4(), (file_system, self.target))
        self.superblock = Superblock(
            uuid4(), _LABEL, _FILE_SYSTEM_MIB * _MIB // _FILE_SYSTEM_BLOCK, _FILE_SYSTEM_BLOCK
        )
        self._file = os.memfd_create("disk", os.MFD_CLOEXEC)
        #: A path by which other processes of this user reach it, QEMU for one.
        self.path = Path(f"/proc/{os.getpid()}/fd/{self._file}")
        try:
            self._make(tools)
        except OSError as error:
            os.close(self._file)
            raise VmkError(
                f"cannot make a disk image: {error.strerror}", remedy="--mib asks for less"
            ) from error
        except BaseException:
            os.close(self._file)
            raise

    def __enter__(self) -> DiskImage:
        """It is made."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let it go."""
        os.close(self._file)

    def read(self, lba: int, count: int) -> bytes:
        """Blocks as they are in the file now."""
        return os.pread(self._file, count * BLOCK, lba * BLOCK)

    def beside(self) -> Iterator[tuple[int, int]]:
        """Address and count of all blocks but the pattern's partition's, a MiB at a time."""
        yield from _pieces(0, self.target.lba)
        yield from _pieces(self.target.lba + self.target.count, self.blocks)

    def inside(self) -> Iterator[tuple[int, int]]:
        """The same of the pattern's partition."""
        yield from _pieces(self.target.lba, self.target.lba + self.target.count)

    def _make(self, tools: dict[str, str]) -> None:
        self._run(tools["qemu-img"], "create", "-q", "-f", "raw", "{}", str(self.blocks * BLOCK))
        for lba, count in _pieces(0, self.blocks):
            os.pwrite(self._file, self.pattern.blocks(lba, count, BEFORE), lba * BLOCK)
        lines = ["label: gpt", f"label-id: {self.table.uuid}"]
        lines += [f"start={one.lba}, size={one.count}, name={one.name}" for one in self.table.partitions]
        self._run(tools["sfdisk"], "--quiet", "--no-reread", "--no-tell-kernel", "{}", said="\n".join(lines))
        place = f"offset={self.table.partitions[0].lba * BLOCK},nodiscard"
        self._run(
            tools["mkfs.ext4"], "-q", "-F", "-E", place, "-b", str(_FILE_SYSTEM_BLOCK), "-L", _LABEL,
            "-U", str(self.superblock.uuid), "{}", str(self.superblock.blocks),
        )  # fmt: skip

    def _run(self, *command: str, said: str = "") -> None:
        """Run a tool on the file, whose name is put where ``{}`` stands."""
        path = f"/proc/self/fd/{self._file}"
        tool = Path(command[0]).name
        try:
            run = subprocess.run(
                [path if word == "{}" else word for word in command],
                input=said,
                capture_output=True,
                text=True,
                check=False,
                timeout=_TOOL_LIMIT,
                pass_fds=[self._file],
                process_group=0,  # a Ctrl-C at the terminal is for us, not for the tool
            )
        except subprocess.TimeoutExpired as error:
            raise TimedOut(
                f"{tool} did not end within {_TOOL_LIMIT:g} s", where="making a disk image"
            ) from error
        if run.returncode:
            words = "; ".join(filter(None, map(str.strip, run.stderr.splitlines()[-3:])))
            raise VmkError(
                f"{tool} failed: {words or f'status {run.returncode}'}", where="making a disk image"
            )


def _pieces(start: int, end: int) -> Iterator[tuple[int, int]]:
    return ((lba, _ALIGNMENT) for lba in range(start, end, _ALIGNMENT))


def _tools() -> dict[str, str]:
    """The paths of the tools; ToolMissing names all that are not there."""
    search = f"{os.environ.get('PATH', os.defpath)}:{_SBIN}"
    paths = {tool: shutil.which(tool, path=search) for tool in TOOLS}
    missing = [tool for tool, path in paths.items() if path is None]
    if missing:
        raise ToolMissing(
            f"to make a disk image, there is no program {' and no '.join(missing)}",
            remedy=f"apt-get install {' '.join(TOOLS[tool] for tool in missing)}",
        )
    return {tool: path for tool, path in paths.items() if path}
