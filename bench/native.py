"""Compiles the benchmark's C side when it is needed, into a directory that the caller removes."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from cffi import FFI

_HERE = Path(__file__).parent
_SOURCES = ("floor.c", "wire.c")
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


def load(path: Path) -> tuple[Any, Any]:
    """``ffi`` and ``lib`` of the built file."""
    spec = importlib.util.spec_from_file_location(_NAME, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ffi, module.lib
