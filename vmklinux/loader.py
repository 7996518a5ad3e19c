"""Loading modules: link, place, set parameters, run init; and unloading, with an account of what was left."""

from __future__ import annotations

import errno
import logging
import os
from dataclasses import replace
from typing import TYPE_CHECKING

from vmkernel_core._core import ffi, lib
from vmkernel_core.engine import Leak, module_name
from vmkernel_core.errors import UsageError, VmkError
from vmkernel_core.memory import load_bytes, store, store_bytes
from vmklinux.async_ import AsyncCalls
from vmklinux.builtin import BuiltIns
from vmklinux.bus import Buses
from vmklinux.char_dev import CharDevices
from vmklinux.class_ import Classes
from vmklinux.cpu import HotplugStates
from vmklinux.dd import device_name
from vmklinux.device import Devices
from vmklinux.errors import DriverRefused
from vmklinux.genetlink import Families
from vmklinux.hrtimer import HrTimers
from vmklinux.image import bug_entries
from vmklinux.ioremap import Windows
from vmklinux.irq import Interrupts
from vmklinux.kernels import ModuleNotFound
from vmklinux.kobject import Obj
from vmklinux.kthread import KThreads
from vmklinux.linux import IMAGE, MODULES, MODULES_END
from vmklinux.module.elf import ModuleFile
from vmklinux.module.errors import ModuleError, UnknownSymbols
from vmklinux.module.modinfo import check_vermagic, check_versions
from vmklinux.module.param import StringWrite, Write, encode, parameters, parse_setting
from vmklinux.module.scan import Treatment, scan
from vmklinux.netdevice import NetDevices
from vmklinux.pci import PciCore
from vmklinux.rcu import GracePeriods
from vmklinux.resolve import resolve
from vmklinux.resource import Resources
from vmklinux.rtnl import Rtnl
from vmklinux.sched import WaitQueue
from vmklinux.scsi import Scsi
from vmklinux.scsi_dh import Handlers
from vmklinux.stand_in import STAND_INS, StandIns
from vmklinux.timer import Timers
from vmklinux.workqueue import Workqueues

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Sequence
    from pathlib import Path

    from vmklinux.linux import Linux
    from vmklinux.module.link import LinkedModule

log = logging.getLogger(__name__)

_RWX = 7
PAGE = 4096
#: Seconds for what another world does to silence a module: commands that its driver had are waited for.
SILENCE_LIMIT = 120.0


class SensitiveCode(ModuleError):
    """The module has instructions that would silently do the wrong thing in user mode."""


def excuse(linux: Linux, low: int, high: int) -> str:
    """What excuses a module with code in [low, high) for what it left; "" for nothing."""
    lost = linux.state(Scsi).lost_by(low, high)
    return f"its device went with {lost} commands in flight" if lost else ""


def allocations(linux: Linux, low: int, high: int) -> dict[int, tuple[int, int]]:
    """Live allocations that code in [low, high) asked for: address to size in bytes and the code's address."""
    most = 1024
    table = ffi.new("struct vmk_allocation[]", most)
    count = min(int(lib.vmk_allocations(low, high, table, most)), most)
    return {int(a.address): (int(a.size), int(a.site)) for a in table[0:count]}


def left_behind(linux: Linux, low: int, high: int, name: str, ignored: Container[int]) -> list[Leak]:
    """What code in [low, high), that of the module ``name``, took and has not given back, but for ``ignored`` memory."""
    found = [
        Leak("memory", f"{size} bytes at {address:#x}", linux.symbolize(site))
        for address, (size, site) in allocations(linux, low, high).items()
        if address not in ignored
    ]
    for virt in linux.state(Windows).owned(low, high):
        found.append(Leak("window", f"registers at {virt:#x}", name))
    for action in linux.state(Interrupts).owned(low, high):
        found.append(Leak("irq", f"line {action.line}", linux.symbolize(action.code)))
    for region in linux.state(Resources).owned(low, high):
        found.append(Leak("region", f"{region.start:#x} to {region.end:#x}", name))
    for timer in linux.state(Timers).owned(low, high):
        found.append(Leak("timer", f"timer_list at {timer:#x}", name))
    for timer in linux.state(HrTimers).owned(low, high):
        found.append(Leak("timer", f"hrtimer at {timer:#x}", name))
    for work in linux.state(Workqueues).owned(low, high):
        found.append(Leak("work", f"work_struct at {work:#x}", name))
    for thread in [t for t in linux.state(KThreads).owned(low, high) if not t.ended]:
        found.append(Leak("thread", thread.name, linux.symbolize(thread.function)))
    for driver in linux.state(Buses).owned(low, high):
        found.append(Leak("driver", linux.string(driver.name), name))
    for device in linux.state(Devices).owned(low, high):
        found.append(Leak("device", device_name(linux, device), name))
    return found


