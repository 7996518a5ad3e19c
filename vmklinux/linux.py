"""One Linux kernel as a library: its image mapped and running in this process, with our functions in place of its own.

There is one per process, because the image lies at a fixed address below 2 GiB, where its code expects to be.
"""

from __future__ import annotations

import bisect
import errno
import logging
import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from vmkernel_core._core import ffi, lib
from vmkernel_core.errors import VmkError
from vmkernel_core.memory import load_string, store, store_bytes
from vmklinux import builtin, cpu, layout
from vmklinux.api import Emulated, emulated
from vmklinux.btf import IntType, PointerType, StructType
from vmklinux.errors import DriverStopped, WorldEnded
from vmklinux.image import prepare
from vmklinux.kobject import Obj
from vmklinux.safe import image_safe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path
    from types import TracebackType

    from vmkernel_core.idle import IdleLoop
    from vmkernel_core.memory import MachineMemory
    from vmklinux.btf import Btf, Prototype, Type
    from vmklinux.kernels import Kernel

log = logging.getLogger(__name__)
State = TypeVar("State")

#: Fixed places below 2 GiB, around the image: kernel code reaches each other by 32-bit displacements.
THUNKS, THUNKS_SIZE = 0x5000_0000, 0x10_0000
MODULES, MODULES_END = 0x5800_0000, 0x7F00_0000
# The heap of an executable that is not position-independent, as Debian's python3, begins somewhere below and would grow
# into these in a program that needs much memory. Where something is there already, booting tells.
lib.vmk_hold(THUNKS, MODULES_END - THUNKS)
#: Variables of Linux's that modules import and that the image does not have.
VARIABLES, VARIABLES_SIZE = THUNKS + THUNKS_SIZE, 0x1000
#: struct page array, and the per-CPU areas (the others behind the first, cpu.STRIDE apart); anywhere.
VMEMMAP = 0x1100_0000_0000
PERCPU = 0x1200_0000_0000
#: Room behind the image's own per-CPU data, for modules.
PERCPU_DYNAMIC = 0x1_0000
_RWX, _RW = 7, 3
#: Functions that the image does not export, but which are replaced like those that it does: kobjects and memory
#: pools call them.
INTERNAL = ("sysfs_create_dir_ns", "__ksize")
#: x86's __preempt_count of a task that may be preempted and need not reschedule (the flag is inverted).
_PREEMPT_ENABLED = 0x8000_0000

#: What a DriverStopped names as the module when it is a driver that is built in.
IMAGE = "the kernel image"

#: What vmk_result.stop means: the word, and the sentence.
STOPS = {
    lib.VMK_STOP_FAULT: ("fault", "access to address {detail:#x}, which is nobody's"),
    lib.VMK_STOP_BUG: ("bug", "BUG() in the driver"),
    lib.VMK_STOP_UNRESOLVED: ("unresolved", "call of {import_}, which nothing serves"),
    lib.VMK_STOP_ILLEGAL: ("illegal", "an instruction that cannot run in user mode"),
    lib.VMK_STOP_PANIC: ("panic", "a misused emulated function, or an overwritten stack ({detail:#x})"),
    lib.VMK_STOP_GONE: (
        "gone",
        "its device has gone, and it does not stop asking it (bus address {detail:#x})",
    ),
    lib.VMK_STOP_PYTHON: ("python", "an emulated function failed"),
}


class VaList:
    """The variable arguments of a printf-like function, as they arrived."""

    def __init__(self, regs: Any, named: int) -> None:
        """``named`` arguments precede them; the struct is x86-64's va_list (System V ABI, 3.5.7)."""
        self._regs = regs
        raw = (8 * named).to_bytes(4, "little") + (48).to_bytes(4, "little")
        pointers = (int(regs.stack), int(ffi.cast("uint64_t", ffi.addressof(regs, "reg"))))
        self._buffer = ffi.new("char[]", raw + b"".join(p.to_bytes(8, "little") for p in pointers))
        self.address = int(ffi.cast("uint64_t", self._buffer))


