"""A SCSI host for tests of transport classes, made of a few bytes of machine code: a target that answers INQUIRY as a
disk and ends every other command without data."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.vmklinux.conftest import CODE
from vmkernel_core.memory import store_bytes
from vmklinux.btf import Btf
from vmklinux.kobject import Obj
from vmklinux.scsi import Scsi

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vmklinux.linux import Linux
    from vmklinux.loader import Module

#: SPC-4, 6.4.2: a disk of SCSI-2, whose LUNs are asked for one by one.
INQUIRY = bytes([0, 0, 2, 2, 31, 0, 0, 0]) + b"VENDOR  TARGET          1.0 "


def queuecommand(linux: Linux, data: int) -> int:
    """The function of a host that answers INQUIRY with the 36 bytes at an address."""
    types = linux.state(Scsi).types

    def place(path: str) -> bytes:
        return types.offsetof("scsi_cmnd", path).to_bytes(4, "little")

    def call(function: int) -> bytes:
        return b"\xb8" + function.to_bytes(4, "little") + b"\xff\xd0"

    # mov sgl(%rbx),%rdi; mov nents(%rbx),%esi; movabs $data,%rdx; mov $36,%ecx; call sg_copy_from_buffer
    answer = b"\x48\x8b\xbb" + place("sdb.table.sgl") + b"\x8b\xb3" + place("sdb.table.nents")
    answer += b"\x48\xba" + data.to_bytes(8, "little") + b"\xb9\x24\x00\x00\x00"
    answer += call(linux.symbols["sg_copy_from_buffer"])
    # push %rbx; mov %rsi,%rbx; movl $0,result(%rbx); cmpb $0x12,cmnd(%rbx); jne past the answer
    start = b"\x53\x48\x89\xf3\xc7\x83" + place("result") + bytes(4) + b"\x80\xbb" + place("cmnd") + b"\x12"
    # mov %rbx,%rdi; call scsi_done; xor %eax,%eax; pop %rbx; ret
    end = b"\x48\x89\xdf" + call(linux.entry("scsi_done")) + b"\x31\xc0\x5b\xc3"
    store_bytes(CODE, start + b"\x75" + bytes([len(answer)]) + answer + end)
    store_bytes(data, INQUIRY)
    return CODE


def types_of(linux: Linux, module: Module) -> Btf:
    """The types that a loaded module brings, on top of the kernel's."""
    return Btf(module.file.btf, base=linux.types, origin=f"module {module.name}")


@contextmanager
def host_template(linux: Linux) -> Iterator[Obj]:
    """The scsi_host_template of such a host."""
    data, template = linux.allocate(64), linux.state(Scsi).new("scsi_host_template", 0, 0)
    name = linux.new_string("target")
    template.name = template.proc_name = name
    template.queuecommand = queuecommand(linux, data)
    template.can_queue = template.cmd_per_lun = template.sg_tablesize = 4
    template.this_id = -1
    yield template
    for ours in (data, template, name):
        linux.free(ours)


def disks(linux: Linux, shost: Obj) -> list[tuple[int, str]]:
    """Target number and state of each device that the scan has added."""
    scsi = linux.state(Scsi)
    host = scsi.host(shost)
    states = {scsi.enum(f"SDEV_{state}"): state for state in ("RUNNING", "BLOCK", "TRANSPORT_OFFLINE")}
    found = [device.obj for device in host.devices.values() if device.visible] if host else []
    return [(sdev.id, states.get(sdev.sdev_state, "?")) for sdev in found]
