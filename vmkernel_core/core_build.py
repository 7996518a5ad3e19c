"""Declares the C core to cffi: core.h between its CDEF marks, and the C files of both packages."""

from pathlib import Path

from cffi import FFI

ROOT = Path(__file__).resolve().parent.parent if "__file__" in globals() else Path.cwd()
HEADERS = sorted(
    str(p.relative_to(ROOT)) for d in ("vmkernel_core", "vmklinux") for p in (ROOT / d).glob("*.h")
)
SOURCES = sorted(
    str(p.relative_to(ROOT)) for d in ("vmkernel_core", "vmklinux") for p in (ROOT / d).glob("*.c")
)


def cdef(header: str) -> str:
    """The part of a header between its CDEF marks; nothing for a header without them."""
    text = (ROOT / header).read_text()
    _, _, rest = text.partition("/* ---- CDEF ---- */")
    return rest.partition("/* ---- END CDEF ---- */")[0]


ffibuilder = FFI()
for _header in HEADERS:
    ffibuilder.cdef(cdef(_header))
ffibuilder.cdef(
    """
    extern "Python+C" uint64_t vmk_python_bus_read(void *handle, int space, uint64_t address, unsigned size);
    extern "Python+C" void vmk_python_bus_write(void *handle, int space, uint64_t address, unsigned size,
                                              uint64_t value);
    extern "Python+C" int vmk_python_irq(int line, void *cookie);
    extern "Python+C" int linux_python_call(uint32_t index, struct linux_regs *regs);
    extern "Python+C" int native_python_poll(void *handle);
    """
)
ffibuilder.set_source(
    "vmkernel_core._core",
    "".join(f'#include "{header}"\n' for header in HEADERS),
    sources=[s for s in SOURCES if not s.endswith("/_core.c")],
    depends=HEADERS,
    include_dirs=["."],
    extra_compile_args=["-std=gnu11", "-O2", "-g", "-Wall", "-Wextra", "-fno-omit-frame-pointer"],
    extra_link_args=["-pthread"],
)
