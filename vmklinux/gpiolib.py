"""General purpose pins (Linux drivers/gpio/gpiolib.c): no firmware names any for a device here."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from vmklinux.api import linux_api, no_op

if TYPE_CHECKING:
    from vmklinux.kobject import Obj
    from vmklinux.linux import Linux


@linux_api("devm_gpiod_get", note="No firmware names a pin: -ENOENT, as on a machine without.")
def gpiod_get(linux: Linux, dev: Obj, con_id: int, flags: int) -> int:
    """The pin that firmware names for a device's purpose."""
    return -errno.ENOENT


no_op(
    "gpiolib.py",
    "No firmware names a pin, so an optional one is NULL, and using NULL does nothing in Linux either.",
    "gpiod_get_optional", "devm_gpiod_get_optional", "gpiod_get_index_optional", "devm_gpiod_get_index_optional",
    "gpiod_put", "gpiod_set_consumer_name", "gpiod_set_value", "gpiod_set_value_cansleep", "gpiod_get_value",
    "gpiod_get_value_cansleep", "gpiod_direction_output", "gpiod_direction_input",
)  # fmt: skip
