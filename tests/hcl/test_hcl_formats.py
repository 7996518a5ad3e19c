"""The forms in which verdicts are printed.

Independent side: jsonschema judges the JSON, Python's csv and XML parsers read the rest, and headless Chromium shows the
page.
"""

from __future__ import annotations

import csv
import io
import json
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import pytest
from playwright.sync_api import Page, sync_playwright

from hcl import schemas
from hcl.console.kernel import Modules
from hcl.evidence import Check, Evidence, Run, write
from hcl.formats import FORMATS, render
from hcl.formats import csv as csv_format
from hcl.inventory import Inventory, PciDevice, Unidentified, UsbDevice
from hcl.judging import Judge
from hcl.readers import document
from hcl.reading import DRIVERS, read
from hcl.report import MachineReport
from hcl.signing import private_key
from hcl.summary import Fleet
from tests.hcl.mock import HCL
from vmklinux import kernels

HERE = Path(schemas.__file__).parent.parent
NASTY = '=HYPERLINK("x") <script>alert(1)</script> & "q" \x07'


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> list[MachineReport]:
    """Two machines with a device of each status."""
    directory = tmp_path_factory.mktemp("evidence")
    for arguments in (
        ("genpkey", "-algorithm", "ed25519", "-out", "key"), ("pkey", "-in", "key", "-pubout", "-out", "key.pem"),
    ):  # fmt: skip
        subprocess.run(["openssl", *arguments], cwd=directory, check=True)
    modules = Modules(kernels.find("6.1"))
    run = Run(
        suite="nic", suite_version=1, vendor="8086", device="100e", subvendor="1af4", subdevice="1100",
        pci_class="020000", module="e1000", module_sha256="0" * 64, kernel=modules.release,
        counterpart="QEMU 7.2: e1000", started=datetime(2026, 11, 20, tzinfo=UTC), seconds=1.0,
        checks=(Check("link", True),),
    )  # fmt: skip
    write(run, private_key(directory / "key"), directory)
    evidence = Evidence([directory], [directory / "key.pem"])
    judge = Judge(read(DRIVERS, evidence), modules.release, modules)
    one = Inventory(
        host="rack7-n1", model="Example Server 1", notes=("this machine has no USB bus",),
        devices=(
            PciDevice(address="0000:00:1f.0", vendor="8086", device="2918", pci_class="060100"),
            PciDevice(address="0000:02:00.0", vendor="8086", device="100e", pci_class="020000", driver="e1000"),
            PciDevice(address="0000:03:00.0", vendor="1022", device="2000", pci_class="020000"),
            PciDevice(address="0000:04:00.0", vendor="14e4", device="1645", pci_class="020000"),
        ),
    )  # fmt: skip
    two = Inventory(
        host=NASTY,
        devices=(
            UsbDevice(port="1-1", vendor="0bda", product="8153", name=NASTY),
            Unidentified(place="n2.txt:1", name=NASTY, reason="it has no ids"),
        ),
    )
    return [judge.machine(one), judge.machine(two)]


def rendered(form: str, reports: list[MachineReport]) -> str:
    return "".join(render(form, Fleet(iter(reports)), False))


def test_there_is_a_device_of_each_status(reports: list[MachineReport]) -> None:
    assert {str(d.status) for r in reports for d in r.devices} == {
        "certified", "compatible", "unsupported", "unknown", "skipped",
    }  # fmt: skip


def test_a_driver_in_python_is_told_from_linuxs_of_its_name() -> None:
    card = PciDevice(address="0000:02:00.0", vendor="8086", device="100e", pci_class="020000")
    report = Judge(read(DRIVERS), "6.1", engine="native").machine(Inventory(host="n1", devices=(card,)))
    for brief in (False, True):
        for form in ("table", "html"):
            assert "e1000 in Python" in "".join(render(form, Fleet([report]), brief))
        [row] = csv.DictReader(io.StringIO("".join(render("csv", Fleet([report]), brief))))
        assert (row["engine"], row["module"]) == ("native", "e1000")
    assert "n1: Linux 6.1, engine native, profile default" in rendered("table", [report])
    suite = ElementTree.fromstring(rendered("junit", [report]))
    assert [one.get("value") for one in suite.iter("property") if one.get("name") == "engine"] == ["native"]


