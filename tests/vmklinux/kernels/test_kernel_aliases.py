"""Which modules claim a device, by the aliases that they carry.

Independent side: kmod's depmod and modprobe on the same module files, glibc's fnmatch, Debian's modules themselves.
"""

from __future__ import annotations

import ctypes
import json
import random
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from vmklinux.kernels import Kernel
from vmklinux.kernels.aliases import DIRECTORIES, read_aliases
from vmklinux.kernels.cache import kernel_at
from vmklinux.kernels.console import kernel as commands
from vmklinux.kernels.modalias import Alias, Aliases

RTL8139 = "pci:v000010ECd00008139sv00001AF4sd00001100bc02sc00i00"


@pytest.fixture(scope="module")
def depmod(kernel: Kernel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root directory with those modules that the index covers, and the files that depmod makes of them."""
    root = tmp_path_factory.mktemp("depmod")
    modules = root / "lib/modules" / kernel.release
    for top in DIRECTORIES:
        if (kernel.modules / top).is_dir():
            (modules / top).parent.mkdir(parents=True, exist_ok=True)
            (modules / top).symlink_to(kernel.modules / top)
    for name in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
        shutil.copy(kernel.modules / name, modules)
    subprocess.run(["/sbin/depmod", "-b", root, kernel.release], check=True, timeout=120)
    return root


def by_depmod(root: Path, release: str) -> list[tuple[str, str]]:
    lines = (root / "lib/modules" / release / "modules.alias").read_text().splitlines()
    return [(pattern, module) for _, pattern, module in (line.split() for line in lines if line[0] != "#")]


def by_modprobe(root: Path, release: str, modalias: str) -> list[str]:
    command = ["/sbin/modprobe", "-d", str(root), "-S", release, "--resolve-alias", modalias]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout.split()


def concrete(pattern: str, chance: random.Random) -> str:
    """A modalias that the pattern was made for, with made-up ids where it takes any."""
    return "".join(f"{chance.randrange(1 << 16):08X}" if one == "*" else one for one in pattern)


def test_it_claims_what_depmod_and_modprobe_say(kernel: Kernel, depmod: Path, tmp_path: Path) -> None:
    aliases = read_aliases(kernel, tmp_path)
    theirs = by_depmod(depmod, kernel.release)
    assert len(theirs) > 7000
    chance = random.Random(8139)
    pci = [pattern for pattern, _ in theirs if pattern.startswith("pci:")]
    asked = [concrete(pattern, chance) for pattern in chance.sample(pci, 60)]
    asked += [
        RTL8139,
        "virtio:d00000001v00001AF4",
        "mdio:0000000101000001000011001100" + "0001",
        "pci:none",
        "net-pf-16-proto-16-family-wireguard",
    ]
    for modalias in asked:
        ours = [alias.module for alias in aliases.matching(modalias) if not alias.builtin]
        assert set(ours) == set(by_modprobe(depmod, kernel.release, modalias)), modalias
    for pattern, module in theirs:
        if "[" not in pattern:
            assert module in [
                alias.module for alias in aliases.matching(pattern.replace("*", "0").replace("?", "0"))
            ]


def test_who_says_more_comes_first_then_the_order_of_the_build(kernel: Kernel, depmod: Path) -> None:
    assert kernel.claimants(RTL8139) == ("8139cp", "8139too")
    assert by_modprobe(depmod, kernel.release, RTL8139) == ["8139cp", "8139too"]
    ahci = "pci:v0000197Bd00002360sv00000000sd00000000bc01sc06i01"
    patterns = [alias.pattern for alias in kernel.aliases.matching(ahci)]
    assert patterns == ["pci:v0000197Bd*sv*sd*bc01sc06i01*"]
    ide = "pci:v0000197Bd00002368sv00000000sd00000000bc01sc01i85"
    assert kernel.claimants(ide)[-1] == "ata_generic"
    assert set(kernel.claimants(ide)) == {"pata_jmicron", "ata_generic"} | set(kernel.claimants(ide)) & {
        "pata_acpi"
    }


def test_what_is_built_in_claims_what_its_module_does(kernel61: Kernel, kernel612: Kernel) -> None:
    """6.1 has virtio_pci as a module, whose own alias is what BUILT_IN says of it for 6.12."""
    card = "pci:v00001AF4d00001041sv00001AF4sd00001100bc02sc00i00"
    (module,), (builtin,) = kernel61.aliases.matching(card), kernel612.aliases.matching(card)
    assert (module.module, module.builtin) == ("virtio_pci", False)
    assert (builtin.module, builtin.builtin) == ("virtio_pci", True)
    assert builtin.pattern == module.pattern
    assert kernel612.claimants("fs-virtiofs") == ("virtiofs",)


_libc = ctypes.CDLL(None)
pieces = st.lists(st.sampled_from(["*", "?", "[0-2]", "a", "0", "1", "-", "_", "ab"]), max_size=8).map(
    "".join
)


@given(pieces, st.text("ab012-_", max_size=8))
def test_patterns_mean_what_fnmatch_says(pattern: str, name: str) -> None:
    """As modprobe does, with ``-`` and ``_`` alike outside of brackets."""
    plain = "".join(
        part.replace("-", "_") if not part.startswith("[") else part
        for part in pattern.replace("[0-2]", "\0[0-2]\0").split("\0")
    )
    expected = _libc.fnmatch(plain.encode(), name.replace("-", "_").encode(), 0) == 0
    assert Alias(pattern, "m").fits(name) == expected
    assert [one.module for one in Aliases.of([Alias(pattern, "m")]).matching(name)] == ["m"] * expected


@pytest.fixture
def small(kernel61: Kernel, tmp_path: Path) -> Kernel:
    """A kernel with two modules and nothing more."""
    release = kernel61.release
    modules = tmp_path / "root/lib/modules" / release
    for name in ("8139cp", "8139too"):
        file = kernel61.find_module(name)
        place = modules / file.relative_to(kernel61.modules)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, place)
    return kernel_at(tmp_path / "root", release)


def test_it_is_kept_and_never_stale(small: Kernel, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def claimants() -> list[str]:
        return [alias.module for alias in read_aliases(small, tmp_path / "kept").matching(RTL8139)]

    assert claimants() == ["8139cp", "8139too"]
    (kept,) = (tmp_path / "kept").iterdir()
    written = kept.stat().st_mtime_ns
    assert claimants() == ["8139cp", "8139too"]
    assert kept.stat().st_mtime_ns == written
    (small.modules / "modules.order").write_text("kernel/b/8139too.ko\nkernel/a/8139cp.ko\n")
    assert claimants() == ["8139too", "8139cp"]
    added = small.modules / "updates/dkms/8139too.ko"
    added.parent.mkdir(parents=True)
    added.write_bytes(b"no module")
    assert claimants() == ["8139cp"]
    assert "no aliases of" in caplog.text
    added.unlink()
    next(small.modules.rglob("8139cp.ko")).unlink()
    assert claimants() == ["8139too"]
    kept.write_bytes(kept.read_bytes()[:-1])
    assert claimants() == ["8139too"]
    assert list((tmp_path / "kept").iterdir()) == [kept]


def test_a_cache_that_cannot_be_written(small: Kernel, tmp_path: Path) -> None:
    place = tmp_path / "a file"
    place.write_text("")
    assert [alias.module for alias in read_aliases(small, place).matching(RTL8139)] == ["8139cp", "8139too"]
    assert place.read_text() == ""


def test_a_look_up_is_quick(kernel: Kernel) -> None:
    """One for each device of a machine; the limit leaves room for a busy machine; usual is about 0.1 ms."""
    kernel.claimants(RTL8139)
    count = 500
    began = time.process_time()
    for _ in range(count):
        kernel.claimants(RTL8139)
    assert (time.process_time() - began) / count < 500e-6


def test_the_command(kernel612: Kernel) -> None:
    def run(*arguments: str) -> str:
        result = CliRunner().invoke(commands, ["aliases", *arguments, "--kernel", kernel612.release])
        assert result.exit_code == 0, result.output
        return result.output

    assert run("10EC:8139").split() == [
        "8139cp", "pci:v000010ECd00008139sv*sd*bc*sc*i*", "8139too", "pci:v000010ECd00008139sv*sd*bc*sc*i*",
    ]  # fmt: skip
    assert run("1af4:1041") == "virtio_pci (built in)  pci:v00001AF4d*sv*sd*bc*sc*i*\n"
    assert json.loads(run("virtio:d00000001v00001AF4", "--json")) == [
        {"pattern": "virtio:d00000001v*", "module": "virtio_net", "builtin": False}
    ]
    assert run("0000:0001") == f"no module of {kernel612.release} claims 0000:0001\n"
    wrong = CliRunner().invoke(commands, ["aliases", "8139"])
    assert "neither a PCI id nor a modalias" in str(wrong.exception)
