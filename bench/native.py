"""Compiles the benchmark's C side when it is needed, into a directory that the caller removes."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path
from typing import Any

from cffi import FFI

from vmkernel_core.errors import VmkError

_HERE = Path(__file__).parent
_SOURCES = (
    "disk.c", "disk_megasas.c", "disk_mptsas.c", "disk_pvscsi.c", "floor.c", "floor_e1000.c",
    "floor_i8255x.c", "floor_pcnet.c", "registers.c", "wire.c",
)  # fmt: skip
_NAME = "bench_native"


def compile_native(directory: Path) -> Path:
    """Build the C side in a directory; the file to ``load``. Raises cffi.VerificationError without a compiler."""
    declarations = (_HERE / "bench.h").read_text().partition("/* ---- CDEF ---- */")[2]
    ffi = FFI()
    ffi.cdef(declarations.partition("/* ---- END CDEF ---- */")[0])
    ffi.set_source(
        _NAME,
        '#include "bench.h"',
        sources=[str(_HERE / source) for source in _SOURCES],
        include_dirs=[str(_HERE)],
        extra_compile_args=["-std=gnu11", "-O2", "-Wall", "-Wextra"],
    )
    return Path(ffi.compile(tmpdir=str(directory)))


def compile_program(directory: Path, source: str) -> Path:
    """Build a program of one of this directory's files that needs no library where it runs; the program.

    Raises VmkError when that fails.
    """
    program = directory / Path(source).stem
    compiler = [
        "cc",
        "-std=gnu11",
        "-O2",
        "-Wall",
        "-Wextra",
        "-static",
        "-o",
        str(program),
        str(_HERE / source),
    ]
    try:
        subprocess.run(compiler, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", "") or str(error)
        raise VmkError(
            f"cannot compile {source}: {said.strip()}", remedy="apt-get install gcc libc6-dev"
        ) from error
    return program


def load(path: Path) -> tuple[Any, Any]:
    """``ffi`` and ``lib`` of the built file."""
    spec = importlib.util.spec_from_file_location(_NAME, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ffi, module.lib
