"""Resources that end with the driver's hold on a device (Linux drivers/base/devres.c).

What Linux puts in front of each resource (struct devres) is kept here, in Python: a driver only ever sees the data.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from vmkernel_core._core import lib
from vmkernel_core.memory import load_bytes, store_bytes
from vmklinux.api import linux_api
from vmklinux.kobject import Obj

if TYPE_CHECKING:
    from vmklinux.linux import Linux, VaList

#: Ends a resource: a function of kernel code (called with the device and the data), or one of ours.
Release: TypeAlias = int | Callable[[], object]


@dataclass(frozen=True)
class Resource:
    """``data`` of ``size`` bytes (0: it has no memory of its own), ended by ``release`` (0: only freed)."""

    data: int
    size: int
    release: Release
    key: tuple[int, int] = (0, 0)
    """Of an action: its function and argument, by which it is found."""


@dataclass(frozen=True)
class _Mark:
    """Where a group begins or ends."""

    group: int
    opens: bool


class Devres:
    """The resources of each device, by its address, in the order of adding."""

    def __init__(self, linux: Linux) -> None:
        """None has any."""
        self.linux = linux
        self._devices: dict[int, list[Resource | _Mark]] = {}
        self._loose: dict[int, Resource] = {}  # allocated, but not added to a device

    def allocate(self, release: Release, size: int) -> int:
        """Memory for a resource that is not added yet; its data's address."""
        resource = Resource(self.linux.allocate(max(size, 1), lib.vmk_owner()), size, release)
        self._loose[resource.data] = resource
        return resource.data

    def discard(self, data: int) -> None:
        """Free a resource that was not added."""
        self.linux.free(self._loose.pop(data).data)

    def add(self, device: Obj, data: int) -> None:
        """The resource belongs to the device from now on."""
        self._devices.setdefault(int(device), []).append(self._loose.pop(data))

    def action(self, device: Obj, release: Callable[[], object], key: tuple[int, int] = (0, 0)) -> None:
        """Have a function of ours called when the driver lets go of the device."""
        self._devices.setdefault(int(device), []).append(Resource(0, 0, release, key))

    def find_action(self, device: Obj, key: tuple[int, int]) -> Resource | None:
        """The latest action with that function and argument."""
        return next((r for r in self.resources(device) if r.key == key), None)

    def release_of(self, data: int) -> Release:
        """The release function of a resource that is not added."""
        return self._loose[data].release

    def resources(self, device: Obj) -> list[Resource]:
        """Those of a device, the latest first."""
        return [r for r in reversed(self._devices.get(int(device), [])) if isinstance(r, Resource)]

    def find(self, device: Obj, release: int, match: int = 0, match_data: int = 0) -> Resource | None:
        """The latest resource with that release function which ``match(dev, res, match_data)`` accepts."""
        for resource in self.resources(device):
            if resource.release != release:
                continue
            if not match or self.linux.call_int(match, device, resource.data, match_data):
                return resource
        return None

    def take(self, device: Obj, resource: Resource) -> None:
        """The resource belongs to the device no more; it is loose again."""
        self._devices[int(device)].remove(resource)
        if resource.data:
            self._loose[resource.data] = resource

    def end(self, device: Obj, resource: Resource) -> None:
        """Call a resource's release function and free it."""
        self._loose.pop(resource.data, None)
        try:
            if callable(resource.release):
                resource.release()
            elif resource.release:
                self.linux.call(resource.release, device, resource.data)
        finally:
            if resource.data:
                self.linux.free(resource.data)

    def release_all(self, device: Obj) -> int:
        """End every resource of a device, the latest first; how many."""
        count = 0
        while entries := self._devices.get(int(device)):
            entry = entries.pop()
            if isinstance(entry, Resource):
                count += 1
                self.end(device, entry)
        self._devices.pop(int(device), None)
        return count

    def forget(self, device: Obj) -> None:
        """The driver is dead: nothing of its is called, only ours; its memory is taken back with all that it had."""
        for entry in reversed(self._devices.pop(int(device), [])):
            if isinstance(entry, Resource) and callable(entry.release) and not any(entry.key):
                entry.release()

    # ---- groups ----

    def open_group(self, device: Obj, group: int) -> None:
        """Begin a group."""
        self._devices.setdefault(int(device), []).append(_Mark(group, opens=True))

    def close_group(self, device: Obj, group: int) -> None:
        """End a group: what is added later does not belong to it."""
        entries = self._devices.get(int(device), [])
        found = group or next((e.group for e in reversed(entries) if isinstance(e, _Mark) and e.opens), 0)
        entries.append(_Mark(found, opens=False))

    def take_group(self, device: Obj, group: int) -> list[Resource] | None:
        """Undo a group: its resources, which stay where they are; None when there is no such group."""
        entries = self._devices.get(int(device), [])
        marks = [e for e in entries if isinstance(e, _Mark)]
        found = group or next((mark.group for mark in reversed(marks) if mark.opens), 0)
        opening, closing = _Mark(found, opens=True), _Mark(found, opens=False)
        if opening not in marks:
            return None
        first = entries.index(opening)
        last = entries.index(closing) if closing in marks else len(entries)
        inside = [e for e in entries[first:last] if isinstance(e, Resource)]
        entries[:] = [e for e in entries if e not in (opening, closing)]
        return inside


