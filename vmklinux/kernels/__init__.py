"""Debian's kernel packages: where they are, what is in them, and how to get one."""

from typing import TYPE_CHECKING, Any

from vmklinux.kernels.cache import DEFAULT_SERIES, Kernel, cache_dir, find, image_dir, kernels
from vmklinux.kernels.compressed import read_module, read_vmlinux
from vmklinux.kernels.errors import (
    BadKernelImage,
    BadModuleFile,
    DiskFull,
    FetchError,
    HashMismatch,
    ModuleNotFound,
    NoKernel,
    NoNetwork,
)

if TYPE_CHECKING:
    from vmklinux.kernels.fetching import Progress, fetch

__all__ = [
    "DEFAULT_SERIES",
    "BadKernelImage",
    "BadModuleFile",
    "DiskFull",
    "FetchError",
    "HashMismatch",
    "Kernel",
    "ModuleNotFound",
    "NoKernel",
    "NoNetwork",
    "Progress",
    "cache_dir",
    "fetch",
    "find",
    "image_dir",
    "kernels",
    "read_module",
    "read_vmlinux",
]


def __getattr__(name: str) -> Any:
    # Fetching needs subprocess, tarfile and more: half of the time that importing this package would take.
    if name in ("Progress", "fetch"):
        from vmklinux.kernels import fetching

        return getattr(fetching, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
