"""Whom a command talks to: the running vmkernel, or one that is booted for the call."""

from __future__ import annotations

import functools
import logging
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec

import click

from vmkernel_core.errors import TimedOut, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from vmkernel_core.boot import VMkernel
    from vmkernel_core.console.client import Caller
    from vmkernel_core.console.machine import Machine
    from vmkernel_core.console.protocol import Arguments, Operation, Result
    from vmkernel_core.engine import EngineName

Options = ParamSpec("Options")


class InProcess:
    """A vmkernel in this process, as a Caller."""

    def __init__(self, host: VMkernel) -> None:
        """It is booted."""
        self._host = host

    def call(self, operation: Operation[Arguments, Result], arguments: Arguments | None = None) -> Result:
        """Perform it."""
        return operation(self._host, operation.arguments() if arguments is None else arguments)


def asks(*, config_flags: Sequence[str] = ("-c", "--config")) -> Callable[..., Callable[..., None]]:
    """Make a command one that asks a vmkernel: it has the options that say which, and gets ``call`` and ``as_json``."""

    def decorate(function: Callable[Concatenate[Caller, bool, Options], None]) -> Callable[..., None]:
        @functools.wraps(function)
        def command(
            socket: Path | None,
            config: Path | None,
            platform: str,
            devices: tuple[str, ...],
            disks: tuple[str, ...],
            kernel: str | None,
            engine: EngineName | None,
            as_json: bool,
            *arguments: Options.args,
            **options: Options.kwargs,
        ) -> None:
            with _vmkernel(socket, config, platform, devices, disks, kernel, engine) as caller:
                function(caller, as_json, *arguments, **options)

        wrapped: Callable[..., None] = command
        for option in reversed(_options(config_flags)):
            wrapped = option(wrapped)
        return wrapped

    return decorate


def _options(config_flags: Sequence[str]) -> list[Callable[..., Any]]:
    file = click.Path(path_type=Path)
    return [
        click.option("--socket", type=file, metavar="PATH", help="The running vmkernel's socket."),
        click.option(
            *config_flags, "config", type=file, metavar="FILE",
            help="A machine file: its vmkernel is asked; if it does not run, it is booted for the call.",
        ),
        click.option(
            "--device", "devices", multiple=True, metavar="DEVICE",
            help="Boot a machine with this device for the call (what QEMU's -device takes); repeatable.",
        ),
        click.option(
            "--disk", "disks", multiple=True, metavar="FILE[,OPTION=VALUE…]",
            help="Give the machine of --device a disk made of this image file (raw, or format=qcow2 …); repeatable.",
        ),
        click.option(
            "--platform", type=click.Choice(["qemu", "model"]), default="qemu", help="The hardware of --device."
        ),
        click.option("--kernel", metavar="RELEASE", help="The kernel of --device: a release or its beginning."),
        click.option("--engine", type=click.Choice(["linux", "native"]), help="What drives --device."),
        click.option("--json", "as_json", is_flag=True, help="Print JSON (docs/console.md has its shape)."),
    ]  # fmt: skip


@contextmanager
def _vmkernel(
    socket: Path | None,
    config: Path | None,
    platform: str,
    devices: Sequence[str],
    disks: Sequence[str],
    kernel: str | None,
    engine: EngineName | None,
) -> Iterator[Caller]:
    if sum(map(bool, (socket, config, devices))) > 1:
        raise UsageError("--socket, --config and --device exclude each other", remedy="give one of them")
    if disks and not devices:
        raise UsageError(
            "--disk is a disk of the machine of --device",
            remedy="give a controller too: --device megasas; a machine file has disks of its own",
        )
    if devices:
        from vmkernel_core.console.machine import Machine, PlatformTable

        kind: Literal["qemu", "model"] = "model" if platform == "model" else "qemu"
        table = PlatformTable(type=kind, devices=list(devices), disks=list(disks))
        with _booted(Machine(platform=table, kernel=kernel, engine=engine)) as caller:
            yield caller
        return
    from vmkernel_core.console.client import connect
    from vmkernel_core.console.socket_path import NoVMkernel

    machine = None
    if config is not None:
        from vmkernel_core.console.machine import read_machine

        machine = read_machine(config)
        socket = Path(machine.socket) if machine.socket else None
    try:
        client = connect(socket)
    except NoVMkernel:
        if machine is None:
            raise
        with _booted(machine) as caller:
            yield caller
    else:
        with client:
            yield client


@contextmanager
def _booted(machine: Machine) -> Iterator[Caller]:
    # What fails is in the reply, or raised: it need not be in the log too.
    logging.getLogger("vmkernel_core.devices").setLevel(logging.CRITICAL)
    from vmkernel_core.console.nic_operations import find

    with machine.vmkernel() as host:
        try:
            machine.wait_disks(host)
        except TimedOut as error:
            click.echo(f"vmk: {error}", err=True)
        for name in machine.open:
            find(host, name).open()
        yield InProcess(host)
