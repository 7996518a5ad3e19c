"""``vmk boot``: a vmkernel in the foreground, for the other commands to talk to."""

from __future__ import annotations

import asyncio
import os
import signal
import socket as sockets
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from vmkernel_core.console.machine import read_machine
from vmkernel_core.console.server import Server
from vmkernel_core.console.socket_path import claim, default_path
from vmkernel_core.errors import TimedOut, VmkError

if TYPE_CHECKING:
    from vmkernel_core.boot import VMkernel
    from vmkernel_core.console.machine import Machine
    from vmkernel_core.engine import EngineName
    from vmkernel_core.net.uplink import UplinkEvent
    from vmkernel_core.storage.events import StorageEvent


@click.command()
@click.option(
    "-c", "--config", required=True, type=click.Path(path_type=Path), metavar="FILE", help="The machine."
)
@click.option("--socket", type=click.Path(path_type=Path), metavar="PATH", help="Where to listen.")
@click.option(
    "--engine",
    type=click.Choice(["linux", "native"]),
    help="What drives the devices, whatever the file says.",
)
def boot(config: Path, socket: Path | None, engine: EngineName | None) -> None:
    """Boot a vmkernel from a machine file and keep it running.

    It prints "ready" and the path of its socket when it can be talked to, and tells systemd. Events of uplinks,
    storage adapters and devices are lines on standard error. SIGTERM and Ctrl-C end it: modules are unloaded, the
    socket is removed.
    """
    machine = read_machine(config)
    if engine is not None:
        machine = msgspec.structs.replace(machine, engine=engine)
    path = socket or (Path(machine.socket) if machine.socket else default_path())
    with claim(path) as listener:
        asyncio.run(_run(machine, listener, path))


async def _run(machine: Machine, listener: sockets.socket, path: Path) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()

    def end() -> None:
        ended.set()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)  # a second one does not wait

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end)
    # One thread for all that runs kernel code, so that nothing here waits for it.
    with ThreadPoolExecutor(1, thread_name_prefix="vmk-console") as executor:
        host = machine.vmkernel()

        # Called in any thread; they may not wait for who reads our standard error.
        def watch(event: UplinkEvent) -> None:
            loop.call_soon_threadsafe(_tell, event.uplink, event.kind, event.detail)

        def watch_storage(event: StorageEvent) -> None:
            loop.call_soon_threadsafe(_tell, event.name, event.kind, event.detail)

        host.subscribe(watch)
        host.watch_storage(watch_storage)
        await loop.run_in_executor(executor, host.start)
        try:
            await loop.run_in_executor(executor, _open, host, machine)
            if not ended.is_set():
                _ready(path)
                await Server(host, executor).serve(listener, ended)
        finally:
            await loop.run_in_executor(executor, host.stop)


def _open(host: VMkernel, machine: Machine) -> None:
    from vmkernel_core.console.nic_operations import find

    try:
        machine.wait_disks(host)
    except TimedOut as error:
        click.echo(f"vmk: {error}", err=True)
    for name in machine.open:
        try:
            find(host, name).open()
        except VmkError as error:  # the vmkernel is of use without it: to find out why
            click.echo(f"vmk: {name} is not opened: {error}", err=True)


def _tell(name: str, kind: str, detail: str) -> None:
    click.echo(f"vmk: {name}: {kind}{f' ({detail})' if detail else ''}", err=True)


def _ready(path: Path) -> None:
    click.echo(f"ready {path}")
    if address := os.environ.get("NOTIFY_SOCKET"):  # sd_notify(3); "@" is an abstract name
        with sockets.socket(sockets.AF_UNIX, sockets.SOCK_DGRAM) as notify:
            notify.connect(address.replace("@", "\0", 1) if address.startswith("@") else address)
            notify.send(b"READY=1")
