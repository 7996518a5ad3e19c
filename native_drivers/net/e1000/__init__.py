"""Intel's 8254x gigabit Ethernet controllers, and the 82574L (ESX: e1000)."""

from native_drivers.net.e1000.driver import E1000

DRIVER = E1000

__all__ = ["DRIVER", "E1000"]
