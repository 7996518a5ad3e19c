"""What cannot be loaded is refused by a class of its own, and what was running goes on.

Independent: Debian's modules, damaged on purpose, and modules that gcc makes for the test. The witness is Debian's
e1000.ko on our e1000 model: it carries frames after each refusal, in the same host.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import PLATFORMS, Peer
from tests.e2e.engines import LINUX, Engine, on_each
from tests.e2e.handmade import handmade
from tests.e2e.packets import PEER, sized
from vmkernel_core.boot import VMkernel
from vmkernel_core.errors import UsageError, VmkError
from vmklinux.errors import DriverRefused, DriverStopped
from vmklinux.kernels import Kernel, ModuleNotFound, NoKernel, read_module
from vmklinux.kernels.errors import BadModuleFile
from vmklinux.kthread import KThreads
from vmklinux.loader import SensitiveCode
from vmklinux.module.errors import (
    CorruptModule,
    RelocationOutOfRange,
    SymbolVersionMismatch,
    TruncatedModule,
    UnknownSymbols,
    WrongArchitecture,
    WrongKernel,
)

EM_AARCH64, E_MACHINE = 183, 18


driven = on_each("model", engines=LINUX)


@pytest.fixture(scope="module")
def kernel(engine: Engine) -> Kernel:
    """The host's."""
    assert engine.kernel
    return engine.kernel


@pytest.fixture
def unharmed(host: VMkernel, wire: Peer) -> Iterator[VMkernel]:
    """The running host; after the test the same modules are loaded in it and frames still cross."""
    loaded = list(host.loader.modules)
    yield host
    assert list(host.loader.modules) == loaded
    nic = host.uplinks["vmnic0"]
    frames = [sized(PEER, 60, seed) for seed in range(4)]
    assert wire.sent_by(nic, frames) == frames
    assert wire.received_by(nic, []) == []


@pytest.fixture
def mii(kernel: Kernel) -> bytes:
    """A module that nobody has loaded, decompressed."""
    return read_module(kernel.find_module("mii"))


@pytest.fixture
def save(tmp_path: Path) -> Callable[[bytes], Path]:
    """Writes a module's file."""

    def write(data: bytes) -> Path:
        path = tmp_path / "mii.ko"
        path.write_bytes(data)
        return path

    return write


Save = Callable[[bytes], Path]


@pytest.mark.parametrize("part", [0.3, 0.9])
def test_truncated(unharmed: VMkernel, mii: bytes, save: Save, part: float) -> None:
    size = int(len(mii) * part)
    with pytest.raises(TruncatedModule, match=rf"mii.*ends at byte {size} .*kernel package"):
        unharmed.loader.load(save(mii[:size]))


def test_a_compressed_file_that_is_cut_off(unharmed: VMkernel, kernel612: Kernel, tmp_path: Path) -> None:
    path = tmp_path / "mii.ko.xz"
    path.write_bytes(kernel612.find_module("mii").read_bytes()[:-200])
    with pytest.raises(BadModuleFile, match="mii"):
        unharmed.loader.load(path)


def test_not_a_module(unharmed: VMkernel, save: Save) -> None:
    with pytest.raises(CorruptModule, match="mii"):
        unharmed.loader.load(save(b"\x7fELF" + bytes(1000)))


def test_another_architecture(unharmed: VMkernel, mii: bytes, save: Save) -> None:
    data = bytearray(mii)
    struct.pack_into("<H", data, E_MACHINE, EM_AARCH64)
    with pytest.raises(WrongArchitecture, match=r"AARCH64.*not for x86-64.*amd64"):
        unharmed.loader.load(save(bytes(data)))


def test_another_release(unharmed: VMkernel, kernel: Kernel, kernel61: Kernel, kernel612: Kernel) -> None:
    other = kernel612 if kernel is kernel61 else kernel61
    with pytest.raises(WrongKernel, match=r"was built for kernel .*vermagic") as caught:
        unharmed.loader.load(other.find_module("mii"))
    assert (caught.value.built_for, caught.value.release) == (other.release, kernel.release)