def _devres(linux: Linux) -> Devres:
    return linux.state(Devres)


# ---- resources ----


@linux_api()
def __devres_alloc_node(linux: Linux, release: int, size: int, gfp: int, nid: int, name: int) -> int:
    """Memory for a resource, cleared."""
    return _devres(linux).allocate(release, size)


@linux_api()
def devres_free(linux: Linux, res: int) -> None:
    """Free a resource that was not added, or was removed."""
    if res:
        _devres(linux).discard(res)


@linux_api()
def devres_add(linux: Linux, dev: Obj, res: int) -> None:
    """Let a resource belong to a device."""
    _devres(linux).add(dev, res)


@linux_api()
def devres_find(linux: Linux, dev: Obj, release: int, match: int, match_data: int) -> int:
    """The data of a device's resource; 0 for none."""
    found = _devres(linux).find(dev, release, match, match_data)
    return found.data if found else 0


@linux_api()
def devres_get(linux: Linux, dev: Obj, new_res: int, match: int, match_data: int) -> int:
    """The device's resource of that kind; when there is none, the new one, which is freed otherwise."""
    devres = _devres(linux)
    release = devres.release_of(new_res)
    found = devres.find(dev, release, match, match_data) if isinstance(release, int) else None
    if found is None:
        devres.add(dev, new_res)
        return new_res
    devres.discard(new_res)
    return found.data


@linux_api()
def devres_remove(linux: Linux, dev: Obj, release: int, match: int, match_data: int) -> int:
    """Take a resource from a device, to be freed by the caller; its data, 0 for none."""
    devres = _devres(linux)
    found = devres.find(dev, release, match, match_data)
    if found is None:
        return 0
    devres.take(dev, found)
    return found.data


@linux_api()
def devres_destroy(linux: Linux, dev: Obj, release: int, match: int, match_data: int) -> int:
    """Take a resource from a device and free it without calling its release function."""
    data = devres_remove(linux, dev, release, match, match_data)
    if not data:
        return -errno.ENOENT
    devres_free(linux, data)
    return 0


@linux_api()
def devres_release(linux: Linux, dev: Obj, release: int, match: int, match_data: int) -> int:
    """Take a resource from a device and end it."""
    devres = _devres(linux)
    found = devres.find(dev, release, match, match_data)
    if found is None:
        return -errno.ENOENT
    devres.take(dev, found)
    devres.end(dev, found)
    return 0


@linux_api()
def devres_for_each_res(
    linux: Linux, dev: Obj, release: int, match: int, match_data: int, fn: int, data: int
) -> None:
    """Call a function for each resource of a kind, the latest first."""
    for resource in _devres(linux).resources(dev):
        fits = resource.release == release
        if fits and (not match or linux.call_int(match, dev, resource.data, match_data)):
            linux.call(fn, dev, resource.data, data)


@linux_api()
def devres_open_group(linux: Linux, dev: Obj, id: int, gfp: int) -> int:
    """Begin a group of resources; its id."""
    group = id or linux.allocate(8, lib.vmk_owner())
    if not id:
        _devres(linux).action(dev, lambda: linux.free(group))
    _devres(linux).open_group(dev, group)
    return group


@linux_api()
def devres_close_group(linux: Linux, dev: Obj, id: int) -> None:
    """End a group of resources."""
    _devres(linux).close_group(dev, id)


@linux_api()
def devres_remove_group(linux: Linux, dev: Obj, id: int) -> None:
    """Forget a group; its resources stay."""
    _devres(linux).take_group(dev, id)


@linux_api()
def devres_release_group(linux: Linux, dev: Obj, id: int) -> int:
    """End the resources of a group; how many."""
    devres = _devres(linux)
    inside = devres.take_group(dev, id) or []
    for resource in reversed(inside):
        devres.take(dev, resource)
        devres.end(dev, resource)
    return len(inside)


