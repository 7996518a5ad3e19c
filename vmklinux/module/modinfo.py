"""What a module says about itself in .modinfo, and whether it fits the kernel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vmklinux.module.errors import CorruptModule, SymbolVersionMismatch, WrongKernel

if TYPE_CHECKING:
    from vmklinux.module.elf import ModuleFile


@dataclass(frozen=True, slots=True)
class ModInfo:
    """The keys of .modinfo (MODULE_INFO of include/linux/module.h); absent text is empty.

    ``parameters`` maps a parameter's name to its description, ``parameter_types`` to its declared type.
    """

    name: str
    license: str
    version: str
    description: str
    vermagic: str
    depends: tuple[str, ...]
    aliases: tuple[str, ...]
    firmware: tuple[str, ...]
    import_ns: tuple[str, ...]
    parameters: Mapping[str, str]
    parameter_types: Mapping[str, str]

    @classmethod
    def parse(cls, content: bytes) -> ModInfo:
        """Read ``key=value`` strings with a NUL after each; what is not of that form says nothing."""
        values: dict[str, list[str]] = {}
        for entry in content.split(b"\0"):
            key, _, value = entry.decode("utf-8", "replace").partition("=")
            values.setdefault(key, []).append(value)

        def last(key: str) -> str:
            return values.get(key, [""])[-1]

        def pairs(key: str) -> dict[str, str]:
            split = (value.partition(":") for value in values.get(key, []))
            return {name: text for name, _, text in split}

        return cls(
            name=last("name"),
            license=last("license"),
            version=last("version"),
            description=last("description"),
            vermagic=last("vermagic"),
            depends=tuple(name.replace("-", "_") for name in last("depends").split(",") if name),
            aliases=tuple(values.get("alias", ())),
            firmware=tuple(values.get("firmware", ())),
            import_ns=tuple(values.get("import_ns", ())),
            parameters=pairs("parm"),
            parameter_types=pairs("parmtype"),
        )

    @property
    def built_for(self) -> str:
        """The kernel release that the module was built for: the first word of its vermagic."""
        return self.vermagic.partition(" ")[0]


def check_vermagic(module: ModuleFile, release: str) -> None:
    """Raise WrongKernel unless the module was built for exactly this kernel release.

    Linux lets the release differ when symbol versions are on; here struct layouts come from the kernel's BTF,
    so the two belong together. Raises CorruptModule when the module does not say.
    """
    if not module.info.built_for:
        raise CorruptModule(module.name, "does not say which kernel it is for", where=".modinfo")
    if module.info.built_for != release:
        raise WrongKernel(module.name, module.info.built_for, release)


def check_versions(module: ModuleFile, crc_of: Callable[[str], int | None]) -> None:
    """Raise SymbolVersionMismatch when a symbol's CRC differs from the one the module was compiled against.

    ``crc_of`` looks up a symbol's CRC, None when it has none. ``module_layout`` is among the symbols: its CRC
    stands for ``struct module`` and its like.
    """
    found = ((name, wanted, crc_of(name)) for name, wanted in module.versions.items())
    wrong = {name: (wanted, crc) for name, wanted, crc in found if crc is not None and crc != wanted}
    if wrong:
        raise SymbolVersionMismatch(module.name, wrong)
