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

DRIVERS = """# comment
[[driver]]
name = "net/e1000"
modules.e1000 = { status = "unknown" }

[[driver]]
name = "scsi/vmkiscsi"
software = true
modules.iscsi_tcp = { status = "unknown" }
"""
HEADER = "driver\tvendor\tdevice\tsubvendor\tsubdevice\tclass\tclass_mask\tlinux-6.1\tsource"
ROW = "net/e1000\t8086\t100e\t*\t*\t-\t-\te1000\ttest"
IDS = f"# comment\n{HEADER}\n{ROW}\n"


def write(folder: Path, drivers: str | bytes, ids: str | bytes) -> tuple[Path, Path]:
    paths = folder / "drivers.toml", folder / "ids.tsv"
    for path, content in zip(paths, (drivers, ids), strict=True):
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return paths


def test_the_files_that_the_cases_below_damage_are_sound(tmp_path: Path) -> None:
    verdict = read(*write(tmp_path, DRIVERS, IDS)).lookup(0x8086, 0x100E, 0, 0, 0x020000)
    assert (verdict.driver, verdict.module) == ("net/e1000", "e1000")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("net/e1000\t8086", "2 columns where 9 are named"),
        (ROW + "\tmore", "10 columns where 9 are named"),
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
        (ROW.replace("net/e1000", "net/e1001"), "driver 'net/e1001' is not declared"),
        (ROW.replace("net/e1000", "scsi/vmkiscsi"), "driver 'scsi/vmkiscsi' claims no PCI device"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(tmp_path: Path, row: str, message: str) -> None:
    drivers, ids = write(tmp_path, DRIVERS, f"{IDS}\n{row}\n")
    with pytest.raises(hcl.RegistryError, match=re.escape(message)) as caught:
        read(drivers, ids)
    assert caught.value.where == f"{ids}:5"
    assert str(caught.value).count("\n") == 0


def test_a_row_twice(tmp_path: Path) -> None:
    drivers, ids = write(tmp_path, DRIVERS, IDS + ROW)
    with pytest.raises(hcl.RegistryError, match="nothing decides between them") as caught:
        read(drivers, ids)
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
    drivers, ids = write(tmp_path, DRIVERS, content)
    with pytest.raises(hcl.RegistryError, match="must name the columns") as caught:
        read(drivers, ids)
    assert caught.value.where == f"{ids}:{line}"


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ('"net/e1000"', "net/e1000", 3, "not TOML"),
        ("software = true", 'text = """', 9, "not TOML"),
        ('"net/e1000"', '"e1000"', 2, r"matching regex .* at `\$\.name`"),
        ('"net/e1000"', '"usb/e1000"', 2, r"matching regex .* at `\$\.name`"),
        ('name = "net/e1000"\n', "", 2, "missing required field `name`"),
        ('"unknown" }\n\n', '"good" }\n\n', 2, r"Invalid enum value 'good' - at `\$\.modules"),
        ('"unknown" }\n\n', '"certified" }\n\n', 2, "'certified' is not declared"),
        ('"unknown" }\n\n', '"compatible", evidence = "" }\n\n', 2, "'compatible' needs its evidence"),
        ("software = true", 'software = "yes"', 6, "Expected `bool`, got `str`"),
        ("software = true", "sofware = true", 6, "unknown field `sofware`"),
        ("software = true", "software = true\npriority = 3", 6, "priority and priority_reason go together"),
        ("software = true", 'software = true\npriority_reason = "x"', 6, "go together"),
        ("software = true", "software = true\npriority = -3", 6, "`int` >= 0"),
        ("software = true", "software = true\nengines = []", 6, "length >= 1"),
        ("software = true", 'software = true\nengines = ["linux", "linux"]', 6, "named twice"),
        ("software = true", 'software = true\nengines = ["windows"]', 6, "Invalid enum value 'windows'"),
        ("modules.iscsi_tcp", "modules = {}\n#", 6, "length >= 1"),
        ('"scsi/vmkiscsi"', '"net/e1000"', 6, "declared twice"),
        ("# comment", 'title = "x"', 1, r"\[\[driver\]\] tables and nothing else"),
    ],
)
def test_a_bad_driver_is_named_by_file_and_line(
    tmp_path: Path, old: str, new: str, line: int, message: str
) -> None:
    assert DRIVERS.count(old) == 1
    drivers, ids = write(tmp_path, DRIVERS.replace(old, new), IDS)
    with pytest.raises(hcl.RegistryError, match=message) as caught:
        read(drivers, ids)
    assert caught.value.where == f"{drivers}:{line}"


@pytest.mark.parametrize("content", ["driver = 5", "driver = [1]", "[driver]"])
def test_drivers_of_another_shape(tmp_path: Path, content: str) -> None:
    with pytest.raises(hcl.RegistryError, match=r"must hold \[\[driver\]\] tables"):
        read(*write(tmp_path, content, IDS))


def test_a_module_that_serves_nothing(tmp_path: Path) -> None:
    extra = DRIVERS.replace(
        '{ status = "unknown" }\n\n', '{ status = "unknown" }\nmodules.x = { status = "unknown" }\n'
    )
    with pytest.raises(hcl.RegistryError, match="no PCI id is served by x for net/e1000"):
        read(*write(tmp_path, extra, IDS))


def test_files_that_are_no_text_or_not_there(tmp_path: Path) -> None:
    drivers, ids = write(tmp_path, DRIVERS, IDS.encode() + b"\n\xff")
    with pytest.raises(hcl.RegistryError, match="not UTF-8") as caught:
        read(drivers, ids)
    assert caught.value.where == f"{ids}:5"
    ids.unlink()
    with pytest.raises(hcl.RegistryError, match="No such file or directory") as caught:
        read(drivers, ids)
    assert caught.value.where == str(ids)


@given(st.binary(max_size=200), st.booleans())
def test_rubbish_after_a_sound_file_is_refused_or_means_nothing(
    tmp_path_factory: pytest.TempPathFactory, rubbish: bytes, in_ids: bool
) -> None:
    folder = tmp_path_factory.getbasetemp()
    content = (IDS if in_ids else DRIVERS).encode() + rubbish
    with contextlib.suppress(hcl.RegistryError):
        registry = read(*write(folder, DRIVERS if in_ids else content, content if in_ids else IDS))
        assert registry.lookup(0x8086, 0x100E, 0, 0, 0x020000).driver == "net/e1000"
