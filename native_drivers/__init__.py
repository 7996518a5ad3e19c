"""Drivers in Python, a folder for each driver of ESX 3's: ``net/e1000``, ``scsi/megaraid_sas``.

Each has a README, its entry of the hardware compatibility list and its device ids; one that there is code for exports
its class as ``DRIVER``. The others are data: Linux's modules alone serve their devices.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vmklinux.native.engine import Driver


@cache
def _code() -> dict[str, str]:
    """Where the drivers are that there is code for: package by the name of its folder."""
    found = Path(__file__).parent.glob("*/*/__init__.py")
    return {path.parent.name: f"{__name__}.{path.parts[-3]}.{path.parts[-2]}" for path in found}


def names() -> list[str]:
    """Those of the drivers that there is code for, as their folders have them."""
    return sorted(_code())


def find(name: str) -> Driver | None:
    """The driver in Python of an ESX driver (``net/e1000``, or ``e1000``); None when there is none."""
    package = _code().get(name.rpartition("/")[2])
    driver: Driver | None = import_module(package).DRIVER if package else None
    return driver
