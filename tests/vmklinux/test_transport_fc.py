"""Debian's own scsi_transport_fc.ko on the emulated mid-layer: remote ports of a host made of machine code come, go,
come back and stay away. Independent: the transport module; what its states mean is in its own headers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.vmkernel_core.hardware import until
from tests.vmklinux.conftest import CODE, objects
from tests.vmklinux.scsi_target import disks, host_template, types_of
from vmkernel_core.memory import load, store_bytes
from vmklinux.btf import Btf
from vmklinux.device import Devices
from vmklinux.kobject import Obj
from vmklinux.linux import Linux
from vmklinux.loader import Loader, Module
from vmklinux.scsi import Scsi

#: include/scsi/scsi_transport_fc.h: enum fc_host_event_code, and a role of a port.
FCH_EVT_LINKUP, FCP_TARGET = 2, 1
LOST = CODE + 512


@dataclass
class FibreChannel:
    """A host on the transport: ``call`` calls what the module exports."""

    linux: Linux
    loader: Loader
    module: Module
    types: Btf
    shost: Obj
    ids: Obj
    lost: int

    def call(self, name: str, *arguments: int | Obj) -> int:
        return self.linux.call(self.module.linked.exports[name], *arguments)

    def port(self, name: int) -> Obj:
        """A target port with that name appears, or comes back."""
        self.ids.node_name, self.ids.port_name = 0x2000_0000_0000_0000 + name, 0x1000_0000_0000_0000 + name
        self.ids.port_id, self.ids.roles = name, FCP_TARGET
        return Obj(self.types, "fc_rport", self.call("fc_remote_port_add", self.shost, 0, self.ids))

    def state(self, port: Obj) -> str:
        states = ("ONLINE", "BLOCKED", "NOTPRESENT", "DELETED")
        return next(s for s in states if self.types.enumerator(f"FC_PORTSTATE_{s}") == port.port_state)

    def disks(self) -> list[tuple[int, str]]:
        return disks(self.linux, self.shost)


@pytest.fixture
def fibre(linux: Linux) -> Iterator[FibreChannel]:
    """A host that is added; at the end nothing of it is left, nor of the module."""
    loader = Loader(linux)
    module = loader.load("scsi_transport_fc")
    types = types_of(linux, module)
    functions = Obj(types, "fc_function_template", linux.allocate(types.sizeof("fc_function_template")))
    lost, parent = linux.allocate(8), linux.new("device")
    # movabs $lost,%rax; incq (%rax); ret
    store_bytes(LOST, b"\x48\xb8" + lost.to_bytes(8, "little") + b"\x48\xff\x00\xc3")
    functions.dev_loss_tmo_callbk = functions.bsg_request = LOST
    linux.call(linux.entry("device_initialize"), parent)
    with host_template(linux) as template:
        attached = linux.call(module.linked.exports["fc_attach_transport"], functions)
        scsi = linux.state(Scsi)
        shost = scsi.obj("Scsi_Host", linux.call(linux.entry("scsi_host_alloc"), template, 0))
        shost.transportt, shost.max_lun = attached, 1
        assert linux.call_int(linux.entry("scsi_add_host_with_dma"), shost, parent, parent) == 0
        ids = Obj(types, "fc_rport_identifiers", linux.allocate(types.sizeof("fc_rport_identifiers")))
        fibre = FibreChannel(linux, loader, module, types, shost, ids, lost)
        yield fibre
        fibre.call("fc_remove_host", shost)
        linux.call(linux.entry("scsi_remove_host"), shost)
        linux.call(linux.entry("scsi_host_put"), shost)
        assert not scsi.hosts
        fibre.call("fc_release_transport", attached)
    assert parent.kobj.kref.refcount.refs.counter == 1
    assert loader.unload("scsi_transport_fc") == []
    for ours in (functions, lost, parent, ids):
        linux.free(ours)


def names(linux: Linux) -> set[str]:
    return {linux.string(device.kobj.name) for device in linux.state(Devices).added}


def test_a_target_port_brings_its_disk(linux: Linux, fibre: FibreChannel) -> None:
    first, second = fibre.port(0x10), fibre.port(0x20)
    number = fibre.shost.host_no
    assert {f"rport-{number}:0-0", f"rport-{number}:0-1", f"host{number}"} <= names(linux)
    until("both are scanned", lambda: fibre.disks() == [(0, "RUNNING"), (1, "RUNNING")])
    assert f"target{number}:0:1" in names(linux)
    assert [fibre.state(port) for port in (first, second)] == ["ONLINE", "ONLINE"]
    assert fibre.call("fc_find_rport_by_wwpn", fibre.shost, second.port_name) == int(second)
    assert fibre.call("fc_find_rport_by_wwpn", fibre.shost, 1) == 0
    assert first.rqst_q
    assert first.rqst_q != second.rqst_q, "each has a queue of its own"
    assert first.rqst_q.limits.max_segments == fibre.shost.sg_tablesize


def test_a_port_that_comes_back_in_time_keeps_its_disk(linux: Linux, fibre: FibreChannel) -> None:
    port = fibre.port(0x10)
    until("it is scanned", lambda: fibre.disks() == [(0, "RUNNING")])
    fibre.call("fc_remote_port_delete", port)
    assert fibre.state(port) == "BLOCKED"
    assert fibre.disks() == [(0, "BLOCK")]
    assert fibre.port(0x10) == port
    until("it runs again", lambda: fibre.disks() == [(0, "RUNNING")])
    assert fibre.state(port) == "ONLINE"
    assert load(fibre.lost, 8) == 0


def test_a_port_that_stays_away_loses_its_disk(linux: Linux, fibre: FibreChannel) -> None:
    port = fibre.port(0x10)
    until("it is scanned", lambda: fibre.disks() == [(0, "RUNNING")])
    port.dev_loss_tmo = 1  # seconds
    fibre.call("fc_remote_port_delete", port)
    until("the driver is told that it is lost", lambda: load(fibre.lost, 8) == 1)
    until("its disk has gone", lambda: fibre.disks() == [])
    assert fibre.state(port) == "NOTPRESENT"
    assert fibre.port(0x10) == port, "its target number is kept for it"
    until("there is a disk again", lambda: fibre.disks() == [(0, "RUNNING")])


def test_events_are_told_to_nobody_and_leave_nothing(linux: Linux, fibre: FibreChannel) -> None:
    held = objects()
    first = fibre.call("fc_get_event_number")
    fibre.call("fc_host_post_event", fibre.shost, first, FCH_EVT_LINKUP, 0x1234)
    assert fibre.call("fc_get_event_number") == first + 1
    assert objects() == held
    socket = Obj(linux.types, "sock", load(linux.entry("scsi_nl_sock"), 8))
    assert socket.sk_protocol == 18