def test_another_build_of_the_release(unharmed: VMkernel, mii: bytes, save: Save) -> None:
    name = b"module_layout\0"
    at = mii.index(name.rjust(len(name))) - 8
    crc = bytes(byte ^ 0xFF for byte in mii[at : at + 4])
    with pytest.raises(SymbolVersionMismatch, match="module_layout"):
        unharmed.loader.load(save(mii[:at] + crc + mii[at + 4 :]))


def test_no_such_module(unharmed: VMkernel) -> None:
    with pytest.raises(ModuleNotFound, match=r"no module e10000.*did you mean e1000"):
        unharmed.loader.load("e10000")


def test_loaded_twice(unharmed: VMkernel) -> None:
    with pytest.raises(UsageError, match="e1000 is loaded already"):
        unharmed.loader.load("e1000")


def test_a_kernel_without_btf(
    kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unharmed: VMkernel
) -> None:
    root = tmp_path / kernel.release
    (root / "boot").mkdir(parents=True)
    (root / "boot" / kernel.vmlinuz.name).symlink_to(kernel.vmlinuz)
    (root / "boot" / f"config-{kernel.release}").write_text(
        "CONFIG_MODULES=y\n# CONFIG_DEBUG_INFO_BTF is not set\n"
    )
    (root / "lib/modules").mkdir(parents=True)
    (root / "lib/modules" / kernel.release).symlink_to(kernel.modules)
    monkeypatch.setenv("VMK_KERNELS", str(tmp_path))
    with pytest.raises(NoKernel, match=r"without BTF.*vmk kernel fetch"):
        VMkernel(PLATFORMS["model"](), kernel=kernel.release).start()


def test_unknown_symbols(unharmed: VMkernel, kernel: Kernel, tmp_path: Path) -> None:
    code = "extern int zeta(void), alpha(void); int init_module(void) { return zeta() + alpha(); }"
    with pytest.raises(UnknownSymbols, match=r"handmade: needs 2 symbols .*: alpha, zeta") as caught:
        unharmed.loader.load(handmade(kernel, tmp_path, code))
    assert caught.value.symbols == ("alpha", "zeta")


def test_a_symbol_of_the_image_that_was_not_reviewed(
    unharmed: VMkernel, kernel: Kernel, tmp_path: Path
) -> None:
    code = "extern int kernel_restart(char *); int init_module(void) { return kernel_restart(0); }"
    assert "kernel_restart" in unharmed.linux.symbols
    with pytest.raises(UnknownSymbols, match="kernel_restart"):
        unharmed.loader.load(handmade(kernel, tmp_path, code))


def test_an_unknown_symbol_that_is_reached(unharmed: VMkernel, kernel: Kernel, tmp_path: Path) -> None:
    code = "extern int nobody_serves_this(void); int init_module(void) { return nobody_serves_this(); }"
    path = handmade(kernel, tmp_path, code)
    with pytest.raises(DriverStopped, match=r"nobody_serves_this.*init_module\+0x\w+ \[handmade\]") as caught:
        unharmed.loader.load(path, allow_unresolved=True)
    assert caught.value.reason == "unresolved"


def test_an_unknown_symbol_that_is_not_reached(unharmed: VMkernel, kernel: Kernel, tmp_path: Path) -> None:
    code = """
    extern int nobody_serves_this(void);
    int init_module(void) { return 0; }
    int unused(void) { return nobody_serves_this(); }
    """
    unharmed.loader.load(handmade(kernel, tmp_path, code), allow_unresolved=True)
    assert unharmed.loader.unload("handmade") == []


@pytest.mark.parametrize("kind", ["R_X86_64_PC32", "R_X86_64_32S"])
def test_a_relocation_out_of_range(unharmed: VMkernel, kernel: Kernel, tmp_path: Path, kind: str) -> None:
    code = f"""
    int init_module(void) {{ return 0; }}
    asm(".data; field: .long 0; .reloc field, {kind}, init_module + 0x123400000000");
    """
    with pytest.raises(RelocationOutOfRange, match=rf"{kind} to init_module .*\.data\+0x0") as caught:
        unharmed.loader.load(handmade(kernel, tmp_path, code))
    assert (caught.value.symbol, caught.value.section) == ("init_module", ".data")


