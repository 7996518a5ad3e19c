"""What a site lays over the list: it wins, says so, and is refused with its line where it cannot be.

Independent side: ``nearest`` below tries every entry by the definition; the devices are QEMU's and real ones, and which
of them a module claims is said by Debian's modules.
"""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hcl
from hcl.console.kernel import Modules
from hcl.errors import RegistryError
from hcl.fleet import Terms
from hcl.inventory import PciDevice
from hcl.judging import Judge
from hcl.overlay import Entry, Overlay, Placed
from hcl.reading import DRIVERS, installed, read, read_overlay
from hcl.registry import Registry
from hcl.site import Site
from hcl.verdict import Rung, Status, Verdict
from vmklinux import kernels

E1000 = (0x8086, 0x100E, 0x1AF4, 0x1100)
NIC = PciDevice(
    address="0000:02:00.0", vendor="8086", device="100e", subvendor="1af4", subdevice="1100", pci_class="020000",
    firmware="3.2",
)  # fmt: skip


def over(folder: Path, text: str) -> Registry:
    """The shipped list, without evidence, with this overlay; the first entry stands in line 1."""
    path = folder / "site.toml"
    path.write_text(text)
    return read(DRIVERS, overlays=[read_overlay([path])])


def e1000(registry: Registry, kernel: str = "6.1") -> Verdict:
    return registry.lookup(*E1000, 0x020000, kernel=kernel)


def test_a_device_is_refused_with_the_reason(tmp_path: Path) -> None:
    text = '[[device]]\nids = "8086:100e"\nstatus = "unsupported"\nreason = "it burnt in rack 7"\n'
    verdict = e1000(over(tmp_path, text))
    where = f"{tmp_path / 'site.toml'}:1"
    assert (verdict.status, verdict.rung, verdict.overlay) == (Status.UNSUPPORTED, Rung.VENDOR_DEVICE, where)
    assert (
        verdict.reason
        == f"8086:100e is unsupported by the overlay {where} (vendor and device): it burnt in rack 7."
    )
    assert (verdict.driver, verdict.module, verdict.proof) == ("net/e1000", "e1000", None)
    assert [(each.driver, each.reason) for each in verdict.losers] == [
        ("net/e1000", f"the overlay {where} goes before the list")
    ]


def test_a_device_that_nobody_listed_is_added(tmp_path: Path) -> None:
    text = (
        '[[device]]\nids = "dead:beef"\nsubsystem = "dead:*"\nmodule = "e1000e"\nreason = "it is an 82574L"\n'
    )
    registry = over(tmp_path, text)
    verdict = registry.lookup(0xDEAD, 0xBEEF, 0xDEAD, 7, 0x020000)
    assert (verdict.module, verdict.driver, verdict.status) == ("e1000e", None, Status.UNKNOWN)
    assert verdict.reason == (
        f"dead:beef is e1000e's by the overlay {tmp_path / 'site.toml'}:1 (vendor and device);"
        " e1000e serves it in Linux 6.1: it is an 82574L."
    )
    assert registry.lookup(0xDEAD, 0xBEEF, 0xDEAF, 7, 0x020000).rung is Rung.UNKNOWN
    assert (0xDEAD, 0xFFFF) in registry.told_apart(0xDEAD, 0xBEEF)[0]


def test_another_module_is_as_good_as_it_is_known_to_be(tmp_path: Path) -> None:
    entry = '[[device]]\nids = "8086:100e"\nmodule = "igb"\n'
    assert e1000(over(tmp_path, entry)).status is Status.UNKNOWN
    verdict = e1000(over(tmp_path, entry + 'status = "compatible"\nevidence = "runs in rack 8"\n'))
    assert (verdict.module, verdict.status, verdict.evidence) == (
        "igb", Status.COMPATIBLE, "runs in rack 8",
    )  # fmt: skip
    # The module that the list names stands as the list has it.
    same = e1000(over(tmp_path, '[[device]]\nids = "8086:100e"\nmodule = "e1000"\n'))
    assert (same.status, same.evidence) == (Status.COMPATIBLE, e1000(read(DRIVERS)).evidence)
    # Of what nobody listed, a module's own claim still counts for the one that is chosen among several.
    registry = over(tmp_path, '[[device]]\nids = "dead:beef"\nmodule = "two"\n')
    chosen = registry.lookup(0xDEAD, 0xBEEF, 0, 0, 0x020000, claimants=lambda _: ["one", "two"])
    assert (chosen.module, chosen.status, chosen.claimants) == ("two", Status.COMPATIBLE, ())


