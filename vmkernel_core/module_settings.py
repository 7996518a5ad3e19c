"""The settings (``name=value``) with which modules are loaded."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from vmkernel_core.engine import module_name
from vmkernel_core.errors import UsageError
from vmkernel_core.operator_keys import address_key, module_key

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vmkernel_core.engine import EngineName
    from vmkernel_core.pci import PciFunction


class ModuleSettings:
    """What was given at the start, and what was set since.

    Two engines may have modules of one name: ``e1000`` is either's, ``native:e1000`` that of one.
    """

    def __init__(self, given: Mapping[str, Sequence[str]]) -> None:
        """``given`` by module or by the PCI address of the device that a module is loaded for. UsageError."""
        self._given = {_key(name): checked(name, texts) for name, texts in given.items()}
        self._set: dict[tuple[EngineName, str], tuple[str, ...]] = {}

    def of(self, engine: EngineName, name: str, function: PciFunction | None = None) -> tuple[str, ...]:
        """Those of an engine's module, when it is loaded for a device or for its own sake.

        What was set last counts, else what was given for the device, for this engine's module, for either's.
        """
        name = module_name(name)
        if (last := self._set.get((engine, name))) is not None:
            return last
        keys = (str(function.address) if function else "", f"{engine}:{name}", name)
        return next((self._given[key] for key in keys if key in self._given), ())

    def set(self, engine: EngineName, name: str, texts: Sequence[str]) -> None:
        """Replace them, for every device. UsageError."""
        self._set[engine, module_name(name)] = checked(name, texts)


def split_settings(text: str) -> list[str]:
    """Settings with spaces between them, as a shell takes them apart: ``debug=16 name="two words"``. UsageError."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UsageError(f"cannot read {text!r}: {error}", remedy='write "name=value name=value"') from error


def _key(text: str) -> str:
    key = address_key(text) or module_key(text)
    if key is None:
        raise UsageError(
            f"{text!r} names no module",
            where="settings",
            remedy="write a module (e1000), one engine's (native:e1000, linux:e1000) or the PCI address of a device",
        )
    return key


def checked(name: str, texts: Sequence[str]) -> tuple[str, ...]:
    """The settings of a module; UsageError for a text where a list is wanted."""
    if isinstance(texts, str):  # a sequence of letters
        raise UsageError(
            f"settings are a list of texts, not the text {texts!r}",
            where=name,
            remedy=f"write {texts.split()}",
        )
    return tuple(texts)
