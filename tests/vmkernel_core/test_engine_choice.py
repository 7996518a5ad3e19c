"""Which engine a device gets, by the list, an operator and what there is.

Independent side: none; each case says what is meant.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import cast

import msgspec
import pytest

import hcl
from hcl.verdict import Engine, Verdict
from vmkernel_core.engine import EngineName
from vmkernel_core.engine_choice import Choice, EngineChoice
from vmkernel_core.errors import UsageError
from vmkernel_core.pci import PciFunction
from vmkernel_core.platform.base import PciAddress

FUNCTION = PciFunction(
    PciAddress(0, 0, 5, 0), 0x8086, 0x100E, 0x1AF4, 0x1100, 0x020000, 0, 0, 1, bars=(), capabilities=()
)
BOTH: tuple[Engine, ...] = ("linux", "native")


def listed() -> Mapping[str, tuple[Engine, ...]]:
    """The list's drivers, and their engines."""
    return {"net/e1000": BOTH, "net/e100": BOTH, "net/tg3": ("linux",), "scsi/vmkiscsi": ("native",)}


def verdict(engines: tuple[Engine, ...]) -> Verdict:
    listed = hcl.lookup(0x8086, 0x100E, 0x1AF4, 0x1100, 0x020000)
    return msgspec.structs.replace(listed, engines=engines)


@pytest.mark.parametrize(
    ("engines", "linux", "known", "expected"),
    [
        (BOTH, True, True, "linux"),
        (("native", "linux"), True, True, "native"),
        (("native", "linux"), True, False, "linux"),
        (BOTH, False, True, "native"),
        (BOTH, False, False, "linux"),
        (("linux",), False, True, "linux"),
        (("native",), False, None, "linux"),
        ((), True, None, "linux"),
    ],
)
def test_what_the_list_prefers_of_what_there_is(
    engines: tuple[Engine, ...], linux: bool, known: bool | None, expected: EngineName
) -> None:
    choice = EngineChoice(None, {}, lambda _driver, _function: known, listed)
    policy = engines[0] if engines else None
    assert choice.of(FUNCTION, verdict(engines), linux=linux) == Choice(expected, policy, None)
    assert not choice.needs_linux


@pytest.mark.parametrize(
    ("engine", "engines", "expected"),
    [
        ("native", {}, "native"),
        ("linux", {}, "linux"),
        ("linux", {"net/e1000": "native"}, "native"),
        ("linux", {"8086:100e": "native"}, "native"),
        ("native", {"0000:00:05.0": "linux"}, "linux"),
        # The nearest that is said of it.
        (None, {"net/e1000": "linux", "8086:100e": "native"}, "native"),
        (None, {"0000:00:05.0": "linux", "8086:100e": "native"}, "linux"),
        # As people write them.
        (None, {"8086:100E": "native"}, "native"),
        (None, {"00:05.0": "native"}, "native"),
        (None, {"0000:00:06.0": "native", "net/e100": "native"}, None),
    ],
)
def test_what_an_operator_says(
    engine: EngineName | None, engines: Mapping[str, EngineName], expected: EngineName | None
) -> None:
    choice = EngineChoice(engine, engines, lambda _driver, _function: True, listed)
    found = choice.of(FUNCTION, verdict(BOTH), linux=True)
    assert found == Choice(expected or "linux", "linux", expected)
    assert choice.needs_linux == ("linux" in (engine, *engines.values()))


def test_an_operator_who_names_a_module_wants_linux() -> None:
    choice = EngineChoice("native", {}, lambda _driver, _function: True, listed)
    found = choice.of(FUNCTION, verdict(("native", "linux")), linux=True, module=True)
    assert found == Choice("linux", "native", None)


@pytest.mark.parametrize(
    ("engine", "engines", "error"),
    [
        ("bsd", {}, "there is no engine bsd; use linux or native"),
        (None, {"8086:100e": "bsd"}, "there is no engine bsd; use linux or native"),
        (None, {"net/e1000": "bsd"}, "there is no engine bsd; use linux or native"),
        (
            None,
            {"net/nothing": "native"},
            "'net/nothing' names neither a device nor a driver of the list (engines)",
        ),
        (None, {"e1000": "native"}, "did you mean net/e1000?"),
        (
            None,
            {"8086:100": "native"},
            "write a PCI address (0000:00:05.0) or vendor:device (8086:100e), or ",
        ),
        (None, {"0000:00:25.8": "native"}, "'0000:00:25.8' names neither"),
        (None, {"": "native"}, "'' names neither"),
        (None, {"net/tg3": "native"}, "net/tg3 cannot be had with the engine native (engines); it has linux"),
        (None, {"scsi/vmkiscsi": "linux"}, "cannot be had with the engine linux (engines); it has native"),
    ],
)
def test_what_cannot_be_said(engine: str | None, engines: Mapping[str, str], error: str) -> None:
    with pytest.raises(UsageError, match=re.escape(error)):
        EngineChoice(
            cast(EngineName | None, engine),
            cast(Mapping[str, EngineName], engines),
            lambda _driver, _function: True,
            listed,
        )


@pytest.mark.parametrize(
    ("known", "why"),
    [
        (None, "there is no driver net/e1000 in Python"),
        (False, "the driver net/e1000 in Python does not know it"),
    ],
)
def test_the_reason_is_logged(known: bool | None, why: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("WARNING")
    asked = EngineChoice(None, {"8086:100e": "native"}, lambda _driver, _function: known, listed)
    assert asked.of(FUNCTION, verdict(BOTH), linux=True).engine == "linux"
    assert f"0000:00:05.0 [8086:100e]: Linux is to drive it: {why}" in caplog.text
    caplog.clear()
    caplog.set_level("INFO")
    choice = EngineChoice("native", {}, lambda _driver, _function: known, listed)
    assert choice.of(FUNCTION, verdict(BOTH), linux=True) == Choice("linux", "linux", "native")
    assert f"0000:00:05.0 [8086:100e]: Linux is to drive it: {why}" in caplog.text
