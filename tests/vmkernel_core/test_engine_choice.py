"""Which engine a device gets, by the list, an operator and what there is.

Independent side: none; each case says what is meant.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import pytest

import hcl
from hcl.verdict import Engine, Verdict
from vmkernel_core.engine import EngineName
from vmkernel_core.engine_choice import Choice, EngineChoice
from vmkernel_core.pci import PciFunction
from vmkernel_core.platform.base import PciAddress

FUNCTION = PciFunction(
    PciAddress(0, 0, 5, 0), 0x8086, 0x100E, 0x1AF4, 0x1100, 0x020000, 0, 0, 1, bars=(), capabilities=()
)
BOTH: tuple[Engine, ...] = ("linux", "native")


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
    choice = EngineChoice(None, {}, lambda _driver, _function: known)
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
        (None, {"0000:00:06.0": "native", "net/e100": "native"}, None),
    ],
)
def test_what_an_operator_says(
    engine: EngineName | None, engines: Mapping[str, EngineName], expected: EngineName | None
) -> None:
    choice = EngineChoice(engine, engines, lambda _driver, _function: True)
    found = choice.of(FUNCTION, verdict(BOTH), linux=True)
    assert found == Choice(expected or "linux", "linux", expected)
    assert choice.needs_linux == ("linux" in (engine, *engines.values()))


def test_an_operator_who_names_a_module_wants_linux() -> None:
    choice = EngineChoice("native", {}, lambda _driver, _function: True)
    found = choice.of(FUNCTION, verdict(("native", "linux")), linux=True, module=True)
    assert found == Choice("linux", "native", None)


@pytest.mark.parametrize(
    ("known", "why"),
    [
        (None, "there is no driver net/e1000 in Python"),
        (False, "the driver net/e1000 in Python does not know it"),
    ],
)
def test_the_reason_is_logged(known: bool | None, why: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    choice = EngineChoice("native", {}, lambda _driver, _function: known)
    assert choice.of(FUNCTION, verdict(BOTH), linux=True) == Choice("linux", "linux", "native")
    assert f"0000:00:05.0 [8086:100e]: Linux is to drive it: {why}" in caplog.text
