"""Message interrupts out of QEMU, whose processor is halted: its ``ivshmem-doorbell`` device turns them into eventfds.

A message is a write to memory. QEMU's memory holds the doorbell register of an ivshmem device at the address that
messages go to; a write of ``peer << 16 | vector`` there makes QEMU write the eventfd of that vector of that peer
(QEMU's docs/specs/ivshmem-spec.txt, "Interrupts"). We are the ivshmem server and peer 0, so the message is the vector.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from typing import TYPE_CHECKING

from vmkernel_core.bus import Space
from vmkernel_core.errors import TimedOut
from vmkernel_core.pci_function import BASE_ADDRESS_0, COMMAND, COMMAND_MEMORY
from vmkernel_core.platform.base import PciAddress
from vmkernel_core.platform.messages import MessageInterrupts

if TYPE_CHECKING:
    from vmkernel_core.bus import Bus

#: The device is a function of the ICH9's slot, where no device of the machine can be.
ADDRESS = PciAddress(0, 0, 31, 7)
#: Its registers' bus address: above the aperture of BARs, below the I/O APIC at 0xfec00000.
REGISTERS = 0xF000_0000
#: The first line: pins are below.
FIRST_LINE = 64
VECTORS = 192
#: Seconds that QEMU gets to take in all vectors.
READY_LIMIT = 10.0

# ivshmem: the protocol's version, its end of setup, our peer id and QEMU's; the doorbell register in BAR 0.
_VERSION, _SETUP_END, _PEER, _QEMU = 0, -1, 0, 1
_DOORBELL = 12


class Doorbell:
    """The device and its server: ``arguments`` and ``descriptor`` go to QEMU; ``connect`` when it runs."""

    def __init__(self) -> None:
        """Make the eventfds, and tell the device all there is to tell before it starts."""
        self._eventfds: list[int] = []
        self._server, self._client = socket.socketpair()
        try:
            for _ in range(VECTORS):
                self._eventfds.append(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
            shared = os.memfd_create("ivshmem", os.MFD_CLOEXEC)
            try:
                os.truncate(shared, 4096)
                for number, *descriptor in ((_VERSION,), (_QEMU,), (_SETUP_END, shared)):
                    self._tell(number, descriptor)
            finally:
                os.close(shared)
            for eventfd in self._eventfds:
                self._tell(_PEER, [eventfd])
        except BaseException:
            self.close()
            raise

    @property
    def descriptor(self) -> int:
        """The socket that QEMU gets."""
        return self._client.fileno()

    @property
    def arguments(self) -> list[str]:
        """QEMU's arguments."""
        place = f"addr={ADDRESS.device:x}.{ADDRESS.function}"
        return [
            *("-chardev", f"socket,id=doorbell,fd={self.descriptor}"),
            *("-device", f"ivshmem-doorbell,chardev=doorbell,vectors={VECTORS},ioeventfd=off,{place}"),
        ]

    def connect(self, bus: Bus, config: int) -> MessageInterrupts:
        """Give the registers their place (``config``: bus address of the function's configuration space).

        Returns when a message has come through to the last vector; TimedOut.
        """
        bus.write(Space.MEMORY, config + BASE_ADDRESS_0, 4, REGISTERS)
        bus.write(Space.MEMORY, config + COMMAND, 2, COMMAND_MEMORY)
        poll = select.poll()
        poll.register(self._eventfds[-1], select.POLLIN)
        deadline = time.monotonic() + READY_LIMIT
        while not poll.poll(1):
            if time.monotonic() > deadline:
                raise TimedOut(f"QEMU passed no message interrupt on in {READY_LIMIT:g} s")
            bus.write(Space.MEMORY, REGISTERS + _DOORBELL, 4, VECTORS - 1)
        eventfds, self._eventfds = self._eventfds, []
        return MessageInterrupts(REGISTERS + _DOORBELL, FIRST_LINE, eventfds)

    def close(self) -> None:
        """Close what is still ours. May be called twice."""
        self._server.close()
        self._client.close()
        for eventfd in self._eventfds:
            os.close(eventfd)
        self._eventfds.clear()

    def _tell(self, number: int, descriptors: list[int]) -> None:
        socket.send_fds(self._server, [struct.pack("<q", number)], descriptors)
