"""Families of generic netlink (Linux net/netlink/genetlink.c): they get their numbers, but nobody talks to them."""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vmklinux.api import linux_api

if TYPE_CHECKING:
    from vmklinux.kobject import Obj
    from vmklinux.linux import Linux

#: GENL_START_ALLOC and GENL_MAX_ID (include/uapi/linux/genetlink.h); the first multicast group of a family.
_IDS, _FIRST_GROUP = range(0x13, 1024), 16


@dataclass
class Families:
    """The registered families (struct genl_family) by their numbers, and how many multicast groups were given out."""

    linux: Linux
    known: dict[int, Obj] = field(default_factory=dict)
    groups: int = 0

    def abandon(self, low: int, high: int) -> None:
        """Forget the families that lie in [low, high): their module does not run again."""
        self.known = {number: each for number, each in self.known.items() if not low <= int(each) < high}


@linux_api()
def genl_register_family(linux: Linux, family: Obj) -> int:
    """Give a family its number, and its multicast groups theirs; 0, or -EEXIST for a name that is taken."""
    state, name = linux.state(Families), family.name.text()
    if name in [each.name.text() for each in state.known.values()]:
        return -errno.EEXIST
    family.id = next(number for number in _IDS if number not in state.known)
    family.mcgrp_offset = _FIRST_GROUP + state.groups
    state.groups += family.n_mcgrps
    state.known[family.id] = family
    return 0


@linux_api()
def genl_unregister_family(linux: Linux, family: Obj) -> int:
    """Forget a family; 0, or -ENOENT."""
    return 0 if linux.state(Families).known.pop(family.id, None) else -errno.ENOENT