# ---- actions ----


@linux_api()
def devm_add_action(linux: Linux, dev: Obj, action: int, data: int) -> int:
    """Have a function called when the driver lets go of the device."""
    _devres(linux).action(dev, lambda: linux.call(action, data), key=(action, data))
    return 0


@linux_api()
def __devm_add_action(linux: Linux, dev: Obj, action: int, data: int, name: int) -> int:
    """Have a function called when the driver lets go of the device."""
    return devm_add_action(linux, dev, action, data)


@linux_api()
def devm_remove_action_nowarn(linux: Linux, dev: Obj, action: int, data: int) -> int:
    """Have it called no more; -ENOENT when it was not to be."""
    devres = _devres(linux)
    found = devres.find_action(dev, (action, data))
    if found is None:
        return -errno.ENOENT
    devres.take(dev, found)
    return 0


@linux_api()
def devm_remove_action(linux: Linux, dev: Obj, action: int, data: int) -> None:
    """Have it called no more."""
    devm_remove_action_nowarn(linux, dev, action, data)


@linux_api()
def devm_release_action(linux: Linux, dev: Obj, action: int, data: int) -> None:
    """Call it now instead of later."""
    devres = _devres(linux)
    if (found := devres.find_action(dev, (action, data))) is not None:
        devres.take(dev, found)
        devres.end(dev, found)


# ---- memory ----


def _memory(linux: Linux, device: Obj, size: int) -> int:
    if not size:
        return 16  # ZERO_SIZE_PTR, include/linux/slab.h
    devres = _devres(linux)
    data = devres.allocate(0, size)
    devres.add(device, data)
    return data


def _owned_memory(linux: Linux, device: Obj, data: int) -> Iterator[Resource]:
    return (r for r in _devres(linux).resources(device) if r.data == data and r.release == 0)


@linux_api("devm_kmalloc_noprof", note="The memory is always cleared.")
def devm_kmalloc(linux: Linux, dev: Obj, size: int, gfp: int) -> int:
    """Memory that is freed when the driver lets go of the device."""
    return _memory(linux, dev, size)


@linux_api()
def devm_kfree(linux: Linux, dev: Obj, p: int) -> None:
    """Free it earlier."""
    for resource in list(_owned_memory(linux, dev, p)):
        _devres(linux).take(dev, resource)
        _devres(linux).discard(p)


@linux_api("devm_krealloc_noprof")
def devm_krealloc(linux: Linux, dev: Obj, ptr: int, size: int, gfp: int) -> int:
    """Make it larger."""
    old = next(_owned_memory(linux, dev, ptr), None)
    if old is not None and old.size >= size:
        return ptr
    grown = _memory(linux, dev, size)
    if old is not None:
        store_bytes(grown, load_bytes(ptr, old.size))
        devm_kfree(linux, dev, ptr)
    return grown


def _string(linux: Linux, device: Obj, text: str) -> int:
    raw = text.encode() + b"\0"
    data = _memory(linux, device, len(raw))
    store_bytes(data, raw)
    return data


@linux_api("devm_kstrdup_const")
def devm_kstrdup(linux: Linux, dev: Obj, s: int, gfp: int) -> int:
    """A copy of a string that is freed when the driver lets go of the device."""
    return _string(linux, dev, linux.string(s)) if s else 0


@linux_api()
def devm_kasprintf(linux: Linux, dev: Obj, gfp: int, fmt: int, arguments: VaList) -> int:
    """A formatted string that is freed when the driver lets go of the device."""
    return _string(linux, dev, linux.format(fmt, arguments))


@linux_api("devm_kmemdup_noprof")
def devm_kmemdup(linux: Linux, dev: Obj, src: int, len: int, gfp: int) -> int:
    """A copy of memory that is freed when the driver lets go of the device."""
    data = _memory(linux, dev, len)
    store_bytes(data, load_bytes(src, len))
    return data


@linux_api("__devm_alloc_percpu_noprof")
def __devm_alloc_percpu(linux: Linux, dev: Obj, size: int, align: int) -> int:
    """A per-CPU variable that is freed when the driver lets go of the device."""
    place = linux.call(linux.entry("__alloc_percpu"), size, align)
    if place:
        free = linux.entry("free_percpu")
        # With a key, so that it is not called for a dead driver: its memory is taken back as it is.
        _devres(linux).action(dev, lambda: linux.call(free, place), (place, 0))
    return place
