"""Small Linux modules made for one test each, by gcc, with no kernel headers."""

from __future__ import annotations

import subprocess
from pathlib import Path

from vmklinux.kernels import Kernel
from vmklinux.module.elf import ModuleFile

# What a module of this architecture is compiled with (arch/x86/Makefile), as far as it shows here.
_OPTIONS = [
    *("-c", "-O1", "-w", "-ffreestanding", "-fno-pic", "-mcmodel=kernel", "-mno-red-zone", "-mno-sse"),
    *("-fcf-protection=none", "-fno-stack-protector", "-fno-asynchronous-unwind-tables"),
]
_FRAME = """
__attribute__((used, section(".modinfo"))) static const char info[] = "name={name}\\0vermagic={vermagic}";
__attribute__((used, section(".gnu.linkonce.this_module"))) static char this_module[2048];
{code}
"""


def handmade(kernel: Kernel, directory: Path, code: str, name: str = "handmade") -> Path:
    """Compile C that defines init_module() as a module of this kernel; the file."""
    vermagic = ModuleFile.read(kernel.find_module("mii")).info.vermagic
    source, target = directory / f"{name}.c", directory / f"{name}.ko"
    source.write_text(_FRAME.format(name=name, vermagic=vermagic, code=code))
    subprocess.run(["gcc", *_OPTIONS, "-o", target, source], check=True)
    return target
