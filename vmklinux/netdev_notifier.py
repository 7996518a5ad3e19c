"""Notifiers of network devices (Linux net/core/dev.c): modules that are told when one comes, changes or goes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmklinux.api import linux_api
from vmklinux.kobject import Obj
from vmklinux.netdevice import IFF_UP, NetDevices
from vmklinux.rtnl import Rtnl

if TYPE_CHECKING:
    from vmklinux.linux import Linux

NOTIFY_STOP_MASK = 0x8000  # include/linux/notifier.h


class NetdevNotifiers:
    """The notifier blocks, by falling priority."""

    def __init__(self, linux: Linux) -> None:
        """Nobody listens yet."""
        self._linux = linux
        self.blocks: list[Obj] = []
        linux.state(NetDevices).on_event = self.call

    def call(self, event: int, device: Obj) -> int:
        """Tell all of them of an event (enum netdev_cmd), until one says stop; what the last one said."""
        linux, said = self._linux, 0
        if not self.blocks:
            return said
        info = linux.new("netdev_notifier_info")
        try:
            info.dev = device
            for block in list(self.blocks):
                said = self.tell(block, event, info)
                if said & NOTIFY_STOP_MASK:
                    break
        finally:
            linux.free(info)
        return said

    def tell(self, block: Obj, event: int, info: Obj) -> int:
        """Tell one of them."""
        return self._linux.call_int(block.notifier_call, block, event, info)


@linux_api()
def register_netdevice_notifier(linux: Linux, nb: Obj) -> int:
    """Be told of every network device, at first of those that are there."""
    notifiers = linux.state(NetdevNotifiers)
    with linux.state(Rtnl):
        notifiers.blocks.append(nb)
        notifiers.blocks.sort(key=lambda block: -block.priority)
        info = linux.new("netdev_notifier_info")
        try:
            for device in linux.state(NetDevices).registered.values():
                info.dev = device.obj
                notifiers.tell(nb, linux.types.enumerator("NETDEV_REGISTER"), info)
                if device.obj.flags & IFF_UP:
                    notifiers.tell(nb, linux.types.enumerator("NETDEV_UP"), info)
        finally:
            linux.free(info)
    return 0


@linux_api()
def unregister_netdevice_notifier(linux: Linux, nb: Obj) -> int:
    """Be told no more."""
    blocks = linux.state(NetdevNotifiers).blocks
    with linux.state(Rtnl):
        blocks.remove(nb)
    return 0


@linux_api()
def call_netdevice_notifiers(linux: Linux, val: int, dev: Obj) -> int:
    """Tell the others of an event."""
    return linux.state(NetdevNotifiers).call(val, dev)
