"""Virtio devices on PCI: one module carries them all, and another drives what each is."""

from __future__ import annotations

#: Virtio 1.2, 4.1.2: Red Hat's ids; the device of a modern one is this more than the type of the virtio device.
VENDOR, FIRST, MODERN, LAST = 0x1AF4, 0x1000, 0x1040, 0x107F
#: Of a transitional one the subsystem's device is the type. The ids say it too (Virtio 1.2, 4.1.2.1), where that is
#: not told.
TRANSITIONAL = {0x1000: 1, 0x1001: 2, 0x1002: 5, 0x1003: 3, 0x1004: 8, 0x1005: 4, 0x1009: 9}
_UNTOLD = 0xFFFF


def modalias(ids: tuple[int, int, int, int]) -> str | None:
    """The name of the virtio device for modules' claims, as Linux makes it (virtio_uevent in drivers/virtio/virtio.c).

    ``ids`` are the PCI device's: vendor, device, subsystem vendor and device (0xffff where not told). None for what is
    no virtio device.
    """
    vendor, device, subvendor, subdevice = ids
    if vendor != VENDOR or not FIRST <= device <= LAST:
        return None
    if device >= MODERN:
        kind = device - MODERN
    else:
        kind = TRANSITIONAL.get(device, subdevice) if subdevice == _UNTOLD else subdevice
    return f"virtio:d{kind:08X}v{subvendor:08X}"