def silence(linux: Linux, low: int, high: int) -> None:
    """See to it that nothing calls code in [low, high) any more, and that its devices reach no memory."""
    for device in linux.state(Devices).bound(low, high):
        linux.state(PciCore).cut_off(device)
    linux.state(Devices).abandon(low, high)
    linux.state(Buses).abandon(low, high)
    linux.state(Classes).abandon(low, high)
    linux.state(HotplugStates).abandon(low, high)
    linux.state(PciCore).abandon(low, high)
    linux.state(NetDevices).abandon(low, high)
    linux.state(Scsi).abandon(low, high)
    linux.state(Handlers).abandon(low, high)
    linux.state(CharDevices).abandon(low, high)
    linux.state(Families).abandon(low, high)
    linux.state(Rtnl).abandon(low, high)
    lib.linux_napi_forget(low, high)
    lib.linux_softirq_forget(low, high)
    for action in linux.state(Interrupts).owned(low, high):
        linux.state(Interrupts).remove(action, cut=True)
    for thread in linux.state(KThreads).owned(low, high):
        linux.state(KThreads).end(thread)
    linux.state(AsyncCalls).end(low, high)
    for timer in linux.state(Timers).owned(low, high):
        linux.state(Timers).drop(timer)
    for timer in linux.state(HrTimers).owned(low, high):
        linux.state(HrTimers).drop(timer)
    for work in linux.state(Workqueues).owned(low, high):
        linux.state(Workqueues).drop(work)
    linux.state(GracePeriods).drop(low, high)


class Module:
    """A module in memory: ``file``, ``linked``, the address range [base, end) of its code and data."""

    def __init__(self, linux: Linux, file: ModuleFile, linked: LinkedModule, end: int) -> None:
        """The loader makes them."""
        self.linux = linux
        self.file = file
        self.linked = linked
        self.name = file.name
        self.base = linked.base
        self.end = end
        self.strings: list[int] = []
        self.initialised = False
        self.dead = False  # stopped: its code does not run again
        self._silencing = False
        self._silent = WaitQueue()
        self.owed: list[str] = []  # modules that build on it and were stopped: what it took for them is left

    @property
    def references(self) -> int:
        """How often kernel code asked that the module stay (try_module_get)."""
        this = Obj(self.linux.types, "module", self.base + self.file.this_module.offset)
        return int(this.refcnt.counter)

    def init(self) -> None:
        """Run the module's init function; DriverRefused with its error, DriverStopped."""
        if self.linked.init:
            error = self.linux.call_int(self.linked.init)
            if error:
                raise DriverRefused(f"the init of {self.name} failed: {os.strerror(-error)}", -error)
        self.initialised = True

    def exit(self) -> None:
        """Run the module's exit function."""
        self.initialised = False
        if self.linked.exit:
            self.linux.call(self.linked.exit)
        with self.linux.baton():
            self.linux.state(AsyncCalls).reap(self.base, self.end)  # Linux waits for them too

    def leaks(self) -> list[Leak]:
        """What code of this module took and has not given back."""
        left = left_behind(self.linux, self.base, self.end, self.name, frozenset(self.strings))
        because = excuse(self.linux, self.base, self.end)
        if not because and self.owed:
            because = f"{', '.join(self.owed)}, which built on it, was stopped before"
        return [replace(leak, excuse=because) for leak in left]

    def silence(self) -> None:
        """See to it that nothing calls the module's code any more, and that its devices reach no memory."""
        # One world at a time: one that sleeps in the midst of it still needs what the other would have freed meanwhile.
        with self.linux.baton():
            self._silent.wait_until(lambda: not self._silencing, f"the end of {self.name}", SILENCE_LIMIT)
            self._silencing = True
        try:
            silence(self.linux, self.base, self.end)
        finally:
            self._silencing = False
            self._silent.wake_up()

    def reclaim(self) -> None:
        """Take back all that the module's code took: after its exit, or when it was stopped. TimedOut."""
        self.silence()
        self.linux.state(Interrupts).reap(self.base, self.end)
        self.linux.state(KThreads).reap(self.base, self.end)
        self.linux.state(AsyncCalls).reap(self.base, self.end)
        windows = self.linux.state(Windows)
        for virt in windows.owned(self.base, self.end):
            windows.unmap(virt)
        resources = self.linux.state(Resources)
        for region in resources.owned(self.base, self.end):
            resources.release(region)
        lib.vmk_free_owned(self.base, self.end)


