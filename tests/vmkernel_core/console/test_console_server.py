"""The server: several clients, lines that are no requests, requests that take too long.

Independent side: sockets of the operating system that speak the protocol by hand.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.vmkernel_core.console.running import LIMIT, MODEL_MACHINE, Running
from vmkernel_core.console.client import connect
from vmkernel_core.console.nic_operations import NicName, NicSettings, nic_get, nic_list, nic_set
from vmkernel_core.console.operations import OPERATIONS
from vmkernel_core.console.protocol import LONGEST_REQUEST, Nothing, Operation, RemoteError
from vmkernel_core.console.server import MOST_CLIENTS, NotAllowed, Server
from vmkernel_core.console.socket_path import NoVMkernel
from vmklinux.kernels import Kernel


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, kernel61: Kernel) -> Iterator[Running]:
    with Running(MODEL_MACHINE, tmp_path_factory.mktemp("server")) as running:
        yield running


class Raw:
    """A connection on which anything can be said."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(LIMIT)
        self.socket.connect(str(path))
        self.file = self.socket.makefile("rb")

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *exception: object) -> None:
        self.file.close()
        self.socket.close()

    def say(self, line: bytes) -> None:
        self.socket.sendall(line)

    def reply(self) -> dict[str, Any]:
        said: dict[str, Any] = json.loads(self.file.readline())
        return said

    def ask(self, **request: Any) -> dict[str, Any]:
        self.say(json.dumps({"version": 1, **request}).encode() + b"\n")
        return self.reply()


def test_a_request_by_hand(running: Running) -> None:
    with Raw(running.socket) as client:
        reply = client.ask(operation="network.nic.get", arguments={"name": "vmnic0"}, id=7)
        assert (reply["version"], reply["id"]) == (1, 7)
        assert reply["result"]["mac"] == "52:54:00:12:34:57"
        assert "error" not in reply


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (b"\n", "this is not a request"),
        (b"hello\n", "this is not a request"),
        (b"\xff\xfe\n", "this is not a request"),
        (b"[" * 60000 + b"\n", "this is not a request"),
        (b'{"version":1}\n', "missing required field `operation`"),
        (b'{"version":2,"operation":"network.nic.list"}\n', "version 1 of the protocol, not 2"),
        (b'{"version":1,"operation":"network.nic.explode"}\n', "there is no operation 'network.nic.explode'"),
        (b'{"version":1,"operation":"network.nic.get"}\n', "missing required field `name`"),
        (
            b'{"version":1,"operation":"network.nic.get","arguments":{"name":4}}\n',
            "Expected `str`, got `int`",
        ),
        (b'{"version":1,"operation":"network.nic.list","arguments":{"a":1}}\n', "unknown field `a`"),
    ],
)
def test_a_bad_request_is_told_so_and_the_next_one_served(running: Running, line: bytes, what: str) -> None:
    with Raw(running.socket) as client:
        client.say(line)
        error = client.reply()["error"]
        assert what in error["what"]
        assert (error["kind"], error["exit_code"]) == ("BadRequest", 3)
        assert client.ask(operation="network.nic.list")["result"][0]["name"] == "vmnic0"


def test_an_oversized_request_ends_its_connection_only(running: Running) -> None:
    with Raw(running.socket) as bystander, Raw(running.socket) as client:
        client.say(b"x" * (LONGEST_REQUEST + 1))
        assert "a request has at most 65536 bytes" in client.reply()["error"]["what"]
        assert client.file.readline() == b""
        assert bystander.ask(operation="network.nic.list")["result"][0]["name"] == "vmnic0"


def test_half_a_request_and_a_client_that_goes_harm_nobody(running: Running) -> None:
    with Raw(running.socket) as half:
        half.say(b'{"version":1,"operation"')
        with Raw(running.socket) as hasty:
            hasty.say(b'{"version":1,"operation":"network.nic.list"}\n' * 100)
        with connect(running.socket) as client:
            assert client.call(nic_list)[0].name == "vmnic0"


