"""References to modules, and modules that kernel code asks for (Linux kernel/module/main.c, kernel/module/kmod.c).

A reference counts in the module's own ``struct module``, from 0; Loader.unload refuses while there is one.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from vmklinux.api import linux_api

if TYPE_CHECKING:
    from vmklinux.kobject import Obj
    from vmklinux.linux import Linux, VaList

log = logging.getLogger(__name__)


def _add(module: Obj, change: int) -> None:
    if module:  # null: the owner is the kernel image
        module.refcnt.counter += change


@linux_api()
def __module_get(linux: Linux, module: Obj) -> None:
    """Keep a module from being unloaded."""
    _add(module, 1)


@linux_api()
def try_module_get(linux: Linux, module: Obj) -> bool:
    """Keep a module from being unloaded, unless it is being unloaded already."""
    if module and module.state == linux.types.enumerator("MODULE_STATE_GOING"):
        return False
    _add(module, 1)
    return True


@linux_api()
def module_put(linux: Linux, module: Obj) -> None:
    """Give a reference back."""
    _add(module, -1)


@linux_api()
def module_refcount(linux: Linux, mod: Obj) -> int:
    """How many references there are."""
    return int(mod.refcnt.counter)


@linux_api(note="It is loaded in the world that asks; -ENOENT as where modprobe finds nothing.")
def __request_module(linux: Linux, wait: bool, fmt: int, arguments: VaList) -> int:
    """Load a module by its name, or those with an alias that fits."""
    name = linux.format(fmt, arguments)
    error = linux.request_module(name)
    log.debug("module %s was asked for: error %d", name, error)
    return -error