class Loader:
    """The modules of one booted kernel, by name, in the order of loading."""

    def __init__(self, linux: Linux, settings: Callable[[str], Sequence[str]] = lambda _name: ()) -> None:
        """None is loaded. ``settings``: those of a module that is loaded because others need it or ask for it."""
        self.linux = linux
        self._settings = settings
        self.modules: dict[str, Module] = {}
        self.builtins = BuiltIns(linux)
        self._kept: frozenset[int] = frozenset()  # what built-in code had before it was started
        linux.request_module = self.request_module
        linux.state(Devices).on_modalias = self._on_modalias

    def load(
        self, name_or_path: str | Path, settings: Sequence[str] = (), *, allow_unresolved: bool = False
    ) -> Module:
        """Load a module and those that it depends on, and run their init functions.

        ``settings`` are ``name=value``. With ``allow_unresolved``, imports that nobody serves become stubs that stop
        the driver when reached; else UnknownSymbols lists them and nothing runs.
        After any error nothing of the module is left; those that it depends on stay.
        """
        kernel = self.linux.kernel
        path = kernel.find_module(name_or_path) if isinstance(name_or_path, str) else name_or_path
        file = ModuleFile.read(path)
        if file.name in self.modules:
            raise UsageError(f"module {file.name} is loaded already")
        check_vermagic(file, kernel.release)
        for needed in file.info.depends:
            if needed in STAND_INS:
                self.linux.state(StandIns).types(needed)
            elif needed not in self.modules:
                self.load(needed, self._settings(needed), allow_unresolved=allow_unresolved)
        check_versions(file, self._crc_of)
        self._scan(file)
        others = {name: module.file for name, module in self.modules.items()}
        unresolved = resolve(file, self.linux.image, others).unresolved
        if unresolved and not allow_unresolved:
            raise UnknownSymbols(file.name, unresolved)
        known = parameters(file, self.linux.types)
        writes = [encode(parse_setting(file.name, known, setting)) for setting in settings]
        module = self._place(file, frozenset(unresolved))
        try:
            for write in (one for group in writes for one in group):
                self._write(module, write)
            self.modules[module.name] = module
            module.init()
        except BaseException:
            self.modules.pop(module.name, None)
            self._discard(module)
            raise
        log.info("loaded %s from %s", module.name, path)
        return module

    def _on_modalias(self, device: Obj, modalias: str) -> None:
        self.request(modalias)

    def request(self, modalias: str) -> list[str]:
        """Load every module that claims a device of a driver's own making (``virtio:d00000001v00001AF4``).

        The names of those that were loaded now. One that cannot be loaded is a warning: another may do, and the
        device is there in any case. What the kernel has built in is there already.
        """
        loaded = []
        for alias in self.linux.kernel.aliases.matching(modalias):
            name = module_name(alias.module)
            if alias.builtin or name in self.modules:
                continue
            try:
                self.load(name, self._settings(name))
            except VmkError as error:
                log.warning("%s, which claims %s, is not loaded: %s", name, modalias, error)
            else:
                loaded.append(name)
        return loaded

    def unload(self, name: str, *, forced: bool = False) -> list[Leak]:
        """Run a module's exit function and free it; what it left behind (and was taken back).

        The exit function of a module that was stopped does not run; all that it had is taken back, its devices first
        of all cut off from memory. UsageError while others need it; ``forced`` disregards references to it, whose
        holder may have been stopped.
        """
        module = self.modules.get(name)
        if module is None:
            raise UsageError(f"module {name} is not loaded")
        users = self.users(name)
        if users:
            raise UsageError(f"module {name} is in use by {', '.join(users)}", remedy="unload them first")
        if module.references and not forced:
            raise UsageError(
                f"module {name} is in use", remedy="unload the drivers of the devices that use it first"
            )
        try:
            if module.initialised and not module.dead:
                module.exit()
                self.linux.state(GracePeriods).barrier()  # what it asked to be freed later is no leak
                self.linux.state(Workqueues).finish(module.base, module.end)
            leaks = [] if module.dead else module.leaks()
        finally:
            del self.modules[name]
            self._discard(module)
        for leak in leaks:
            log.warning("%s left %s", name, leak)
        return leaks

    def start(self, name: str, settings: Sequence[str] = ()) -> None:
        """Start a module that is built in, if it is not started. UsageError, DriverRefused, DriverStopped."""
        if settings:
            raise UsageError(f"{name} is built in and takes no parameters", remedy="leave them out")
        if not self.builtins.started:
            self._kept = frozenset(allocations(self.linux, *self.builtins.range()))
        self.builtins.start(name)

    def stop(self, name: str) -> list[Leak]:
        """Stop a module that is built in; what all such left behind, told with the last one of them."""
        self.builtins.stop(name)
        self.linux.state(GracePeriods).barrier()
        if self.builtins.started or self.builtins.dead:
            return []
        leaks = left_behind(self.linux, *self.builtins.range(), name, self._kept)
        for leak in leaks:
            log.warning("%s left %s", name, leak)
        return leaks

    def range(self, name: str) -> tuple[int, int]:
        """Where the code and data of a module lie that is loaded, started, or IMAGE; nowhere for any other."""
        if name == IMAGE or name in self.builtins.started:
            return self.builtins.range()
        module = self.modules.get(name)
        return (module.base, module.end) if module else (0, 0)

    def silence(self, name: str) -> None:
        """A driver was stopped: nothing calls its code any more, nor that of the modules that build on it.

        ``name`` is IMAGE when it is built in.
        """
        if name == IMAGE and not self.builtins.dead:
            self.builtins.dead = True
            silence(self.linux, *self.builtins.range())
        module = self.modules.get(name)
        if module is not None and not module.dead:
            module.dead = True
            for base in self._bases(module):
                base.owed.append(name)
            for user in self.users(name):
                self.silence(user)
            module.silence()

    def stopped_with(self, name: str) -> set[str]:
        """A module and those that build on it."""
        return {name}.union(*(self.stopped_with(user) for user in self.users(name)))

    def users(self, name: str) -> list[str]:
        """The loaded modules that import from it."""
        return [other.name for other in self.modules.values() if name in other.file.info.depends]

    def _bases(self, module: Module) -> list[Module]:
        """The loaded modules that it builds on, in the order of their loading."""
        below = {name: other for name, other in self.modules.items() if name in module.file.info.depends}
        deeper = {base.name: base for other in below.values() for base in self._bases(other)}
        return list((below | deeper).values())

    def idle(self) -> str:
        """The module loaded last that nobody needs; the last one where references keep all of them."""
        newest = list(reversed(self.modules))
        free = (name for name in newest if not self.users(name) and not self.modules[name].references)
        return next(free, None) or next(name for name in newest if not self.users(name))

    def request_module(self, name: str) -> int:
        """Load a module that kernel code asks for, by name or alias; 0, or the errno that it gets."""
        try:
            path = self.linux.kernel.find_module(name)
        except ModuleNotFound:
            matching = self.linux.kernel.aliases.matching(name)
            self.request(name)
            there = any(a.builtin or module_name(a.module) in self.modules for a in matching)
            return 0 if there else errno.ENOENT
        if module_name(name) in self.modules:
            return 0
        try:
            self.load(path, self._settings(name))
        except DriverRefused as error:
            log.warning("%s", error)
            return error.errno
        except ModuleError as error:
            log.warning("%s", error)
            return errno.ENOEXEC
        return 0

    def _crc_of(self, symbol: str) -> int | None:
        for module in self.modules.values():
            if (export := module.file.exports.get(symbol)) is not None:
                return export.crc
        crc = self.linux.state(StandIns).crc_of(symbol)
        return self.linux.image.crcs.get(symbol) if crc is None else crc

    @staticmethod
    def _scan(file: ModuleFile) -> None:
        refused = [finding for finding in scan(file) if finding.treatment is Treatment.REFUSED]
        if refused:
            listed = ", ".join(f"{f.instruction} at {f.section}+{f.offset:#x}" for f in refused[:5])
            raise SensitiveCode(
                file.name, f"code that would silently do the wrong thing in user mode: {listed}",
                remedy="this driver cannot run here; `vmk module check` lists every such instruction",
            )  # fmt: skip

    def _free_range(self, size: int) -> int:
        at = MODULES
        for module in sorted(self.modules.values(), key=lambda m: m.base):
            if module.base - at >= size:
                break
            at = module.end
        if at + size > MODULES_END:
            raise VmkError("no room for another module below 2 GiB", remedy="unload one")
        return at

    def _resolve(self, symbol: str, unresolved: frozenset[str]) -> int | None:
        linux = self.linux
        if linux.serves(symbol):
            return linux.entry(symbol)
        for module in self.modules.values():
            if symbol in module.linked.exports:
                return module.linked.exports[symbol]
        if linux.image_serves(symbol):
            return linux.symbols[symbol]
        return linux.missing(symbol) if symbol in unresolved else None

    def _place(self, file: ModuleFile, unresolved: frozenset[str]) -> Module:
        linux = self.linux
        size = -(-file.layout.size // PAGE) * PAGE
        base = self._free_range(size)
        percpu = linux.percpu_reserve(file.percpu.size, file.percpu.alignment) if file.percpu else 0
        linked = file.link(base, lambda symbol: self._resolve(symbol, unresolved), percpu)
        linux.map_at(base, size, _RWX)
        store_bytes(base, bytes(linked.image))
        linux.set_percpu(percpu, bytes(linked.percpu))
        module = Module(linux, file, linked, base + size)
        if table := file.bug_table:
            at = base + table.offset
            bugs = bug_entries(load_bytes(at, table.size), at, linux.types)
            lib.vmk_bugs_add(
                ffi.new("struct vmk_bug[]", [(bug.address, bug.flags) for bug in bugs]), len(bugs)
            )
        linux.add_range(base, base + size, file.name, linked.symbols)
        return module

    def _write(self, module: Module, write: Write | StringWrite) -> None:
        if isinstance(write, StringWrite):
            address = self.linux.allocate(len(write.text))
            module.strings.append(address)
            store_bytes(address, write.text)
            store(module.base + write.offset, 8, address)
        else:
            store_bytes(module.base + write.offset, write.content)

    def _discard(self, module: Module) -> None:
        module.reclaim()
        for address in module.strings:
            self.linux.free(address)
        lib.vmk_bugs_remove(module.base, module.end)
        self.linux.remove_range(module.base)
        self.linux.unmap(module.base)

    def close(self) -> None:
        """Free every module without running its exit function: the hardware has gone, or they are to blame."""
        self.linux.state(Workqueues).stop()
        for name in reversed(list(self.modules)):
            self._discard(self.modules.pop(name))
