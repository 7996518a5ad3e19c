"""From nothing to the first frame on the wire: run as a process of its own, prints where the time went, as JSON.

The times are seconds of CLOCK_MONOTONIC, which all processes share: whoever started this one knows when.
"""

from __future__ import annotations

import json
import sys
import time

from vmkernel_core.boot import VMkernel
from vmkernel_core.platform.qemu import QemuPlatform

_LIMIT = 10.0
_FRAME = (b"\xff" * 6 + b"\x02\0\0\0\0\x01" + b"\x88\xb5").ljust(64, b"\xa5")


def main(device: str, kernel: str | None) -> None:
    """Boot, open the uplink, send a frame, wait for it at the wire's far end."""
    times = {"imports": time.monotonic()}
    platform = QemuPlatform([device])
    with VMkernel(platform, kernel=kernel) as host:
        times["boot"] = time.monotonic()
        with host.uplinks["vmnic0"] as uplink:
            uplink.wait_link()
            times["link"] = time.monotonic()
            uplink.transmit_all([_FRAME])
            wire = platform.wires[0].socket
            wire.settimeout(_LIMIT)
            wire.recv(2048)
            times["frame"] = time.monotonic()
    print(json.dumps({"times": times, "boot": host.seconds}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None)
