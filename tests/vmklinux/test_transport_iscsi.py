"""Debian's own scsi_transport_iscsi.ko on the emulated mid-layer: a session of a host made of machine code is scanned,
fails, recovers and ends. Independent: the transport module; what it does in each state is in its own headers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.vmkernel_core.hardware import until
from tests.vmklinux.conftest import CODE, objects
from tests.vmklinux.scsi_target import disks, host_template, types_of
from vmkernel_core.memory import load, store_bytes
from vmklinux.device import Devices
from vmklinux.kobject import Obj, addressof
from vmklinux.linux import Linux
from vmklinux.loader import Loader, Module
from vmklinux.scsi import Scsi

TARGET = 3
GIVEN_UP = CODE + 512


@dataclass
class Session:
    """A session of a host on the transport: ``call`` calls what the module exports."""

    linux: Linux
    module: Module
    shost: Obj
    obj: Obj
    given_up: int

    def call(self, name: str, *arguments: int | Obj) -> int:
        return self.linux.call(self.module.linked.exports[name], *arguments)

    def scan(self) -> None:
        """Have the session's own queue scan the target, as qla4xxx does."""
        work = addressof(self.obj, "scan_work")
        self.linux.call(self.linux.entry("queue_work_on"), 0, self.obj.workq, work)

    def disks(self) -> list[tuple[int, str]]:
        return disks(self.linux, self.shost)


@pytest.fixture
def session(linux: Linux) -> Iterator[Session]:
    """A session that is logged in; at the end nothing of it is left, nor of the module."""
    loader, scsi = Loader(linux), linux.state(Scsi)
    module = loader.load("scsi_transport_iscsi")
    exports, types = module.linked.exports, types_of(linux, module)
    transport = Obj(types, "iscsi_transport", linux.allocate(types.sizeof("iscsi_transport")))
    given_up, parent, name = linux.allocate(8), linux.new("device"), linux.new_string("test")
    # movabs $given_up,%rax; incq (%rax); ret
    store_bytes(GIVEN_UP, b"\x48\xb8" + given_up.to_bytes(8, "little") + b"\x48\xff\x00\xc3")
    store_bytes(GIVEN_UP + 64, b"\x31\xc0\xc3")  # xor %eax,%eax; ret: no attribute is visible
    transport.name, transport.session_recovery_timedout = name, GIVEN_UP
    transport.attr_is_visible = GIVEN_UP + 64
    transport.bsg_request = GIVEN_UP
    linux.call(linux.entry("device_initialize"), parent)
    with host_template(linux) as template:
        attached = linux.call(exports["iscsi_register_transport"], transport)
        assert attached
        shost = scsi.obj("Scsi_Host", linux.call(linux.entry("scsi_host_alloc"), template, 0))
        shost.transportt, shost.max_lun = attached, 1
        assert linux.call_int(linux.entry("scsi_add_host_with_dma"), shost, parent, parent) == 0
        created = linux.call(exports["iscsi_create_session"], shost, transport, 0, TARGET)
        session = Session(linux, module, shost, Obj(types, "iscsi_cls_session", created), given_up)
        session.call("iscsi_unblock_session", session.obj)
        yield session
        for end in ("iscsi_remove_session", "iscsi_free_session"):
            session.call(end, session.obj)
        assert session.disks() == []
        for put in ("scsi_remove_host", "scsi_host_put"):
            linux.call(linux.entry(put), shost)
        assert not scsi.hosts
        assert linux.call_int(exports["iscsi_unregister_transport"], transport) == 0
    assert parent.kobj.kref.refcount.refs.counter == 1
    assert loader.unload("scsi_transport_iscsi") == []
    for ours in (transport, given_up, parent, name):
        linux.free(ours)


def test_a_session_brings_its_disk(linux: Linux, session: Session) -> None:
    names = {linux.string(device.kobj.name) for device in linux.state(Devices).added}
    assert f"session{session.obj.sid}" in names
    assert session.call("iscsi_is_session_online", session.obj) & 0xFFFF_FFFF == 1
    session.scan()
    until("it is scanned", lambda: session.disks() == [(TARGET, "RUNNING")])


def test_a_session_that_recovers_keeps_its_disk(linux: Linux, session: Session) -> None:
    session.scan()
    until("it is scanned", lambda: session.disks() == [(TARGET, "RUNNING")])
    session.call("iscsi_block_session", session.obj)
    until("the disk waits", lambda: session.disks() == [(TARGET, "BLOCK")])
    assert session.call("iscsi_is_session_online", session.obj) & 0xFFFF_FFFF == 0
    session.call("iscsi_unblock_session", session.obj)
    until("it runs again", lambda: session.disks() == [(TARGET, "RUNNING")])
    assert load(session.given_up, 8) == 0


def test_a_session_that_does_not_recover_takes_its_disk_offline(linux: Linux, session: Session) -> None:
    session.scan()
    until("it is scanned", lambda: session.disks() == [(TARGET, "RUNNING")])
    session.obj.recovery_tmo = 1  # seconds
    session.call("iscsi_block_session", session.obj)
    until("the driver is told", lambda: load(session.given_up, 8) == 1)
    assert session.disks() == [(TARGET, "TRANSPORT_OFFLINE")]
    session.call("iscsi_unblock_session", session.obj)
    until("it comes back", lambda: session.disks() == [(TARGET, "RUNNING")])


def test_events_leave_nothing(linux: Linux, session: Session) -> None:
    """Nobody listens: the transport learns -ESRCH, which it takes for no fault."""
    held = objects()
    event = types_of(linux, session.module).enumerator("ISCSI_KEVENT_DESTROY_SESSION")
    session.call("iscsi_session_event", session.obj, event)
    assert objects() == held
