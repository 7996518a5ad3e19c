"""Debian's own scsi_transport_iscsi.ko on the emulated mid-layer: a session of a host made of machine code is scanned,
fails, recovers and ends. Independent: the transport module; what it does in each state is in its own headers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.vmkernel_core.hardware import until
from tests.vmklinux.conftest import CODE, call_with_seven, objects
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


def test_libiscsi_gives_a_session_its_tasks(linux: Linux) -> None:
    """Debian's own libiscsi.ko: tasks wait in its queue of pointers, one for each command and some for management."""
    commands, management = 32, 15  # include/scsi/libiscsi.h: ISCSI_MGMT_CMDS_MAX
    loader = Loader(linux)
    library = loader.load("libiscsi")
    exports = {**library.linked.exports, **loader.modules["scsi_transport_iscsi"].linked.exports}
    types = types_of(linux, library)

    def call(name: str, *arguments: int | Obj) -> int:
        return linux.call(exports[name], *arguments)

    transport = Obj(types, "iscsi_transport", linux.allocate(types.sizeof("iscsi_transport")))
    parent, name = linux.new("device"), linux.new_string("test")
    store_bytes(GIVEN_UP, b"\x31\xc0\xc3")  # xor %eax,%eax; ret: no attribute is visible
    transport.name, transport.attr_is_visible = name, GIVEN_UP
    linux.call(linux.entry("device_initialize"), parent)
    with host_template(linux) as template:
        template.can_queue = 64
        attached = call("iscsi_register_transport", transport)
        shost = linux.state(Scsi).obj("Scsi_Host", call("iscsi_host_alloc", template, 0, 0))
        shost.transportt = attached
        assert linux.call_int(exports["iscsi_host_add"], shost, parent) == 0
        setup = exports["iscsi_session_setup"]
        created = call_with_seven(linux, setup, transport, shost, commands, 0, 0, 1, TARGET)
        cls_session = Obj(types, "iscsi_cls_session", created)
        session = Obj(types, "iscsi_session", cls_session.dd_data)
        fifo = session.cmdpool.queue.kfifo

        def waiting() -> int:
            return int((getattr(fifo, "in") - fifo.out) // 8)  # of pointers

        assert waiting() == session.cmds_max == commands
        tasks = [Obj(types, "iscsi_task", load(int(session.cmds) + 8 * n, 8)) for n in range(commands)]
        assert [task.itt for task in tasks] == list(range(commands))
        assert session.scsi_cmds_max == commands - management
        connection = call("iscsi_conn_setup", cls_session, 0, 0)
        names = {linux.string(device.kobj.name) for device in linux.state(Devices).added}
        assert {f"session{cls_session.sid}", f"connection{cls_session.sid}:0"} <= names
        assert waiting() == commands - 1, "a task for the login is taken"
        call("iscsi_conn_teardown", connection)
        assert waiting() == commands
        call("iscsi_session_teardown", cls_session)
        call("iscsi_host_remove", shost, 0)
        call("iscsi_host_free", shost)
        assert linux.call_int(exports["iscsi_unregister_transport"], transport) == 0
    for loaded in list(loader.modules)[::-1]:
        assert loader.unload(loaded) == []
    for ours in (transport, parent, name):
        linux.free(ours)
