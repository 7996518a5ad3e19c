"""The serving side of a vmkernel's socket: many clients, one operation at a time.

asyncio's thread speaks with the clients and runs no kernel code; the operations run in one other thread, the one in
which the vmkernel was booted. So none ever sees another's half-done change.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
from typing import TYPE_CHECKING, Final

from vmkernel_core.console.operations import OPERATIONS
from vmkernel_core.console.protocol import (
    LONGEST_REQUEST,
    REQUEST_LIMIT,
    VERSION,
    BadRequest,
    Reply,
    decode_request,
    encode_line,
    failure,
)
from vmkernel_core.errors import TimedOut, UsageError

if TYPE_CHECKING:
    from concurrent.futures import Executor

    import msgspec

    from vmkernel_core.boot import VMkernel
    from vmkernel_core.console.protocol import Request

_log = logging.getLogger(__name__)

MOST_CLIENTS: Final = 64
_UCRED = struct.Struct("iII")  # struct ucred of unix(7): pid, uid, gid


class NotAllowed(UsageError):
    """A client of another user."""


class Server:
    """Serves a booted vmkernel's operations; ``executor`` has the one thread in which they run."""

    def __init__(self, host: VMkernel, executor: Executor, limit: float = REQUEST_LIMIT) -> None:
        """``limit``: seconds until a client is told that its request takes too long."""
        self._host = host
        self._executor = executor
        self._limit = limit
        self._clients: set[asyncio.Task[None]] = set()

    async def serve(self, listener: socket.socket, until: asyncio.Event) -> None:
        """Serve those who connect until the event; then everybody is cut off. The listener stays open."""
        server = await asyncio.start_unix_server(self._client, sock=listener.dup(), limit=LONGEST_REQUEST)
        try:
            await until.wait()
        finally:
            server.close()
            for client in self._clients:
                client.cancel()
            await asyncio.gather(*self._clients, return_exceptions=True)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None, "asyncio runs this in a task"
        self._clients.add(task)
        try:
            await self._converse(reader, writer)
        except (ConnectionError, asyncio.CancelledError) as error:
            _log.debug("a client has gone: %r", error)
        finally:
            self._clients.discard(task)
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self._admit(writer.get_extra_info("socket"))
            while line := await _line(reader):
                writer.write(encode_line(await self._reply(line)))
                await writer.drain()
        except UsageError as error:  # the connection is of no use any more
            writer.write(encode_line(Reply(VERSION, 0, error=failure(error))))
            await writer.drain()

    def _admit(self, client: socket.socket) -> None:
        _, uid, _ = _UCRED.unpack(client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        if uid not in (0, os.getuid()):
            raise NotAllowed(f"user {uid} may not use the vmkernel of user {os.getuid()}")
        if len(self._clients) > MOST_CLIENTS:
            raise UsageError(
                f"{MOST_CLIENTS} clients are connected already", remedy="try again when one has gone"
            )

    async def _reply(self, line: bytes) -> Reply:
        try:
            request = decode_request(line)
        except BadRequest as error:
            return Reply(VERSION, 0, error=failure(error))
        try:
            return Reply(VERSION, request.id, await self._perform(request))
        except Exception as error:
            if not hasattr(error, "exit_code"):
                _log.exception("operation %s", request.operation)
            return Reply(VERSION, request.id, error=failure(error))

    async def _perform(self, request: Request) -> msgspec.Raw:
        operation = OPERATIONS.get(request.operation)
        if operation is None:
            raise BadRequest(
                f"there is no operation {request.operation[:100]!r}",
                remedy=f"use one of {', '.join(OPERATIONS)}",
            )
        loop = asyncio.get_running_loop()
        running = loop.run_in_executor(self._executor, operation.perform, self._host, request.arguments)
        done, _ = await asyncio.wait([running], timeout=self._limit)
        if done:
            return running.result()
        running.cancel()  # where it has begun, kernel code goes on: it cannot be told to give up
        raise TimedOut(
            f"{request.operation} did not end within {self._limit:g} s",
            remedy="it may still end; ask again later",
        )


async def _line(reader: asyncio.StreamReader) -> bytes:
    """The next line; b"" at the end, whether or not a piece of a line stands before it."""
    try:
        return await reader.readuntil(b"\n")
    except asyncio.IncompleteReadError:
        return b""
    except asyncio.LimitOverrunError as error:
        raise BadRequest(
            f"a request has at most {LONGEST_REQUEST} bytes", remedy="docs/console.md has the protocol"
        ) from error
