"""The linter of the registry: what it finds, and that it finds nothing else.

Independent side: for rows that never win, a count of every device there is in a small world; for what modules claim,
Debian's own modules.
"""

from __future__ import annotations

import itertools
import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

import jsonschema
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from hcl import schemas, usb
from hcl.claims import scope
from hcl.console.kernel import here
from hcl.console.main import hcl as program
from hcl.ladder import Ids, Ladder
from hcl.lint import RULES, Files, Finding, Severity, files_of, lint
from hcl.overlay import Amendment, Entry, Placed
from hcl.reading import DRIVERS
from hcl.registry import Claim, Scope
from hcl.site import Site

HEADER = "vendor\tdevice\tsubvendor\tsubdevice\tclass\tclass_mask\tlinux-6.1\tsource\n"
A_TOML = 'modules.one = { status = "unknown" }\n'
B_TOML = """priority = 3
priority_reason = "it is newer"
modules.two = { status = "unknown" }
"""


class Kernel:
    """A kernel with modules of these patterns."""

    release = "6.1.0-1"

    def __init__(self, **modules: Sequence[str]) -> None:
        self._modules = modules

    def patterns(self, module: str) -> Sequence[str] | None:
        return self._modules.get(module)

    def builds_in(self, module: str) -> bool:
        return False


Row = tuple[str, str]


def row(driver: str, ids: str, module: str, pci_class: str = "-\t-") -> Row:
    """A driver, and a line of its ids."""
    return driver, "\t".join([*ids.split(), *pci_class.split(), module, "test"])


def found(
    folder: Path,
    rows: Sequence[Row],
    kernels: Sequence[Kernel] = (),
    overlay: str = "",
    usb_text: str = "",
    drivers: Mapping[str, str] | None = None,
) -> list[tuple[str, str]]:
    """Rule and place of each finding, the directory left out. The drivers are a and b, and what is given."""
    for name, text in {"a": A_TOML, "b": B_TOML, **(drivers or {})}.items():
        (folder / "net" / name).mkdir(parents=True)
        (folder / "net" / name / "driver.toml").write_text(text)
        lines = [line for driver, line in rows if driver == f"net/{name}"]
        (folder / "net" / name / "ids.tsv").write_text(HEADER + "".join(f"{line}\n" for line in lines))
    (folder / "site.toml").write_text(overlay)
    (folder / "usb.toml").write_text(usb_text or usb.PATH.read_text())
    files = Files(folder, folder / "usb.toml" if usb_text else usb.PATH, (folder / "site.toml",))
    return [
        (each.rule, each.place.replace(f"{folder}/", "").replace("net/", ""))
        for each in lint(files, kernels)
        if _shown(each)
    ]


def _shown(finding: Finding) -> bool:
    """The package's own usb.toml, and that no kernel is here, are not meant."""
    return finding.rule != "no-kernel" and str(usb.PATH) not in finding.place


A, B = "8086 0001 * *", "8086 0002 * *"


def test_the_shipped_list_is_clean() -> None:
    kernels = here()
    assert {kernel.release.rsplit(".", 1)[0] for kernel in kernels} >= {"6.1"}
    findings = lint(Files(DRIVERS, usb.PATH), kernels)
    assert [each for each in findings if each.severity is not Severity.NOTE] == []
    # bcm5700 has of tg3's chips what tg3 has, and the later generations of lpfc and qla2200 all of the former.
    assert {each.rule for each in findings} <= {"outranked", "no-kernel"}


def test_all_mistakes_of_a_list_are_told(tmp_path: Path) -> None:
    # The rows of a driver whose declaration cannot be read are not blamed for that.
    rows = [row("net/b", "8086 0004 * *", "two"), ("net/a", "8086"), row("net/a", "8086 00FF * *", "one")]
    rows += [row("net/a", A, "one"), row("net/a", B, "Two.ko")]
    damaged = {"b": B_TOML.replace("priority = 3\n", ""), "c": "modules = {}\n", "D": A_TOML}
    assert found(tmp_path, rows, drivers=damaged) == [
        ("damaged", "D/driver.toml:1"),
        ("damaged", "a/ids.tsv:2"),
        ("damaged", "a/ids.tsv:3"),
        ("damaged", "a/ids.tsv:5"),
        ("damaged", "b/driver.toml:1"),
        ("damaged", "c/driver.toml:1"),
    ]


