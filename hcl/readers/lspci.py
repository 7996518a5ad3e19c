"""What lspci prints (lspci(8)): ``-n``, ``-nn``, either with ``-k`` or ``-v``, ``-mm``, ``-vmm``; ``-D`` or not.

Without numbers (``-n`` or ``-nn``) the ids are not there: such a device is ``Unidentified``, never guessed from names.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

from hcl.errors import BadInventory
from hcl.inventory import Device, Inventory, PciDevice, Unidentified

_ADDRESS = r"(?:[0-9a-f]{4,8}:)?[0-9a-f]{2}:[01][0-9a-f]\.[0-7]"
_LINE = re.compile(rf"(?P<address>{_ADDRESS}) (?P<rest>\S.*)")
# 0200: 8086:100e (rev 03)
_NUMBERS = re.compile(
    r"(?:Class )?(?P<pci_class>[0-9a-f]{4}): (?P<vendor>[0-9a-f]{4}):(?P<device>[0-9a-f]{4})(?P<more>.*)"
)
# Ethernet controller [0200]: Intel Corporation 82540EM Gigabit Ethernet Controller [8086:100e] (rev 03)
_BOTH = re.compile(
    r".*\[(?P<pci_class>[0-9a-f]{4})\]: (?P<name>.*)\[(?P<vendor>[0-9a-f]{4}):(?P<device>[0-9a-f]{4})\](?P<more>.*)"
)
_NAMES = re.compile(r"[^:\"]+: (?P<name>.+)")
_REVISION = re.compile(r"\(rev ([0-9a-f]{2})\b")
_INTERFACE = re.compile(r"\(prog-if ([0-9a-f]{2})\b")
_SUBSYSTEM = re.compile(r"(?:.*\[)?([0-9a-f]{4}):([0-9a-f]{4})\]?")
# "Ethernet controller [0200]" of -nn, "0200" of -n.
_ID = re.compile(r"\A(?:.*\[)?([0-9a-f]{4})\]?\Z")
_HEXDUMP = re.compile(r"[0-9a-f]{2,3}:( [0-9a-f]{2})+")
_SAID_BY_LSPCI = ("pcilib: ", "lspci: ")
_NO_IDS = "the text names it without ids; lspci -nn prints both"


def recognise(head: str) -> bool:
    """Whether a device's line, or a record of ``-vmm``, comes before anything else."""
    for line in head.splitlines():
        if line.strip() and not line.startswith(_SAID_BY_LSPCI):
            return bool(_LINE.fullmatch(line.rstrip())) or line.startswith("Slot:\t")
    return False


def read(text: str, place: str) -> Inventory:
    """The inventory. BadInventory with the line that lspci does not print."""
    lines = [
        (number, line.rstrip())
        for number, line in enumerate(text.split("\n"), 1)
        if not line.startswith(_SAID_BY_LSPCI)
    ]
    first = next((line for _, line in lines if line), "")
    blocks = _records(lines, place) if first.startswith("Slot:") else _blocks(lines, place)
    return Inventory(host=Path(place).stem, source=f"lspci: {place}", devices=tuple(blocks))


def _bad(place: str, number: int, line: str) -> BadInventory:
    return BadInventory(
        f"not what lspci prints: {line.strip()[:60]!r}",
        where=f"{place}:{number}",
        remedy="make the file again with `lspci -Dvmmnnk`",
    )


def _address(text: str) -> str:
    return text if text.count(":") == 2 else f"0000:{text}"


# ---- a line a device, with indented lines below it (-v, -k) ----


def _blocks(lines: list[tuple[int, str]], place: str) -> Iterator[Device]:
    block: list[tuple[int, str]] = []
    for number, line in lines:
        if not line or (block and (line[0].isspace() or _HEXDUMP.fullmatch(line))):
            block += [(number, line)] if line else []
            continue
        if block:
            yield _device(block, place)
        block = [(number, line)]
    if block:
        yield _device(block, place)


def _device(block: list[tuple[int, str]], place: str) -> Device:
    (number, line), *below = block
    found = _LINE.fullmatch(line)
    if not found:
        raise _bad(place, number, line)
    address, rest = _address(found["address"]), found["rest"]
    if rest.startswith('"'):
        return _quoted(address, rest, place, number)
    told = _NUMBERS.fullmatch(rest) or _BOTH.fullmatch(rest)
    if not told:
        if names := _NAMES.fullmatch(rest):
            return Unidentified(place=address, name=names["name"], reason=_NO_IDS)
        raise _bad(place, number, line)
    fields = _below(below)
    interface = _INTERFACE.search(told["more"])
    subsystem = _SUBSYSTEM.fullmatch(fields.get("Subsystem", ""))
    # -k tells the driver in use, and says nothing where there is none.
    asked = any(key.startswith("Kernel ") for key in fields)
    return PciDevice(
        address=address,
        vendor=told["vendor"],
        device=told["device"],
        subvendor=subsystem[1] if subsystem else None,
        subdevice=subsystem[2] if subsystem else None,
        pci_class=told["pci_class"] + (interface[1] if interface else ""),
        revision=_first(_REVISION, told["more"]),
        driver=fields.get("Kernel driver in use", "" if asked else None),
        modules=tuple(fields["Kernel modules"].split(", ")) if "Kernel modules" in fields else (),
        slot=fields.get("Physical Slot") or fields.get("DeviceName"),
        name=(told.groupdict().get("name") or "").strip() or None,
    )


