"""What can go wrong with kernels, their files and their packages."""

from vmkernel_core.errors import VmkError


class NoKernel(VmkError):
    """No kernel of that release can be used here, or none is in any archive that apt knows."""


class ModuleNotFound(VmkError):
    """The kernel has no module file of that name."""


class BadKernelImage(VmkError):
    """The vmlinuz is not an x86-64 boot image that can be read: another machine's, truncated, damaged."""


class BadModuleFile(VmkError):
    """The module file is neither an ELF object nor a compressed one that can be read."""


class FetchError(VmkError):
    """A kernel package could not be fetched; the text says at which step and what to do."""


class NoNetwork(FetchError):
    """Apt reached no mirror."""


class StaleLists(FetchError):
    """Apt's package lists name a file that the mirror no longer has."""


class HashMismatch(FetchError):
    """The package is not the one that the signed package list describes."""


class DiskFull(FetchError):
    """The file system of the kernel cache has no room left."""
