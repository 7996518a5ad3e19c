"""The scan before execution: which instructions are special in user mode, and what becomes of them.

Facts: Intel SDM volume 2 (what each instruction does at privilege level 3) and volume 3, 5.9 (privileged
instructions); AMD APM volume 3, chapter 4.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from capstone import CS_ARCH_X86, CS_MODE_64, Cs

from vmklinux.module.elf import ModuleFile
from vmklinux.module.layout import Section


class Treatment(StrEnum):
    """What becomes of a sensitive instruction when it is reached."""

    PORT_IO = "trapped: forwarded to the platform's port I/O"
    INTERRUPT_FLAG = "trapped: virtual interrupt flag"
    IDLE = "trapped: passed over, there is always something else to run"
    STOPS = "trapped: stops the driver"
    HARMLESS = "harmless: means the same in user mode"
    REFUSED = "refused: means something else in user mode and does not trap"
    UNDECODED = "not decoded: data, or an instruction that the scan does not know"


_MNEMONICS: Final[Mapping[Treatment, str]] = {
    Treatment.PORT_IO: "in out insb insw insd outsb outsw outsd",
    Treatment.INTERRUPT_FLAG: "cli sti",
    Treatment.IDLE: "hlt",
    Treatment.STOPS: """
        rdmsr wrmsr lgdt lidt lldt ltr lmsw clts invlpg invlpga invd wbinvd wbnoinvd invpcid swapgs
        sysexit sysexitq sysret sysretq rsm xsetbv xsaves xsaves64 xrstors xrstors64 rdpmc monitor mwait
        clac stac pconfig encls getsec setssbsy clrssbsy wrussd wrussq
        vmlaunch vmresume vmxoff vmxon vmread vmwrite vmptrld vmptrst vmclear invept invvpid
        vmrun vmload vmsave stgi clgi skinit""",
    Treatment.HARMLESS: "cpuid rdtsc verr verw",
    Treatment.REFUSED: """
        pushf pushfd pushfq popf popfd popfq iret iretd iretq sgdt sidt sldt str smsw lar lsl
        int int1 syscall sysenter vmcall vmmcall vmfunc
        lcall ljmp retf retfq lfs lgs lss rdgsbase rdfsbase wrgsbase wrfsbase wrpkru rdpid rdtscp""",
}
"""By mnemonic, as capstone writes it, without prefixes.

``verr`` and ``verw`` set only the zero flag, and Linux uses ``verw`` for its side effect on processor
buffers. ``rdpid`` and ``rdtscp`` give the number of the host's processor; ``iret`` leaves the interrupt flag
as it is. What capstone does not know comes out as ``.byte``.
"""

SENSITIVE: Final[Mapping[str, Treatment]] = {
    mnemonic: treatment for treatment, names in _MNEMONICS.items() for mnemonic in names.split()
}
"""The treatment of each sensitive mnemonic."""

_OPERAND_CASES: Final = (
    (frozenset({"mov"}), re.compile(r"\b[cd]r\d"), Treatment.STOPS),
    (frozenset({"mov", "pop"}), re.compile(r"^[d-gs]s\b"), Treatment.REFUSED),
    (frozenset({"mov"}), re.compile(r", cs$"), Treatment.REFUSED),
    (frozenset({"jmp", "call"}), re.compile(r"^ptr \["), Treatment.REFUSED),
)
"""Mnemonics that are sensitive with certain operands only: control and debug registers, loading a segment
register, reading the code segment's privilege, and far jumps."""

_OPERAND_MNEMONICS: Final = frozenset().union(*(mnemonics for mnemonics, _, _ in _OPERAND_CASES))


@dataclass(frozen=True, slots=True)
class Finding:
    """A sensitive instruction: its section, offset there in bytes, text, and what becomes of it."""

    section: str
    offset: int
    instruction: str
    treatment: Treatment


def _treatment(mnemonic: str, operands: str) -> Treatment | None:
    name = mnemonic.rpartition(" ")[2]
    found = SENSITIVE.get(name)
    if found is None and name in _OPERAND_MNEMONICS:
        return next(
            (case for names, pattern, case in _OPERAND_CASES if name in names and pattern.search(operands)),
            None,
        )
    return Treatment.UNDECODED if name == ".byte" else found


def _scan_section(decoder: Cs, section: Section) -> Iterator[Finding]:
    for offset, _size, mnemonic, operands in decoder.disasm_lite(section.content, 0):
        treatment = _treatment(mnemonic, operands)
        if treatment is not None:
            yield Finding(section.name, offset, f"{mnemonic} {operands}".rstrip(), treatment)


def scan(module: ModuleFile) -> tuple[Finding, ...]:
    """Disassemble all of a module that is loaded and executable; every sensitive instruction, in order."""
    decoder = Cs(CS_ARCH_X86, CS_MODE_64)
    decoder.skipdata = True
    return tuple(
        finding
        for section in module.layout.sections
        if section.executable
        for finding in _scan_section(decoder, section)
    )