def test_names_that_do_not_fit_together(tmp_path: Path) -> None:
    rows = [row("net/a", A, "one"), row("net/a", B, "other")]
    assert found(tmp_path, rows) == [
        ("undeclared", "a/ids.tsv:3"),
        ("idle-priority", "b/driver.toml:1"),
        ("no-ids", "b/driver.toml:1"),
    ]


def test_a_driver_in_python_that_is_not_there(tmp_path: Path) -> None:
    rows = [row("net/a", A, "one"), row("net/b", A, "two"), row("net/c", B, "one")]
    native = f'engines = ["linux", "native"]\n{A_TOML}'
    assert found(tmp_path, rows, drivers={"c": native}) == [
        ("outranked", "a/ids.tsv:2"),
        ("no-code", "c/driver.toml:1"),
    ]
    (tmp_path / "net/c/__init__.py").touch()
    rules = [each.rule for each in lint(Files(tmp_path, usb.PATH), []) if _shown(each)]
    assert rules == ["outranked", "no-ids"]


def test_rows_among_themselves(tmp_path: Path) -> None:
    rows = [
        row("net/a", A, "one"),
        row("net/a", A, "one"),
        row("net/a", B, "one"),
        row("net/b", B, "two"),
        row("net/a", "8086 0003 * *", "one"),
        row("net/b", "8086 0003 * *", "two", "000000 800000"),
        row("net/b", "8086 0003 * *", "two", "800000 800000"),
    ]
    assert found(tmp_path, rows) == [
        ("conflict", "a/ids.tsv:2 and a/ids.tsv:3"),
        ("outranked", "a/ids.tsv:4"),
        ("shadowed", "a/ids.tsv:5"),
    ]


def test_what_modules_claim(tmp_path: Path) -> None:
    rows = [
        row("net/a", A, "one"),
        row("net/a", B, "one"),
        row("net/a", "8086 0003 * *", "one"),
        row("net/a", "8086 0003 8086 0001", "subsystem:one"),
        row("net/a", "8087 0004 * *", "class:one"),
        row("net/a", "8087 0005 * *", "one"),
        row("net/b", A, "two"),
    ]
    kernel = Kernel(
        one=[
            "pci:v00008086d00000001sv*sd*bc*sc*i*",
            "pci:v00008086d00000003sv00008086sd00000001bc*sc*i*",
            "pci:v00008087d*sv*sd*bc02sc00i*",
        ]
    )
    assert found(tmp_path, rows, [kernel]) == [
        ("outranked", "a/ids.tsv:2"),
        ("not-claimed", "a/ids.tsv:3"),
        ("other-scope", "a/ids.tsv:4"),
        ("other-scope", "a/ids.tsv:5"),
        ("other-scope", "a/ids.tsv:7"),
        ("unknown-module", "b/driver.toml:1"),
    ]


def test_overlays(tmp_path: Path) -> None:
    rows = [row("net/a", A, "one"), row("net/b", A, "two")]
    kernel = Kernel(one=["pci:v00008086d00000001sv*sd*bc*sc*i*"], two=["pci:v00008086d*sv*sd*bc*sc*i*"])
    entries = [
        'ids = "8086:0001"\nmodule = "one"',
        'ids = "8086:0002"\nmodule = "one"',
        'ids = "8086:0003"\nmodule = "absent"',
        'ids = "8086:0004"\nkernels = ["5.10"]\nlimits = ["slow"]',
        'ids = "8086:0005"\nstatus = "bad"',
    ]
    overlay = "".join(f"[[device]]\n{entry}\n" for entry in entries)
    assert found(tmp_path, rows, [kernel], overlay) == [
        ("outranked", "a/ids.tsv:2"),
        ("other-scope", "b/ids.tsv:2"),
        ("nothing-new", "site.toml:1"),
        ("not-claimed", "site.toml:4"),
        ("unknown-module", "site.toml:7"),
        ("unknown-kernel", "site.toml:10"),
        ("damaged", "site.toml:14"),
    ]