def test_many_clients_at_once(running: Running) -> None:
    """Each sets an MTU of its own and reads it back: no reply goes astray, no setting is half done."""
    ready = threading.Barrier(8)

    def work(number: int) -> None:
        with connect(running.socket) as client:
            ready.wait(LIMIT)
            for turn in range(10):
                mtu = 1000 + 10 * number + turn
                assert client.call(nic_set, NicSettings("vmnic0", mtu=mtu)).mtu == mtu
                assert client.call(nic_get, NicName("vmnic0")).mtu in range(1000, 1090)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))


def test_more_clients_than_it_takes(running: Running) -> None:
    clients = [Raw(running.socket) for _ in range(MOST_CLIENTS)]
    try:
        for client in clients:
            assert "result" in client.ask(operation="network.nic.list")
        with Raw(running.socket) as late:
            assert "64 clients are connected already" in late.reply()["error"]["what"]
            assert late.file.readline() == b""
    finally:
        for client in clients:
            client.__exit__()
    with connect(running.socket) as another:
        assert another.call(nic_list)[0].name == "vmnic0"


def test_an_error_is_raised_at_the_client_as_it_was(running: Running) -> None:
    with connect(running.socket) as client:
        with pytest.raises(RemoteError, match=r"an MTU of 1 is out of range .*; use 46 to 16110") as raised:
            client.call(nic_set, NicSettings("vmnic0", mtu=1))
        assert (raised.value.kind, raised.value.exit_code) == ("UsageError", 3)


def test_nobody_at_the_socket(tmp_path: Path) -> None:
    with pytest.raises(NoVMkernel, match=r"no vmkernel answers at .*; start one with: vmk boot"):
        connect(tmp_path / "vmk.sock")


def test_the_end_of_the_vmkernel_is_an_error_of_its_own(tmp_path: Path, kernel61: Kernel) -> None:
    with Running(MODEL_MACHINE, tmp_path) as running, connect(running.socket) as client:
        client.call(nic_list)
        assert running.end() == 0
        with pytest.raises(NoVMkernel, match="the vmkernel ended"):
            client.call(nic_list)


class Somebody(socket.socket):
    """A client's socket, of a user who is not us."""

    def getsockopt(self, *arguments: Any) -> Any:
        assert arguments[:2] == (socket.SOL_SOCKET, socket.SO_PEERCRED)
        return struct.pack("iII", 1, os.getuid() + 1, 1)


def test_another_user_is_refused() -> None:
    with Somebody(socket.AF_UNIX) as client, pytest.raises(NotAllowed, match="may not use the vmkernel"):
        Server(None, None)._admit(client)  # type: ignore[arg-type]  # neither is asked


def test_a_request_that_takes_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()

    def slow(host: object, arguments: Nothing) -> bool:
        return go_on.wait(LIMIT)

    operation: Operation[Nothing, bool] = Operation("slow", Nothing, bool, slow)
    monkeypatch.setitem(OPERATIONS, "slow", operation)

    async def serve() -> None:
        until = asyncio.Event()
        with ThreadPoolExecutor(1) as executor, socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(tmp_path / "vmk.sock"))
            listener.listen()
            server = Server(None, executor, limit=0.2)  # type: ignore[arg-type]  # `slow` asks nothing of it
            task = asyncio.create_task(server.serve(listener, until))
            try:
                await asyncio.to_thread(ask)
            finally:
                go_on.set()
                until.set()
                await task

    def ask() -> None:
        with connect(tmp_path / "vmk.sock") as first, connect(tmp_path / "vmk.sock") as second:
            for client in (first, second):
                with pytest.raises(RemoteError, match=r"slow did not end within 0\.2 s") as raised:
                    client.call(operation)
                assert raised.value.exit_code == 6
            go_on.set()
            assert first.call(operation) is True

    asyncio.run(serve())
