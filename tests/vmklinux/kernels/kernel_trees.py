"""Made-up kernels for these tests: boot images and module files that Debian's own tools have compressed."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

ELF = b"\x7fELF\x02\x01\x01" + bytes(57)
COMPRESSORS = {
    "xz": ["xz", "--check=crc32", "--stdout"],
    "gzip": ["gzip", "--stdout"],
    "zstd": ["zstd", "--quiet", "--stdout"],
}


def compress(tool: str, data: bytes) -> bytes:
    """What the command-line tool makes of the data."""
    return subprocess.run(COMPRESSORS[tool], input=data, capture_output=True, check=True, timeout=60).stdout


def boot_image(payload: bytes, *, setup_sects: int = 1, protocol: int = 0x020F, xloadflags: int = 1) -> bytes:
    """A vmlinuz after Documentation/arch/x86/boot.rst; 16 bytes lie before its payload."""
    image = bytearray((setup_sects + 1) * 512 + 16)
    image[0x1F1] = setup_sects
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", image, 0x206, protocol)
    struct.pack_into("<H", image, 0x236, xloadflags)
    struct.pack_into("<II", image, 0x248, 16, len(payload))
    return bytes(image) + payload + b"behind the payload"


def vmlinuz(vmlinux: bytes = ELF, tool: str = "xz") -> bytes:
    """A vmlinuz of this kernel; like Linux's build it appends the size, which gzip's own format ends with."""
    payload = compress(tool, vmlinux)
    return boot_image(payload if tool == "gzip" else payload + struct.pack("<I", len(vmlinux)))


def plant(root: Path, release: str, *, modules_in: str = "lib/modules", config: str | None = None) -> Path:
    """Write a small usable kernel below ``root``; returns its modules' directory."""
    boot = root / "boot"
    boot.mkdir(parents=True, exist_ok=True)
    (boot / f"vmlinuz-{release}").write_bytes(vmlinuz())
    if config is not None:
        (boot / f"config-{release}").write_text(config)
    modules = root / modules_in / release
    for name in ("drivers/net/ethernet/intel/e1000/e1000.ko", "drivers/scsi/scsi_transport_spi.ko"):
        path = modules / "kernel" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(ELF)
    (modules / "modules.builtin").write_text("kernel/drivers/tty/serial/8250/8250.ko\n")
    return modules