def test_another_module_has_no_driver_of_ours_beside_it(tmp_path: Path) -> None:
    assert e1000(over(tmp_path, "")).engines == ("linux", "native")
    assert e1000(over(tmp_path, '[[device]]\nids = "8086:100e"\nmodule = "e100"\n')).engines == ("linux",)
    given = '[[device]]\nids = "1234:5678"\ndriver = "net/e1000"\nmodule = "e1000"\n'
    verdict = over(tmp_path, given).lookup(0x1234, 0x5678, 0, 0, 0x020000)
    assert verdict.engines == ("linux", "native")
    assert verdict.overridden("e1000") == verdict
    assert verdict.overridden("tg3").engines == ("linux",)


def by_python(directory: Path, text: str) -> Verdict:
    return over(directory, text).lookup(0x8086, 0x100E, 0x1AF4, 0x1100, 0x020000, engine="native")


def test_what_a_site_says_of_a_device_holds_for_the_driver_in_python_too(tmp_path: Path) -> None:
    refused = by_python(
        tmp_path, '[[device]]\nids = "8086:100e"\nstatus = "unsupported"\nreason = "it burnt"\n'
    )
    assert (refused.engine, refused.module, refused.status) == ("native", "e1000", Status.UNSUPPORTED)
    assert "it burnt" in refused.reason
    known = by_python(
        tmp_path, '[[device]]\nids = "8086:100e"\nstatus = "unknown"\nlimits = ["no jumbo frames"]\n'
    )
    assert (known.status, known.limits) == (Status.UNKNOWN, ("no jumbo frames",))
    assert known.reason.endswith("; e1000 serves it in Python.")
    given = over(tmp_path, '[[device]]\nids = "1234:5678"\ndriver = "net/e1000"\n')
    verdict = given.lookup(0x1234, 0x5678, 0, 0, 0x020000)
    assert (verdict.engine, verdict.module, verdict.status) == ("native", "e1000", Status.COMPATIBLE)
    assert verdict.evidence == f"the overlay {tmp_path / 'site.toml'}:1 gives it to net/e1000"
    nobodys = over(tmp_path, '[[device]]\nids = "8086:100e"\ndriver = "net/tg3"\n')
    assert nobodys.lookup(0x8086, 0x100E, 0, 0, 0x020000, engine="native").module is None


@pytest.mark.parametrize(
    "entry",
    [
        'module = "igb"',
        'module = "e1000"\nstatus = "unknown"',
        'kernels = ["6.1"]\nstatus = "unsupported"\nreason = "slow"',
    ],
)
def test_what_a_site_says_of_linuxs_modules_says_nothing_of_the_driver_in_python(
    tmp_path: Path, entry: str
) -> None:
    verdict = by_python(tmp_path, f'[[device]]\nids = "8086:100e"\n{entry}\n')
    assert (verdict.module, verdict.status) == ("e1000", Status.COMPATIBLE)


def test_a_site_prefers_an_engine(tmp_path: Path) -> None:
    place = f"{tmp_path / 'site.toml'}:1"
    assert e1000(over(tmp_path, "")).engine == "linux"
    verdict = e1000(over(tmp_path, '[[device]]\nids = "8086:100e"\nengine = "native"\n'))
    assert (verdict.engine, verdict.engines, verdict.overlay) == ("native", ("native", "linux"), place)
    assert verdict.reason == (
        "8086:100e is net/e1000's by vendor and device; e1000 serves it in Python."
        f" The overlay {place} prefers the engine native."
    )
    linux = over(tmp_path, '[[device]]\nids = "8086:100e"\nengine = "native"\n').lookup(
        *E1000, 0x020000, engine="linux"
    )
    assert (linux.engine, linux.engines, linux.status) == ("linux", ("native", "linux"), Status.COMPATIBLE)
    # For some kernels only.
    text = '[[device]]\nids = "8086:100e"\nkernels = ["6.12"]\nengine = "native"\nlimits = ["slow"]\n'
    assert e1000(over(tmp_path, text), "6.1").engine == "linux"
    told = e1000(over(tmp_path, text), "6.12")
    assert (told.engine, told.overlay, told.limits) == ("native", place, ())


def test_an_engine_that_cannot_drive_a_device_is_not_preferred(tmp_path: Path) -> None:
    registry = over(tmp_path, '[[device]]\nids = "14e4:1645"\nengine = "native"\n')
    verdict = registry.lookup(0x14E4, 0x1645, 0, 0, 0x020000)
    assert (verdict.engine, verdict.engines, verdict.module) == ("linux", ("linux",), "tg3")
    assert verdict.reason.endswith("prefers the engine native, which cannot drive it.")