def test_code_that_would_silently_do_the_wrong_thing(
    unharmed: VMkernel, kernel: Kernel, tmp_path: Path
) -> None:
    code = (
        'int init_module(void) { char table[10]; asm volatile ("sgdt %0" : "=m" (table)); return table[0]; }'
    )
    with pytest.raises(SensitiveCode, match=r"sgdt.*\.text"):
        unharmed.loader.load(handmade(kernel, tmp_path, code))


def test_an_init_that_fails(unharmed: VMkernel, kernel: Kernel, tmp_path: Path) -> None:
    with pytest.raises(DriverRefused, match="init of handmade failed: No such device") as caught:
        unharmed.loader.load(handmade(kernel, tmp_path, "int init_module(void) { return -19; }"))
    assert caught.value.errno == 19


@pytest.mark.parametrize(
    ("code", "reason", "message"),
    [
        ("*(volatile int *)0x123450 = 1;", "fault", "0x123450"),
        ("*(volatile int *)0xdead000000000000 = 1;", "fault", "access"),
        ("((void (*)(void))0x123450)();", "fault", "0x123450"),
        ('asm volatile("ud2");', "illegal", "instruction"),
        ('asm volatile("mov %%cr3, %%rax" ::: "rax");', "illegal", "instruction"),
    ],
    ids=["nowhere", "non-canonical", "jump", "ud2", "cr3"],
)
def test_an_init_that_goes_wrong(
    unharmed: VMkernel, kernel: Kernel, tmp_path: Path, code: str, reason: str, message: str
) -> None:
    path = handmade(kernel, tmp_path, f"int init_module(void) {{ {code} return 0; }}")
    with pytest.raises(DriverStopped, match=message) as caught:
        unharmed.loader.load(path)
    assert caught.value.reason == reason


def test_what_an_init_took_before_it_failed_is_taken_back(
    unharmed: VMkernel, kernel: Kernel, tmp_path: Path
) -> None:
    code = """
    extern void *vmalloc(unsigned long size);
    int init_module(void) { vmalloc(1 << 20); return -12; }
    """
    path = handmade(kernel, tmp_path, code)
    for _ in range(300):  # more than there is, if each were kept
        with pytest.raises(DriverRefused):
            unharmed.loader.load(path)


def test_a_leak_is_told(unharmed: VMkernel, kernel: Kernel, tmp_path: Path) -> None:
    code = """
    extern void *vmalloc(unsigned long size);
    int init_module(void) { return !vmalloc(5000); }
    void cleanup_module(void) {}
    """
    unharmed.loader.load(handmade(kernel, tmp_path, code))
    (leak,) = unharmed.loader.unload("handmade")
    assert leak.kind == "memory"
    assert leak.where.startswith("init_module+")
    assert "[handmade]" in leak.where


def test_any_damage_is_refused_by_name_or_harmless(unharmed: VMkernel, mii: bytes, save: Save) -> None:
    """A byte of the file at a time, here and there."""
    for at in range(0, len(mii), len(mii) // 60):
        path = save(mii[:at] + bytes([mii[at] ^ 0xFF]) + mii[at + 1 :])
        with contextlib.suppress(VmkError):
            name = unharmed.loader.load(path).name
            assert unharmed.loader.unload(name) == []


@pytest.mark.parametrize("sleep", ["msleep(3600000)", "schedule()"])
def test_a_thread_that_was_forgotten(unharmed: VMkernel, kernel: Kernel, tmp_path: Path, sleep: str) -> None:
    """It is told, and ended where it sleeps: its code is no longer there."""
    code = f"""
    extern void *kthread_create_on_node(int (*)(void *), void *, int, const char *, ...);
    extern int wake_up_process(void *);
    extern void msleep(unsigned), schedule(void);
    static volatile int runs;
    static int run(void *data) {{ runs = 1; for (;;) {sleep}; }}
    int init_module(void)
    {{
        wake_up_process(kthread_create_on_node(run, 0, -1, "forgotten/%d", 1));
        while (!runs) msleep(1);
        return 0;
    }}
    """
    unharmed.loader.load(handmade(kernel, tmp_path, code))
    (leak,) = unharmed.loader.unload("handmade")
    assert (leak.kind, leak.what) == ("thread", "forgotten/1")
    assert leak.where.startswith("run+")
    assert unharmed.linux.state(KThreads).all == []
