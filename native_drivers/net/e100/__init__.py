"""Intel's 8255x, the 10/100 Mb/s cards EtherExpress PRO/100 and PRO/100+ and those in Intel's chipsets."""

from native_drivers.net.e100.driver import E100

DRIVER = E100

__all__ = ["DRIVER", "E100"]