def test_what_is_known_of_a_device_is_added_to_the_list(tmp_path: Path) -> None:
    text = '[[device]]\nids = "8086:100e"\nlimits = ["no jumbo frames in rack 7"]\nfirmware = { minimum = "3.10" }\n'
    registry = over(tmp_path, text)
    verdict, listed = e1000(registry), e1000(read(DRIVERS))
    assert (verdict.status, verdict.rung, verdict.evidence) == (listed.status, listed.rung, listed.evidence)
    assert verdict.limits == ("no jumbo frames in rack 7",)
    assert verdict.reason.endswith(f"The overlay {tmp_path / 'site.toml'}:1 adds known limits and firmware.")
    modules = Modules(kernels.find("6.1"))
    judge = Judge(registry, modules.release, modules)
    old = judge.device(NIC)
    assert (old.firmware.status, old.status) == (Status.UNSUPPORTED, Status.UNSUPPORTED)
    assert old.firmware.reason == "It runs firmware 3.2; 3.10 or later is wanted."
    assert "Known limit: no jumbo frames in rack 7." in old.hardware.reason
    assert (old.limits, old.overlay) == (verdict.limits, f"{tmp_path / 'site.toml'}:1")
    new = judge.device(msgspec.structs.replace(NIC, firmware="3.10.1"))
    assert (new.firmware.status, new.status) == (Status.COMPATIBLE, Status.COMPATIBLE)
    for told, word in ((None, "does not tell"), ("beta", "nobody can tell")):
        untold = msgspec.structs.replace(NIC, firmware=told)
        assert judge.device(untold).status is Status.COMPATIBLE
        assert judge.device(untold).firmware.status is Status.UNKNOWN
        assert word in judge.device(untold).firmware.reason


def test_entries_may_mean_some_kernels(tmp_path: Path) -> None:
    text = (
        '[[device]]\nids = "8086:100e"\nkernels = ["6.12"]\nmodule = "e1000e"\n'
        '[[device]]\nids = "8086:100e"\nlimits = ["slow"]\n'
    )
    registry = over(tmp_path, text)
    assert (e1000(registry).module, e1000(registry).limits) == ("e1000", ("slow",))
    newer = e1000(registry, "6.12.107+deb13-amd64")
    assert (newer.module, newer.limits) == ("e1000e", ())


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ('ids = "8086:100E"\nmodule = "x"', 2, r"device '8086:100E': .*regex .* at `\$\.ids`"),
        ('ids = "8086:*"\nmodule = "x"', 2, "name a class"),
        ('ids = "8086:*"\nclass = "02"\nsubsystem = "8086:0001"\nmodule = "x"', 2, "no subsystem"),
        ('ids = "8086:100e"\nclass = "020"\nmodule = "x"', 2, r"\$\.class"),
        ('ids = "8086:100e"', 2, "it says nothing"),
        (
            'ids = "8086:100e"\nmodule = "e1000"\nengine = "native"',
            2,
            "a module is Linux's: the engine 'native' has",
        ),
        ('ids = "8086:100e"\nengine = "bsd"', 2, "Invalid enum value 'bsd'"),
        ('ids = "8086:100e"\nstatus = "unsupported"', 2, "needs its reason"),
        ('ids = "8086:100e"\nstatus = "compatible"', 2, "needs its evidence"),
        ('ids = "8086:100e"\nstatus = "certified"', 2, "is not declared: certification runs"),
        ('ids = "8086:100e"\nmodul = "x"', 2, "unknown field `modul`"),
        ('ids = "8086:100e"\nfirmware = {}', 2, "a minimum, a file, or both"),
        ('ids = "8086:100e"\ndriver = "net/nobody"', 2, "driver 'net/nobody' is not declared"),
        ("ids = 8086:100e", 3, "not TOML"),
    ],
)
def test_an_entry_that_cannot_be(tmp_path: Path, text: str, line: int, message: str) -> None:
    with pytest.raises(RegistryError, match=message) as caught:
        over(tmp_path, f"# The site's.\n[[device]]\n{text}\n")
    assert caught.value.where == f"{tmp_path / 'site.toml'}:{line}"


def test_entries_that_nothing_decides_between(tmp_path: Path) -> None:
    entry = '[[device]]\nids = "8086:100e"\nmodule = "x"\n'
    with pytest.raises(RegistryError, match="nothing decides between them") as caught:
        over(tmp_path, entry + entry)
    assert caught.value.where == f"{tmp_path / 'site.toml'}:1 and {tmp_path / 'site.toml'}:4"
    named = 'kernels = ["6.1.0-56-amd64"]\n'
    over(tmp_path, f'{entry}{named}{entry}kernels = ["6.12"]\n')
    with pytest.raises(RegistryError, match="nothing decides between them"):
        over(tmp_path, f'{entry}{named}{entry}kernels = ["6.1"]\n')


def test_an_overlay_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="no such overlay"):
        installed(Site(overlays=(tmp_path / "absent.toml",)))


