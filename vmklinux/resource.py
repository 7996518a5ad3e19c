"""Who uses which I/O ports and bus addresses (Linux kernel/resource.c): the trees below ioport_resource, iomem_resource.

The structs are Linux's own, so that drivers may follow them; siblings are in the order of their addresses.
"""

from __future__ import annotations

import errno
import logging
from typing import TYPE_CHECKING

from vmkernel_core._core import lib
from vmklinux.api import linux_api
from vmklinux.devres import Devres
from vmklinux.kobject import Obj

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vmklinux.linux import Linux

log = logging.getLogger(__name__)

# include/linux/ioport.h
IORESOURCE_IO, IORESOURCE_MEM, IORESOURCE_BUSY = 0x100, 0x200, 0x8000_0000
IORESOURCE_TYPE_BITS = 0x1F00
ROOTS = {IORESOURCE_IO: "ioport_resource", IORESOURCE_MEM: "iomem_resource"}


class Resources:
    """The regions that were requested: the address of each struct resource, and the code address that asked."""

    def __init__(self, linux: Linux) -> None:
        """None is."""
        self.linux = linux
        self.owners: dict[int, int] = {}

    def root(self, kind: int) -> Obj:
        """The tree of IORESOURCE_IO or IORESOURCE_MEM."""
        return Obj(self.linux.types, "resource", self.linux.symbols[ROOTS[kind]])

    def request(self, parent: Obj, start: int, size: int, name: int, flags: int) -> Obj | None:
        """A new busy region below the parent, or below what lies there and is not busy; None when it is in use."""
        new = self.linux.new("resource")
        new.start, new.end, new.name = start, start + size - 1, name
        new.flags = parent.flags & IORESOURCE_TYPE_BITS | flags | IORESOURCE_BUSY
        conflict: Obj | None = parent
        while conflict is not None and not conflict.flags & IORESOURCE_BUSY:
            parent = conflict
            conflict = insert(parent, new)
            if conflict is None:
                self.owners[int(new)] = lib.vmk_owner()
                return new
            if conflict == parent:  # it does not lie inside
                break
        self.linux.free(new)
        return None

    def find(self, parent: Obj, start: int, size: int) -> Obj | None:
        """The busy region of just these addresses at or below the parent."""
        for child in children(parent):
            if child.start <= start and child.end >= start + size - 1:
                if not child.flags & IORESOURCE_BUSY:
                    return self.find(child, start, size)
                return child if (child.start, child.end) == (start, start + size - 1) else None
        return None

    def release(self, resource: Obj) -> None:
        """Take a requested region out of its tree and free it."""
        remove(resource)
        del self.owners[int(resource)]
        self.linux.free(resource)

    def owned(self, low: int, high: int) -> list[Obj]:
        """The regions that code in [low, high) requested."""
        types = self.linux.types
        return [Obj(types, "resource", at) for at, owner in self.owners.items() if low <= owner < high]


def children(parent: Obj) -> Iterator[Obj]:
    """The resources right below one."""
    child = parent.child
    while child:
        yield child
        child = child.sibling


def insert(parent: Obj, new: Obj) -> Obj | None:
    """Put a resource below another; the one that it conflicts with (the parent, if it does not lie inside), or None."""
    if new.end < new.start or new.start < parent.start or new.end > parent.end:
        return parent
    before = None
    for child in children(parent):
        if child.start > new.end:
            break
        if child.end >= new.start:
            return child
        before = child
    new.sibling = before.sibling if before is not None else parent.child
    if before is None:
        parent.child = new
    else:
        before.sibling = new
    new.parent = parent
    return None


def remove(resource: Obj) -> bool:
    """Take a resource, with what lies below it, out of its tree; False when it is in none."""
    parent = resource.parent
    before = None
    for child in children(parent) if parent else ():
        if child == resource:
            if before is None:
                parent.child = resource.sibling
            else:
                before.sibling = resource.sibling
            resource.parent = resource.sibling = 0
            return True
        before = child
    return False


@linux_api(partial="IORESOURCE_MUXED does not wait for the other user.")
def __request_region(linux: Linux, parent: Obj, start: int, n: int, name: int, flags: int) -> int:
    """Reserve addresses; a null pointer when any of them is in use."""
    return int(linux.state(Resources).request(parent, start, n, name, flags) or 0)


@linux_api()
def __release_region(linux: Linux, parent: Obj, start: int, n: int) -> None:
    """End a reservation; one that there is not is logged."""
    resources = linux.state(Resources)
    found = resources.find(parent, start, n)
    if found is None or int(found) not in resources.owners:
        log.warning("nobody has reserved %#x to %#x, which a driver releases", start, start + n - 1)
    else:
        resources.release(found)


@linux_api()
def request_resource(linux: Linux, root: Obj, new: Obj) -> int:
    """Put the caller's resource into a tree; -EBUSY when its addresses are taken."""
    return -errno.EBUSY if insert(root, new) is not None else 0


@linux_api()
def release_resource(linux: Linux, old: Obj) -> int:
    """Take the caller's resource out of its tree."""
    return 0 if remove(old) else -errno.EINVAL


@linux_api()
def __devm_request_region(linux: Linux, dev: Obj, parent: Obj, start: int, n: int, name: int) -> int:
    """Reserve addresses until the driver lets go of the device."""
    resource = linux.state(Resources).request(parent, start, n, name, 0)
    if resource is not None:
        linux.state(Devres).action(
            dev, lambda: __release_region(linux, parent, start, n), (int(parent), start)
        )
    return int(resource or 0)


@linux_api()
def __devm_release_region(linux: Linux, dev: Obj, parent: Obj, start: int, n: int) -> None:
    """End such a reservation early."""
    devres = linux.state(Devres)
    if action := devres.find_action(dev, (int(parent), start)):
        devres.take(dev, action)
        devres.end(dev, action)
