"""What can be wrong with a Linux module: one class for each cause, each with its remedy."""

from __future__ import annotations

from collections.abc import Sequence

from vmkernel_core.errors import UsageError, VmkError

_SHOWN = 12


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown


class ModuleError(VmkError):
    """A Linux module that cannot be used as it was asked for; ``module`` is its name or path."""

    def __init__(self, module: str, what: str, *, where: str = "", remedy: str = "") -> None:
        """``where`` names the section, ``remedy`` what to do."""
        self.module = module
        super().__init__(f"module {module}: {what}", where=where, remedy=remedy)


class CorruptModule(ModuleError):
    """The file is no Linux module, or its structure contradicts itself."""

    def __init__(self, module: str, what: str, *, where: str = "") -> None:
        """``where`` names the section or table."""
        super().__init__(module, what, where=where, remedy="take the file from its kernel package again")


class TruncatedModule(CorruptModule):
    """The file ends before what its headers announce."""

    def __init__(self, module: str, need: int, size: int, *, where: str) -> None:
        """``need`` and ``size`` are in bytes."""
        super().__init__(
            module, f"the file ends at byte {size} but its content reaches to {need}", where=where
        )


class WrongArchitecture(ModuleError):
    """The module is for another processor; ``found`` names it as ELF does."""

    def __init__(self, module: str, found: str) -> None:
        """``found`` is ELF's name of the processor."""
        self.found = found
        super().__init__(module, f"is for {found}, not for x86-64", remedy="use the amd64 kernel package")


class WrongKernel(ModuleError):
    """The module was built for another kernel release than the one whose image is loaded."""

    def __init__(self, module: str, built_for: str, release: str) -> None:
        """Both are kernel releases, as ``uname -r`` prints them."""
        self.built_for = built_for
        self.release = release
        super().__init__(
            module,
            f"was built for kernel {built_for}, and this is kernel {release}",
            where="its vermagic",
            remedy=f"use the module of {release}, or the kernel {built_for}",
        )


class NoBtf(ModuleError):
    """The module carries no type information, and what was asked for needs it."""

    def __init__(self, module: str) -> None:
        """``module`` is its name."""
        super().__init__(
            module,
            "has no BTF, so the places of its types' fields are not known",
            where="section .BTF",
            remedy="use a module that was built with CONFIG_DEBUG_INFO_BTF_MODULES and not stripped",
        )


class UnknownSymbols(ModuleError):
    """The module imports symbols that nobody serves; ``symbols`` has them all, sorted."""

    def __init__(self, module: str, symbols: Sequence[str]) -> None:
        """``symbols`` has all their names."""
        self.symbols = tuple(symbols)
        plural = "symbols" if len(symbols) > 1 else "symbol"
        super().__init__(
            module,
            f"needs {len(symbols)} {plural} that nothing here serves: {_listed(self.symbols)}",
            remedy="load the modules it depends on first, or allow unresolved symbols (they stop the driver "
            "when it reaches them)",
        )


class SymbolVersionMismatch(ModuleError):
    """The module was compiled against other definitions than the ones it would get.

    ``symbols`` maps each such symbol to (the CRC the module expects, the CRC there is).
    """

    def __init__(self, module: str, symbols: dict[str, tuple[int, int]]) -> None:
        """``symbols`` maps names to (wanted, found) CRCs."""
        self.symbols = symbols
        told = [
            f"{name} (wants {wanted:#010x}, is {found:#010x})" for name, (wanted, found) in symbols.items()
        ]
        super().__init__(
            module,
            f"disagrees about the version of {_listed(told)}",
            where="section __versions",
            remedy="use a module of exactly this kernel build",
        )


class BadParameter(ModuleError, UsageError):
    """A module parameter that does not exist, or a value that it does not take."""


class RelocationOutOfRange(ModuleError):
    """A relocated value does not fit its field: the target is too far from the module."""

    def __init__(self, module: str, section: str, offset: int, *, symbol: str, kind: str, value: int) -> None:
        """``offset`` is in bytes from the start of the section."""
        self.section = section
        self.offset = offset
        self.symbol = symbol
        super().__init__(
            module,
            f"relocation {kind} to {symbol} does not hold {value:#x}",
            where=f"{section}+{offset:#x}",
            remedy="place the module and what it refers to within 2 GiB of each other and of address 0",
        )


class UnsupportedRelocation(ModuleError):
    """A kind of relocation that Linux modules for x86-64 do not use; ``kind`` is its ELF number."""

    def __init__(self, module: str, section: str, offset: int, kind: int) -> None:
        """``kind`` is ELF's number; ``offset`` is in bytes from the start of the section."""
        self.section = section
        self.offset = offset
        self.kind = kind
        super().__init__(
            module,
            f"relocation kind {kind} is not one that x86-64 modules use",
            where=f"{section}+{offset:#x}",
            remedy="take the file from its kernel package again",
        )
