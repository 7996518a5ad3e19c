"""An uplink: a network device as the hypervisor's virtual switch sees it (ESX's vmnic)."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from vmkernel_core.errors import DeviceGone, TimedOut, UsageError, VmkError
from vmkernel_core.net.controls import Controls

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from vmkernel_core.net.controls import ControlDriver

log = logging.getLogger(__name__)


class Suspended(VmkError):
    """The uplink was put to sleep: it carries nothing, and nothing of it can be set, until resume()."""


class LinkDown(VmkError):
    """The uplink cannot carry frames now: it is not open, or its cable is out."""


@dataclass(frozen=True, slots=True)
class Frame:
    """An Ethernet frame (from the destination address on, without FCS) with what the device shall do to it.

    The fields are those of virtio's ``virtio_net_hdr`` (VIRTIO 1.2, 5.1.6): with ``checksum=(start, offset)`` the
    device sums from byte ``start`` to the end and stores the result at ``start + offset``; with ``gso_size`` it cuts
    the TCP payload, which begins at ``header_length``, into segments of that many bytes. ``vlan`` is a tag control
    word (priority, VLAN id) to insert: by the device once VLANs are set (Uplink.set_vlans), before that by this side.

    Of a received frame ``verified`` says that the device found its TCP or UDP checksum right. One with a ``gso_size``
    was put together of segments ("gro"); transmit() takes it as it is, on an uplink that has "tso".
    """

    data: bytes
    checksum: tuple[int, int] | None = None
    gso_size: int = 0
    header_length: int = 0
    vlan: int | None = None
    verified: bool = False


EventKind: TypeAlias = Literal["link-up", "link-down", "suspended", "resumed", "removed", "stopped"]
Feature: TypeAlias = Literal[
    "scatter-gather",
    "tx-checksum",
    "rx-checksum",
    "tso",
    "tso6",
    "gro",
    "vlan-insert",
    "vlan-strip",
    "vlan-filter",
]


@dataclass(frozen=True, slots=True)
class UplinkEvent:
    """Something happened to an uplink; ``detail`` is a sentence for people, "" when there is nothing to add."""

    uplink: str
    kind: EventKind
    detail: str = ""


@dataclass(frozen=True, slots=True)
class UplinkStats:
    """Counters since the device appeared: frames and bytes as this side sees them, and the device's own errors.

    ``rx_dropped`` counts frames that nobody fetched in time, ``tx_busy`` those that the driver handed back,
    ``rx_merged`` segments that became part of the frame before them (feature "gro").
    ``driver`` has the driver's own counters by name (``ethtool -S``).
    """

    tx_frames: int
    tx_bytes: int
    rx_frames: int
    rx_bytes: int
    tx_busy: int
    rx_dropped: int
    rx_merged: int
    tx_errors: int
    rx_errors: int
    multicast: int
    driver: dict[str, int]


class UplinkDriver(Protocol):
    """What stands behind an uplink; vmklinux makes it of a net_device."""

    driver_name: str

    @property
    def controls(self) -> ControlDriver:
        """Settings, tests and the rest of what ethtool does."""

    def open(self) -> None:
        """Start the device."""

    def close(self) -> None:
        """Stop it; no DMA and no interrupt afterwards."""

    def suspend(self) -> None:
        """Put the device to sleep; NotSupported."""

    def resume(self) -> None:
        """Wake it up."""

    def transmit(self, frames: Sequence[bytes | Frame]) -> int:
        """Send frames; how many were taken. LinkDown."""

    def receive(self, max_frames: int) -> list[bytes]:
        """Fetch received frames."""

    def receive_frames(self, max_frames: int) -> list[Frame]:
        """Fetch received frames with what is known of them."""

    def wait(self, rx: bool, tx: bool, timeout: float) -> bool:
        """Wait for frames or room, in seconds; ends early after wake()."""

    def wake(self) -> None:
        """End every wait, now and later: the device is dead."""

    def mac(self) -> bytes:
        """The MAC address, six bytes."""

    def set_mac(self, mac: bytes) -> None:
        """Change it."""

    def mtu(self) -> int:
        """The MTU in bytes."""

    def set_mtu(self, mtu: int) -> None:
        """Change it; UsageError out of range."""

    def link_up(self) -> bool:
        """Whether there is a link."""

    def speed(self) -> int:
        """Mb/s, 0 when unknown."""

    def features(self) -> frozenset[Feature]:
        """Offloads that are on."""

    def set_feature(self, feature: Feature, on: bool) -> None:
        """Switch one; UsageError."""

    def set_promiscuous(self, on: bool) -> None:
        """Take every frame, or not."""

    def set_multicast(self, groups: Sequence[bytes]) -> None:
        """Replace the groups."""

    def set_vlans(self, ids: Sequence[int]) -> None:
        """Replace the VLAN ids that the device lets through; none: what the driver lets through without any."""

    def stats(self) -> UplinkStats:
        """The counters."""


class Uplink(Controls):
    """A network device by its ESX name (``vmnic0``). Use it as a context manager: opened, then reset and quiet.

    Every method raises DeviceGone once the device has been removed, and DriverStopped (a VmkError) when the
    driver had to be stopped; the uplink is then dead, everything else goes on.
    """

    def __init__(self, name: str, driver: UplinkDriver) -> None:
        """The vmkernel makes uplinks; a program finds them in ``VMkernel.uplinks``."""
        self.name = name
        self._driver = driver
        self._open = False
        self._asleep = False
        self._dead: VmkError | None = None
        self._changed = threading.Condition()
        self._watchers: list[Callable[[UplinkEvent], None]] = []

    def __repr__(self) -> str:
        """Name and driver."""
        return f"<Uplink {self.name} ({self._driver.driver_name})>"

    def __enter__(self) -> Uplink:
        """Open the device."""
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it, if it is still there."""
        if self._dead is None:
            self.close()

    @property
    def _alive(self) -> UplinkDriver:
        if self._dead is not None:
            raise self._dead
        return self._driver

    @property
    def _awake(self) -> UplinkDriver:
        driver = self._alive
        if self._asleep:
            raise Suspended(f"{self.name} is suspended", remedy="resume() wakes it up")
        return driver

    @property
    def _controls(self) -> ControlDriver:
        return self._awake.controls

    def open(self) -> None:
        """Start the device; the link comes up some time later (wait_link). Nothing when it is open."""
        driver = self._awake
        if not self._open:
            driver.open()
            self._open = True

    def close(self) -> None:
        """Stop the device: no DMA and no interrupt comes from it any more. Nothing when it is closed.

        A suspended one is resumed first: its driver can stop it only then.
        """
        driver = self._alive
        if self._open:
            self.resume()
            self._open = False
            driver.close()

    # ---- power ----

    def suspend(self) -> None:
        """Put the device to sleep (D3hot where it can): what is set stays set; frames that wait are kept or lost as
        its driver has it. wake_on_lan tells what may wake the machine. Nothing when it sleeps.

        Raises NotSupported, and DriverRefused when the driver does not let it: it is awake then.
        """
        driver = self._alive
        if not self._asleep:
            driver.suspend()
            self._asleep = True
            self.post("suspended")

    def resume(self) -> None:
        """Wake it up; the link comes back some time later (wait_link). Nothing when it is awake."""
        driver = self._alive
        if self._asleep:
            driver.resume()
            self._asleep = False
            self.post("resumed")

    @property
    def is_suspended(self) -> bool:
        """Whether it sleeps."""
        return self._asleep and self._dead is None

    # ---- frames ----

    def transmit(self, frames: Sequence[bytes | Frame]) -> int:
        """Send frames in order; how many the device took.

        Fewer than given means that it is full: offer the rest after ``wait(tx=True)``. Raises LinkDown.
        """
        try:
            return self._awake.transmit(frames) if frames else 0
        except DeviceGone as error:  # the device went while the call was under way: _dead knows better why
            raise self._dead or error from None
        except LinkDown:
            if self._open:
                raise
            raise LinkDown(f"{self.name} is closed", remedy="open() it first") from None

    def transmit_all(self, frames: Sequence[bytes | Frame], timeout: float = 10.0) -> None:
        """Send all frames, waiting for room; TimedOut when ``timeout`` seconds pass in which none was taken."""
        done = 0
        while done < len(frames):
            taken = self.transmit(frames[done:] if done else frames)
            done += taken
            if not taken and not self.wait(tx=True, timeout=timeout):
                raise TimedOut(
                    f"{self.name} took no frame for {timeout:g} s", where=f"{done} of {len(frames)} sent"
                )

    def receive(self, max_frames: int = 64) -> list[bytes]:
        """Fetch frames that have arrived, at most so many, without waiting."""
        if max_frames < 1:
            raise UsageError(f"receive() wants at least 1 frame, not {max_frames}")
        return self._awake.receive(max_frames)

    def receive_frames(self, max_frames: int = 64) -> list[Frame]:
        """Like receive(), but with what the device and GRO know of each frame."""
        if max_frames < 1:
            raise UsageError(f"receive_frames() wants at least 1 frame, not {max_frames}")
        return self._awake.receive_frames(max_frames)

    def wait(self, *, rx: bool = False, tx: bool = False, timeout: float) -> bool:
        """Wait until a frame has arrived (rx) or there is room to send (tx); False when the time is up."""
        ready = self._awake.wait(rx, tx, timeout)
        if self._dead is not None:
            raise self._dead
        return ready

    # ---- properties ----

    @property
    def driver_name(self) -> str:
        """The name of the driver behind it."""
        return self._driver.driver_name

    @property
    def is_open(self) -> bool:
        """Whether open() was called last."""
        return self._open and self._dead is None

    @property
    def error(self) -> VmkError | None:
        """Why it cannot be used any more: its device was removed (DeviceGone), or its driver stopped."""
        return self._dead

    @property
    def mac(self) -> str:
        """The MAC address, as ``52:54:00:12:34:56``."""
        return self._alive.mac().hex(":")

    @mac.setter
    def mac(self, value: str) -> None:
        try:
            raw = bytes.fromhex(value.replace(":", ""))
        except ValueError:
            raw = b""
        if len(raw) != 6 or raw[0] & 1:
            raise UsageError(
                f"{value!r} is not a unicast MAC address", remedy="write it as 52:54:00:12:34:56"
            )
        self._awake.set_mac(raw)

    @property
    def mtu(self) -> int:
        """The largest payload of a frame, in bytes; setting it may restart the device."""
        return self._alive.mtu()

    @mtu.setter
    def mtu(self, value: int) -> None:
        self._awake.set_mtu(value)

    @property
    def link_up(self) -> bool:
        """Whether the driver sees a link."""
        return self._alive.link_up() and not self._asleep

    @property
    def speed(self) -> int:
        """Link speed in Mb/s; 0 when unknown."""
        return 0 if self._asleep else self._alive.speed()

    @property
    def features(self) -> frozenset[Feature]:
        """What the device does by itself now."""
        return self._alive.features()

    def set_feature(self, feature: Feature, on: bool) -> None:
        """Switch an offload; UsageError when the device has it not or the driver keeps it as it is."""
        self._awake.set_feature(feature, on)

    def set_promiscuous(self, on: bool) -> None:
        """Receive every frame on the wire, or only those meant for this address and its groups."""
        self._awake.set_promiscuous(on)

    def set_multicast(self, groups: Sequence[str]) -> None:
        """The multicast groups to receive, as MAC addresses; those set before are left."""
        self._awake.set_multicast([bytes.fromhex(group.replace(":", "")) for group in groups])

    def set_vlans(self, ids: Sequence[int]) -> None:
        """The VLAN ids (0 to 4095) to receive, besides frames without a tag; ``range(4096)``: all of them.

        With an empty list, as at first, the driver decides: most let every tag through, vmxnet3 none.
        The device filters them and inserts the tag of a Frame's ``vlan``. UsageError when it cannot.
        """
        if wrong := [vid for vid in ids if not 0 <= vid <= 4095]:
            raise UsageError(f"no VLAN ids: {wrong}", remedy="use 0 to 4095")
        self._awake.set_vlans(ids)

    @property
    def stats(self) -> UplinkStats:
        """The counters."""
        return self._alive.stats()

    # ---- events ----

    def subscribe(self, watcher: Callable[[UplinkEvent], None]) -> None:
        """Be told of events, from a thread of the vmkernel; the watcher must not block."""
        self._watchers.append(watcher)

    def wait_link(self, up: bool = True, timeout: float = 10.0) -> None:
        """Wait until the link is up (or down); TimedOut, DeviceGone."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                if self._dead is not None:
                    raise self._dead
                if self._driver.link_up() == up:
                    return
                left = deadline - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    state = "up" if up else "down"
                    raise TimedOut(
                        f"the link of {self.name} did not go {state} within {timeout:g} s",
                        remedy="" if self._open else "it is closed: open() it first",
                    )

    def post(self, kind: EventKind, detail: str = "") -> None:
        """For the driver's side: something happened."""
        event = UplinkEvent(self.name, kind, detail)
        log.info("%s: %s%s", self.name, kind, f" ({detail})" if detail else "")
        with self._changed:
            self._changed.notify_all()
        for watcher in self._watchers:
            watcher(event)

    def kill(self, kind: EventKind, error: VmkError) -> None:
        """For the driver's side: the device has gone or its driver was stopped; every use fails from now on."""
        if self._dead is None:
            self._dead = error
            self._driver.wake()
            self.post(kind, error.what)

    def removed(self) -> None:
        """For the driver's side: the device was taken away."""
        self.kill("removed", DeviceGone(f"{self.name} has gone", remedy="plug the device in and boot again"))
