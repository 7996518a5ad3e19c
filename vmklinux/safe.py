"""The reviewed list of what of the kernel image may be used as it is (image_safe.toml)."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files


@cache
def image_safe() -> dict[str, str]:
    """Symbol name to the group whose reason covers it."""
    groups = tomllib.loads((files("vmklinux") / "image_safe.toml").read_text())
    return {symbol: group for group, entry in groups.items() for symbol in entry["symbols"]}
