"""What a kernel's modules need: firmware files, and functions that somebody here serves.

Looking at a module takes a tenth of a second. What was found is kept in the kernel cache, for as long as the module's
file, those of the modules that it depends on, the kernel image and this package's own files are the same.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from functools import cache, cached_property
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import msgspec

import vmkernel_core
from vmkernel_core.engine import module_name
from vmklinux.kernels.errors import BadModuleFile, ModuleNotFound
from vmklinux.kernels.kept import digest, keep

if TYPE_CHECKING:
    from vmklinux.image import Image
    from vmklinux.kernels.cache import Kernel

_log = logging.getLogger(__name__)

#: Part of a kept file's identity; raise it when what is kept changes.
FORMAT = 1
#: How many names a sentence has.
_FEW = 3

Stamp = tuple[str, int, int]
"""A file's path, its size in bytes and when it was last written, in ns."""


class Need(msgspec.Struct, frozen=True):
    """What a module needs. ``files`` are what this was found from: the module's file, then those that it depends on."""

    files: dict[str, Stamp] = {}
    firmware: tuple[str, ...] = ()
    """Files that it may ask for."""
    unserved: dict[str, tuple[str, ...]] = {}
    """By module, it or one that it depends on: imports that nobody serves."""
    error: str = ""
    """Why it is not loaded whatever it needs: it is for another kernel, or damaged."""

    def obstacle(self, module: str) -> str:
        """A clause that says why the module cannot be run here; "" when it can be."""
        if self.error:
            return self.error
        # Those without underscores say more to people.
        names = sorted(
            {name for each in self.unserved.values() for name in each},
            key=lambda name: (name.startswith("_"), name),
        )
        if not names:
            return ""
        some = ", ".join(names[:_FEW]) + (" …" if len(names) > _FEW else "")
        depends = [name for name in self.unserved if name != module]
        through = f" (with {', '.join(depends)})" if depends else ""
        what = "a function" if len(names) == 1 else f"{len(names)} functions"
        return f"{module}{through} needs {what} that nobody serves: {some}"


class _Kept(msgspec.Struct, frozen=True):
    """The file in the cache."""

    identity: str
    needs: dict[str, Need]


_DECODER = msgspec.msgpack.Decoder(_Kept)


class Needs:
    """Those of one kernel's modules, by name."""

    def __init__(self, kernel: Kernel, directory: Path) -> None:
        """``directory`` is where they are kept; one that cannot be written costs the time at every start."""
        self._kernel = kernel
        self._place = directory / f"{kernel.release}-{digest(str(kernel.modules))}.needs"
        self._identity = ""
        self._kept: dict[str, Need] = {}
        self._known: dict[str, Need | None] = {}
        self._obstacles: dict[str, str] = {}

    def of(self, name: str) -> Need | None:
        """What a module needs; None when the kernel has no such module. One that is built in needs nothing more.

        Raises BadKernelImage, and ImageError, when the kernel image cannot be used.
        """
        if name not in self._known:
            self._known[name] = self._find(module_name(name))
        return self._known[name]

    def obstacle(self, name: str) -> str:
        """A clause that says why a module cannot be run here; "" when it can be, or there is none."""
        if name not in self._obstacles:
            need = self.of(name)
            self._obstacles[name] = need.obstacle(name) if need else ""
        return self._obstacles[name]

    def _find(self, name: str) -> Need | None:
        if self._kernel.builds_in(name):
            return Need()
        try:
            own = self._kernel.find_module(name)
        except ModuleNotFound:
            return None
        if not self._identity:
            self._identity = self._of_now()
            self._kept = self._read()
        need = self._kept.get(name)
        if need is None or not self._holds(need):
            need = self._look(name, own)
            if need.error:
                return need  # what is wrong with it may be mended elsewhere, in a file that is not there yet
            # Another process may have found out others meanwhile.
            self._kept = {**self._read(), name: need}
            try:
                keep(self._place, msgspec.msgpack.encode(_Kept(self._identity, self._kept)))
            except OSError as error:
                _log.info("what %s needs is not kept: %s", name, error)
        return need

    def _of_now(self) -> str:
        image = _stamp(self._kernel.vmlinuz)
        return digest(f"{FORMAT} {image} {_what_is_served()}")

    def _read(self) -> dict[str, Need]:
        with suppress(OSError, msgspec.DecodeError):
            kept = _DECODER.decode(self._place.read_bytes())
            if kept.identity == self._identity:
                return kept.needs
        return {}

    def _holds(self, need: Need) -> bool:
        """Whether its modules are still those files, and these are the same."""
        try:
            return all(_stamp(self._kernel.find_module(name)) == stamp for name, stamp in need.files.items())
        except (OSError, ModuleNotFound):
            return False

    def _look(self, name: str, own: Path) -> Need:
        from vmklinux.module.elf import ModuleFile
        from vmklinux.module.errors import ModuleError
        from vmklinux.module.scan import Treatment
        from vmklinux.resolve import check

        files = {name: _stamp(own)}
        firmware: tuple[str, ...] = ()
        image = self._image
        try:
            firmware = ModuleFile.read(own).info.firmware
            report = check(own, self._kernel, image)
        except (ModuleError, BadModuleFile, ModuleNotFound) as error:
            return Need(files, firmware, error=error.what)
        files |= {other: _stamp(self._kernel.find_module(other)) for other in report.dependencies}
        lacking = {name: tuple(report.unresolved)} | {
            other: tuple(names) for other, names in report.dependencies.items()
        }
        refused = any(found.treatment == Treatment.REFUSED for found in report.sensitive)
        return Need(
            files,
            firmware,
            {module: names for module, names in lacking.items() if names},
            f"{name} has code that would silently do the wrong thing in user mode" if refused else "",
        )

    @cached_property
    def _image(self) -> Image:
        from vmklinux.image import CacheNotWritable, prepare
        from vmklinux.kernels.cache import image_dir

        try:
            return prepare(self._kernel, image_dir())
        except CacheNotWritable as error:
            _log.info("%s", error)
            # Only its symbols are asked for, and they are in memory.
            with TemporaryDirectory() as directory:
                return prepare(self._kernel, Path(directory))


def _stamp(path: Path) -> Stamp:
    status = path.stat()
    return str(path), status.st_size, status.st_mtime_ns


@cache
def _what_is_served() -> str:
    """A hash of this package's own files, and of the C half: whatever serves a function is in one of them."""
    content = blake2b(digest_size=16)
    here = Path(__file__).parent
    for path in (
        *sorted(here.glob("*.py")),
        here / "image_safe.toml",
        *sorted(here.glob("module/*.py")),
        *sorted(Path(vmkernel_core.__file__).parent.glob("_core*")),
    ):
        content.update(path.read_bytes())
    return content.hexdigest()
