"""The certification suite of network devices."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Final

from hcl.console.certification import suite
from hcl.console.certification.suite import Failed, Finding, Record, Step, adapter_of
from hcl.console.certification.wire import FarEnd, frame, raw, same
from vmkernel_core.console.demo import one_device, traffic
from vmkernel_core.console.demo.frame_pattern import LONGEST, MOST_FRAMES, PEER_MAC, SHORTEST
from vmkernel_core.console.demo.nic import LINK_LIMIT, link_comes, uplink_of, window_of
from vmkernel_core.console.demo.session import Session, Wanted
from vmkernel_core.errors import TimedOut, UsageError

if TYPE_CHECKING:
    import socket

    from hcl.evidence import Run
    from vmkernel_core.adapter import Adapter
    from vmkernel_core.console.interruption import Interruption
    from vmkernel_core.net.uplink import Uplink

#: What the card is told to call itself, unless the user gives another.
MAC: Final = "52:54:00:ce:27:1f"
#: Frames each way where it is about their content.
_FRAMES: Final = 512
#: Coprime to the count of sizes, so that sizes follow each other in no order.
_SIZE_STEP: Final = 389
#: MTUs that are tried, the largest first: what Ethernet's jumbo frames usually are, what fits a page, and little more
#: than a frame of the standard has.
_JUMBO_MTUS: Final = (9000, 4082, 2000)
#: Groups: those of mDNS, and of IPv6's multicast listener reports; and a station that is not there.
_GROUP, _OTHER_GROUP = "01:00:5e:00:00:fb", "33:33:00:00:00:16"
_STRANGER, _BROADCAST = b"\x02\0\0\0\0\x99", b"\xff" * 6
#: Frames each way in the first round of traffic; later ones take about so many seconds.
_FIRST_ROUND, _ROUND_SECONDS = 500, 5.0


@dataclass
class Bench:
    """The card as the checks have it: its host and place, its uplink once it is open, the wire's far end."""

    session: Session
    adapter: Adapter
    device: str
    mac: str
    wire: socket.socket
    seconds: float
    ctrl_c: Interruption
    opened: Uplink | None = None

    @property
    def nic(self) -> Uplink:
        """The uplink."""
        assert self.opened is not None, "the check of the link opens it, and it is vital"
        return self.opened

    @property
    def far(self) -> FarEnd:
        """The far end of its wire; the card receives."""
        far = FarEnd(self.nic, self.wire, window_of(self.device))
        far.settle()
        return far

    def open(self) -> Uplink:
        """Open the uplink and wait for its link. NoDriver, TimedOut."""
        self.opened = uplink_of(self.adapter, self.device)
        self.opened.open()
        if not self.ctrl_c.wait(partial(link_comes, self.opened), LINK_LIMIT):
            raise TimedOut(f"the link of {self.opened.name} did not come up within {LINK_LIMIT:g} s")
        return self.opened

    def out(self, sizes: list[int], seed: str) -> list[bytes]:
        """Frames of those sizes from the card to the peer."""
        return [frame(PEER_MAC, raw(self.mac), size, f"{seed} {n}") for n, size in enumerate(sizes)]

    def into(self, sizes: list[int], seed: str) -> list[bytes]:
        """Frames of those sizes from the peer to the card."""
        return [frame(raw(self.mac), PEER_MAC, size, f"{seed} {n}") for n, size in enumerate(sizes)]


def run(wanted: Wanted, seconds: float, ctrl_c: Interruption) -> Run:
    """Certify a network device; ``seconds`` is how long the check of traffic lasts. What keeps the host from starting
    is raised, and NoDriver when there is no driver for the device.
    """
    given = re.search(r",mac=((?:[0-9a-f]{2}:){5}[0-9a-f]{2})", wanted.device, re.IGNORECASE)
    mac = given[1].lower() if given else MAC
    # The card as it comes: the demo's shortcuts are for devices that are named without properties.
    device = wanted.device if given else f"{wanted.device},mac={mac}"
    record = Record("nic")
    machine = one_device.with_wire(wanted.platform, device)
    with Session(wanted, machine) as session:
        adapter = adapter_of(session, machine)
        counterpart = suite.counterpart(machine, wanted.device)
        wire = machine.platform.wires[0].socket
        checks = suite.examine(
            STEPS, Bench(session, adapter, wanted.device, mac, wire, seconds, ctrl_c), ctrl_c
        )
    checks.append(suite.examined(Step("leaks", suite.no_leaks), session))
    return record.run(session, adapter, counterpart, checks)


