"""The PHY's registers, reached through the MDI control register (6.3.7)."""

from __future__ import annotations

from native_drivers.net.e100.registers import MDI, MDI_READ, MDI_WRITE
from vmkernel_core.errors import NotSupported
from vmklinux.native.mii import BMCR, BMSR
from vmklinux.native.register import Register, Registers, bit, bits

#: Seconds for one access: 64 bits at 2.5 MHz (IEEE 802.3, 22.2.2.11) are over long before.
LIMIT = 0.05
#: Where PHYs are looked for: the manual has them at 1.
_ADDRESSES = (1, 0, *range(2, 32))


class LEDS(Register):
    """The 82555's register 27: what the lights show (82555 datasheet, 7.2)."""

    offset, width = 27, 16
    SWITCH = bits(0, 2)


class NCONFIG(Register):
    """The 82550's register 28: crossing of the pairs."""

    offset, width = 28, 16
    AUTO_SWITCH = bit(7)


class MdiRegisters(Registers):
    """The registers of the PHY with this address; ``offset`` of a register is its number. RegisterTimeout."""

    def __init__(self, csr: Registers, address: int) -> None:
        super().__init__(csr.window, f"{csr.name} PHY {address}")
        self.csr = csr
        self.address = address

    def load(self, register: type[Register]) -> int:
        """Read one."""
        self.csr.write(MDI(OPCODE=MDI_READ, PHYADD=self.address, REGADD=register.offset))
        return self.csr.wait(MDI, LIMIT, R=1).DATA

    def store(self, register: type[Register], raw: int) -> None:
        """Write one."""
        self.csr.write(MDI(OPCODE=MDI_WRITE, PHYADD=self.address, REGADD=register.offset, DATA=raw))
        self.csr.wait(MDI, LIMIT, R=1)


def find_phy(csr: Registers) -> MdiRegisters:
    """The first PHY that answers. NotSupported: the 82503 and the 80C24 have no such registers."""
    for address in _ADDRESSES:
        phy = MdiRegisters(csr, address)
        control = phy.read(BMCR)
        if control.raw != 0xFFFF and (control or phy.read(BMSR)):
            return phy
    raise NotSupported(
        "no PHY answers", where=csr.name, remedy="only cards whose PHY has MII registers are served"
    )
