"""The engines that end-to-end tests run cards on: Debian's kernels with their modules, and drivers in Python."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import pytest

from tests.e2e.cards import CARDS
from tests.e2e.storage import CONTROLLERS

if TYPE_CHECKING:
    from vmklinux.kernels import Kernel

#: By what a fixture is called: a kernel's, or none.
LINUX, NATIVE = ("kernel61", "kernel612"), "native"
ENGINES = (*LINUX, NATIVE)


@dataclass(frozen=True)
class Engine:
    """An engine; ``kernel`` is Linux's, None for drivers in Python."""

    name: Literal["linux", "native"]
    kernel: Kernel | None

    def __str__(self) -> str:
        """Its name, and the kernel's."""
        return f"{self.name} {self.kernel.release}" if self.kernel else self.name

    @property
    def options(self) -> dict[str, Any]:
        """VMkernel's options that choose it."""
        return {"engine": self.name, "kernel": self.kernel.release if self.kernel else None}


def _pairs(cards: tuple[str, ...], engines: tuple[str, ...]) -> list[Any]:
    """Each card, or storage controller, with each of the engines that has a driver for it."""
    return [
        pytest.param((card, engine), id=f"{card}-{engine}")
        for card in cards
        for engine in engines
        if engine != NATIVE or (CARDS | CONTROLLERS)[card].native
    ]


def on_each(*cards: str, engines: tuple[str, ...] = ENGINES) -> Any:
    """The fixture ``driven`` of a module whose tests run on these cards: a card's name, and what drives it."""

    @pytest.fixture(scope="module", name="driven", params=_pairs(cards, engines))
    def fixture(request: pytest.FixtureRequest) -> tuple[str, str]:
        card, engine = request.param
        return card, engine

    return fixture


def only(*cards: str, engines: tuple[str, ...] = ENGINES) -> pytest.MarkDecorator:
    """Run a test of such a module on these cards, and with these engines."""
    return pytest.mark.parametrize("driven", _pairs(cards, engines), indirect=True)


def with_engines(*engines: str) -> pytest.MarkDecorator:
    """Run a test that chooses its card by itself with these engines."""
    params = [pytest.param(("", engine), id=engine) for engine in engines]
    return pytest.mark.parametrize("driven", params, indirect=True)


#: Run a test that chooses its card by itself with each engine.
by_engine = with_engines(*ENGINES)
