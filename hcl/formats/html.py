"""Verdicts as one HTML page that needs nothing else: a summary, a row a device, a search, filters, reasons, evidence.

The rows are in the page as HTML, so that it can be read where scripts are not run; the script only hides rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from string import Template

from hcl.report import DeviceReport, MachineReport
from hcl.summary import Fleet, Summary
from hcl.verdict import Status

_TEMPLATE = Path(__file__).parent / "page.html"
_SAYS = {
    0: "Every device fits.",
    1: "Some devices are not supported.",
    2: "Of some devices it could not be told whether they fit.",
    3: "Some inventories could not be read.",
}


def render(fleet: Fleet, brief: bool) -> Iterator[str]:
    """The page, machine by machine; the summary stands at its end and is shown at its top.

    Briefly, the rows are the summary's devices.
    """
    head, tail = _TEMPLATE.read_text().split("<!-- machines -->")
    yield head
    for report in fleet:
        if not brief:
            yield _machine(report)
    summary = fleet.summary()
    counts = summary.counts
    if brief:
        yield _devices(summary)
    yield "".join(f'<p class="tainted">{escape(f"{one.where}: {one.what}")}.</p>' for one in fleet.failures)
    filters = "".join(
        f'<label class="{status}"><input type="checkbox" name="status" value="{status}" checked> '
        f"<b>{counts[status]}</b> {status}</label>"
        for status in Status
    )
    yield Template(tail).substitute(
        verdict=_SAYS[fleet.exit_code],
        machines=f"{summary.machines} machine{'s' * (summary.machines != 1)}, {sum(counts.values())} devices",
        models=_models(summary),
        filters=filters,
        made=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    )


def _models(summary: Summary) -> str:
    """The table of models, where there is more than one machine."""
    if summary.machines < 2:
        return ""
    rows = "".join(
        f"<tr><td>{escape(one.model or 'of no known model')}<td>{one.machines}<td>{one.fit}<td>{one.unsupported}"
        f"<td>{one.undetermined}</tr>"
        for one in summary.models
    )
    return (
        '<table class="models"><thead><tr><th>Model<th>Machines<th>Fit<th>Unsupported<th>Undetermined</tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )


def _devices(summary: Summary) -> str:
    """The devices of all machines, those of the same ids and verdict together."""
    rows = "".join(
        f'<tr class="{one.status}"><td><span class="{one.status}">{one.status}</span>'
        f"<td><code>{escape(one.ids or '')}</code> {escape(one.name or '')}<br>{one.devices} in {one.machines} machines"
        f"<td>{escape(one.driven_by)}<td>{escape(one.reason)}</tr>\n"
        for one in summary.devices
    )
    return (
        '<section class="machine"><h2>All machines</h2><table>'
        f"<thead><tr><th>Verdict<th>Device<th>Driver<th>Reason</tr></thead><tbody>{rows}</tbody></table></section>\n"
    )


def _machine(report: MachineReport) -> str:
    said = "".join(f'<p class="tainted">Tainted: {escape(one)}.</p>' for one in report.tainted)
    said += "".join(f"<p>Note: {escape(one)}.</p>" for one in report.notes)
    rows = "".join(map(_row, report.devices))
    return (
        f'<section class="machine"><h2>{escape(report.host)}</h2>'
        f"<p>{escape(report.model or '')} <small>{escape(report.terms)}; "
        f"{escape(report.source)}</small></p>{said}"
        "<table><thead><tr><th>Verdict<th>Device<th>Driver<th>Reason</tr></thead>"
        f"<tbody>{rows}</tbody></table></section>\n"
    )


def _row(device: DeviceReport) -> str:
    ids = f"<code>{escape(device.ids or '')}</code>"
    more = "".join(
        f"<dt>{name}<dd><span class={one.status}>{one.status}</span> {escape(one.reason)}"
        for name, one in (
            ("Hardware", device.hardware),
            ("Driver", device.driver),
            ("Firmware", device.firmware),
        )
    )
    facts = {
        "Found by": device.rung,
        "Subsystem": device.subsystem,
        "Class": device.device_class,
        "ESX driver": device.esx_driver,
        "In use": device.driver_in_use,
    }
    more += "".join(f"<dt>{name}<dd>{escape(str(value))}" for name, value in facts.items() if value)
    more += "".join(f"<dt>Lost<dd>{escape(f'{one.driver}: {one.reason}')}" for one in device.losers)
    if device.proof:
        proof = device.proof
        looked = ", ".join(f"{one} FAILED" if one in proof.failed else one for one in proof.checks)
        more += (
            f'<dt>Evidence<dd><a href="{escape(Path(proof.file).as_uri())}">{escape(proof.run)}</a>, '
            f"{device.proof_age} days old: {escape(str(proof))}. It looked at: {escape(looked)}."
        )
    return (
        f'<tr class="{device.status}"><td><span class="{device.status}">{device.status}</span>'
        f"<td>{escape(device.place)} {ids}<br>{escape(device.name or '')}<td>{escape(device.driven_by)}"
        f"<td><details><summary>{escape(device.reason)}</summary><dl>{more}</dl></details></tr>\n"
    )
