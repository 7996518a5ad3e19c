"""The tree of resources, on both kernels. Independent: the image's own roots and
struct resource; the rules are Linux's."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from vmklinux.kobject import Obj
from vmklinux.linux import Linux
from vmklinux.resource import IORESOURCE_IO, IORESOURCE_MEM, Resources, children

BUS = 0xC000_0000


@pytest.fixture
def request_region(linux: Linux) -> Callable[[int, int, int], int]:
    """__request_region in a tree, as a driver calls it."""
    return lambda kind, start, size: linux.call(
        linux.entry("__request_region"), linux.state(Resources).root(kind), start, size, 0, 0
    )


def spans(linux: Linux, kind: int) -> list[tuple[int, int]]:
    return [(child.start, child.end) for child in children(linux.state(Resources).root(kind))]


def release(linux: Linux, kind: int, start: int, size: int) -> None:
    linux.call(linux.entry("__release_region"), linux.state(Resources).root(kind), start, size)


def test_regions_are_kept_in_order_and_do_not_overlap(
    linux: Linux, request_region: Callable[[int, int, int], int]
) -> None:
    regions = [(0x300, 16), (0x100, 16), (0x200, 16)]
    assert all(request_region(IORESOURCE_IO, *region) for region in regions)
    assert spans(linux, IORESOURCE_IO) == [(start, start + 15) for start in (0x100, 0x200, 0x300)]
    for start, size in ((0x200, 16), (0x20F, 1), (0x1F8, 16), (0x180, 0x200), (0xFFF8, 16), (0x10000, 4)):
        assert request_region(IORESOURCE_IO, start, size) == 0, f"{start:#x}"
    release(linux, IORESOURCE_IO, 0x200, 16)
    assert request_region(IORESOURCE_IO, 0x204, 4)
    for region in [(0x300, 16), (0x100, 16), (0x204, 4)]:
        release(linux, IORESOURCE_IO, *region)
    assert spans(linux, IORESOURCE_IO) == []


def test_a_region_goes_below_what_is_not_busy(
    linux: Linux, request_region: Callable[[int, int, int], int]
) -> None:
    root = linux.state(Resources).root(IORESOURCE_MEM)
    window = linux.new("resource")
    window.start, window.end, window.flags = BUS, BUS + 0xFFFF, IORESOURCE_MEM
    assert linux.call_int(linux.entry("request_resource"), root, window) == 0
    inner = Obj(linux.types, "resource", request_region(IORESOURCE_MEM, BUS + 0x1000, 0x1000))
    assert inner.parent == window
    assert (inner.start, inner.end) == (BUS + 0x1000, BUS + 0x1FFF)
    assert request_region(IORESOURCE_MEM, BUS + 0x1800, 16) == 0
    release(linux, IORESOURCE_MEM, BUS + 0x1000, 0x1000)
    assert list(children(window)) == []
    assert linux.call_int(linux.entry("release_resource"), window) == 0
    assert linux.call_int(linux.entry("release_resource"), window) < 0
    linux.free(window)


def test_what_is_not_given_back_is_found(
    linux: Linux, request_region: Callable[[int, int, int], int], caplog: pytest.LogCaptureFixture
) -> None:
    resources = linux.state(Resources)
    assert request_region(IORESOURCE_IO, 0x400, 8)
    (left,) = resources.owned(0, 1 << 32)
    assert (left.start, left.end) == (0x400, 0x407)
    release(linux, IORESOURCE_IO, 0x400, 4)
    assert "nobody has reserved 0x400 to 0x403" in caplog.text
    resources.release(left)
    assert (resources.owned(0, 1 << 32), spans(linux, IORESOURCE_IO)) == ([], [])