def _driver(bench: Bench) -> Finding:
    return suite.driver(bench.session)


def _link(bench: Bench) -> Finding:
    nic = bench.open()
    return Finding(f"up at {nic.speed} Mb/s", {"mbps": float(nic.speed)})


def _mac(bench: Bench) -> Finding:
    if bench.nic.mac != bench.mac:
        raise Failed(f"the driver says {bench.nic.mac}, the card has {bench.mac}")
    return Finding(bench.mac)


def _mixed() -> list[int]:
    return [SHORTEST + n * _SIZE_STEP % (LONGEST - SHORTEST + 1) for n in range(_FRAMES)]


def _transmit(bench: Bench) -> Finding:
    frames = bench.out(_mixed(), "transmit")
    same(frames, bench.far.out(frames), "out of the card")
    return _every_byte(frames, "left the card")


def _receive(bench: Bench) -> Finding:
    frames = bench.into(_mixed(), "receive")
    same(frames, bench.far.into(frames), "into the card")
    return _every_byte(frames, "came in")


def _every_byte(frames: list[bytes], how: str) -> Finding:
    total = sum(map(len, frames))
    return Finding(
        f"{len(frames)} frames, {total} bytes {how}, every byte checked",
        {"frames": float(len(frames)), "bytes": float(total)},
    )


def _sizes(bench: Bench) -> Finding:
    sizes = list(range(SHORTEST, LONGEST + 1))
    _both_ways(bench, sizes)
    return Finding(
        f"each of {SHORTEST} to {LONGEST} bytes, both ways",
        {"shortest": float(SHORTEST), "longest": float(LONGEST)},
    )


def _both_ways(bench: Bench, sizes: list[int]) -> None:
    far, out, into = bench.far, bench.out(sizes, "sizes"), bench.into(sizes, "sizes")
    same(out, far.out(out), "out of the card")
    same(into, far.into(into), "into the card")


def _jumbo(bench: Bench) -> Finding:
    before = bench.nic.mtu
    mtu = next((mtu for mtu in _JUMBO_MTUS if _takes(bench, mtu)), None)
    if mtu is None:
        return Finding(f"the card has no MTU beyond {before}", {"mtu": float(before)})
    try:
        bench.open()
        longest = mtu + 14
        sizes = [60, 1514, *range(1515, longest, 97), longest - 1, longest]
        _both_ways(bench, sizes)
    finally:
        bench.nic.mtu = before
        bench.open()
    return Finding(f"{len(sizes)} sizes up to {longest} bytes, both ways", {"mtu": float(mtu)})


def _takes(bench: Bench, mtu: int) -> bool:
    try:
        bench.nic.mtu = mtu
    except UsageError:
        return False
    return True


def _unicast(bench: Bench) -> Finding:
    mine, strange = bench.into([80], "mine")[0], frame(_STRANGER, PEER_MAC, 80)
    broadcast = frame(_BROADCAST, PEER_MAC, 80)
    same([broadcast, mine], bench.far.into([strange, broadcast, mine]), "one for another, broadcast, its own")
    return Finding("its own and broadcast come in, what is for another does not")


def _multicast(bench: Bench) -> Finding:
    group, other = (frame(raw(address), PEER_MAC, 80) for address in (_GROUP, _OTHER_GROUP))
    mine = bench.into([80], "mine")[0]
    for groups, expected in (([], [mine]), ([_GROUP], [group, mine]), ([], [mine])):
        bench.nic.set_multicast(groups)
        same(expected, bench.far.into([group, other, mine]), f"groups {', '.join(groups) or 'none'}")
    return Finding("frames of a group come in while it is joined, those of another do not")


