"""The tags of a host as drivers see them. Independent side: Linux's headers (include/linux/blk-mq.h), whose functions
are inlined in drivers: what they read is read here by the kernel's own types, with a host made of machine code."""

from __future__ import annotations

from tests.vmkernel_core.hardware import until
from tests.vmklinux.conftest import CODE
from tests.vmklinux.scsi_target import disks, host_template
from vmkernel_core.memory import load, store_bytes
from vmklinux.kobject import Obj
from vmklinux.linux import Linux
from vmklinux.scsi import Scsi

NOTE = CODE + 2048


def note(linux: Linux, to: int) -> int:
    """A queuecommand that notes its request, its state and its tag, and goes on to the host's."""
    size = linux.types.sizeof("request")

    def place(field: str) -> bytes:
        return (linux.types.offsetof("request", field) - size).to_bytes(4, "little", signed=True)

    def keep(offset: int) -> bytes:  # mov %eax,address
        return b"\xa3" + (to + offset).to_bytes(8, "little")

    state, tag = b"\x8b\x86" + place("state") + keep(8), b"\x8b\x86" + place("tag") + keep(12)
    # lea -size(%rsi),%rax; movabs %rax,to
    request = b"\x48\x8d\x86" + (-size).to_bytes(4, "little", signed=True)
    request += b"\x48\xa3" + to.to_bytes(8, "little")
    body = request + state + tag
    back = CODE - (NOTE + len(body) + 5)
    store_bytes(NOTE, body + b"\xe9" + back.to_bytes(4, "little", signed=True))
    return NOTE


def test_a_driver_finds_its_request_by_the_tag(linux: Linux, scratch: int) -> None:
    scsi, parent = linux.state(Scsi), linux.new("device")
    linux.call(linux.entry("device_initialize"), parent)
    with host_template(linux) as template:
        template.queuecommand = note(linux, scratch)
        shost = scsi.obj("Scsi_Host", linux.call(linux.entry("scsi_host_alloc"), template, 0))
        shost.max_id = shost.max_lun = 1
        assert linux.call_int(linux.entry("scsi_add_host_with_dma"), shost, parent, parent) == 0
        tags = Obj(linux.types, "blk_mq_tags", load(shost.tag_set.tags, 8))
        assert tags.nr_tags == shost.can_queue
        requests = [load(tags.rqs + 8 * tag, 8) for tag in range(tags.nr_tags)]
        assert not any(requests), "none was ever used"
        linux.call(linux.entry("scsi_scan_host"), shost)
        until("it is scanned", lambda: disks(linux, shost) == [(0, "RUNNING")])
        request, state, tag = load(scratch, 8), load(scratch + 8, 4), load(scratch + 12, 4)
        assert state == linux.types.enumerator("MQ_RQ_IN_FLIGHT"), "blk_mq_request_started was true"
        assert load(tags.rqs + 8 * tag, 8) == request
        assert Obj(linux.types, "request", request).state == linux.types.enumerator("MQ_RQ_IDLE")
        for put in ("scsi_remove_host", "scsi_host_put"):
            linux.call(linux.entry(put), shost)
    linux.free(parent)
