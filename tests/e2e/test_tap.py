"""A peer that is not ours: Linux's own network stack at both ends of an uplink, by ping and by a long TCP transfer.

    stack of namespace "near" - TAP - pump - Uplink - driver - QEMU's card - wire - pump - TAP - stack of "far"

Independent side: both stacks, QEMU's card; Debian's unmodified driver, where the engine is Linux. Needs root and
/dev/net/tun.
"""

from __future__ import annotations

import fcntl
import os
import select
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest

from tests.e2e.conftest import LIMIT
from tests.e2e.engines import on_each
from vmkernel_core.boot import VMkernel
from vmkernel_core.net.uplink import Uplink

# include/uapi/linux/if_tun.h
TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000

NEAR, FAR = "192.0.2.1", "192.0.2.2"
PORT = 5001
#: Bytes of the transfer, and seconds that it may take on a busy machine.
SIZE = 100_000_000
TRANSFER_LIMIT = 120.0
#: Frames that a pump takes in one go, and the most bytes of one.
BATCH, LONGEST = 64, 2048
#: Seconds between looks at whether a pump shall stop.
LOOK = 0.1

CLIENT = f"""
import hashlib, random, socket
data = random.Random(0).randbytes({SIZE})
with socket.create_connection(("{FAR}", {PORT}), {LIMIT}) as one:
    one.settimeout({TRANSFER_LIMIT})
    one.sendall(data)
    one.shutdown(socket.SHUT_WR)
    assert one.recv(1) == b""
print(hashlib.sha256(data).hexdigest())
"""
SERVER = f"""
import hashlib, socket
digest, size = hashlib.sha256(), 0
with socket.create_server(("{FAR}", {PORT})) as listener:
    listener.settimeout({TRANSFER_LIMIT})
    print("listening", flush=True)
    one, _ = listener.accept()
    with one:
        one.settimeout({TRANSFER_LIMIT})
        while data := one.recv(1 << 20):
            digest.update(data)
            size += len(data)
print(size, digest.hexdigest())
"""


def ip(*arguments: str) -> None:
    subprocess.run(["/sbin/ip", *arguments], check=True, timeout=LIMIT, capture_output=True)


class Namespace:
    """A network namespace with one TAP device; ``fd`` is the device's other side."""

    def __init__(self, name: str, address: str, mac: str | None = None) -> None:
        self.name = f"vmk-{name}-{os.getpid()}"
        device = f"{name}{os.getpid()}"
        ip("netns", "add", self.name)
        self.fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(self.fd, TUNSETIFF, struct.pack("16sH22x", device.encode(), IFF_TAP | IFF_NO_PI))
        ip("link", "set", device, "netns", self.name)
        if mac:
            ip("-n", self.name, "link", "set", device, "address", mac)
        ip("-n", self.name, "address", "add", f"{address}/24", "dev", device)
        ip("-n", self.name, "link", "set", device, "up")

    def command(self, *arguments: str) -> list[str]:
        """A command, to be run in this namespace."""
        return ["/sbin/ip", "netns", "exec", self.name, *arguments]

    def read(self) -> list[bytes]:
        """The frames that its stack sends; none when it has none for some time."""
        if not select.select([self.fd], [], [], LOOK)[0]:
            return []
        frames: list[bytes] = []
        try:
            while len(frames) < BATCH:
                frames.append(os.read(self.fd, LONGEST))
        except BlockingIOError:
            pass  # that was all
        return frames

    def close(self) -> None:
        os.close(self.fd)
        ip("netns", "delete", self.name)


@contextmanager
def pumping(*pumps: Callable[[], None]) -> Iterator[None]:
    """Call each function over and over in a thread of its own; an error in one is raised at the end."""
    stop = threading.Event()

    def run(pump: Callable[[], None]) -> None:
        while not stop.is_set():
            pump()

    with ThreadPoolExecutor(len(pumps)) as pool:
        running = [pool.submit(run, pump) for pump in pumps]
        try:
            yield
        finally:
            stop.set()
            for one in running:
                one.result(LIMIT)


driven = on_each("qemu", "rtl8139", "i82557b", "pcnet")


@pytest.fixture
def stacks(host: VMkernel, nic: Uplink) -> Iterator[tuple[Namespace, Namespace]]:
    """The near and the far stack, joined by the uplink and its wire."""
    wire = host.platform.wires[0].socket
    with ExitStack() as stack:
        near = Namespace("near", NEAR, nic.mac)
        stack.callback(near.close)
        far = Namespace("far", FAR)
        stack.callback(far.close)

        def near_out() -> None:
            nic.transmit_all(near.read())

        def near_in() -> None:
            if nic.wait(rx=True, timeout=LOOK):
                for frame in nic.receive(BATCH):
                    os.write(near.fd, frame)

        def far_out() -> None:
            for frame in far.read():
                wire.send(frame)

        def far_in() -> None:
            if select.select([wire], [], [], LOOK)[0]:
                os.write(far.fd, wire.recv(LONGEST))

        with pumping(near_out, near_in, far_out, far_in):
            yield near, far


def test_linux_talks_to_linux(stacks: tuple[Namespace, Namespace]) -> None:
    near, far = stacks
    ping = subprocess.run(
        near.command("ping", "-c", "5", "-i", "0.2", "-w", str(int(LIMIT)), "-s", "1400", FAR),
        check=True, capture_output=True, text=True, timeout=2 * LIMIT,
    )  # fmt: skip
    assert " 5 received, 0% packet loss" in ping.stdout

    with subprocess.Popen(
        far.command(sys.executable, "-c", SERVER), stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "listening\n"
        client = subprocess.run(
            near.command(sys.executable, "-c", CLIENT),
            check=True, capture_output=True, text=True, timeout=TRANSFER_LIMIT,
        )  # fmt: skip
        told, _ = server.communicate(timeout=LIMIT)
    assert told.split() == [str(SIZE), client.stdout.strip()]
