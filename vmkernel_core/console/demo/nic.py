"""The demo of a network device: frames cross to a peer process and back."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from vmkernel_core.console.demo import one_device, traffic
from vmkernel_core.console.demo.result import Result
from vmkernel_core.console.demo.session import Session
from vmkernel_core.console.demo.traffic import PeerProcess, Way
from vmkernel_core.errors import NoDriver, TimedOut

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vmkernel_core.adapter import Adapter
    from vmkernel_core.console.demo.result import Left
    from vmkernel_core.console.demo.session import Wanted
    from vmkernel_core.console.interruption import Interruption
    from vmkernel_core.net.uplink import Uplink

#: Seconds for the link to come up; autonegotiation over copper takes about three.
LINK_LIMIT = 10.0

#: QEMU's 82558 and later, and all of its 8255x.
_LATE_8255X: Final = (
    "i82550", "i82551", "i82558a", "i82558b", "i82559a", "i82559b", "i82559c", "i82559er", "i82562", "i82801",
)  # fmt: skip
_8255X: Final = ("i82557a", "i82557b", "i82557c", *_LATE_8255X)

#: Frames that may be under way to QEMU's cards that lose some when there are more. An NE2000 has memory for 13 KB, and
#: keeps room for one more. An 8255x of QEMU's tells of a frame before it has written it (hw/net/eepro100.c): a driver
#: that looks just then, because it has the frame before that in hand, finds an empty one.
_WINDOWS: Final = {"ne2k_pci": 5} | dict.fromkeys(_8255X, 1)

#: QEMU's cards that damage frames by themselves (QEMU 7.2, hw/net/eepro100.c): a command of an 82558 and later with one
#: buffer is read as if it had two, and the second is what an earlier command left there, if it was one that configured.
#: e100.ko has 128 commands; the first of them configure, and are used for frames when their turn comes again.
_SECOND_BUFFER: Final = (
    "QEMU's 82558 and later put more behind a frame in the place of a command that configured the card; "
    "--frames 100 ends before that"
)
_FLAWS: Final = dict.fromkeys(_LATE_8255X, _SECOND_BUFFER)


def window_of(device: str) -> int:
    """How many frames may be under way to a device, as ``-device`` takes it."""
    return _WINDOWS.get(device.partition(",")[0], traffic.WINDOW_IN)


class NicResult(Result, frozen=True, kw_only=True):
    """What came of moving frames."""

    mac: str
    link_mbps: int
    tx: Way
    rx: Way
    mmio_per_frame: float

    def rows(self) -> list[tuple[str, str]]:
        """The link and both directions."""
        return [
            ("MAC", self.mac),
            ("link", f"{self.link_mbps} Mb/s"),
            ("frames out", _way(self.tx)),
            ("frames in", _way(self.rx)),
            ("register accesses", f"{self.mmio_per_frame} per frame"),
        ]

    def problems(self) -> list[str]:
        """Frames that did not arrive byte for byte."""
        return [
            f"{way.frames - way.verified} of {way.frames} frames {where} were not verified"
            for way, where in ((self.tx, "out"), (self.rx, "in"))
            if way.verified != way.frames
        ]

    def remedy(self) -> str:
        """A card that damages frames is told of."""
        damaged = self.tx.verified != self.tx.frames
        return _FLAWS.get(self.device, super().remedy()) if damaged else super().remedy()


def run(wanted: Wanted, frames: int, ctrl_c: Interruption) -> tuple[NicResult, Sequence[Left]]:
    """Boot, move so many frames each way, stop; what came of it, and what the module left behind."""
    # The peer starts while this process boots.
    with PeerProcess() as peer:
        machine = one_device.with_wire(wanted.platform, wanted.device)
        with Session(wanted, machine) as session:
            nic = uplink_of(session.adapter, wanted.device)
            with nic:
                if not ctrl_c.wait(partial(link_comes, nic), LINK_LIMIT):
                    raise TimedOut(f"the link of {nic.name} did not come up within {LINK_LIMIT:g} s")
                mac, speed = nic.mac, nic.speed
                wire = machine.platform.wires[0].socket
                moved = traffic.run(nic, wire, peer, frames, ctrl_c, window_of(wanted.device))
    result = NicResult(
        **session.report(moved.seconds),
        mac=mac,
        link_mbps=speed,
        tx=moved.tx,
        rx=moved.rx,
        mmio_per_frame=round(moved.accesses / (moved.tx.frames + moved.rx.frames), 3),
    )
    return result, session.left()


def uplink_of(adapter: Adapter, device: str) -> Uplink:
    """The uplink that a device's driver made; NoDriver when it made none."""
    if adapter.uplink is None:
        raise NoDriver(f"{adapter.module} made no network device of {device}", where=str(adapter.function))
    return adapter.uplink


def link_comes(nic: Uplink, timeout: float) -> bool:
    """Wait for the link so many seconds; whether it came up."""
    try:
        nic.wait_link(timeout=timeout)
    except TimedOut:
        return False
    return True


def _way(way: Way) -> str:
    return f"{way.frames} sent, {way.bytes} bytes; {way.verified} arrived, every byte checked"
