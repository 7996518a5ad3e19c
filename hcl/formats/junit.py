"""Verdicts as JUnit's XML, for CI systems: a test suite a machine, a test case a device.

unsupported is a failure, unknown an error, skipped is skipped, and the rest passes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.sax.saxutils import escape, quoteattr

from hcl.report import DeviceReport, MachineReport
from hcl.summary import Failure, Fleet
from hcl.verdict import Status

_OUTCOMES = {Status.UNSUPPORTED: "failure", Status.UNKNOWN: "error", Status.SKIPPED: "skipped"}
# What XML 1.0 (2.2) has no character for.
_NO_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render(fleet: Fleet, brief: bool) -> Iterator[str]:
    """The document, suite by suite; briefly, with the devices that do not fit only."""
    yield '<?xml version="1.0" encoding="UTF-8"?>\n<testsuites name="hcl validate">\n'
    for report in fleet:
        yield _suite(report, brief)
    yield from map(_unread, fleet.failures)
    yield "</testsuites>\n"


def _suite(report: MachineReport, brief: bool) -> str:
    counts = report.counts
    properties = {
        "kernel": report.kernel,
        "profile": report.profile,
        "engine": report.engine or "",
        "model": report.model or "",
        "source": report.source,
    }
    lines = [
        f"  <testsuite name={_quoted(report.host)} tests={_quoted(len(report.devices))}"
        f" failures={_quoted(counts[Status.UNSUPPORTED])} errors={_quoted(counts[Status.UNKNOWN])}"
        f" skipped={_quoted(counts[Status.SKIPPED])}>",
        "    <properties>",
        *(
            f"      <property name={_quoted(name)} value={_quoted(value)}/>"
            for name, value in properties.items()
        ),
        *(f'      <property name="tainted" value={_quoted(sentence)}/>' for sentence in report.tainted),
        *(f'      <property name="note" value={_quoted(sentence)}/>' for sentence in report.notes),
        "    </properties>",
        *(
            _case(report.host, device)
            for device in report.devices
            if not brief or device.status in (Status.UNSUPPORTED, Status.UNKNOWN)
        ),
        "  </testsuite>",
    ]
    return "\n".join(lines) + "\n"


def _unread(failure: Failure) -> str:
    return (
        f'  <testsuite name={_quoted(failure.where)} tests="1" failures="0" errors="1" skipped="0">'
        f'<testcase classname={_quoted(failure.where)} name="inventory">'
        f"<error message={_quoted(failure.what)}/></testcase></testsuite>\n"
    )


def _case(host: str, device: DeviceReport) -> str:
    title = " ".join(filter(None, (device.place, device.ids, device.name)))
    start = f"    <testcase classname={_quoted(host)} name={_quoted(title)}"
    outcome = _OUTCOMES.get(device.status)
    if outcome is None:
        return f"{start}><system-out>{escape(_clean(device.reason))}</system-out></testcase>"
    return f"{start}><{outcome} message={_quoted(device.reason)}/></testcase>"


def _quoted(value: object) -> str:
    return quoteattr(_clean(str(value)))


def _clean(text: str) -> str:
    return _NO_XML.sub("\ufffd", text)
