"""The reviewed list of what of the kernel image may be used as it is (image_safe.toml)."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import msgspec


class Group(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Symbols that may be used as they are, all for the same reason."""

    reason: str
    symbols: list[str]


@cache
def image_safe_groups() -> dict[str, Group]:
    """The groups by name."""
    return msgspec.toml.decode((files("vmklinux") / "image_safe.toml").read_text(), type=dict[str, Group])


@cache
def image_safe() -> dict[str, str]:
    """Symbol name to the group whose reason covers it."""
    return {symbol: name for name, group in image_safe_groups().items() for symbol in group.symbols}