def _below(lines: list[tuple[int, str]]) -> dict[str, str]:
    """``Key: value`` of the indented lines; there are many others, and those say nothing here."""
    pairs = (line.strip().partition(": ") for _, line in lines)
    return {key: value for key, colon, value in pairs if colon}


def _first(pattern: re.Pattern[str], text: str) -> str | None:
    found = pattern.search(text)
    return found[1] if found else None


# ---- -mm ----


def _quoted(address: str, rest: str, place: str, number: int) -> Device:
    try:
        words = shlex.split(rest)
    except ValueError as error:
        raise _bad(place, number, rest) from error
    options = {word[1]: word[2:] for word in words if re.fullmatch(r"-[rp][0-9a-f]{2}", word)}
    plain = [word for word in words if not re.fullmatch(r"-[rp][0-9a-f]{2}", word)]
    if len(plain) not in (3, 5):
        raise _bad(place, number, rest)
    pci_class, vendor, device, *subsystem = plain
    return _of_fields(
        address, pci_class, vendor, device, subsystem,
        lambda: _bad(place, number, rest), revision=options.get("r"), interface=options.get("p"),
    )  # fmt: skip


def _of_fields(
    address: str,
    pci_class: str,
    vendor: str,
    device: str,
    subsystem: list[str],
    bad: Callable[[], BadInventory],
    *,
    revision: str | None,
    interface: str | None,
    driver: str | None = None,
    modules: tuple[str, ...] = (),
    slot: str | None = None,
) -> Device:
    """A device of the fields of -mm or -vmm, each a name, a number or both."""
    ids = [_first(_ID, each) for each in (pci_class, vendor, device)]
    named = f"{_name(vendor)} {_name(device)}".strip() or None
    if None in ids:
        if any(ids[1:]):
            raise bad()
        return Unidentified(place=address, name=named, reason=_NO_IDS)
    sub = [_first(_ID, each) for each in subsystem if each] or [None, None]
    if len(sub) != 2 or (subsystem and None in sub and any(subsystem)):
        raise bad()
    return PciDevice(
        address=address,
        vendor=str(ids[1]),
        device=str(ids[2]),
        subvendor=sub[0],
        subdevice=sub[1],
        pci_class=f"{ids[0]}{interface or '00'}",
        revision=revision,
        driver=driver,
        modules=modules,
        slot=slot,
        name=named,
    )


def _name(text: str) -> str:
    return "" if re.fullmatch("[0-9a-f]{4}", text) else re.sub(r" ?\[[0-9a-f]{4}\]$", "", text)


# ---- -vmm ----


def _records(lines: list[tuple[int, str]], place: str) -> Iterator[Device]:
    record: dict[str, list[str]] = {}
    began = 0
    for number, line in [*lines, (len(lines) + 1, "")]:
        if not line:
            if record:
                yield _record(record, place, began)
            record = {}
            continue
        key, colon, value = line.partition(":\t")
        if not colon:
            raise _bad(place, number, line)
        began = began if record else number
        record.setdefault(key, []).append(value)


def _record(record: dict[str, list[str]], place: str, number: int) -> Device:
    first = {key: values[0] for key, values in record.items()}
    if not {"Slot", "Class", "Vendor", "Device"} <= first.keys() or not re.fullmatch(_ADDRESS, first["Slot"]):
        raise BadInventory(
            "a record of lspci -vmm without Slot, Class, Vendor or Device",
            where=f"{place}:{number}",
            remedy="make the file again with `lspci -Dvmmnnk`",
        )
    asked = "Driver" in first or "Module" in first
    return _of_fields(
        _address(first["Slot"]), first["Class"], first["Vendor"], first["Device"],
        [first[key] for key in ("SVendor", "SDevice") if key in first],
        lambda: _bad(place, number, f"Slot: {first['Slot']}"),
        revision=first.get("Rev"), interface=first.get("ProgIf"), driver=first.get("Driver", "" if asked else None),
        modules=tuple(record.get("Module", ())), slot=first.get("PhySlot"),
    )  # fmt: skip
