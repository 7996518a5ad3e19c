"""Forms in which verdicts are printed: a module of this package each, with a function ``render``.

``render`` takes the reports one after the other, so that a fleet need not fit into memory, and yields text. With
``brief`` it leaves the machines out and tells what they come to.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Protocol, cast

from hcl.summary import Fleet

FORMATS = ("table", "json", "csv", "junit", "html")
"""Their names, and those of their modules."""


class Format(Protocol):
    """What a format's module has."""

    def render(self, fleet: Fleet, brief: bool) -> Iterator[str]:
        """The text, piece by piece; the pieces bring their own newlines."""


def render(name: str, fleet: Fleet, brief: bool) -> Iterator[str]:
    """The reports in the format of that name, one of FORMATS."""
    return cast(Format, import_module(f"hcl.formats.{name}")).render(fleet, brief)
