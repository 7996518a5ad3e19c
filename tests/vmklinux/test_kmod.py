"""References to modules, and modules that kernel code asks for. Independent: Debian's own mii.ko."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from vmkernel_core.errors import UsageError
from vmkernel_core.memory import store_bytes
from vmklinux.loader import Loader

if TYPE_CHECKING:
    from vmklinux.linux import Linux


@pytest.fixture
def loader(linux: Linux) -> Iterator[Loader]:
    """The loader of that kernel, empty."""
    loader = Loader(linux)
    yield loader
    while loader.modules:
        assert loader.unload(loader.idle(), forced=True) == []


def test_a_module_that_is_held_stays(linux: Linux, loader: Loader) -> None:
    module = loader.load("mii")
    this = module.base + module.file.this_module.offset
    assert linux.call(linux.entry("try_module_get"), this) == 1
    linux.call(linux.entry("__module_get"), this)
    assert module.references == linux.call_int(linux.entry("module_refcount"), this) == 2
    with pytest.raises(UsageError, match="module mii is in use"):
        loader.unload("mii")
    for _ in range(2):
        linux.call(linux.entry("module_put"), this)
    assert loader.unload("mii") == []


def test_the_image_cannot_be_unloaded(linux: Linux) -> None:
    assert linux.call(linux.entry("try_module_get"), 0) == 1
    linux.call(linux.entry("module_put"), 0)


def test_a_module_that_nobody_holds_goes_first(linux: Linux, loader: Loader) -> None:
    loader.load("mii")
    held = loader.load("mdio")
    linux.call(linux.entry("__module_get"), held.base + held.file.this_module.offset)
    assert loader.idle() == "mii"
    loader.unload("mii")
    assert loader.idle() == "mdio"


def test_kernel_code_asks_for_a_module(linux: Linux, loader: Loader, scratch: int) -> None:
    request = linux.entry("__request_module")
    store_bytes(scratch, b"%s\0mii\0no_such_module\0")
    assert linux.call_int(request, 1, scratch, scratch + 3) == 0
    assert list(loader.modules) == ["mii"]
    assert linux.call_int(request, 1, scratch, scratch + 3) == 0
    assert linux.call_int(request, 1, scratch, scratch + 7) == -errno.ENOENT