def test_usb(tmp_path: Path) -> None:
    text = """status = "unsupported"
reason = "none"
[[entry]]
module = "one"
kind = "net"
ids = ["0001:0001", "0001:0002"]
[[entry]]
module = "two"
kind = "net"
ids = ["0001:0002"]
classes = ["0206"]
[[entry]]
module = "three"
kind = "net"
classes = ["02"]
[[entry]]
module = "one"
kind = "net"
"""
    kernel = Kernel(one=["usb:v0001p0001d*dc*dsc*dp*ic*isc*ip*in*"], two=[])
    rows = [row("net/a", A, "one"), row("net/b", B, "two")]
    usb_only = [each for each in found(tmp_path, rows, [kernel], "", text) if "usb" in each[1]]
    assert usb_only == [
        ("conflict", "usb.toml:3 and usb.toml:7"),
        ("not-claimed", "usb.toml:3"),
        ("conflict", "usb.toml:7 and usb.toml:12"),
        ("unknown-module", "usb.toml:12"),
        ("no-ids", "usb.toml:16"),
    ]


# ---- a small world ----

MASKS = st.sampled_from([0, 1, 2, 3, 4, 5, 6, 7])


@st.composite
def claims(draw: st.DrawFn) -> Claim:
    named = draw(st.integers(1, 3))
    device, subvendor, subdevice = [draw(st.integers(1, 2)) for _ in range(named)] + [None] * (3 - named)
    mask = draw(MASKS)
    return Claim(
        driver=f"net/{draw(st.integers(0, 3))}",
        ids=(1, device, subvendor, subdevice),
        pci_class=draw(st.integers(0, 7)) & mask,
        class_mask=mask,
        services={},
        source="",
        place="",
    )


@settings(deadline=None)
@given(st.lists(claims(), max_size=10))
def test_a_row_is_shadowed_if_and_only_if_no_device_is_won_by_it(rows: list[Claim]) -> None:
    # Two rows of the same rank have nothing to decide between them; that is the conflicts' test.
    ladder = Ladder(rows, lambda claim: int(claim.driver[-1]))
    if any(ladder.undecided()):
        return
    # 3 stands for all ids that no row names; the class has three bits that rows ask for.
    world = itertools.product([1], [1, 2, 3], [1, 2, 3], [1, 2, 3], range(8))
    winners = {id(row) for device in world for row in ladder.find(*device)[:1]}
    shadowed = {id(row) for row, _ in ladder.shadowed()}
    # A row that names no subsystem wins the subsystems that nobody names, unless its own kind takes them.
    assert shadowed == {id(row) for row in rows} - winners


PLACES = st.sampled_from([None, 1, 2])


@settings(deadline=None)
@given(
    st.lists(st.tuples(PLACES, PLACES, PLACES, st.sampled_from([None, 1, 2])), max_size=5),
    st.tuples(st.integers(1, 2), st.none() | st.integers(1, 2)),
)
def test_the_scope_of_a_claim(patterns: list[tuple[int | None, ...]], named: tuple[int, int | None]) -> None:
    """The scope is what a count over all devices of the row says."""

    def field(value: int | None, digits: int) -> str:
        return "*" if value is None else f"{value:0{digits}X}"

    texts = [
        f"pci:v00000001d{field(d, 8)}sv{field(sv, 8)}sd{field(sd, 8)}bc{field(bc, 2)}sc*i*"
        for d, sv, sd, bc in patterns
    ]
    device, subvendor = named
    row = Claim("", (1, device, subvendor, None), 0, 0, {}, "", "")
    world = itertools.product([device], [subvendor] if subvendor else [1, 2, 3], [1, 2, 3])

    def claimed(ids: Sequence[int | None], kind: bool) -> bool:
        """By a pattern that names the device, or does not."""
        return any(
            (pattern[0] is not None) == kind
            and all(want in (None, have) for want, have in zip(pattern[:3], ids, strict=True))
            for pattern in patterns
        )

    devices = list(world)
    by_ids = [ids for ids in devices if claimed(ids, True)]
    answer = scope(texts, row)
    if answer is Scope.IDS:
        assert by_ids == devices
    elif answer is Scope.CLASS:
        assert any(claimed(ids, False) for ids in devices)
    elif answer is Scope.SUBSYSTEM:
        assert by_ids
        assert not any(claimed(ids, False) for ids in devices)
    else:
        assert not any(claimed(ids, kind) for ids in devices for kind in (True, False))


