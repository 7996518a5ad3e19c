"""The scan before execution. Independent side: Debian's modules, and GNU objdump."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from vmklinux.kernels import Kernel, read_module
from vmklinux.module.elf import ModuleFile
from vmklinux.module.scan import Finding, Treatment, scan

_DUMP_LINE = re.compile(r"^\s*([0-9a-f]+):\s+(?:rep )?(in|out|ins|outs|cli|sti|hlt)[bwl]?\b", re.MULTILINE)


def _ports_by_objdump(path: Path) -> set[tuple[str, int]]:
    command = ["objdump", "-d", "--no-show-raw-insn", str(path)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    parts = re.split(r"^Disassembly of section (.*):$", text, flags=re.MULTILINE)
    return {
        (name, int(match[1], 16))
        for name, body in zip(parts[1::2], parts[2::2], strict=True)
        for match in _DUMP_LINE.finditer(body)
    }


@pytest.mark.parametrize("name", ["e1000", "pcnet32", "ne2k-pci", "aic7xxx"])
def test_it_finds_what_objdump_shows(kernel: Kernel, name: str, tmp_path: Path) -> None:
    plain = tmp_path / "plain.ko"
    plain.write_bytes(read_module(kernel.find_module(name)))
    findings = scan(ModuleFile.parse(plain.read_bytes(), name))
    found = {(finding.section, finding.offset) for finding in findings}
    assert found == _ports_by_objdump(plain)
    assert found
    strings = {f for f in findings if re.match(r"(rep )?(ins|outs)", f.instruction)}
    assert {f.treatment for f in strings} <= {Treatment.PORT_IO}
    assert {f.treatment for f in findings if f not in strings} == {Treatment.PORT_IO}


def test_e1000_has_one_port_write(e1000: ModuleFile) -> None:
    (finding,) = scan(e1000)
    assert finding.section == ".text"
    assert finding.instruction == "out dx, eax"


@pytest.mark.parametrize(
    ("code", "instruction", "treatment"),
    [
        ("ec", "in al, dx", Treatment.PORT_IO),
        ("e670", "out 0x70, al", Treatment.PORT_IO),
        ("f36d", "rep insd dword ptr [rdi], dx", Treatment.PORT_IO),
        ("fa", "cli", Treatment.INTERRUPT_FLAG),
        ("fb", "sti", Treatment.INTERRUPT_FLAG),
        ("f4", "hlt", Treatment.IDLE),
        ("0f32", "rdmsr", Treatment.STOPS),
        ("0f30", "wrmsr", Treatment.STOPS),
        ("0f20c0", "mov rax, cr0", Treatment.STOPS),
        ("440f22c0", "mov cr8, rax", Treatment.STOPS),
        ("0f23f8", "mov dr7, rax", Treatment.STOPS),
        ("0f0110", "lgdt [rax]", Treatment.STOPS),
        ("0f01f8", "swapgs", Treatment.STOPS),
        ("0f01c2", "vmlaunch", Treatment.STOPS),
        ("9c", "pushfq", Treatment.REFUSED),
        ("9d", "popfq", Treatment.REFUSED),
        ("48cf", "iretq", Treatment.REFUSED),
        ("0f0100", "sgdt [rax]", Treatment.REFUSED),
        ("0f01e0", "smsw eax", Treatment.REFUSED),
        ("0f05", "syscall", Treatment.REFUSED),
        ("cd80", "int 0x80", Treatment.REFUSED),
        ("0f01c1", "vmcall", Treatment.REFUSED),
        ("8ed8", "mov ds, eax", Treatment.REFUSED),
        ("8cc8", "mov eax, cs", Treatment.REFUSED),
        ("0fa1", "pop fs", Treatment.REFUSED),
        ("ff28", "jmp ptr [rax]", Treatment.REFUSED),
        ("48cb", "retfq", Treatment.REFUSED),
        ("0fa2", "cpuid", Treatment.HARMLESS),
        ("0f31", "rdtsc", Treatment.HARMLESS),
        ("06", ".byte 0x06", Treatment.UNDECODED),
    ],
)
def test_a_planted_instruction_is_found_and_those_after_it_still_are(
    e1000_bytes: bytes,
    patch: Callable[[bytes, str, int, bytes], bytes],
    code: str,
    instruction: str,
    treatment: Treatment,
) -> None:
    planted = bytes.fromhex(code)
    room = 16
    data = patch(e1000_bytes, ".init.text", 0, planted.ljust(room, b"\x90"))
    (finding,) = [found for found in scan(ModuleFile.parse(data, "e1000")) if found.section == ".init.text"]
    assert finding == Finding(".init.text", 0, instruction, treatment)


@pytest.mark.parametrize(
    "code",
    [
        "0f0b",  # ud2: WARN and BUG, told by the bug table
        "cc",  # int3: padding
        "65488b042528000000",  # mov rax, qword ptr gs:[0x28]: the canary
        "8cd8",  # mov eax, ds
        "ffe0",  # jmp rax
        "f390",  # pause
        "c5f877",  # vzeroupper
    ],
)
def test_ordinary_instructions_are_not_reported(
    e1000_bytes: bytes, patch: Callable[[bytes, str, int, bytes], bytes], code: str
) -> None:
    data = patch(e1000_bytes, ".init.text", 0, bytes.fromhex(code).ljust(16, b"\x90"))
    assert {found.section for found in scan(ModuleFile.parse(data, "e1000"))} == {".text"}


def test_no_network_or_scsi_driver_of_the_list_has_anything_but_port_io(kernel: Kernel) -> None:
    names = ["tg3", "bnx2", "forcedeth", "hpsa", "ips", "megaraid_mbox", "aacraid", "libiscsi"]
    for name in names:
        found = scan(ModuleFile.read(kernel.find_module(name)))
        assert {finding.treatment for finding in found} <= {Treatment.PORT_IO, Treatment.STOPS}, name
