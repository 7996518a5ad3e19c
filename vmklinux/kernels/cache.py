"""Where kernels are: those in the kernel cache, and the host's own."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from vmkernel_core.engine import module_name
from vmklinux.kernels.compressed import check_vmlinuz, read_vmlinux
from vmklinux.kernels.errors import BadKernelImage, ModuleNotFound, NoKernel
from vmklinux.kernels.releases import age_key, begins

if TYPE_CHECKING:
    from vmklinux.kernels.modalias import Aliases
    from vmklinux.needs import Needs

DEFAULT_SERIES = "6.1"
"""The series that is taken when nobody says which: the one with the longest proof here."""

# Relative to a kernel's root directory; the second vmlinuz is where Fedora and Arch have it.
_MODULES = ("lib/modules/{release}", "usr/lib/modules/{release}")
_VMLINUZ = ("boot/vmlinuz-{release}", "usr/lib/modules/{release}/vmlinuz")
_CONFIG = "boot/config-{release}"
_BTF_OPTION = b"\nCONFIG_DEBUG_INFO_BTF=y\n"
#: For how many devices a kernel remembers which of its modules claim them.
_ASKED = 4096
_MODULE_FILE = re.compile(r"(?P<name>.+)\.ko(\.(xz|gz|zst))?")


@dataclass(frozen=True)
class Kernel:
    """One kernel release: its image and its modules.

    ``path`` is the root below which they lie (``/`` for the host's own); ``reason`` says why the kernel
    cannot be used, and is empty when it can.
    """

    release: str
    path: Path
    vmlinuz: Path
    modules: Path
    reason: str

    @property
    def usable(self) -> bool:
        """Whether drivers can be run with this kernel."""
        return not self.reason

    @cached_property
    def _modules_by_name(self) -> dict[str, str]:
        own: dict[str, str] = {}
        added: dict[str, str] = {}
        for directory, _, files in os.walk(self.modules):
            found = own if directory.startswith(f"{self.modules}/kernel") else added
            for file in files:
                if match := _MODULE_FILE.fullmatch(file):
                    found[module_name(match["name"])] = f"{directory}/{file}"
        # What the host's owner added (updates/, extra/) wins over the kernel's own, as with depmod.
        return own | added

    def find_module(self, name: str) -> Path:
        """The file of the module ``name``, ``-`` and ``_`` being equal; raises ModuleNotFound."""
        try:
            return Path(self._modules_by_name[module_name(name)])
        except KeyError:
            raise self._module_not_found(name) from None

    def file_of(self, name: str) -> Path:
        """The file that has the code of the module ``name``: its own, or the kernel image when it is built in."""
        if self.builds_in(name):
            return self.vmlinuz
        return self.find_module(name)

    def _module_not_found(self, name: str) -> ModuleNotFound:
        import difflib

        if self.builds_in(name):
            return ModuleNotFound(
                f"{name} is built into kernel {self.release} and has no module file",
                where=str(self.modules / "modules.builtin"),
                remedy="no module needs to be loaded for it",
            )
        close = difflib.get_close_matches(module_name(name), self._modules_by_name, n=3)
        return ModuleNotFound(
            f"kernel {self.release} has no module {name}",
            where=str(self.modules),
            remedy=f"did you mean {' or '.join(close)}?" if close else "try another kernel: vmk kernel list",
        )

    def builds_in(self, name: str) -> bool:
        """Whether the module is part of the kernel image, so that it has no file of its own."""
        return module_name(name) in self._builtin_modules()

    def _builtin_modules(self) -> set[str]:
        try:
            lines = (self.modules / "modules.builtin").read_text().splitlines()
        except FileNotFoundError:
            return set()
        return {module_name(Path(line).stem) for line in lines}

    def modules_under(self, directory: str) -> list[Path]:
        """The module files below e.g. ``drivers/net/ethernet``, sorted; none when that is no directory."""
        top = self.modules / "kernel" / directory
        return sorted(
            Path(parent, file)
            for parent, _, files in os.walk(top)
            for file in files
            if _MODULE_FILE.fullmatch(file)
        )

    @cached_property
    def aliases(self) -> Aliases:
        """Which of its modules claim a device; read, or made, when it is first asked for."""
        from vmklinux.kernels.aliases import read_aliases

        return read_aliases(self, cache_dir() / ".aliases")

    @cached_property
    def needs(self) -> Needs:
        """What its modules need; kept, as what is in ``aliases``."""
        from vmklinux.needs import Needs

        return Needs(self, cache_dir() / ".aliases")

    def claimants(self, modalias: str) -> tuple[str, ...]:
        """The names of the modules that claim the device of that modalias, the nearest first; see Aliases."""
        return self._claimants(modalias)

    def firmware(self, module: str) -> tuple[str, ...] | None:
        """Firmware files that a module may ask for; None when there is no such module."""
        need = self.needs.of(module)
        return None if need is None else need.firmware

    def obstacle(self, module: str) -> str:
        """A clause that says why a module cannot be run here; "" when it can be."""
        return self.needs.obstacle(module)

    @cached_property
    def _claimants(self) -> Callable[[str], tuple[str, ...]]:
        def ask(modalias: str) -> tuple[str, ...]:
            return tuple(alias.module for alias in self.aliases.matching(modalias))

        return lru_cache(_ASKED)(ask)  # machines are alike, and asking anew takes ten times as long

    def vmlinux(self) -> bytes:
        """The decompressed kernel, some 60 MB of ELF and relocation table; raises BadKernelImage."""
        return read_vmlinux(self.vmlinuz)


def cache_dir() -> Path:
    """The directory that has one directory per fetched release; it need not exist yet."""
    if own := os.environ.get("VMK_KERNELS"):
        return Path(own).absolute()
    xdg = os.environ.get("XDG_CACHE_HOME")
    return (Path(xdg) if xdg else Path.home() / ".cache") / "vmklinux" / "kernels"


def kernel_at(path: Path, release: str) -> Kernel:
    """The kernel ``release`` below the root directory ``path``, usable or not."""
    vmlinuz = _first_present(path, _VMLINUZ, release)
    modules = _first_present(path, _MODULES, release)
    return Kernel(release, path, vmlinuz, modules, _why_unusable(path, release, vmlinuz, modules))


def _first_present(path: Path, places: tuple[str, ...], release: str) -> Path:
    candidates = [path / place.format(release=release) for place in places]
    return next((candidate for candidate in candidates if os.path.lexists(candidate)), candidates[0])


def _why_unusable(path: Path, release: str, vmlinuz: Path, modules: Path) -> str:
    if problem := _vmlinuz_problem(vmlinuz):
        return problem
    if not modules.is_dir():
        return f"there is no {modules}"
    config = path / _CONFIG.format(release=release)
    if os.access(config, os.R_OK) and _BTF_OPTION not in config.read_bytes():
        return "built without BTF type information (CONFIG_DEBUG_INFO_BTF)"
    return ""


def _vmlinuz_problem(vmlinuz: Path) -> str:
    try:
        check_vmlinuz(vmlinuz)
    except FileNotFoundError:
        return f"there is no {vmlinuz}"
    except PermissionError:
        return f"{vmlinuz} may be read by root only"
    except OSError as error:
        return f"{vmlinuz} cannot be read: {error.strerror}"
    except BadKernelImage as error:
        return error.what
    return ""


def _names(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:  # absent, or closed to us: either way nothing in it can be used
        return []


def cached_kernels() -> Iterator[Kernel]:
    """The kernels in the cache, in no order."""
    directory = cache_dir()
    for release in _names(directory):
        if not release.startswith("."):
            yield kernel_at(directory / release, release)


def _host_kernels(root: Path) -> Iterator[Kernel]:
    prefix = "vmlinuz-"
    releases = {name.removeprefix(prefix) for name in _names(root / "boot") if name.startswith(prefix)}
    for place in _MODULES:
        releases.update(_names((root / place).parent))
    for release in releases:
        yield kernel_at(root, release)


def image_dir() -> Path:
    """Where relocated kernel images are kept: beside the kernels, in a directory that is none."""
    return cache_dir() / ".images"


def kernels(root: Path = Path("/")) -> list[Kernel]:
    """The kernels in the cache and those of the host (below ``root``), usable or not, newest first."""
    return newest_first([*cached_kernels(), *_host_kernels(root)])


def newest_first(some: list[Kernel]) -> list[Kernel]:
    """The same kernels, newest release first; of equal releases the order is kept."""
    return sorted(some, key=lambda kernel: age_key(kernel.release), reverse=True)


def find(release: str | None = None, root: Path = Path("/")) -> Kernel:
    """The newest usable kernel whose release begins with ``release`` (6.1 does not begin 6.12).

    With None, the newest usable one of DEFAULT_SERIES, else the newest usable one. Raises NoKernel,
    whose remedy is the command that brings one.
    """
    known = kernels(root)
    usable = [kernel for kernel in known if kernel.usable]
    wanted = DEFAULT_SERIES if release is None else release
    matches = [kernel for kernel in usable if begins(kernel.release, wanted)]
    if release is None:
        matches += usable
    if matches:
        return matches[0]
    remedy = f"run: vmk kernel fetch {shlex.quote(wanted)}"
    for kernel in known:
        if begins(kernel.release, wanted):
            raise NoKernel(f"kernel {kernel.release} cannot be used: {kernel.reason}", remedy=remedy)
    what = "no kernel" if release is None else f"no kernel {release}"
    raise NoKernel(f"{what} here", where=f"{cache_dir()}, {root / 'boot'}", remedy=remedy)
