"""Which kernels are found, and what is found in them.

Independent side: none; the trees are made up here, and test_kernel_real.py looks at Debian's own.
"""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.vmklinux.kernels.kernel_trees import ELF, plant, vmlinuz
from vmklinux.kernels import ModuleNotFound, NoKernel, cache_dir, find, kernels
from vmklinux.kernels.cache import kernel_at

OLD, NEW, SERIES_612 = "6.1.0-9-amd64", "6.1.0-56-amd64", "6.12.107+deb13-amd64"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "cache"
    monkeypatch.setenv("VMK_KERNELS", str(path))
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "root"
    path.mkdir()
    return path


def test_the_cache_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.delenv("VMK_KERNELS", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_dir() == Path("/home/someone/.cache/vmklinux/kernels")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/tmp/x")
    assert cache_dir() == Path("/var/tmp/x/vmklinux/kernels")
    monkeypatch.setenv("VMK_KERNELS", "/srv/kernels")
    assert cache_dir() == Path("/srv/kernels")


def test_cached_and_host_kernels_newest_first(cache: Path, root: Path) -> None:
    plant(cache / OLD, OLD)
    plant(cache / SERIES_612, SERIES_612, modules_in="usr/lib/modules")
    plant(root, NEW)
    (cache / ".fetch-leftover").mkdir()
    found = kernels(root)
    assert [(kernel.release, kernel.path) for kernel in found] == [
        (SERIES_612, cache / SERIES_612),
        (NEW, root),
        (OLD, cache / OLD),
    ]
    assert all(kernel.usable and kernel.reason == "" for kernel in found)
    assert found[0].modules == cache / SERIES_612 / "usr/lib/modules" / SERIES_612


def test_nothing_at_all(cache: Path, root: Path) -> None:
    assert kernels(root) == []
    with pytest.raises(NoKernel) as caught:
        find(root=root)
    assert caught.value.remedy == "run: vmk kernel fetch 6.1"


def test_a_vmlinuz_beside_its_modules(root: Path) -> None:
    plant(root, NEW, modules_in="usr/lib/modules")
    beside = root / "usr/lib/modules" / NEW / "vmlinuz"
    (root / "boot" / f"vmlinuz-{NEW}").rename(beside)
    kernel = kernel_at(root, NEW)
    assert (kernel.usable, kernel.vmlinuz) == (True, beside)


def test_why_a_kernel_cannot_be_used(cache: Path, root: Path) -> None:
    plant(root, "1-no-image")
    (root / "boot/vmlinuz-1-no-image").unlink()
    plant(root, "2-bad-image")
    (root / "boot/vmlinuz-2-bad-image").write_bytes(vmlinuz()[:700])
    (root / "boot/vmlinuz-3-no-modules").write_bytes(vmlinuz())
    plant(root, "4-no-btf", config="CONFIG_X86=y\n# CONFIG_DEBUG_INFO_BTF is not set\n")
    plant(root, "5-good", config="CONFIG_X86=y\nCONFIG_DEBUG_INFO_BTF=y\n")
    plant(root, "6-directory")
    (root / "boot/vmlinuz-6-directory").unlink()
    (root / "boot/vmlinuz-6-directory").mkdir()
    reasons = {kernel.release: kernel.reason for kernel in kernels(root)}
    assert reasons == {
        "1-no-image": f"there is no {root}/boot/vmlinuz-1-no-image",
        "2-bad-image": "vmlinuz is truncated",
        "3-no-modules": f"there is no {root}/lib/modules/3-no-modules",
        "4-no-btf": "built without BTF type information (CONFIG_DEBUG_INFO_BTF)",
        "5-good": "",
        "6-directory": f"{root}/boot/vmlinuz-6-directory cannot be read: Is a directory",
    }


def test_a_vmlinuz_for_root_only(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(root, NEW)
    image = root / "boot" / f"vmlinuz-{NEW}"
    image.chmod(0)
    if os.geteuid() == 0:  # root reads everything: have the kernel's answer to others instead
        path_open = Path.open

        def refuse(path: Path, mode: str = "r") -> object:
            if not stat.S_IMODE(path.stat().st_mode):
                raise PermissionError(13, "Permission denied", str(path))
            return path_open(path, mode)

        monkeypatch.setattr(Path, "open", refuse)
    assert kernel_at(root, NEW).reason == f"{image} may be read by root only"


def test_find_takes_the_newest_usable_match(cache: Path, root: Path) -> None:
    for release in (OLD, NEW, SERIES_612):
        plant(cache / release, release)
    assert find("6.1", root).release == NEW
    assert find("6.1.0-9", root).release == OLD
    assert find("6.12", root).release == SERIES_612
    assert find("6", root).release == SERIES_612
    (cache / NEW / "boot" / f"vmlinuz-{NEW}").unlink()
    assert find("6.1", root).release == OLD


def test_find_without_a_wish_prefers_the_default_series(cache: Path, root: Path) -> None:
    plant(cache / SERIES_612, SERIES_612)
    assert find(root=root).release == SERIES_612
    plant(root, OLD)
    assert find(root=root).release == OLD


def test_no_match_names_the_command_that_brings_one(cache: Path, root: Path) -> None:
    plant(cache / SERIES_612, SERIES_612)
    with pytest.raises(NoKernel) as caught:
        find("6.1", root)
    assert caught.value.remedy == "run: vmk kernel fetch 6.1"
    assert str(cache) in caught.value.where


def test_an_unusable_match_says_why(cache: Path, root: Path) -> None:
    plant(cache / NEW, NEW)
    (cache / NEW / "boot" / f"vmlinuz-{NEW}").write_bytes(b"")
    with pytest.raises(NoKernel, match=rf"{NEW} cannot be used: vmlinuz is not an x86 boot image"):
        find("6.1", root)


def test_modules_are_found_by_name(root: Path) -> None:
    modules = plant(root, NEW)
    kernel = kernel_at(root, NEW)
    spi = modules / "kernel/drivers/scsi/scsi_transport_spi.ko"
    assert kernel.find_module("scsi_transport_spi") == kernel.find_module("scsi-transport-spi") == spi


@pytest.mark.parametrize("suffix", [".ko", ".ko.xz", ".ko.gz", ".ko.zst"])
def test_every_module_suffix_is_known(root: Path, suffix: str) -> None:
    path = plant(root, NEW) / "kernel" / f"dummy-driver{suffix}"
    path.write_bytes(ELF)
    assert kernel_at(root, NEW).find_module("dummy_driver") == path


@pytest.mark.parametrize("place", ["updates/dkms", "extra"])
def test_an_added_module_wins_over_the_kernels_own(root: Path, place: str) -> None:
    added = plant(root, NEW) / place / "e1000.ko"
    added.parent.mkdir(parents=True)
    added.write_bytes(ELF)
    assert kernel_at(root, NEW).find_module("e1000") == added


def test_an_absent_module_names_kernel_and_remedy(root: Path) -> None:
    plant(root, NEW)
    kernel = kernel_at(root, NEW)
    with pytest.raises(ModuleNotFound, match=rf"{NEW} has no module e100 .*did you mean e1000\?"):
        kernel.find_module("e100")
    with pytest.raises(ModuleNotFound, match="vmk kernel list"):
        kernel.find_module("zzzzzz")


def test_a_builtin_module_is_told(root: Path) -> None:
    modules = plant(root, NEW)
    with pytest.raises(ModuleNotFound, match="8250 is built into kernel"):
        kernel_at(root, NEW).find_module("8250")
    assert kernel_at(root, NEW).file_of("8250") == root / "boot" / f"vmlinuz-{NEW}"
    assert kernel_at(root, NEW).file_of("e1000") == kernel_at(root, NEW).find_module("e1000")
    (modules / "modules.builtin").unlink()
    with pytest.raises(ModuleNotFound, match="has no module 8250"):
        kernel_at(root, NEW).find_module("8250")


def test_modules_under_a_directory(root: Path) -> None:
    modules = plant(root, NEW)
    kernel = kernel_at(root, NEW)
    e1000 = modules / "kernel/drivers/net/ethernet/intel/e1000/e1000.ko"
    assert kernel.modules_under("drivers/net/ethernet") == [e1000]
    assert len(kernel.modules_under("drivers")) == 2
    assert kernel.modules_under("drivers/net/eth") == []


def test_the_package_starts_without_its_heavy_parts() -> None:
    heavy = "{'subprocess', 'tarfile', 'zstandard', 'lzma', 'rich', 'click'}"
    program = f"import sys, vmklinux.kernels; print(sorted({heavy} & set(sys.modules)))"
    answer = subprocess.run(
        [sys.executable, "-S", "-c", program],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={"PYTHONPATH": str(Path(__file__).parents[3])},
    )
    assert answer.stdout.strip() == "[]"
