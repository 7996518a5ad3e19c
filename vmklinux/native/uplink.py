"""An uplink's driver side over a network device of a driver in Python (Linux net/core/dev.c)."""

from __future__ import annotations

import errno
import logging
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING

from vmkernel_core._core import ffi, lib
from vmkernel_core.errors import DeviceGone, NotSupported, TimedOut, UsageError, VmkError
from vmkernel_core.net.settings import LinkSettings
from vmkernel_core.net.uplink import UplinkStats
from vmklinux.errors import DriverStopped, WorldEnded
from vmklinux.frames import Receiver, refusal
from vmklinux.native import power
from vmklinux.native.context import atomic
from vmklinux.native.ethtool import NativeEthtool
from vmklinux.native.timer import Timer, mod_timer, timer_delete
from vmklinux.native.tx_batch import TxBatch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vmkernel_core.net.uplink import Feature, Frame
    from vmklinux.native.devres import Release
    from vmklinux.native.netdevice import NetDevice

log = logging.getLogger(__name__)


class NativeUplink:
    """What stands behind the Uplink of a native driver's device (UplinkDriver)."""

    def __init__(self, dev: NetDevice) -> None:
        """Of that device, which is complete."""
        self._dev = dev
        self._ops = dev.ops
        self._pdev = dev.pdev
        self.driver_name = dev.pdev.driver_name
        self.controls = NativeEthtool(dev)
        self._receiver = Receiver(partial(lib.native_port_receive, dev.handle))
        self._wanted = dev.features
        self._taken: Release | None = None
        self._closing = False
        self._watchdog = Timer(dev.pdev, self._look)
        self._limits = ffi.new("struct port_limits *")
        self._set_limits()

    def _set_limits(self) -> None:
        dev, limits = self._dev, self._limits
        limits.mtu, limits.gso_max_size, limits.gso_max_segs = dev.mtu, dev.gso_max_size, dev.gso_max_segs
        limits.checksum = "tx-checksum" in dev.features
        limits.tso, limits.tso6 = "tso" in dev.features, "tso6" in dev.features
        self._device_tags = bool(dev.vlans) and "vlan-insert" in dev.features

    @contextmanager
    def _configuring(self) -> Iterator[None]:
        """Around what changes the device's settings."""
        with self._dev.configuring():
            try:
                yield
            finally:
                self._set_limits()

    # ---- life ----

    def open(self) -> None:
        """dev_open."""
        dev = self._dev
        with self._configuring():
            if self._taken:
                return
            self._taken = self._pdev.devres.open_group(self._stop)
            dev.running = True
            lib.native_port_poll_enable(dev.handle, True)
            lib.native_port_wake_queue(dev.handle)
            try:
                with self._pdev.calling():  # what stops the driver does so before its memory goes back
                    self._ops.ndo_open()
            except BaseException:
                self._failed_to_open()
                raise
            dev.state_changed()
            mod_timer(self._watchdog, dev.watchdog_timeo)
            try:
                self._ops.ndo_set_rx_mode()
            except BaseException:
                self._shut()
                raise

    def _failed_to_open(self) -> None:
        """Give back what ndo_open took; the device does not run."""
        taken, self._taken = self._taken, None
        self._dev.running = False
        self._quiet()
        if taken:
            taken.now()

    def close(self) -> None:
        """dev_close."""
        with self._configuring():
            self._shut()

    def _shut(self) -> None:
        """Stop the device, if it runs, and give back what ndo_open took."""
        if self._taken:
            self._closing = True
            try:
                self._taken.now()
            finally:
                self._closing = False

    def _stop(self) -> None:
        """The group of what ndo_open took is released: stop the device first. With the baton.

        A device that its driver cannot stop is cut off from memory: DriverStopped.
        """
        if not self._taken:
            return
        if not self._closing:
            self.unregister()  # the driver lets go of everything
        with self._alone():
            if not self._dev.running:  # whoever had it closed it
                return
            self._taken = None
            self._dev.running = False
            self._dev.state_changed()
            timer_delete(self._watchdog)
            try:
                if self._pdev.stopped is None:
                    self._stop_device()
            finally:
                self._quiet()

    def _stop_device(self) -> None:
        try:
            with self._pdev.calling():
                if not self._dev.present and not self._pdev.gone:
                    power.power_up(self._pdev)  # its driver goes while it sleeps
                self._ops.ndo_stop()
        except DriverStopped:
            raise
        except DeviceGone as error:
            log.info("%s: %s", self._dev.name, error)
        except VmkError as error:
            raise self._pdev.stop(error) from error

    def _quiet(self) -> None:
        """Nothing is polled, and there is no link."""
        lib.native_port_poll_enable(self._dev.handle, False)
        self._dev.carrier = False
        self._dev.state_changed()

    def unregister(self) -> None:
        """The driver lets go of the device: the uplink is dead, and nobody configures the device."""
        self._dev.registered = False
        if self._dev.uplink:
            self._dev.uplink.removed()
        self.wake()
        with self._alone():
            pass

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """With the RTNL; without it when who has it waits, too long, for what does not come."""
        with ExitStack() as stack:
            try:
                stack.enter_context(self._dev.rtnl.lock())
            except (TimedOut, WorldEnded) as error:
                log.error("%s: %s", self._dev.name, error)
            yield

    def suspend(self) -> None:
        """Put the device to sleep; its driver detaches it."""
        with self._configuring():
            power.suspend(self._pdev)

    def resume(self) -> None:
        """Wake it up."""
        with self._configuring():
            power.resume(self._pdev)

    def _look(self) -> None:
        """dev_watchdog: a queue that is stopped for too long."""
        dev = self._dev
        stuck_since = lib.native_port_last_sent(dev.handle)
        stopped = lib.native_port_queue_stopped(dev.handle)
        late = lib.vmk_now() - stuck_since > dev.watchdog_timeo * 1e9
        if stopped and late and dev.present and self.link_up():
            log.warning("%s: the transmit queue timed out", dev.name)
            lib.native_port_excuse(dev.handle)
            self._ops.ndo_tx_timeout()
        mod_timer(self._watchdog, dev.watchdog_timeo)

    # ---- frames ----

    def transmit(self, frames: Sequence[bytes | Frame]) -> int:
        """Send a batch through ndo_start_xmit."""
        batch = TxBatch(frames, device_tags=self._device_tags)
        port = self._dev.handle
        error = lib.native_port_send(port, self._limits, batch.handle)
        if error == -errno.ENOBUFS:
            return 0
        if error:
            raise refusal(error, self._dev.name, self.driver_name, self._dev.mtu)
        try:
            with atomic:
                self._ops.ndo_start_xmit(batch)
        except VmkError:
            raise
        except Exception as failure:
            raise self._pdev.failed(failure) from failure
        finally:
            lib.native_port_sent(port, batch.handle)
        return batch.taken

    def receive(self, max_frames: int) -> list[bytes]:
        """Fetch received frames."""
        return self._receiver.receive(max_frames)

    def receive_frames(self, max_frames: int) -> list[Frame]:
        """Fetch received frames with what is known of them."""
        return self._receiver.receive_frames(max_frames)

    def wait(self, rx: bool, tx: bool, timeout: float) -> bool:
        """Wait for frames, or for room."""
        wanted = (lib.LINUX_PORT_RX if rx else 0) | (lib.LINUX_PORT_TX if tx else 0)
        have = lib.native_port_wait(self._dev.handle, wanted | lib.LINUX_PORT_END, int(timeout * 1e9))
        return bool(have & wanted)

    def wake(self) -> None:
        """Let everybody who waits look again, now and from now on: the device is dead."""
        lib.native_port_end(self._dev.handle)

    # ---- properties ----

    def mac(self) -> bytes:
        """The address in use."""
        return self._dev.dev_addr

    def set_mac(self, mac: bytes) -> None:
        """dev_set_mac_address."""
        dev = self._dev
        with self._configuring():
            before, dev.dev_addr = dev.dev_addr, mac
            try:
                self._ops.ndo_set_mac_address(mac)
            except VmkError:
                dev.dev_addr = before
                raise

    def mtu(self) -> int:
        """In bytes."""
        return self._dev.mtu

    def set_mtu(self, mtu: int) -> None:
        """dev_set_mtu."""
        dev = self._dev
        if not dev.min_mtu <= mtu <= dev.max_mtu:
            raise UsageError(
                f"an MTU of {mtu} is out of range",
                where=dev.name,
                remedy=f"use {dev.min_mtu} to {dev.max_mtu}",
            )
        with self._configuring():
            before, dev.mtu = dev.mtu, mtu
            try:
                self._ops.ndo_change_mtu(mtu)
            except VmkError:
                dev.mtu = before
                raise

    def link_up(self) -> bool:
        """Open, and the carrier on."""
        return self._dev.running and self._dev.carrier

    def speed(self) -> int:
        """Mb/s by ethtool; 0 when unknown or down."""
        try:
            return self.controls.get(LinkSettings).speed
        except NotSupported:
            return 0

    def features(self) -> frozenset[Feature]:
        """Those that are on."""
        return self._dev.features

    def set_feature(self, feature: Feature, on: bool) -> None:
        """netdev_update_features with one feature more or less wanted."""
        dev = self._dev
        if feature not in dev.hw_features:
            raise UsageError(f"{self.driver_name} cannot switch {feature}", where=dev.name)
        with self._configuring():
            self._wanted = self._wanted | {feature} if on else self._wanted - {feature}
            fixed = dev.features - dev.hw_features | self._wanted & dev.hw_features
            features = self._ops.ndo_fix_features(fixed)
            if features != dev.features:
                before, dev.features = dev.features, features
                try:
                    self._ops.ndo_set_features(features)
                except VmkError:
                    dev.features = before
                    raise
        if (feature in dev.features) != on:
            raise UsageError(f"{self.driver_name} keeps {feature} as it is", where=dev.name)

    def _rx_mode(self) -> None:
        if self._dev.running and self._dev.present:
            self._ops.ndo_set_rx_mode()

    def set_promiscuous(self, on: bool) -> None:
        """IFF_PROMISC."""
        with self._configuring():
            self._dev.promiscuous = on
            self._rx_mode()

    def set_multicast(self, groups: Sequence[bytes]) -> None:
        """Replace the groups."""
        for group in groups:
            if len(group) != 6 or not group[0] & 1:
                raise UsageError(f"{group.hex(':')} is not a multicast MAC address")
        with self._configuring():
            self._dev.mc_list = list(groups)
            self._rx_mode()

    def set_vlans(self, ids: Sequence[int]) -> None:
        """vlan_vid_add and vlan_vid_del, until the card's filter has just these."""
        dev = self._dev
        if "vlan-filter" not in dev.features:
            raise UsageError(f"{self.driver_name} cannot filter VLANs", where=dev.name)
        with self._configuring():
            for vid in (*sorted(dev.vlans - set(ids)), *sorted(set(ids) - dev.vlans)):
                before, dev.vlans = dev.vlans, dev.vlans ^ {vid}
                let = self._ops.ndo_vlan_rx_kill_vid if vid in before else self._ops.ndo_vlan_rx_add_vid
                try:
                    let(vid)
                except VmkError:
                    dev.vlans = before
                    raise

    def stats(self) -> UplinkStats:
        """Counters of the port and of the device."""
        port = ffi.new("struct linux_port_stats *")
        lib.native_port_stats(self._dev.handle, port)
        driver = self.controls.statistics()
        if self._dev.present:
            with self._configuring():
                self._ops.ndo_get_stats()
        device = self._dev.stats
        return UplinkStats(
            port.tx_frames, port.tx_bytes, port.rx_frames, port.rx_bytes, port.tx_busy, port.rx_dropped,
            port.rx_merged, device.tx_errors, device.rx_errors, device.multicast, driver,
        )  # fmt: skip
