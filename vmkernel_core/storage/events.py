"""What happens to storage adapters and devices, as the vmkernel tells it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

#: appeared and removed: it can be used from now on, or is not there any more; changed: its adapter told that its
#: capacity, or what else ``StorageDevice.refresh`` asks for, has changed; dead: its hardware has gone, or answers
#: no longer; blocked: a device's transport has lost it for now; active: it is back; stopped: its driver did what cannot
#: be allowed. What is dead or was stopped is removed when its driver lets go of it.
StorageEventKind: TypeAlias = Literal[
    "appeared", "removed", "changed", "stopped", "dead", "blocked", "active"
]


@dataclass(frozen=True, slots=True)
class StorageEvent:
    """Something happened to an adapter (``vmhba0``) or to a device (``naa.…``, ``vmhba0:C0:T1:L0``).

    ``detail`` is a sentence for people.
    """

    name: str
    kind: StorageEventKind
    detail: str = ""
