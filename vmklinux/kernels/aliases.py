"""The index of a kernel's aliases: which of its modules claim a device, as depmod would find out.

Distributions' kernel packages have no ``modules.alias``: depmod makes it when they are installed. So it is made here,
from the module files themselves, and kept in the kernel cache.
"""

from __future__ import annotations

import logging
import os
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from vmklinux.kernels.compressed import read_module
from vmklinux.kernels.errors import BadModuleFile, ModuleNotFound
from vmklinux.kernels.kept import digest, keep
from vmklinux.kernels.modalias import Alias, Aliases
from vmklinux.module.modinfo import ModInfo

if TYPE_CHECKING:
    from vmklinux.kernels.cache import Kernel

_log = logging.getLogger(__name__)

#: Part of a kept index's identity; raise it when what is kept, or how it is made, changes.
FORMAT = 1

#: The directories of a release's modules that are read: where drivers of network and storage devices are, of the
#: buses that such devices bring with them, and what the host's owner added. Reading all 4000 modules would take long.
DIRECTORIES = (
    "kernel/drivers/ata",
    "kernel/drivers/block",
    "kernel/drivers/message",
    "kernel/drivers/net",
    "kernel/drivers/nvme",
    "kernel/drivers/scsi",
    "kernel/drivers/virtio",
    "extra",
    "updates",
)

#: Aliases of drivers that a kernel has built in: modules.builtin.modinfo does not have them, since these kernels'
#: MODULE_DEVICE_TABLE leaves something behind in modules only (include/linux/module.h).
BUILT_IN = {"virtio_pci": ("pci:v00001AF4d*sv*sd*bc*sc*i*",)}


class _Kept(msgspec.Struct, frozen=True):
    """The file in the cache."""

    identity: str
    buckets: dict[str, list[Alias]]


_DECODER = msgspec.msgpack.Decoder(_Kept)


def read_aliases(kernel: Kernel, directory: Path) -> Aliases:
    """The index of the kernel, from ``directory`` when it is there, else made (a second or two) and kept there.

    What is kept is told apart by names, sizes and times of all files that it was made of; what is stale or damaged
    is made again. A directory that cannot be written costs that time at every call.
    """
    files = _files(kernel.modules)
    identity = _identity(kernel.modules, files)
    place = directory / f"{kernel.release}-{digest(str(kernel.modules))}.aliases"
    with suppress(OSError, msgspec.DecodeError):
        kept = _DECODER.decode(place.read_bytes())
        if kept.identity == identity:
            return Aliases(kept.buckets)
    made = _made(kernel.modules, files)
    try:
        keep(place, msgspec.msgpack.encode(_Kept(identity, made.buckets)))
    except OSError as error:
        _log.info("the alias index of kernel %s is not kept: %s", kernel.release, error)
    return made


def _files(modules: Path) -> dict[str, Path]:
    """The module files by module name; one that the host's owner added wins over the kernel's own."""
    found = {}
    for top in DIRECTORIES:
        for parent, _, names in os.walk(modules / top):
            for name in names:
                module, suffix, _ = name.partition(".ko")
                if suffix:
                    found[module.replace("-", "_")] = Path(parent, name)
    return found


def _identity(modules: Path, files: dict[str, Path]) -> str:
    listed = [str((FORMAT, DIRECTORIES, BUILT_IN))]
    for path in (
        *sorted(files.values()),
        *(modules / name for name in ("modules.builtin", "modules.builtin.modinfo", "modules.order")),
    ):
        with suppress(FileNotFoundError):
            status = path.stat()
            listed.append(f"{path} {status.st_size} {status.st_mtime_ns}")
    return digest("\n".join(listed))


def _made(modules: Path, files: dict[str, Path]) -> Aliases:
    order = {_name(line): number for number, line in enumerate(_lines(modules / "modules.order"))}
    with ThreadPoolExecutor() as pool:  # decompressing lets go of the GIL
        aliases = [alias for found in pool.map(_of_file, files, files.values()) for alias in found]
    aliases += _built_in(modules)
    aliases.sort(key=lambda alias: (-alias.detail, order.get(alias.module, len(order)), alias.module))
    return Aliases.of(dict.fromkeys(aliases))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except FileNotFoundError:
        return []


def _name(path: str) -> str:
    return path.rpartition("/")[2].removesuffix(".ko").replace("-", "_")


def _of_file(module: str, path: Path) -> list[Alias]:
    try:
        content = _modinfo(read_module(path))
    except (BadModuleFile, ModuleNotFound, struct.error, ValueError) as error:
        _log.warning("no aliases of %s: %s", path, error)
        return []
    return [Alias(pattern, module) for pattern in ModInfo.parse(content).aliases]


def _modinfo(elf: bytes) -> bytes:
    """The section .modinfo of an ELF object of 64 bits. All that is read here, where 600 files are: no ModuleFile."""
    (table,) = struct.unpack_from("<Q", elf, 0x28)
    size, count, names = struct.unpack_from("<HHH", elf, 0x3A)
    headers = [struct.unpack_from("<I20xQQ", elf, table + number * size) for number in range(count)]
    for name, offset, length in headers:
        if elf.startswith(b".modinfo\0", headers[names][1] + name):
            return elf[offset : offset + length]
    raise ValueError("it has no .modinfo")


def _built_in(modules: Path) -> Iterator[Alias]:
    """The aliases of what the kernel has built in; modules.builtin.modinfo has ``module.key=value`` strings."""
    built_in = {_name(line) for line in _lines(modules / "modules.builtin")}
    for module, patterns in BUILT_IN.items():
        if module in built_in:
            yield from (Alias(pattern, module, True) for pattern in patterns)
    with suppress(FileNotFoundError):
        for entry in (
            (modules / "modules.builtin.modinfo").read_bytes().decode("utf-8", "replace").split("\0")
        ):
            key, _, pattern = entry.partition("=")
            module, _, kind = key.partition(".")
            if kind == "alias":
                yield Alias(pattern, module, True)