def _promiscuous(bench: Bench) -> Finding:
    mine, strange = bench.into([80], "mine")[0], frame(_STRANGER, PEER_MAC, 80)
    bench.nic.set_promiscuous(True)
    try:
        same([strange, mine], bench.far.into([strange, mine]), "promiscuous")
    finally:
        bench.nic.set_promiscuous(False)
    same([mine], bench.far.into([strange, mine]), "promiscuous no more")
    return Finding("what is for another comes in while it is on, and not afterwards")


def _statistics(bench: Bench) -> Finding:
    out, into = (make(_mixed()[:64], "statistics") for make in (bench.out, bench.into))
    far = bench.far
    before, fetched, fetched_bytes = bench.nic.stats, far.fetched, far.fetched_bytes
    same(out, far.out(out), "out of the card")
    same(into, far.into(into), "into the card")
    after = bench.nic.stats
    expected = {
        "tx_frames": len(out), "tx_bytes": sum(map(len, out)),
        "rx_frames": far.fetched - fetched, "rx_bytes": far.fetched_bytes - fetched_bytes,
        "rx_dropped": 0, "tx_errors": 0, "rx_errors": 0,
    }  # fmt: skip
    for name, count in expected.items():
        counted = getattr(after, name) - getattr(before, name)
        if counted != count:
            raise Failed(f"{name} rose by {counted}, it was to rise by {count}")
    return Finding("they rose by what crossed", {name: float(count) for name, count in expected.items()})


def _traffic(bench: Bench) -> Finding:
    frames, moved = _FIRST_ROUND, {"frames_out": 0, "frames_in": 0, "bytes_out": 0, "bytes_in": 0}
    began = monotonic()
    while True:
        round_began = monotonic()
        with traffic.PeerProcess() as peer:
            done = traffic.run(bench.nic, bench.wire, peer, frames, bench.ctrl_c, window_of(bench.device))
        moved["frames_out"] += done.tx.verified
        moved["frames_in"] += done.rx.verified
        moved["bytes_out"] += done.tx.bytes
        moved["bytes_in"] += done.rx.bytes
        passed = monotonic() - began
        for way, where in ((done.tx, "out"), (done.rx, "in")):
            if way.verified != frames:
                raise Failed(
                    f"{frames - way.verified} of {frames} frames {where} were not verified after {passed:.0f} s"
                )
        if passed >= bench.seconds:
            break
        rate = frames / (monotonic() - round_began)
        frames = min(max(int(rate * min(bench.seconds - passed, _ROUND_SECONDS)), _FIRST_ROUND), MOST_FRAMES)
    figures = {name: float(count) for name, count in moved.items()} | {"seconds": round(passed, 3)}
    return Finding(
        f"{moved['frames_out']} frames out and {moved['frames_in']} in within {passed:.0f} s, every byte checked",
        figures,
    )


def _reload(bench: Bench) -> Finding:
    host, module, engine = bench.session.host, str(bench.adapter.module), bench.adapter.engine
    if leaks := host.unload(module, engine=engine):
        raise Failed(f"unloaded, it left {len(leaks)} things: {leaks[0].kind}: {leaks[0].what}")
    host.load(module, engine=engine)
    if bench.adapter.error is not None:
        raise bench.adapter.error
    bench.open()
    _mac(bench)
    _both_ways(bench, [SHORTEST, LONGEST] * 16)
    return Finding(f"{module} was unloaded and loaded again; 32 frames crossed each way")


#: The checks, in their order.
STEPS: Final = (
    Step("driver", _driver, vital=True),
    Step("link", _link, vital=True),
    Step("mac", _mac),
    Step("transmit", _transmit),
    Step("receive", _receive),
    Step("sizes", _sizes),
    Step("jumbo", _jumbo),
    Step("unicast", _unicast),
    Step("multicast", _multicast),
    Step("promiscuous", _promiscuous),
    Step("statistics", _statistics),
    Step("traffic", _traffic),
    Step("reload", _reload),
)
