"""Damaged registry files are refused with file and line.

Independent side: none is to be had for a format of our own; every case is written out by hand here.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import hcl
from hcl.reading import read

E1000 = """# comment
modules.e1000 = { status = "unknown" }
"""
ISCSI = """software = true
modules.iscsi_tcp = { status = "unknown" }
"""
HEADER = "vendor\tdevice\tsubvendor\tsubdevice\tclass\tclass_mask\tlinux-6.1\tsource"
ROW = "8086\t100e\t*\t*\t-\t-\te1000\ttest"
IDS = f"# comment\n{HEADER}\n{ROW}\n"
DRIVER_TOML, IDS_TSV, ISCSI_TOML = "net/e1000/driver.toml", "net/e1000/ids.tsv", "scsi/vmkiscsi/driver.toml"
SOUND: dict[str, str | bytes] = {DRIVER_TOML: E1000, IDS_TSV: IDS, ISCSI_TOML: ISCSI}


def write(folder: Path, **changed: str | bytes) -> Path:
    """The drivers' folders, with other contents of ``driver``, ``ids`` or ``iscsi``."""
    keys = {"driver": DRIVER_TOML, "ids": IDS_TSV, "iscsi": ISCSI_TOML}
    for name, content in (SOUND | {keys[key]: content for key, content in changed.items()}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def test_the_files_that_the_cases_below_damage_are_sound(tmp_path: Path) -> None:
    verdict = read(write(tmp_path)).lookup(0x8086, 0x100E, 0, 0, 0x020000)
    assert (verdict.driver, verdict.module) == ("net/e1000", "e1000")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("8086\t100e", "2 columns where 8 are named"),
        (ROW + "\tmore", "9 columns where 8 are named"),
        (ROW.replace("8086", "*"), "vendor '*' is not 4 lower-case hexadecimal digits"),
        (ROW.replace("8086", "80866"), "vendor '80866' is not 4"),
        (ROW.replace("8086", " 808"), "vendor ' 808' is not 4"),
        (ROW.replace("100e", "100E"), "device '100E' is not 4 lower-case"),
        (ROW.replace("100e", "0x1e"), "device '0x1e' is not 4"),
        (ROW.replace("100e\t*\t*", "100e\t*\t0001"), "an id follows a '*'"),
        (ROW.replace("100e\t*", "*\t8086"), "an id follows a '*'"),
        (ROW.replace("100e", "*"), "any device of a vendor must name a class"),
        (ROW.replace("-\t-", "020000\t-"), "class_mask '-' is not 6"),
        (ROW.replace("-\t-", "0200\tffff00"), "class '0200' is not 6"),
        (ROW.replace("-\t-", "020001\tffff00"), "class 020001 has bits outside its mask ffff00"),
        (ROW.replace("-\t-", "000000\t000000"), "class 000000 has bits outside its mask 000000"),
        (ROW.replace("\te1000\t", "\tE1000.ko\t"), "'E1000.ko' names no Linux module"),
        (ROW.replace("\te1000\t", "\tname:e1000\t"), "'name:e1000' names no Linux module"),
        (ROW.replace("\te1000\t", "\te1000e\t"), "net/e1000 has no module 'e1000e'"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(tmp_path: Path, row: str, message: str) -> None:
    drivers = write(tmp_path, ids=f"{IDS}\n{row}\n")
    with pytest.raises(hcl.RegistryError, match=re.escape(message)) as caught:
        read(drivers)
    assert caught.value.where == f"{drivers / IDS_TSV}:5"
    assert str(caught.value).count("\n") == 0


def test_ids_of_a_driver_that_claims_no_device(tmp_path: Path) -> None:
    drivers = write(tmp_path, driver=f"software = true\n{E1000}")
    with pytest.raises(hcl.RegistryError, match="driver 'net/e1000' claims no PCI device") as caught:
        read(drivers)
    assert caught.value.where == f"{drivers / IDS_TSV}:3"


NATIVE_HEADER, NATIVE_ROW = (
    HEADER.replace("\tsource", "\tnative\tsource"),
    ROW.replace("\ttest", "\t{}\ttest"),
)


def test_what_a_driver_in_python_knows(tmp_path: Path) -> None:
    other = NATIVE_ROW.replace("100e", "100f")
    ids = f"{NATIVE_HEADER}\n{NATIVE_ROW.format('native')}\n{other.format('-')}\n"
    with pytest.raises(hcl.RegistryError, match="net/e1000 has no driver in Python") as caught:
        read(write(tmp_path, ids=ids))
    assert caught.value.where == f"{tmp_path / IDS_TSV}:2"
    registry = read(write(tmp_path, ids=ids, driver=f'engines = ["native", "linux"]\n{E1000}'))
    assert registry.lookup(0x8086, 0x100E, 0, 0, 0x020000).engines == ("native", "linux")
    assert registry.lookup(0x8086, 0x100F, 0, 0, 0x020000).engines == ("linux",)
    with pytest.raises(hcl.RegistryError, match="'yes' is neither native nor -"):
        read(write(tmp_path, ids=f"{NATIVE_HEADER}\n{NATIVE_ROW.format('yes')}\n"))


def test_a_device_that_only_a_driver_in_python_knows(tmp_path: Path) -> None:
    row = NATIVE_ROW.format("native")
    ids = f"{NATIVE_HEADER}\n{row}\n{row.replace('100e', '100f').replace('e1000', '-')}\n"
    registry = read(write(tmp_path, ids=ids, driver=f'engines = ["linux", "native"]\n{E1000}'))
    verdict = registry.lookup(0x8086, 0x100F, 0, 0, 0x020000)
    assert (verdict.engines, verdict.engine, verdict.module) == (("native",), "native", "e1000")
    assert verdict.status is hcl.Status.COMPATIBLE
    assert verdict.reason == "8086:100f is net/e1000's by vendor and device; e1000 serves it in Python."
    linux = registry.lookup(0x8086, 0x100F, 0, 0, 0x020000, engine="linux")
    assert (linux.engine, linux.module, linux.status) == ("linux", None, hcl.Status.UNSUPPORTED)
    assert linux.reason.endswith("no module serves it in Linux 6.1.")


def test_files_that_know_other_kernels(tmp_path: Path) -> None:
    drivers = write(tmp_path)
    (drivers / "net/tg3").mkdir()
    (drivers / "net/tg3/driver.toml").write_text(E1000)
    ids = drivers / "net/tg3/ids.tsv"
    ids.write_text(f"{HEADER}\tlinux-6.12\n{ROW.replace('100e', '100f')}\te1000\n")
    with pytest.raises(hcl.RegistryError, match=r"it tells of Linux 6\.1, 6\.12, others of 6\.1") as caught:
        read(drivers)
    assert caught.value.where == f"{ids}:1"


def test_a_row_twice(tmp_path: Path) -> None:
    drivers = write(tmp_path, ids=IDS + ROW)
    with pytest.raises(hcl.RegistryError, match="nothing decides between them") as caught:
        read(drivers)
    ids = drivers / IDS_TSV
    assert caught.value.where == f"{ids}:3 and {ids}:4"


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("", 1),
        ("# comment\n\n" + ROW, 3),
        (HEADER.replace("\tlinux-6.1", ""), 1),
        (HEADER.replace("linux-6.1", "linux-6"), 1),
        (HEADER.replace("\tsource", ""), 1),
        (HEADER + "\tname", 1),
        (HEADER + "\r\n", 1),
    ],
)
def test_a_bad_header(tmp_path: Path, content: str, line: int) -> None:
    drivers = write(tmp_path, ids=content)
    with pytest.raises(hcl.RegistryError, match="must name the columns") as caught:
        read(drivers)
    assert caught.value.where == f"{drivers / IDS_TSV}:{line}"


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ('"unknown"', "unknown", 2, "not TOML"),
        ("software = true", 'text = """', 2, "not TOML"),
        ("software = true", 'name = "net/e1000"', 1, "unknown field `name`"),
        ('"unknown" }', '"good" }', 1, r"Invalid enum value 'good' - at `\$\.modules"),
        ('"unknown" }', '"certified" }', 1, "'certified' is not declared"),
        ('"unknown" }', '"compatible", evidence = "" }', 1, "'compatible' needs its evidence"),
        ("software = true", 'software = "yes"', 1, "Expected `bool`, got `str`"),
        ("software = true", "sofware = true", 1, "unknown field `sofware`"),
        ("software = true", "software = true\npriority = 3", 1, "priority and priority_reason go together"),
        ("software = true", 'software = true\npriority_reason = "x"', 1, "go together"),
        ("software = true", "software = true\npriority = -3", 1, "`int` >= 0"),
        ("software = true", "software = true\nengines = []", 1, "length >= 1"),
        ("software = true", 'software = true\nengines = ["linux", "linux"]', 1, "named twice"),
        ("software = true", 'software = true\nengines = ["windows"]', 1, "Invalid enum value 'windows'"),
        ("modules.iscsi_tcp", "modules = {}\n#", 1, "length >= 1"),
        (ISCSI, "", 1, "missing required field `modules`"),
    ],
)
def test_a_bad_driver_is_named_by_file_and_line(
    tmp_path: Path, old: str, new: str, line: int, message: str
) -> None:
    assert ISCSI.count(old) == 1
    drivers = write(tmp_path, iscsi=ISCSI.replace(old, new))
    with pytest.raises(hcl.RegistryError, match=message) as caught:
        read(drivers)
    assert caught.value.where == f"{drivers / ISCSI_TOML}:{line}"