@settings(deadline=None)
@given(st.binary(max_size=120))
def test_rubbish_after_a_sound_overlay_is_refused_or_means_nothing(
    tmp_path_factory: pytest.TempPathFactory, rubbish: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "rubbish.toml"
    path.write_bytes(b'[[device]]\nids = "8086:100e"\nmodule = "x"\n' + rubbish)
    with contextlib.suppress(RegistryError):
        overlay = read_overlay([path])
        assert overlay.entries[0].entry.module == "x"


# ---- the ladder within an overlay ----

NUMBERS = st.sampled_from([1, 2])
CLASSES = st.sampled_from([None, "02", "0200", "020001"])


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    whole = draw(st.booleans())
    device = f"{draw(NUMBERS):04x}" if whole else "*"
    wide = st.sampled_from([None, "0001:*", "0001:0001", "0002:0001"])
    return Entry(
        ids=f"1000:{device}",
        subsystem=draw(wide) if whole else None,
        pci_class=draw(CLASSES if whole else CLASSES.filter(bool)),
        kernels=draw(st.sampled_from([(), ("6.1",), ("6.12",)])),
        module="x",
    )


def nearest(rows: list[Placed], device: tuple[int, int, int, int], code: str, kernel: str) -> str | None:
    """The place of the entry that wins, by trying each."""
    best = []
    for row in rows:
        entry = row.entry
        fields = f"{entry.ids}:{entry.subsystem or '*:*'}".split(":")
        if any(want not in ("*", f"{have:04x}") for want, have in zip(fields, device, strict=True)):
            continue
        if code.startswith(entry.pci_class or "") and (not entry.kernels or kernel in entry.kernels):
            best.append((4 - fields.count("*"), len(entry.pci_class or ""), bool(entry.kernels), row.place))
    return max(best)[-1] if best else None


@settings(deadline=None)
@given(
    st.lists(
        entries(), max_size=10, unique_by=lambda one: (one.ids, one.subsystem, one.pci_class, one.kernels)
    ),
    st.tuples(st.just(0x1000), NUMBERS, NUMBERS, NUMBERS),
    st.sampled_from(["020000", "020001", "028000", "010000"]),
    st.sampled_from(["6.1", "6.12"]),
    st.randoms(use_true_random=False),
)
def test_the_nearest_entry_wins_in_whatever_order(
    some: list[Entry], device: tuple[int, int, int, int], code: str, kernel: str, shuffler: random.Random
) -> None:
    rows = [Placed(entry, f"site.toml:{number}") for number, entry in enumerate(some)]
    shuffled = shuffler.sample(rows, len(rows))
    for each in (rows, shuffled):
        registry = Registry({}, [], ["6.1", "6.12"], {}, overlays=[Overlay(each)])
        verdict = registry.lookup(*device, int(code, 16), kernel=kernel)
        assert verdict.overlay == nearest(rows, device, code, kernel)


# ---- where it comes from ----


def test_it_reaches_the_vmkernels_gate_and_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rack7.toml").write_text('[[device]]\nids = "8086:100e"\nlimits = ["slow"]\n')
    (tmp_path / "notes.txt").write_text("no overlay")
    assert hcl.lookup(*E1000, 0x020000).overlay is None
    monkeypatch.setenv("VMK_HCL", str(tmp_path))
    assert hcl.lookup(*E1000, 0x020000).overlay == f"{tmp_path / 'rack7.toml'}:1"
    # A slip in its name does not let through what the site refuses.
    monkeypatch.setenv("VMK_HCL", str(tmp_path / "absent"))
    with pytest.raises(RegistryError, match="cannot read the site's directory"):
        hcl.lookup(*E1000, 0x020000)
    monkeypatch.setenv("VMK_HCL", "")
    terms = Terms("6.1", site=Site(overlays=(tmp_path,)))
    assert terms.judge().device(NIC).limits == ("slow",)


def test_it_reaches_validate(tmp_path: Path) -> None:
    (tmp_path / "lspci.txt").write_text("02:00.0 0200: 8086:100e\n")
    (tmp_path / "site.toml").write_text(
        '[[device]]\nids = "8086:100e"\nstatus = "unsupported"\nreason = "it burnt"\n'
    )
    command = [sys.executable, "-m", "hcl.console.main", "validate", "--format", "json", "--kernel", "6.1"]
    command += ["--inventory", str(tmp_path / "lspci.txt"), "--overlay", str(tmp_path / "site.toml")]
    done = subprocess.run(command, capture_output=True, env=os.environ, timeout=60, check=False)
    assert done.returncode == 1, done.stderr
    (device,) = msgspec.json.decode(done.stdout)["machines"][0]["devices"]
    assert device["overlay"] == f"{tmp_path / 'site.toml'}:1"
    assert "it burnt" in device["reason"]
