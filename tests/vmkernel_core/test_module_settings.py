"""With which settings a module is loaded, by what was given and what was set.

Independent side: none; each case says what is meant.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import pytest

from tests.vmkernel_core.test_engine_choice import FUNCTION
from vmkernel_core.errors import UsageError
from vmkernel_core.module_settings import ModuleSettings, split_settings
from vmkernel_core.operator_keys import device_key
from vmkernel_core.platform.base import PciAddress

OTHER = replace(FUNCTION, address=PciAddress(0, 0, 6, 0))


def test_both_engines_get_what_is_given_by_name() -> None:
    settings = ModuleSettings({"e1000": ["debug=1"]})
    assert settings.of("linux", "e1000") == settings.of("native", "e1000", FUNCTION) == ("debug=1",)
    assert settings.of("linux", "e100") == ()


def test_what_is_given_for_one_engine_is_its_own() -> None:
    settings = ModuleSettings(
        {"e1000": ["debug=1"], "native:e1000": ["TxDescriptors=80"], "linux:e100": ["x=1"]}
    )
    assert settings.of("linux", "e1000") == ("debug=1",)
    assert settings.of("native", "e1000") == ("TxDescriptors=80",)
    assert (settings.of("linux", "e100"), settings.of("native", "e100")) == (("x=1",), ())


def test_a_device_has_its_own() -> None:
    settings = ModuleSettings({"native:e1000": ["TxDescriptors=80"], "00:05.0": ["TxDescriptors=96"]})
    assert settings.of("native", "e1000", FUNCTION) == ("TxDescriptors=96",)
    assert settings.of("native", "e1000", OTHER) == settings.of("native", "e1000") == ("TxDescriptors=80",)


def test_what_was_set_last_counts_for_one_engine() -> None:
    settings = ModuleSettings({"ne2k-pci": ["a=1"], "0000:00:05.0": ["a=2"]})
    settings.set("native", "ne2k_pci", ["a=3"])
    assert settings.of("native", "ne2k-pci", FUNCTION) == ("a=3",)
    assert settings.of("linux", "ne2k_pci", OTHER) == ("a=1",)
    settings.set("native", "ne2k-pci", [])
    assert settings.of("native", "ne2k_pci", FUNCTION) == ()


@pytest.mark.parametrize(
    ("name", "texts", "error"),
    [
        (
            "bsd:e1000",
            [],
            "'bsd:e1000' names no module (settings); write a module (e1000), one engine's (native:e1000",
        ),
        ("8086:100e", [], "'8086:100e' names no module"),
        ("native:", [], "'native:' names no module"),
        ("net/e1000", [], "'net/e1000' names no module"),
        ("", [], "'' names no module"),
        (
            "e1000",
            "a=1 b=2",
            "settings are a list of texts, not the text 'a=1 b=2' (e1000); write ['a=1', 'b=2']",
        ),
    ],
)
def test_what_cannot_be_given(name: str, texts: str | list[str], error: str) -> None:
    with pytest.raises(UsageError, match=re.escape(error)):
        ModuleSettings({name: cast(Sequence[str], texts)})


def test_settings_in_one_text() -> None:
    assert split_settings('debug=16 name="two words" -x') == ["debug=16", "name=two words", "-x"]
    with pytest.raises(UsageError, match="cannot read 'a=\"b': No closing quotation; write"):
        split_settings('a="b')


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("00:1F.7", "0000:00:1f.7"),
        ("10000:E1:00.0", "10000:e1:00.0"),
        ("8086:100E", "8086:100e"),
        ("00:20.0", None),
        ("0:5.0", None),
        ("e1000", None),
    ],
)
def test_what_a_device_is_called(text: str, key: str | None) -> None:
    assert device_key(text) == key
