"""A client of a running vmkernel, for programs and for the console.

>>> from vmkernel_core.console.client import connect
>>> from vmkernel_core.console.nic_operations import nic_list
>>> with connect() as vmkernel:                       # doctest: +SKIP
...     print([nic.name for nic in vmkernel.call(nic_list)])
['vmnic0']
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec

from vmkernel_core.console.protocol import (
    LONGEST_REPLY,
    REQUEST_LIMIT,
    VERSION,
    RemoteError,
    Reply,
    Request,
    encode_line,
)
from vmkernel_core.console.socket_path import NoVMkernel, default_path, dial
from vmkernel_core.errors import TimedOut

if TYPE_CHECKING:
    import socket
    from types import TracebackType

    from vmkernel_core.console.protocol import Arguments, Operation, Result


class Caller(Protocol):
    """Whoever takes operations: a client, or a vmkernel in this process."""

    def call(self, operation: Operation[Arguments, Result], arguments: Arguments | None = None) -> Result:
        """Have it performed; its result. What it raises there is raised here."""


class Client:
    """A connection to a vmkernel; a context manager that closes it. One thread at a time may use it."""

    def __init__(self, connection: socket.socket) -> None:
        """``connect`` makes clients."""
        self._socket = connection
        self._replies = connection.makefile("rb")
        self._id = 0

    def __enter__(self) -> Client:
        """It is connected already."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._replies.close()
        self._socket.close()

    def call(self, operation: Operation[Arguments, Result], arguments: Arguments | None = None) -> Result:
        """Have an operation performed; its result.

        Raises RemoteError with the text and the exit code of what it raised there, NoVMkernel when the vmkernel ended,
        TimedOut.
        """
        self._id += 1
        taken = operation.arguments() if arguments is None else arguments
        request = Request(VERSION, operation.name, msgspec.Raw(msgspec.json.encode(taken)), self._id)
        line = self._exchange(encode_line(request), operation.name)
        reply = msgspec.json.decode(line, type=Reply)
        if reply.error is not None:
            raise RemoteError(reply.error)
        return msgspec.json.decode(reply.result, type=operation.result)

    def _exchange(self, request: bytes, name: str) -> bytes:
        try:
            self._socket.sendall(request)
            line = self._replies.readline(LONGEST_REPLY)
        except TimeoutError as error:
            raise TimedOut("the vmkernel did not reply in time", where=name) from error
        except ConnectionError as error:
            raise NoVMkernel("the vmkernel ended", where=name, remedy="start it again") from error
        if not line.endswith(b"\n"):
            raise NoVMkernel(
                "the vmkernel ended in the middle of a reply", where=name, remedy="start it again"
            )
        return line


def connect(path: str | os.PathLike[str] | None = None, timeout: float = 2 * REQUEST_LIMIT) -> Client:
    """Connect to the vmkernel at a socket, the default one when none is named; NoVMkernel when none answers.

    ``timeout``: seconds that a reply may take, those of other clients' requests before it among them.
    """
    return Client(dial(default_path() if path is None else Path(path), timeout))