class Linux:
    """A booted kernel image: ``symbols``, ``types`` (BTF), ``call`` into it, and what emulates the rest of it.

    ``on_stopped(error)`` is called when a driver was stopped, besides raising the error where a caller waits.
    ``request_module(name)`` loads a module that kernel code asks for; 0, or an errno.
    """

    def __init__(
        self, kernel: Kernel, memory: MachineMemory, idle: IdleLoop, cache: Path, *, cpus: int = 1
    ) -> None:
        """Map the image and replace in it what is emulated; no driver runs yet. Errors: ImageError, VmkError.

        ``cpus`` are presented to drivers (cpu.py): UsageError when that is too many.
        """
        cpu.check(cpus, memory.size)
        self.kernel = kernel
        self.memory = memory
        self.idle = idle
        self.cpus = cpus
        self.image = prepare(kernel, cache)
        self.types = self.image.btf
        self.more_types: list[Btf] = []  # of modules that vmklinux stands in for
        self.symbols = self.image.symbols
        self.on_stopped: Callable[[DriverStopped], None] = lambda _error: None
        self.request_module: Callable[[str], int] = lambda _name: errno.ENOENT
        self._state: dict[type, Any] = {}
        self._pending = threading.local()
        self._api = emulated()
        self._bound: list[Callable[[Any], int] | Emulated] = []
        self._missing: list[str] = []
        self._entries: dict[str, int] = {}
        self._ranges: list[tuple[int, int, str, list[tuple[int, str]]]] = []
        self._mapped: dict[int, int] = {}
        self._next_variable = VARIABLES
        self._percpu_next = self.image.percpu_size
        try:
            self._map()
            self._boot()
        except BaseException:
            self.close()
            raise

    # ---- boot ----

    def map_at(self, address: int, length: int, prot: int, path: Path | None = None) -> None:
        """Map memory, or a private copy of a file, at a fixed address; VmkError when the place is taken."""
        fd = os.open(path, os.O_RDONLY) if path else -1
        try:
            error = lib.vmk_map(address, length, prot, 0, fd, 0)
        finally:
            if path:
                os.close(fd)
        if error:
            raise VmkError(
                f"cannot map {length:#x} bytes: {os.strerror(-error)}",
                where=f"address {address:#x}",
                remedy="only one Linux kernel can be booted in a process; start another process",
            )
        self._mapped[address] = length

    def unmap(self, address: int) -> None:
        """Undo map_at."""
        lib.vmk_unmap(address, self._mapped.pop(address))

    def set_percpu(self, offset: int, content: bytes) -> None:
        """Initialise a part of every CPU's area."""
        for number in range(self.cpus):
            store_bytes(PERCPU + number * cpu.STRIDE + offset, content)

    def _map(self) -> None:
        image, files = self.image, self.image.files
        self.map_at(image.base, -(-image.size // 4096) * 4096, _RWX, files.memory)
        for number in range(self.cpus):
            self.map_at(PERCPU + number * cpu.STRIDE, image.percpu_size + PERCPU_DYNAMIC, _RW)
            if number:  # what alloc_percpu gave the first CPU lies in machine memory
                self.map_at(self.memory.base + number * cpu.STRIDE, self.memory.size, _RW)
        self.set_percpu(0, files.percpu.read_bytes())
        pages = self.memory.size // 4096
        self.map_at(VMEMMAP, pages * self.types.sizeof("page"), _RW)
        error = lib.linux_thunks_init(THUNKS, THUNKS_SIZE)
        if error:
            raise VmkError(
                f"cannot map the thunks: {os.strerror(-error)}",
                where=f"address {THUNKS:#x}",
                remedy="only one Linux kernel can be booted in a process; start another process",
            )
        self._mapped[THUNKS] = THUNKS_SIZE
        self.map_at(VARIABLES, VARIABLES_SIZE, _RW)

    def _boot(self) -> None:
        layout.fill(self.image, self.types)
        store(self.symbols["page_offset_base"], 8, self.memory.base)
        store(self.symbols["vmemmap_base"], 8, VMEMMAP)
        store(self.symbols["system_state"], 4, self.types.enumerator("SYSTEM_RUNNING"))
        cpu.present(self, self.cpus, PERCPU)
        preempt = PERCPU + layout.percpu_place(self.image, self.types, "__preempt_count", "preempt_count")
        current = PERCPU + layout.percpu_place(self.image, self.types, "current_task", "current_task")
        store(preempt, 4, _PREEMPT_ENABLED)
        self._paravirt()
        lib.vmk_traps_install()
        bugs = self.image.bugs()
        table = ffi.new("struct vmk_bug[]", [(bug.address, bug.flags) for bug in bugs])
        lib.vmk_bugs_add(table, len(bugs))
        lib.vmk_modules_from(MODULES)
        for name in self._api:
            if (function := self.symbols.get(name) or self._internal(name)) is not None:
                lib.linux_patch_jump(function, self.entry(name))
        global _running
        _running = self
        reading = self.types.offsetof("task_struct", "rcu_read_lock_nesting")
        lib.vmk_cpu_set(ffi.new("struct vmk_cpu *", (PERCPU, current, preempt, reading)))
        self.hz = 250
        lib.linux_start(self.hz)
        self.hz = self.call("__msecs_to_jiffies", 1000)
        lib.linux_start(self.hz)
        builtin.prepare(self)

    def _internal(self, name: str) -> int | None:
        return self.image.kallsyms.address(name) if name in INTERNAL else None

    def _paravirt(self) -> None:
        """cli, sti and pushf of the image become a flag of ours (pv_ops, arch/x86/include/asm/paravirt_types.h)."""
        ops = self.symbols["pv_ops"]
        for field, function in (
            ("irq.save_fl", lib.linux_save_fl),
            ("irq.irq_disable", lib.linux_irq_disable),
            ("irq.irq_enable", lib.linux_irq_enable),
        ):
            address = int(ffi.cast("uint64_t", function))
            store(ops + self.types.offsetof("paravirt_patch_template", field), 8, address)

    def close(self) -> None:
        """Unmap it all. No kernel code may run any more."""
        global _running
        lib.vmk_cpu_set(ffi.new("struct vmk_cpu *"))
        lib.linux_stop()
        lib.vmk_bugs_remove(0, 0xFFFF_FFFF)
        for address, length in self._mapped.items():
            lib.vmk_unmap(address, length)
        self._mapped.clear()
        _running = None

    # ---- symbols ----

    def state(self, kind: type[State]) -> State:
        """The one object of this type that a subsystem keeps; made (``kind(linux)``) when first asked for."""
        if kind not in self._state:
            self._state[kind] = kind(self)  # type: ignore[call-arg]  # every such class takes the kernel
        return self._state[kind]  # type: ignore[no-any-return]  # stored under its own type

    def serves(self, name: str) -> bool:
        """Whether vmklinux emulates the function."""
        return name in self._api

    def image_serves(self, name: str) -> bool:
        """Whether the image's own may be used: it exports the symbol and the symbol was reviewed."""
        return name in self.symbols and name in image_safe()

    def entry(self, name: str) -> int:
        """The address at which kernel code calls the emulated function, or reads the variable."""
        if name not in self._entries:
            emulation = self._api[name]
            if emulation.handler is not None and emulation.variable:
                return self._variable(name, emulation.handler(self))
            if emulation.handler is None:
                function = emulation.c_function if emulation.c_function != ffi.NULL else lib.linux_nothing
                address = lib.linux_thunk_c(ffi.cast("void *", function))
            else:
                self._bound.append(emulation)
                address = lib.linux_thunk_python(len(self._bound) - 1)
            self._entries[name] = self._thunk(address)
        return self._entries[name]

    def _variable(self, name: str, value: int) -> int:
        at = self._entries[name] = self._next_variable
        self._next_variable += 8
        store(at, 8, value)
        return at

    def missing(self, name: str) -> int:
        """A stub that stops the driver when it is reached, saying this name."""
        self._missing.append(name)
        return self._thunk(lib.linux_thunk_missing(len(self._missing) - 1))

    @staticmethod
    def _thunk(address: int) -> int:
        if not address:
            raise VmkError("the thunk area is full", remedy="load fewer modules into one process")
        return address

    def percpu_reserve(self, size: int, alignment: int) -> int:
        """Offset of `size` bytes in the per-CPU area, for a module's own per-CPU data."""
        start = -(-self._percpu_next // alignment) * alignment
        if start + size > self.image.percpu_size + PERCPU_DYNAMIC:
            raise VmkError(
                "no room for a module's per-CPU data", remedy="load fewer modules into one process"
            )
        self._percpu_next = start + size
        return start

    def add_range(self, low: int, high: int, name: str, symbols: Mapping[str, int]) -> None:
        """Make addresses of a module readable in messages."""
        self._ranges.append((low, high, name, sorted((value, symbol) for symbol, value in symbols.items())))

    def remove_range(self, low: int) -> None:
        """Forget a module's addresses."""
        self._ranges = [entry for entry in self._ranges if entry[0] != low]

    def symbolize(self, address: int) -> str:
        """``e1000_probe+0x1a [e1000]`` for a code address; the bare number outside all that is known."""
        for low, high, name, symbols in self._ranges:
            if low <= address < high:
                at = bisect.bisect_right(symbols, (address, "\U0010ffff")) - 1
                if at >= 0:
                    return f"{symbols[at][1]}+{address - symbols[at][0]:#x} [{name}]"
                return f"{name}+{address - low:#x}"
        if self.image.base <= address < self.image.base + self.image.size:
            name, start = self.image.kallsyms.around(address) or ("image", self.image.base)
            return f"{name}+{address - start:#x} [vmlinux]"
        return f"{address:#x}"

    # ---- calls ----

    def call(self, function: int | str, *arguments: int | Obj, owner: int = 0) -> int:
        """Call kernel code by address or exported name with up to six arguments; its result, unsigned.

        Raises DriverStopped when the code was stopped; when an emulated function failed, from its error.
        """
        address = self.symbols[function] if isinstance(function, str) else function
        result = ffi.new("struct vmk_result *")
        raw = [int(argument) & 0xFFFF_FFFF_FFFF_FFFF for argument in arguments]
        lib.vmk_call(address, raw + [0] * (6 - len(raw)), owner or address & 0xFFFF_FFFF, result)
        self.check(result)
        return int(result.value)

    def call_int(self, function: int | str, *arguments: int | Obj, owner: int = 0) -> int:
        """Like call, for a function that returns a C int."""
        value = self.call(function, *arguments, owner=owner) & 0xFFFF_FFFF
        return value - (value >> 31 << 32)

    def check(self, result: Any) -> None:
        """Raise what a vmk_result says: DriverStopped, from the error of an emulated function where that was it.

        WorldEnded when this world was ended.
        """
        if not result.stop:
            return
        if result.stop == lib.VMK_STOP_ENDED:
            raise WorldEnded("the module of this world goes")
        stopped = self.stopped(result)
        if result.stop != lib.VMK_STOP_PYTHON:
            raise stopped
        error, self._pending.error = self._pending.error, None
        if not isinstance(error, Exception):
            raise error  # Ctrl-C and the like are no fault of the driver's
        raise stopped from error

    def stopped(self, what: Any) -> DriverStopped:
        """The error for a stop, from a vmk_result or a vmk_event."""
        word, sentence = STOPS[what.stop]
        unresolved = what.stop == lib.VMK_STOP_UNRESOLVED
        text = sentence.format(detail=what.detail, import_=self._missing[what.detail] if unresolved else "")
        module = self.module_at(what.site) or self.module_at(what.owner) or IMAGE
        error = DriverStopped(module, text, reason=word, site=self.symbolize(what.site))
        log.error("%s", error)
        self.on_stopped(error)
        return error

    def range_at(self, address: int) -> tuple[int, int]:
        """From where to where the code and data of the module lie that has the address; nowhere for none."""
        return next(((low, high) for low, high, _, _ in self._ranges if low <= address < high), (0, 0))

    def module_at(self, address: int) -> str:
        """The module whose code lies there, "" for none."""
        return next((name for low, high, name, _ in self._ranges if low <= address < high), "")

    @contextmanager
    def baton(self) -> Iterator[None]:
        """Hold the CPU: no kernel code runs in another world meanwhile, unless this one sleeps."""
        lib.vmk_baton_take()
        try:
            yield
        finally:
            lib.vmk_baton_drop()

    def event(self, event: Any) -> None:
        """Take an event of the C core about kernel code: a WARN is logged, a stop goes to on_stopped."""
        if event.kind == lib.VMK_EVENT_WARN:
            log.warning("WARNING at %s", self.symbolize(event.site))
        else:
            self.stopped(event)

    def string(self, address: int) -> str:
        """The C string at an address."""
        return load_string(int(address))

    def format(self, fmt: int, arguments: VaList) -> str:
        """Format as the kernel does, with the image's own vsnprintf (%pM, %pI4, %pV ...)."""
        return self.vformat(fmt, arguments.address)

    def vformat(self, fmt: int, va_list: int) -> str:
        """The same with the address of kernel code's own va_list."""
        buffer = ffi.new("char[1024]")
        self.call("vsnprintf", int(ffi.cast("uint64_t", buffer)), 1024, fmt, va_list)
        return str(ffi.string(buffer).decode("utf-8", "replace"))

    def allocate(self, size: int, owner: int = 0) -> int:
        """Cleared memory that kernel code can use; VmkError when there is none."""
        address: int = lib.vmk_alloc(size, owner)
        if not address:
            raise VmkError(f"no machine memory for {size} bytes", remedy="start the machine with more memory")
        ffi.memmove(ffi.cast("char *", address), bytes(size), size)
        return address

    def new(self, struct: str, owner: int = 0) -> Obj:
        """A cleared struct in machine memory; give it back with free()."""
        return Obj(self.types, struct, self.allocate(self.types.sizeof(struct), owner))

    def new_string(self, text: str, owner: int = 0) -> int:
        """A C string in machine memory."""
        raw = text.encode() + b"\0"
        address = self.allocate(len(raw), owner)
        store_bytes(address, raw)
        return address

    @staticmethod
    def free(address: int | Obj) -> None:
        """Give back what allocate, new or new_string gave; ValueError for anything else."""
        if lib.vmk_free(int(address)):
            raise ValueError(f"nothing is allocated at {int(address):#x}")

    # ---- functions implemented in Python ----

    def dispatch(self, index: int, regs: Any) -> None:
        """Run the index-th emulated function with the registers of its caller."""
        bound = self._bound[index]
        if isinstance(bound, Emulated):
            bound = self._bound[index] = self._bind(bound)
        regs.value = bound(regs) & 0xFFFF_FFFF_FFFF_FFFF

    def keep_error(self, error: BaseException) -> None:
        """Remember what an emulated function raised, for the caller of the kernel code."""
        log.debug("an emulated function failed", exc_info=error)
        self._pending.error = error

    def _bind(self, emulation: Emulated) -> Callable[[Any], int]:
        prototype = self._prototype(emulation)
        converters = [_converter(parameter.type, self) for parameter in prototype.parameters]
        handler = emulation.handler
        if handler is None:  # C functions never get here
            raise AssertionError(emulation.name)

        def argument(regs: Any, number: int) -> int:
            return int(regs.reg[number] if number < 6 else ffi.cast("uint64_t *", regs.stack)[number - 6])

        def run(regs: Any) -> int:
            values = [convert(argument(regs, number)) for number, convert in enumerate(converters)]
            if prototype.variadic:
                values.append(VaList(regs, len(converters)))
            result = handler(self, *values)
            return 0 if result is None else int(result)

        return run

    def _prototype(self, emulation: Emulated) -> Prototype:
        # One name is often an inline wrapper of the other, and which one changes between kernels.
        for types in (self.types, *self.more_types):
            for other in self._api.values():
                if other.handler is emulation.handler and (prototype := types.function(other.name)):
                    return prototype
        raise VmkError(
            f"BTF has no prototype of {emulation.name}",
            where=f"kernel {self.image.release}, {emulation.where}",
            remedy="write the function in C, where no prototype is needed",
        )

    def __enter__(self) -> Linux:
        """Use it as a context manager that closes it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()


def _converter(kind: Type, linux: Linux) -> Callable[[int], Any]:
    if isinstance(kind, PointerType) and isinstance(kind.target, StructType):
        target = kind.target
        return lambda raw: Obj(linux.types, target, raw)
    if isinstance(kind, IntType):
        bits = kind.size * 8
        mask = (1 << bits) - 1
        if kind.signed:
            return lambda raw: (raw & mask) - ((raw & mask) >> (bits - 1) << bits)
        return lambda raw: raw & mask
    return lambda raw: raw


_running: Linux | None = None


@ffi.def_extern()  # type: ignore[untyped-decorator]  # cffi has no types for its decorators
def linux_python_call(index: int, regs: Any) -> int:
    """The C core's way into an emulated function written in Python; nonzero: it raised."""
    linux = _running
    if linux is None:
        return 1
    try:
        linux.dispatch(index, regs)
    except BaseException as error:  # it goes on to whoever called the kernel code
        linux.keep_error(error)
        return 1
    return 0
