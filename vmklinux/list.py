"""Linux's doubly linked lists, struct list_head (include/linux/list.h), by the address of a head or an entry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmklinux.kobject import Obj

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vmklinux.linux import Linux


def list_init(linux: Linux, address: int) -> None:
    """INIT_LIST_HEAD: an empty list refers to itself."""
    head = Obj(linux.types, "list_head", address)
    head.next = head.prev = address


def list_add_tail(linux: Linux, entry: int, head: int) -> None:
    """Put an entry at the end of a list."""
    new, first = Obj(linux.types, "list_head", entry), Obj(linux.types, "list_head", head)
    new.prev, new.next = first.prev, head
    Obj(linux.types, "list_head", first.prev).next = entry
    first.prev = entry


def list_del(linux: Linux, address: int) -> None:
    """list_del_init: the entry leaves its list and becomes an empty one."""
    entry = Obj(linux.types, "list_head", address)
    entry.prev.next, entry.next.prev = entry.next, entry.prev
    list_init(linux, address)


def list_entries(linux: Linux, head: int) -> Iterator[int]:
    """The addresses of a list's entries, in their order; the one that was given last may leave the list meanwhile."""
    at = Obj(linux.types, "list_head", head).next
    while int(at) != head:
        entry, at = int(at), at.next
        yield entry
