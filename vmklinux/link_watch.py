"""What a change of the carrier sets off above the driver (Linux net/core/link_watch.c)."""

from vmklinux.api import no_op

no_op(
    "link_watch.py",
    "No stack above the driver keeps an operational state; the uplink looks at the carrier itself.",
    "linkwatch_fire_event",
)
