"""The system control block: how commands are given to the two units of the device (manual, 6.3.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from native_drivers.net.e100.registers import CUC_RESUME, SCB_COMMAND, SCB_POINTER

if TYPE_CHECKING:
    from vmklinux.native.register import Registers

#: Seconds until the device must have accepted a command: it may have a frame under way on a half duplex link of 10 Mb/s.
LIMIT = 0.1


class Scb:
    """Gives the device one command after the other."""

    def __init__(self, csr: Registers) -> None:
        self.csr = csr
        self._given = self._resumed = False

    def accepted(self) -> None:
        """Wait until the device has accepted what it was given. RegisterTimeout."""
        self.csr.wait(SCB_COMMAND, LIMIT, CUC=0, RUC=0)
        self._given = self._resumed = False

    def command(self, CUC: int = 0, RUC: int = 0, pointer: int | None = None) -> None:
        """Give it a command, with the address that belongs to it. RegisterTimeout."""
        if self._given or self._resumed:
            self.accepted()
        if pointer is not None:
            self.csr.write(SCB_POINTER(pointer))
        self.csr.write(SCB_COMMAND(CUC=CUC, RUC=RUC))
        self._given = True

    def resume(self) -> None:
        """Have the command unit go on. One more of these, before the last was accepted, says nothing else."""
        if self._given:
            self.accepted()
        self.csr.write(SCB_COMMAND(CUC=CUC_RESUME))
        self._resumed = True
