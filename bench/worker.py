"""A side in a process of its own, so that two can take turns: there is one machine memory per process."""

from __future__ import annotations

import multiprocessing
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias

from bench.disk_guest import DiskGuestSide
from bench.disk_sides import DeviceSide, DiskFloorSide
from bench.guest import GuestSide
from bench.sides import FloorSide, UplinkSide
from vmkernel_core.errors import VmkError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from types import TracebackType

_LIMIT = 120.0
Kind: TypeAlias = (
    type[FloorSide]
    | type[UplinkSide]
    | type[GuestSide]
    | type[DiskFloorSide]
    | type[DeviceSide]
    | type[DiskGuestSide]
)


def _serve(connection: Connection, kind: Kind, arguments: tuple[Any, ...]) -> None:
    try:
        with kind(*arguments) as side:
            connection.send(None)
            while request := connection.recv():
                name, *values = request
                connection.send(getattr(side, name)(*values))
    except VmkError as error:
        connection.send(VmkError(str(error)))


class Worker:
    """``ask("tx", ...)`` calls that method of the side. A context manager; raises the side's VmkError."""

    def __init__(self, kind: Kind, *arguments: Any) -> None:
        """``arguments`` make the side."""
        spawn = multiprocessing.get_context("spawn")
        self._ours, theirs = spawn.Pipe()
        self._process = spawn.Process(target=_serve, args=(theirs, kind, arguments), daemon=True)
        self._name = kind.__name__

    def __enter__(self) -> Worker:
        """Start it and wait until the side is ready."""
        self._process.start()
        self._answer()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        if self._process.is_alive():
            with suppress(BrokenPipeError):  # it ends by itself, after the error that it sent
                self._ours.send(None)
            self._process.join(_LIMIT)
        self._ours.close()

    def ask(self, method: str, *arguments: Any) -> Any:
        """What the method returns."""
        self._ours.send((method, *arguments))
        return self._answer()

    def _answer(self) -> Any:
        if not self._ours.poll(_LIMIT):
            raise VmkError(f"no answer within {_LIMIT:.0f} s", where=self._name)
        answer = self._ours.recv()
        if isinstance(answer, VmkError):
            raise answer
        return answer
