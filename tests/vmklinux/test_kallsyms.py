"""The image's own table of symbols. Independent side: the image's export table, which another part of it holds, and
the code that the symbols name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from vmklinux.kallsyms import Kallsyms, KallsymsError, decode, pack

if TYPE_CHECKING:
    from vmklinux.image import Image


def test_it_agrees_with_the_export_table(image: Image) -> None:
    # One name, acpi_gpe_count, belongs to two symbols.
    other = [name for name, address in image.symbols.items() if image.kallsyms.address(name) != address]
    assert len(image.symbols) > 10_000
    assert len(other) <= 1


def test_it_finds_what_is_not_exported(image: Image) -> None:
    assert "radix_tree_node_cachep" not in image.symbols
    place = image.kallsyms.address("radix_tree_node_cachep")
    assert place is not None
    assert image.base < place < image.base + image.size
    assert image.kallsyms.address("no_such_symbol") is None


def test_an_address_belongs_to_the_symbol_before_it(image: Image) -> None:
    start = image.symbols["vsnprintf"]
    assert image.kallsyms.around(start) == image.kallsyms.around(start + 5) == ("vsnprintf", start)
    assert image.kallsyms.around(start - 1) != ("vsnprintf", start)


def test_names_by_their_beginning() -> None:
    symbols = Kallsyms(pack({"b": 3, "abc": 1, "abd": 2, "ac": 9}))
    assert symbols.beginning("ab") == ["abc", "abd"]
    assert symbols.beginning("x") == []
    assert symbols.around(5) == ("b", 3)
    assert symbols.around(0) is None


def test_an_image_without_the_table_says_so() -> None:
    with pytest.raises(KallsymsError):
        decode(bytes(1 << 16), 0x41000000)
