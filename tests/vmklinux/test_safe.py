"""The reviewed list of the kernel image (image_safe.toml). Independent side: none, it is our list."""

from __future__ import annotations

from collections import Counter

from vmklinux.safe import image_safe_groups


def test_each_symbol_is_listed_once_and_for_a_reason() -> None:
    groups = image_safe_groups()
    listed = Counter(symbol for group in groups.values() for symbol in group.symbols)
    assert [symbol for symbol, times in listed.items() if times > 1] == []
    assert [name for name, group in groups.items() if not group.reason.endswith(".")] == []
