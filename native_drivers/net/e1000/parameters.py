"""What may be set when the driver is loaded, by the names of Linux's e1000."""

from __future__ import annotations

from typing import TYPE_CHECKING

from native_drivers.net.e1000.moderation import MOST as LONGEST
from native_drivers.net.e1000.moderation import USUAL as USUAL_INTERVAL
from native_drivers.net.e1000.rings import LEAST, MOST, MULTIPLE, USUAL
from vmkernel_core.errors import UsageError
from vmklinux.module.param import TYPES, Parameter

if TYPE_CHECKING:
    from collections.abc import Mapping

_SECOND = 1_000_000  # microseconds
_SLOTS = f"descriptors, {LEAST} to {MOST} (default {USUAL})"
_LEAST_RATE = _SECOND // LONGEST + 1
_UINT = TYPES["param_ops_uint"]
TABLE = (
    Parameter("e1000", "TxDescriptors", _UINT, f"the transmit ring's {_SLOTS}"),
    Parameter("e1000", "RxDescriptors", _UINT, f"the receive ring's {_SLOTS}"),
    Parameter(
        "e1000",
        "InterruptThrottleRate",
        _UINT,
        f"the most interrupts a second, {_LEAST_RATE} or more; 0: all (default {_SECOND // USUAL_INTERVAL})",
    ),
)


def slots(given: Mapping[str, str], name: str) -> int:
    """A ring's descriptors, the next number that is possible. UsageError."""
    wanted = int(given.get(name, USUAL))
    if not LEAST <= wanted <= MOST:
        raise UsageError(f"{name}={wanted} is out of range", remedy=f"use {LEAST} to {MOST}")
    return -(-wanted // MULTIPLE) * MULTIPLE


def interval(given: Mapping[str, str]) -> int | None:
    """Microseconds between interrupts; None when nothing was set. UsageError."""
    if (text := given.get("InterruptThrottleRate")) is None:
        return None
    rate = int(text)
    if rate and rate < _LEAST_RATE:
        raise UsageError(
            f"InterruptThrottleRate={rate} is out of range", remedy=f"use {_LEAST_RATE} or more, or 0"
        )
    return rate and _SECOND // rate