def test_an_entry_of_an_overlay_is_a_row() -> None:
    entry = Entry(ids="8086:*", pci_class="02", module="x")
    ids: Ids = (0x8086, None, None, None)
    row = Amendment.of(Placed(entry, "site.toml:1"))
    assert (row.ids, row.pci_class, row.class_mask) == (ids, 0x020000, 0xFF0000)


# ---- the command ----


def run(*arguments: str | Path) -> tuple[int, str]:
    done = CliRunner().invoke(program, ["lint", *map(str, arguments)])
    return done.exit_code, done.output


def test_the_command_tells_file_and_line(tmp_path: Path) -> None:
    site = tmp_path / "site.toml"
    site.write_text('[[device]]\nids = "8086:100e"\nmodule = "nosuch"\n[[device]]\nids = "1:2"\n')
    code, output = run(site)
    assert code == 1
    assert f"{site}:4: error: device '1:2': " in output
    assert run("--overlay", site)[0] == 1
    site.write_text('[[device]]\nids = "8086:100e"\nlimits = ["slow"]\n')
    assert run(site)[0] == 0
    assert run()[0] == 0
    code, output = run("--json", site.parent)
    told = json.loads(output)
    schema = json.loads((Path(schemas.__file__).parent / "lint.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(told)
    assert (code, told["findings"]) == (0, [])


def test_files_are_told_apart_by_what_they_hold(tmp_path: Path) -> None:
    for name, content in (("net/a/driver.toml", A_TOML), ("c.toml", ""), ("d.toml", "[[entry]]\n")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    of_usb, overlay = tmp_path / "d.toml", tmp_path / "c.toml"
    assert files_of([tmp_path], Site()) == Files(tmp_path, of_usb, (overlay,))
    for part in ("net", "net/a", "net/a/driver.toml", "net/a/ids.tsv"):
        assert files_of([tmp_path / part], Site()) == Files(tmp_path, usb.PATH), part
    assert files_of([overlay], Site()) == Files(DRIVERS, usb.PATH, (overlay,))
    (tmp_path / "e.toml").write_text("[[entry]]\n")
    code, _ = run(tmp_path)
    assert code != 0


def test_the_command_tells_of_what_it_was_given_only(tmp_path: Path) -> None:
    found(tmp_path, [row("net/a", A, "Two.ko"), row("net/b", B, "nothing")])
    (tmp_path / "site.toml").unlink()
    for part, told in (("net/a", "a/ids.tsv:2"), ("net/b/ids.tsv", "b/ids.tsv:2")):
        code, output = run(tmp_path / part)
        assert code == 1
        places = [line.partition(": ")[0] for line in output.splitlines()[:-1]]
        assert {place.replace(f"{tmp_path}/net/", "") for place in places} >= {told}
        assert all(place.startswith(str(tmp_path / part)) for place in places)


def test_every_rule_has_its_meaning() -> None:
    assert all(rule.meaning and "\n" not in rule.meaning for rule in RULES.values())


@pytest.mark.parametrize("name", ["driver", "usb", "overlay"])
def test_the_registrys_files_fit_their_schemas(name: str) -> None:
    schema = json.loads((Path(schemas.__file__).parent / f"{name}.json").read_text())
    validator = jsonschema.Draft202012Validator(schema)
    if name == "overlay":
        entry = {
            "ids": "8086:100e",
            "class": "0200",
            "kernels": ["6.12"],
            "status": "unsupported",
            "reason": "x",
        }
        validator.validate({"device": [entry]})
        with pytest.raises(jsonschema.ValidationError):
            validator.validate({"device": [{**entry, "ids": "8086:100E"}]})
        return
    for path in {"driver": sorted(DRIVERS.glob("*/*/driver.toml")), "usb": [usb.PATH]}[name]:
        validator.validate(tomllib.loads(path.read_text()))
