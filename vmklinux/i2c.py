"""I2C adapters that a driver has on its card (Linux drivers/i2c/i2c-core-base.c): for sensors and optical modules.

Nobody looks for devices behind one, so no transfer is ever asked for.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from vmklinux.api import linux_api, no_op

if TYPE_CHECKING:
    from vmklinux.kobject import Obj
    from vmklinux.linux import Linux


@linux_api(note="Gives -ENODEV, as where no driver for the sensor is there.")
def i2c_new_client_device(linux: Linux, adap: Obj, info: Obj) -> int:
    """Refuse a device behind an adapter."""
    return -errno.ENODEV


@linux_api(note="Never reached: there are no clients.")
def i2c_smbus_read_byte_data(linux: Linux, client: Obj, command: int) -> int:
    """Refuse to read a register."""
    return -errno.ENODEV


@linux_api(note="Never reached: there are no clients.")
def i2c_smbus_write_byte_data(linux: Linux, client: Obj, command: int, value: int) -> int:
    """Refuse to write a register."""
    return -errno.ENODEV


no_op(
    "i2c.py",
    "An adapter that is added is found by nobody: there are no I2C drivers here.",
    "i2c_add_adapter", "i2c_add_numbered_adapter", "i2c_del_adapter",
)  # fmt: skip
