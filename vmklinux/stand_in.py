"""Modules that vmklinux stands in for: drivers import from them, but what they export is emulated here.

The file of such a module is never loaded; its types (BTF) and the checksums of what it exports are read from it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmklinux import layout
from vmklinux.btf import Btf
from vmklinux.module.elf import ModuleFile

if TYPE_CHECKING:
    from vmklinux.linux import Linux

#: Their names. ESX drew the line at the same place: the SCSI mid-layer is the vmkernel's own. The transports of NVMe
#: over Fibre Channel are refused to drivers (nvme_fc.py), and the checksum needs no crypto layer (crc_t10dif.c).
STAND_INS = frozenset({"crc_t10dif", "nvme_fc", "nvmet_fc", "scsi_mod"})


class StandIns:
    """Those that a driver has needed, by name."""

    def __init__(self, linux: Linux) -> None:
        """None was needed yet."""
        self.linux = linux
        self._files: dict[str, ModuleFile] = {}
        self._types: dict[str, Btf] = {}

    def types(self, name: str) -> Btf:
        """The types of a module, on top of the kernel's; the C half learns them the first time. ModuleNotFound."""
        if name not in self._types:
            file = ModuleFile.read(self.linux.kernel.find_module(name))
            types = Btf(file.btf, base=self.linux.types, origin=f"module {name}")
            layout.fill(self.linux.image, types, name)
            self._files[name], self._types[name] = file, types
            self.linux.more_types.append(types)
        return self._types[name]

    def crc_of(self, symbol: str) -> int | None:
        """The checksum of an exported symbol, None when none of them exports it."""
        for file in self._files.values():
            if (export := file.exports.get(symbol)) is not None:
                return export.crc
        return None