@pytest.mark.parametrize("name", ["usb/e1000", "net/E1000"])
def test_a_bad_folder(tmp_path: Path, name: str) -> None:
    file = write(tmp_path) / name / "driver.toml"
    file.parent.mkdir(parents=True)
    file.write_text(ISCSI)
    with pytest.raises(hcl.RegistryError, match="matching regex") as caught:
        read(tmp_path)
    assert caught.value.where == f"{file}:1"


def test_no_folders(tmp_path: Path) -> None:
    with pytest.raises(hcl.RegistryError, match="no driver's folder is there"):
        read(tmp_path)


def test_a_module_that_serves_nothing(tmp_path: Path) -> None:
    drivers = write(tmp_path, driver=f'{E1000}modules.x = {{ status = "unknown" }}\n')
    with pytest.raises(hcl.RegistryError, match="no PCI id is served by x for net/e1000"):
        read(drivers)


def test_files_that_are_no_text_or_not_there(tmp_path: Path) -> None:
    drivers = write(tmp_path, ids=IDS.encode() + b"\n\xff")
    with pytest.raises(hcl.RegistryError, match="not UTF-8") as caught:
        read(drivers)
    ids = drivers / IDS_TSV
    assert caught.value.where == f"{ids}:5"
    ids.unlink()
    with pytest.raises(hcl.RegistryError, match="no PCI id is served by e1000 for net/e1000"):
        read(drivers)
    write(tmp_path)
    (drivers / DRIVER_TOML).unlink()
    with pytest.raises(hcl.RegistryError, match="No such file or directory") as caught:
        read(drivers)
    assert caught.value.where == str(drivers / DRIVER_TOML)


@given(st.binary(max_size=200), st.booleans())
def test_rubbish_after_a_sound_file_is_refused_or_means_nothing(
    tmp_path_factory: pytest.TempPathFactory, rubbish: bytes, in_ids: bool
) -> None:
    folder = tmp_path_factory.getbasetemp() / "rubbish"
    name, sound = ("ids", IDS) if in_ids else ("driver", E1000)
    with contextlib.suppress(hcl.RegistryError):
        registry = read(write(folder, **{name: sound.encode() + rubbish}))
        assert registry.lookup(0x8086, 0x100E, 0, 0, 0x020000).driver == "net/e1000"
