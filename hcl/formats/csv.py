"""Verdicts as CSV (RFC 4180): a row a device, of all machines; the columns are COLUMNS, in this order."""

from __future__ import annotations

import csv
import io
from collections import deque
from collections.abc import Callable, Iterator

import msgspec

from hcl.report import DeviceReport, MachineReport
from hcl.summary import DeviceSummary, Fleet

COLUMNS: dict[str, Callable[[MachineReport, DeviceReport], object]] = {
    "version": lambda machine, _: machine.version,
    "host": lambda machine, _: machine.host,
    "model": lambda machine, _: machine.model,
    "kernel": lambda machine, _: machine.kernel,
    "profile": lambda machine, _: machine.profile,
    "bus": lambda _, device: device.bus,
    "place": lambda _, device: device.place,
    "ids": lambda _, device: device.ids,
    "subsystem": lambda _, device: device.subsystem,
    "device_class": lambda _, device: device.device_class,
    "name": lambda _, device: device.name,
    "status": lambda _, device: device.status,
    "reason": lambda _, device: device.reason,
    "rung": lambda _, device: device.rung,
    "esx_driver": lambda _, device: device.esx_driver,
    "engine": lambda _, device: device.engine,
    "module": lambda _, device: device.module,
    "hardware": lambda _, device: device.hardware.status,
    "driver": lambda _, device: device.driver.status,
    "firmware": lambda _, device: device.firmware.status,
    "driver_in_use": lambda _, device: device.driver_in_use,
    "proof": lambda _, device: device.proof.run if device.proof else None,
    "proof_age": lambda _, device: device.proof_age,
}
"""The columns, and where each comes from; what does not apply, or was not told, is empty."""


def render(fleet: Fleet, brief: bool) -> Iterator[str]:
    """The rows, with a first one of the columns' names; briefly, those of the summary's devices.

    Text that a spreadsheet would run is defused.
    """
    text = io.StringIO()
    writer = csv.writer(text)
    if brief:
        deque(fleet, maxlen=0)
        writer.writerow(DeviceSummary.__struct_fields__)
        for device in fleet.summary().devices:
            writer.writerow(map(_cell, msgspec.structs.astuple(device)))
        yield text.getvalue()
        return
    writer.writerow(COLUMNS)
    for report in fleet:
        for each in report.devices:
            writer.writerow(_cell(value(report, each)) for value in COLUMNS.values())
        yield text.getvalue()
        text.seek(0)
        text.truncate()
    yield text.getvalue()


def _cell(value: object) -> str:
    """Names come from the inventory: one that begins like a formula gets an apostrophe before it (CWE-1236)."""
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
