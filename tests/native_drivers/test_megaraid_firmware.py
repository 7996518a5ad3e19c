"""The firmware of a MegaRAID SAS in states that QEMU's never shows, and replies that no good controller writes.

Independent of us: nothing; the registers are a script, written after FreeBSD's mfi(4). QEMU's controllers, in
tests/e2e/test_megaraid_native.py, are the judge of what is usual.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

import pytest

from native_drivers.scsi.megaraid_sas import firmware as module
from native_drivers.scsi.megaraid_sas.firmware import GEN2, Firmware, MfiError, State
from native_drivers.scsi.megaraid_sas.frames import Dcmd
from native_drivers.scsi.megaraid_sas.registers import IDB, ODCR0, OMSK, OSP0, OSTS
from vmkernel_core.errors import DeviceGone, TimedOut
from vmkernel_core.idle import IdleLoop
from vmkernel_core.memory import MachineMemory
from vmklinux.native.device import Device, baton

FRAMES = 16


class Script:
    """Registers: OSP0 has one state after the other, each for a few reads; ``said`` is what was written elsewhere."""

    def __init__(self, *states: State) -> None:
        self.states = [state for state in states for _ in range(3)]
        self.said: list[tuple[int, int]] = []
        self.gone = False
        self.asks = OSTS()

    def read(self, offset: int, size: int) -> int:
        """As a window does."""
        if self.gone:
            return 0xFFFF_FFFF
        if offset == OSP0.offset:
            state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
            return OSP0(STATE=state, MAXSGL=80, MAXCMD=FRAMES).raw
        return self.asks.raw if offset == OSTS.offset else 0

    def write(self, offset: int, size: int, value: int) -> None:
        """As a window does."""
        self.said.append((offset, value))

    def write_rep(self, offset: int, size: int, values: Sequence[int]) -> None:
        """As a window does."""
        self.said += [(offset, value) for value in values]

    def flush(self) -> None:
        """As a window does."""

    def corked(self) -> AbstractContextManager[None]:
        """As a window does."""
        return nullcontext()

    def to(self, register: type[IDB | ODCR0 | OMSK]) -> list[int]:
        """What was written to one register."""
        return [value for offset, value in self.said if offset == register.offset]


@pytest.fixture
def device() -> Iterator[Device]:
    """A device without hardware."""
    with MachineMemory(64 << 20) as memory, baton():
        made = Device("scripted", "megaraid_sas", memory, IdleLoop(lambda _event: None, lambda: None))
        yield made
        made.devres.release_all()


def bring_up(device: Device, script: Script) -> Firmware:
    """The firmware, READY."""
    return Firmware(device, script, GEN2)  # type: ignore[arg-type]  # both are as good as what they stand for


@pytest.mark.parametrize(
    ("states", "told"),
    [
        ([State.UNDEFINED, State.BB_INIT, State.FW_INIT, State.FW_INIT_2, State.DEVICE_SCAN], []),
        ([State.WAIT_HANDSHAKE], [IDB(CLEAR_HANDSHAKE=1, HOTPLUG=1)]),
        ([State.FW_INIT, State.BOOT_MESSAGE_PENDING, State.DEVICE_SCAN], [IDB(HOTPLUG=1)]),
        ([State.OPERATIONAL, State.FLUSH_CACHE], [IDB(ABORT=1, READY=1, MFIMODE=1)]),
        ([], []),
    ],
)
def test_it_is_brought_to_ready_from_each_state(
    device: Device, states: Sequence[State], told: Sequence[IDB]
) -> None:
    script = Script(*states, State.READY)
    firmware = bring_up(device, script)
    assert script.to(IDB) == [value.raw for value in told]
    assert (firmware.frames, firmware.segments) == (FRAMES, 80)


def test_a_state_that_does_not_end_is_told(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(module._ON, State.FW_INIT, (None, 0.05))
    with pytest.raises(TimedOut, match="FW_INIT"):
        bring_up(device, Script(State.FW_INIT))


def test_a_fault_is_told(device: Device) -> None:
    with pytest.raises(MfiError, match="state 0xf"):
        bring_up(device, Script(State.FAULT))


def test_a_controller_that_has_gone_is_told(device: Device) -> None:
    script = Script(State.READY)
    script.gone = True
    with pytest.raises(DeviceGone):
        bring_up(device, script)


def test_replies_are_fetched_around_the_end_of_their_queue(device: Device) -> None:
    script = Script(State.READY)
    firmware = bring_up(device, script)
    queue, indices = firmware._queue, firmware._indices
    assert firmware.replies() is None
    script.asks = GEN2.reply
    assert firmware.replies() == []
    queue[13], queue[14], queue[15], queue[0] = 3, 1, 4, 1
    indices[0], indices[1] = 1, 13
    script.said.clear()
    assert firmware.replies() == [3, 1, 4, 1]
    assert list(indices) == [1, 1]
    assert script.to(ODCR0) == [GEN2.reply.raw]


def test_a_reply_index_that_cannot_be_is_told(device: Device) -> None:
    firmware = bring_up(device, Script(State.READY))
    firmware._indices[0] = FRAMES
    with pytest.raises(MfiError, match="reply index of 16"):
        firmware.replies()


def test_a_command_that_is_not_answered_is_given_up(device: Device) -> None:
    firmware = bring_up(device, Script(State.READY))
    firmware._own = [firmware.commands]
    with pytest.raises(TimedOut, match="CTRL_CACHE_FLUSH"):
        firmware.dcmd(Dcmd.CTRL_CACHE_FLUSH, timeout=0.05)


def test_a_frame_that_was_given_up_is_free_when_it_comes_back(device: Device) -> None:
    """Not before: the firmware may still write its answer."""
    firmware = bring_up(device, Script(State.READY))
    firmware._own = [firmware.commands]
    with pytest.raises(TimedOut, match="CTRL_CACHE_FLUSH"):
        firmware.dcmd(Dcmd.CTRL_CACHE_FLUSH, timeout=0.05)
    assert firmware._own == []
    with pytest.raises(TimedOut, match="before CTRL_SHUTDOWN"):
        firmware.dcmd(Dcmd.CTRL_SHUTDOWN, timeout=0.05)
    assert firmware.answered(firmware.commands)
    assert firmware._own == [firmware.commands]
    assert not firmware.answered(firmware.commands)


def test_nothing_is_sent_while_it_is_reset(device: Device) -> None:
    script = Script(State.READY)
    firmware = bring_up(device, script)
    firmware._own = [firmware.commands]
    firmware.wake()
    script.said.clear()
    with pytest.raises(TimedOut):
        firmware.dcmd(Dcmd.CTRL_CACHE_FLUSH, timeout=0.05)
    assert script.said == []


def test_what_is_waited_for_ends_when_the_controller_goes(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    firmware = bring_up(device, Script(State.READY))
    firmware._own = [firmware.commands]
    monkeypatch.setattr(firmware.window, "gone", True)
    with pytest.raises(DeviceGone):
        firmware.dcmd(Dcmd.CTRL_GET_INFO, 2048)


def test_states_without_end_are_given_up(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is in another state again and again, but never ready."""
    monkeypatch.setattr(module, "READY_TIME", 0.05)
    with pytest.raises(TimedOut, match="does not become ready"):
        bring_up(device, Script(*[State.BB_INIT, State.FW_INIT] * 2000))


def test_a_doorbell_is_answered_and_told_of(device: Device) -> None:
    """It pulls the same pin as replies, for as long as nobody acknowledges it."""
    script = Script(State.READY)
    firmware = bring_up(device, script)
    script.asks = OSTS(GEN2_DOORBELL=1)
    script.said.clear()
    assert firmware.replies() == []
    assert firmware.rang
    assert script.to(ODCR0) == [OSTS(GEN2_DOORBELL=1).raw]
