"""AMD's PCnet-PCI family, Am79C970 to Am79C976."""

from native_drivers.net.pcnet32.driver import Pcnet32

DRIVER = Pcnet32

__all__ = ["DRIVER", "Pcnet32"]