def test_json_fits_its_schema(reports: list[MachineReport]) -> None:
    told = json.loads(rendered("json", reports))
    schema = json.loads((HERE / "schemas/report.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(told)
    assert (told["version"], told["exit_code"]) == (1, 2)
    assert told["summary"]["counts"] == {
        "certified": 1,
        "compatible": 1,
        "unsupported": 1,
        "unknown": 2,
        "skipped": 1,
    }
    assert [len(machine["devices"]) for machine in told["machines"]] == [4, 2]
    del told["machines"][0]["devices"][0]["status"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(schema).validate(told)


def test_json_of_no_machine(reports: list[MachineReport]) -> None:
    assert json.loads(rendered("json", []))["machines"] == []


@pytest.mark.parametrize("name", schemas.SCHEMAS)
def test_the_schemas_are_those_of_the_types(name: str) -> None:
    assert (HERE / "schemas" / f"{name}.json").read_bytes() == schemas.text(name), "run python -m hcl.schemas"


def test_an_inventory_fits_its_schema() -> None:
    device = PciDevice(address="0000:02:00.0", vendor="8086", device="100e")
    schema = json.loads((HERE / "schemas/inventory.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(
        json.loads(document.write(Inventory(host="n", devices=(device,))))
    )


def test_csv(reports: list[MachineReport]) -> None:
    rows = list(csv.DictReader(io.StringIO(rendered("csv", reports), newline="")))
    assert list(rows[0]) == list(csv_format.COLUMNS)
    assert [row["status"] for row in rows] == [str(d.status) for r in reports for d in r.devices]
    assert rows[1]["driver_in_use"] == "e1000"
    assert rows[1]["proof"].startswith("8086-100e")
    # A spreadsheet must not take a name for a formula.
    assert rows[4]["host"] == f"'{NASTY}"


def test_junit(reports: list[MachineReport]) -> None:
    suites = ElementTree.fromstring(rendered("junit", reports))
    first, second = suites
    assert (first.get("name"), first.get("tests"), first.get("skipped")) == ("rack7-n1", "4", "1")
    assert (second.get("failures"), second.get("errors")) == ("1", "1")
    outcomes = [[child.tag for child in case] for case in suites.iter("testcase")]
    assert outcomes == [["skipped"], ["system-out"], ["system-out"], ["error"], ["failure"], ["error"]]
    assert second.get("name") == NASTY.replace("\x07", "\ufffd")


def test_the_table(reports: list[MachineReport]) -> None:
    text = rendered("table", reports[:1])
    assert "rack7-n1 (Example Server 1): Linux 6.1" in text
    assert "0000:04:00.0: unknown: " in text
    assert "1 certified, 1 compatible, 1 unknown, 1 skipped" in text
    assert "note: this machine has no USB bus" in text
    assert "0000:00:1f.0" not in text


def test_the_table_of_several_machines(reports: list[MachineReport]) -> None:
    first, second, *summary = rendered("table", reports).splitlines()
    assert first == "rack7-n1 (Example Server 1): 1 certified, 1 compatible, 1 unknown, 1 skipped"
    assert second.startswith(NASTY)
    assert summary[0] == "2 machines"
    assert summary[-1] == "1 certified, 1 compatible, 1 unsupported, 2 unknown, 1 skipped"


@pytest.mark.parametrize("form", FORMATS)
def test_what_they_come_to_only(reports: list[MachineReport], form: str) -> None:
    text = "".join(render(form, Fleet(iter(reports)), True))
    assert "0bda:8153" in text
    assert "0000:02:00.0" not in text


@pytest.mark.parametrize("form", FORMATS)
def test_the_command_prints_it(tmp_path: Path, form: str) -> None:
    path = tmp_path / "n1.txt"
    path.write_text("00:02.0 0200: 8086:100e\n")
    run = subprocess.run(
        [*HCL, "validate", "--inventory", path, "--format", form], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert "8086:100e" in run.stdout


# ---- the page, in a browser ----


@pytest.fixture(scope="module")
def browser_page(reports: list[MachineReport], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """The page, opened from a file with no network."""
    path = tmp_path_factory.mktemp("page") / "verdict.html"
    path.write_text(rendered("html", reports))
    with sync_playwright() as playwright:
        # Tests may run as root, for whom Chromium has no sandbox.
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        context = browser.new_context(offline=True)
        page = context.new_page()
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on(
            "request", lambda request: problems.append(request.url) if request.url != path.as_uri() else None
        )
        page.on("dialog", lambda dialog: problems.append(dialog.message))
        page.goto(path.as_uri())
        yield page
        browser.close()
    assert problems == []


def shown(page: Page) -> list[str]:
    """The verdicts of the rows that can be seen."""
    return [
        row.inner_text().split()[0] for row in page.locator(".machine tbody tr").all() if row.is_visible()
    ]


@pytest.fixture
def page(browser_page: Page) -> Page:
    browser_page.reload()
    browser_page.set_viewport_size({"width": 1200, "height": 900})
    browser_page.emulate_media(color_scheme="light")
    return browser_page


def test_the_page_tells_all(page: Page) -> None:
    assert shown(page) == ["skipped", "certified", "compatible", "unknown", "unsupported", "unknown"]
    assert page.locator("h1").inner_text() == "Of some devices it could not be told whether they fit."
    assert "2 machines, 6 devices" in page.locator("header").inner_text()
    assert page.locator("h1").bounding_box()["y"] < page.locator("h2").first.bounding_box()["y"]  # type: ignore[index]  # both are shown
    assert page.locator("script").count() == 1  # the name of the second machine is text


def test_the_page_is_searched_and_filtered(page: Page) -> None:
    page.get_by_label("Search").fill("tg3 14e4")
    assert shown(page) == ["unknown"]
    assert page.locator("section").nth(1).is_hidden()
    page.get_by_label("Search").fill("no such thing")
    assert shown(page) == []
    assert page.get_by_text("No device is like that.").is_visible()
    page.get_by_label("Search").fill("")
    for status in ("skipped", "unknown"):
        page.locator(f"input[value={status}]").uncheck()
    assert shown(page) == ["certified", "compatible", "unsupported"]


def test_a_row_opens_and_links_to_its_evidence(page: Page) -> None:
    row = page.locator("tr.certified")
    link = row.get_by_role("link")
    assert not link.is_visible()
    row.locator("summary").click()
    assert link.is_visible()
    assert Path(str(link.get_attribute("href")).removeprefix("file://")).is_file()
    assert "It looked at: link." in row.inner_text()


def test_the_page_is_readable_on_a_phone(page: Page) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    for summary in page.locator("summary").all():
        summary.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert len(shown(page)) == 6


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.1) of ``rgb(r, g, b)``."""
    parts = [int(part) / 255 for part in colour.removeprefix("rgb(").rstrip(")").split(",")]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(page: Page, scheme: str) -> None:
    """Contrast of 4.5 at least (WCAG 2.1, 1.4.3), by day and by night."""
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]  # one of its literals
    colour = "element => getComputedStyle(element).color"
    ground = luminance(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert (ground < 0.1) is (scheme == "dark")
    for selector in (
        "body",
        "small",
        "a",
        *(f"span.{status}" for status in ("certified", "unsupported", "unknown")),
    ):
        text = luminance(page.locator(selector).first.evaluate(colour))
        assert (max(text, ground) + 0.05) / (min(text, ground) + 0.05) >= 4.5, selector
