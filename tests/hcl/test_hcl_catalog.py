"""``hcl search``, ``hcl show`` and ``hcl explain``.

Independent side: the files ids.tsv, counted here by themselves; jsonschema judges the JSON; the names are of a
pci.ids made here.
"""

from __future__ import annotations

import json
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from click.testing import CliRunner

from hcl import evidence, names, native, schemas, signing
from hcl.console.main import hcl as program
from hcl.evidence import Check, Run
from hcl.reading import DRIVERS

ROWS = [
    [f"{file.parent.parent.name}/{file.parent.name}", *line.split("\t")]
    for file in DRIVERS.glob("*/*/ids.tsv")
    for line in file.read_text().splitlines()[1:]
]
PCI_IDS = """8086  Intel Corporation
\t100e  82540EM Gigabit Ethernet Controller
\t100f  82545EM Gigabit Ethernet Controller (Copper)
"""


@pytest.fixture(autouse=True)
def pci_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pci.ids").write_text(PCI_IDS)
    monkeypatch.setattr(names, "PLACES", (str(tmp_path / "pci.ids"),))
    names.device_name.cache_clear()


def command(*arguments: str | Path) -> tuple[int, str]:
    done = CliRunner().invoke(program, list(map(str, arguments)))
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


def told(name: str, *arguments: str | Path) -> Any:
    """What the command writes with --json, judged by its schema."""
    code, output = command(name, "--json", *arguments)
    assert code == 0
    document = json.loads(output)
    schema = json.loads((Path(schemas.__file__).parent / f"{name}.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(document)
    return document


@pytest.mark.parametrize(
    "words", [["intel", "82545em"], ["INTEL", "Copper"], ["8086:100f"], ["100f", "net/e1000"]]
)
def test_search_finds_a_device_by_any_of_its_words(words: list[str]) -> None:
    (item,) = told("search", *words)["items"]
    assert (item["ids"], item["driver"], item["modules"]) == (
        "8086:100f", "net/e1000", {"6.1": "e1000", "6.12": "e1000"},
    )  # fmt: skip
    assert item["status"] == {"6.1": "compatible", "6.12": "compatible"}
    file, _, number = item["place"].rpartition(":")
    assert Path(file) == DRIVERS / "net/e1000/ids.tsv"
    assert Path(file).read_text().splitlines()[int(number) - 1].startswith("8086\t100f")
    code, output = command("search", *words)
    assert (code, output.split()[:4]) == (0, ["8086:100f", "net/e1000", "e1000", "compatible"])


def test_search_finds_rows_by_module_and_in_the_table_of_usb() -> None:
    served = [row for row in ROWS if "hpsa" in row[7] or "hpsa" in row[8]]
    assert len(told("search", "hpsa")["items"]) == len(served)
    assert {item["bus"] for item in told("search", "smsc95xx")["items"]} == {"usb"}
    assert command("search", "hpsa", "e1000")[0] == 1


def test_show_of_a_driver() -> None:
    shown = told("show", "tg3")
    rows = [row for row in ROWS if row[0] == "net/tg3"]
    assert (shown["kind"], shown["title"], len(shown["items"])) == ("driver", "net/tg3", len(rows))
    assert shown["modules"]["tg3"]["rows"]["6.1"] == sum(row[7] != "-" for row in rows)
    assert (shown["priority"], shown["releases"]) == (10, ["ESX 3.5"])
    unserved = sum(row[7] == "-" for row in rows)
    assert unserved == sum(item["status"]["6.1"] == "unsupported" for item in shown["items"])
    _, output = command("show", "block/cciss")
    assert "known limit: controllers that hpsa knows by vendor and class only" in output
    assert "103c:*" in output
    assert "0104xx" in output


def test_show_of_a_driver_that_is_written_in_python_too() -> None:
    python = told("show", "e100")["python"]
    knows = sum(row[9] == "native" for row in ROWS if row[0] == "net/e100")
    assert (python["driver"], python["rows"]) == (f"e100 in Python of vmklinux {native.version()}", knows)
    _, output = command("show", "e100")
    assert f"SHA-256 of its code: {python['module_sha256']}" in output
    assert told("show", "tg3")["python"] is None


def test_show_of_a_device_with_an_overlay(tmp_path: Path) -> None:
    site = tmp_path / "site.toml"
    site.write_text(
        '[[device]]\nids = "8086:100e"\nmodule = "e1000e"\nlimits = ["slow"]\n'
        'firmware = { minimum = "3.1", file = "x.bin" }\nreason = "a test"\n'
    )
    shown = told("show", "8086:100E", "--overlay", site)
    assert shown["title"] == "8086:100e Intel Corporation 82540EM Gigabit Ethernet Controller"
    assert [(item["overlay"], item["modules"]["6.1"]) for item in shown["items"]] == [
        (True, "e1000e"), (False, "e1000"),
    ]  # fmt: skip
    _, output = command("show", "8086:100e", "--overlay", site)
    for line in ("known limit: slow", "firmware wanted: 3.1 or later, the file x.bin", "a test"):
        assert f"8086:100e by {site}:1: {line}" in output


def test_show_of_nothing() -> None:
    code, output = command("show", "net/nobody")
    assert code == 1
    assert "the list has no net/nobody" in output


def outcomes(explained: Any) -> list[tuple[str | None, str]]:
    return [(row["driver"], row["outcome"]) for step in explained["steps"] for row in step["rows"]]


def test_explain_names_every_row_that_stood_there(tmp_path: Path) -> None:
    explained = told("explain", "14e4:1645", "14e4:0007", "--class", "0200", "--kernel", "6.1")
    assert outcomes(explained) == [
        ("net/bcm5700", "wins"),
        ("net/tg3", "loses: exact goes before vendor:device"),
        ("net/bcm5700", "loses: exact goes before vendor:device"),
    ]
    assert explained["claims"] == ["tg3"]
    assert explained["report"]["esx_driver"] == "net/bcm5700"
    site = tmp_path / "site.toml"
    site.write_text('[[device]]\nids = "14e4:1645"\nstatus = "unsupported"\nreason = "it burnt"\n')
    laid = told("explain", "14e4:1645", "14e4:0007", "--class", "020000", "--overlay", site)
    assert outcomes(laid)[:2] == [
        (None, "wins"), ("net/bcm5700", f"loses: the overlay {site}:1 goes before the list"),
    ]  # fmt: skip
    assert laid["report"]["status"] == "unsupported"


def test_explain_tells_rows_that_ask_for_another_class() -> None:
    explained = told("explain", "1023:2000", "1023:2000", "--class", "040100")
    assert outcomes(explained) == [
        ("net/pcnet32", "does not fit: it asks for class 020000 in the bits ffff00")
    ]


def test_explain_of_what_was_not_told() -> None:
    _, output = command("explain", "8086:10D3")
    assert "the subsystem was not told" in output
    assert "the class was not told" in output
    assert "that claim it: e1000e" in output


@pytest.mark.parametrize("arguments", [["8086"], ["8086:100e", "x"], ["8086:100e", "--class", "2"]])
def test_explain_of_what_is_no_device(arguments: list[str]) -> None:
    code, output = command("explain", *arguments)
    assert code != 0
    assert "is not of the form" in output


def test_a_run_is_shown_with_its_checks_by_name_device_and_driver(tmp_path: Path) -> None:
    private, public = tmp_path / "private.key", tmp_path / "public.pem"
    for made in (
        ["genpkey", "-algorithm", "ed25519", "-out", str(private)],
        ["pkey", "-in", str(private), "-pubout", "-out", str(public)],
    ):
        subprocess.run(["openssl", *made], check=True, capture_output=True)
    run = Run(
        suite="nic", suite_version=1, vendor="8086", device="100f", subvendor="1af4", subdevice="1100",
        pci_class="020000", module="e1000", module_sha256="0" * 64, kernel="6.1.0-56-amd64",
        counterpart="QEMU 7.2.22: e1000-82545em", started=datetime(2026, 11, 20, 12, tzinfo=UTC), seconds=70.5,
        checks=(Check("link", True), Check("traffic", False, "a frame was lost", {"frames": 4096.0})),
    )  # fmt: skip
    evidence.write(run, signing.private_key(private), tmp_path)
    options: list[str | Path] = ["--evidence", tmp_path, "--trust", public]
    for what in (run.name, "8086:100f", "net/e1000"):
        shown = told("show", what, *options)
        (one,) = (each for each in shown["runs"] if each["device"] == "100f")
        assert [(check["name"], check["passed"]) for check in one["checks"]] == [
            ("link", True), ("traffic", False),
        ]  # fmt: skip
        _, output = command("show", what, *options)
        assert f"run {run.name}: FAILED" in output
        assert "FAILED traffic: a frame was lost; 4096 frames" in output
    assert shown["items"][0]["ids"].startswith("8086:")
    statuses = {item["ids"]: item["status"]["6.1"] for item in shown["items"]}
    assert (statuses["8086:100f"], statuses["8086:1010"]) == ("unsupported", "compatible")
    assert told("explain", "8086:100f", "1af4:1100", *options)["runs"][0]["kernel"] == run.kernel
    # Of the driver in Python it says nothing; a run of that is told beside it.
    assert {item["ids"]: item["native"] for item in shown["items"]}["8086:100f"] == "compatible"
    ours = msgspec.structs.replace(
        run, engine="native", kernel="", vmklinux=native.version(), started=run.started + timedelta(days=1),
        checks=(Check("link", True),),
    )  # fmt: skip
    (tmp_path / "more").mkdir()
    evidence.write(ours, signing.private_key(private), tmp_path / "more")
    options += ["--evidence", tmp_path / "more"]
    both = told("show", "e1000", *options)
    assert {item["ids"]: item["native"] for item in both["items"]}["8086:100f"] == "certified"
    assert [each["engine"] for each in both["runs"] if each["device"] == "100f"] == ["native", "linux"]
    _, output = command("show", "8086:100f", *options)
    assert "6.1:unsupported 6.12:compatible native:certified" in output
    assert f"nic suite 1, e1000 in Python of vmklinux {native.version()}, on QEMU" in output
    asked = told("explain", "8086:100f", "1af4:1100", "--engine", "native", *options)["report"]
    assert (asked["engine"], asked["status"], asked["proof"]["run"]) == ("native", "certified", ours.name)
    _, output = command("explain", "8086:100f", "1af4:1100", "--engine", "native", *options)
    assert "certified: e1000 in Python" in output.splitlines()
    # Without the key they count for nothing.
    assert told("show", "8086:100f", "--evidence", tmp_path)["runs"] == []
