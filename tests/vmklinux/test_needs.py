"""What modules need, and that what is kept of it is never stale.

Independent side: Debian's modules, and ``vmk module check``'s linking of them without a cache.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from vmklinux import needs
from vmklinux.kernels import Kernel
from vmklinux.needs import Needs
from vmklinux.resolve import check


@pytest.fixture
def some(kernel: Kernel, tmp_path: Path) -> Kernel:
    """The kernel with two modules only, one of which depends on the other, in a directory that can be changed."""
    modules = tmp_path / "modules"
    for name in ("mii", "8139cp"):
        file = kernel.find_module(name)
        copy = modules / file.relative_to(kernel.modules)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())
    return replace(kernel, modules=modules)


class Looks:
    """Counts how often modules are looked at."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        look = Needs._look

        def counted(self_: Needs, name: str, own: Path) -> needs.Need:
            self.count += 1
            return look(self_, name, own)

        monkeypatch.setattr(Needs, "_look", counted)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    return Looks(monkeypatch)


def fresh(kernel: Kernel) -> Kernel:
    """The same without what it remembers in memory."""
    return replace(kernel)


@pytest.mark.parametrize("module", ["e1000", "nvme", "virtio_blk", "bnx2"])
def test_it_says_what_module_check_says(kernel: Kernel, tmp_path: Path, module: str) -> None:
    found = Needs(kernel, tmp_path)
    need = found.of(module)
    assert need is not None
    report = check(kernel.find_module(module), kernel, found._image)
    lacking = {module: report.unresolved} | report.dependencies
    assert need.unserved == {name: tuple(names) for name, names in lacking.items() if names}
    assert (found.obstacle(module) == "") is report.resolved
    assert set(need.files) == {module, *report.dependencies}


def test_an_obstacle_names_some_of_many(kernel: Kernel, tmp_path: Path) -> None:
    text = Needs(kernel, tmp_path).obstacle("virtio_blk")
    assert text.startswith("virtio_blk needs ")
    assert text.endswith(" …")
    assert "functions that nobody serves: " in text


def test_what_is_built_in_needs_nothing_and_what_is_not_there_is_told(
    kernel612: Kernel, tmp_path: Path
) -> None:
    found = Needs(kernel612, tmp_path)
    assert found.of("virtio_pci") == needs.Need()
    assert found.of("no_such_module") is None
    assert found.obstacle("no_such_module") == ""


def test_firmware_files(kernel61: Kernel, tmp_path: Path) -> None:
    need = Needs(kernel61, tmp_path).of("bnx2")
    assert need is not None
    assert any(name.startswith("bnx2/") for name in need.firmware)


def test_it_is_kept(some: Kernel, tmp_path: Path, looks: Looks) -> None:
    first = Needs(some, tmp_path).of("8139cp")
    assert Needs(fresh(some), tmp_path).of("8139cp") == first
    assert looks.count == 1
    assert first is not None
    assert set(first.files) == {"8139cp", "mii"}


@pytest.mark.parametrize("changed", ["8139cp", "mii"])
def test_a_changed_module_is_looked_at_again(
    some: Kernel, tmp_path: Path, looks: Looks, changed: str
) -> None:
    Needs(some, tmp_path).of("8139cp")
    os.utime(some.find_module(changed), (1, 1))
    Needs(fresh(some), tmp_path).of("8139cp")
    assert looks.count == 2


def test_one_that_the_owner_added_is_looked_at(some: Kernel, tmp_path: Path, looks: Looks) -> None:
    Needs(some, tmp_path).of("8139cp")
    added = some.modules / "updates" / some.find_module("mii").name
    added.parent.mkdir()
    added.write_bytes(some.find_module("mii").read_bytes())
    Needs(fresh(some), tmp_path).of("8139cp")
    assert looks.count == 2


def test_another_version_of_what_is_served_counts_anew(
    some: Kernel, tmp_path: Path, looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    Needs(some, tmp_path).of("8139cp")
    monkeypatch.setattr(needs, "_what_is_served", lambda: "another")
    Needs(some, tmp_path).of("8139cp")
    assert looks.count == 2


@pytest.mark.parametrize("content", [b"", b"no such file"])
def test_a_damaged_file_is_made_again(some: Kernel, tmp_path: Path, looks: Looks, content: bytes) -> None:
    Needs(some, tmp_path).of("8139cp")
    (file,) = tmp_path.glob("*.needs")
    file.write_bytes(content)
    assert Needs(some, tmp_path).of("8139cp") == Needs(some, tmp_path).of("8139cp")
    assert looks.count == 2


def test_two_that_look_at_once_keep_both(some: Kernel, tmp_path: Path, looks: Looks) -> None:
    one, other = Needs(some, tmp_path), Needs(fresh(some), tmp_path)
    one.of("8139cp")
    other.of("mii")
    third = Needs(fresh(some), tmp_path)
    third.of("8139cp")
    third.of("mii")
    assert looks.count == 2


def test_without_a_place_to_keep_it(some: Kernel, looks: Looks) -> None:
    for _ in range(2):
        assert Needs(some, Path("/proc/nowhere")).obstacle("8139cp") == ""
    assert looks.count == 2


def test_a_module_of_another_kernel(
    some: Kernel, kernel61: Kernel, kernel612: Kernel, tmp_path: Path
) -> None:
    other = kernel612 if some.release == kernel61.release else kernel61
    file = some.find_module("8139cp")
    file.unlink()
    theirs = other.find_module("8139cp")
    (file.parent / theirs.name).write_bytes(theirs.read_bytes())
    found = Needs(fresh(some), tmp_path)
    assert other.release in found.obstacle("8139cp")
    assert not list(tmp_path.glob("*.needs")), "what is wrong with it may be mended elsewhere"
