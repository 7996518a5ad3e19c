"""``vmk``: finds the command, and turns whatever ends it into one line and an exit code.

Commands are named in a table and imported when they are called, so that the console itself starts at once.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
from typing import TYPE_CHECKING

import click

from vmkernel_core.errors import VmkError

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Command, and where it is: ``package.module:object``, a click command or group; and its line in ``vmk --help``.
COMMANDS = {
    "boot": ("vmkernel_core.console.boot:boot", "Boot a vmkernel from a machine file and keep it running."),
    "demo": (
        "vmkernel_core.console.demo:demo",
        "Let an unmodified Linux driver move frames, and check them.",
    ),
    "hardware": ("vmkernel_core.console.hardware:hardware", "Devices of a running vmkernel's machine."),
    "kernel": ("vmklinux.kernels.console:kernel", "Kernel packages: get them, and see which are here."),
    "module": ("vmklinux.module.console:module", "Linux modules: see what they need and what serves it."),
    "network": (
        "vmkernel_core.console.network:network",
        "Uplinks of a running vmkernel: see them, open and close them, change them.",
    ),
    "system": (
        "vmkernel_core.console.system:system",
        "Linux modules in a running vmkernel: see, load and unload them, set their parameters.",
    ),
}

BAD_USAGE = 3
INTERNAL = 70  # EX_SOFTWARE of BSD's sysexits.h
INTERRUPTED = 130  # a shell's 128 + SIGINT
BROKEN_PIPE = 141  # a shell's 128 + SIGPIPE

#: Exit code, and when a command ends with it; the errors' classes have the codes from 1 to 7.
EXIT_CODES = {
    0: "done, and everything asked for holds",
    1: "done, but something does not hold (a frame was lost, a symbol is unresolved), or it could not be done",
    BAD_USAGE: "bad usage: an option, a name or a value that cannot be",
    4: "no hardware (the platform did not come up, no driver may serve the device), or no vmkernel to talk to",
    5: "the device, or the process that provides it, has gone",
    6: "a wait reached its limit",
    7: "the driver refused the device, or was stopped",
    INTERNAL: "a fault of vmk itself",
    INTERRUPTED: "interrupted (Ctrl-C)",
    BROKEN_PIPE: "nobody reads the output any more",
}


class LazyGroup(click.Group):
    """A group that imports a command of the table when it is called; click wants the unused arguments."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click passes it
        """The commands' names."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click passes it
        """Import the command; None when there is none of the name."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in self.list_commands(ctx)])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click passes it
        """Write the table of exit codes."""
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(code), meaning) for code, meaning in EXIT_CODES.items()])
        with formatter.section("Environment"):
            formatter.write_dl(
                [
                    ("VMK_SOCKET", "the socket of the vmkernel to talk to"),
                    ("VMK_KERNELS", "the directory of the kernel cache"),
                    ("VMK_DEBUG=1", "errors come with their traceback"),
                ]
            )


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-v", "--verbose", count=True, help="Log to standard error what happens; -vv in detail.")
@click.version_option(package_name="vmklinux", prog_name="vmk")
def vmk(verbose: int) -> None:
    """Run the Linux distribution's own, unmodified drivers in this process."""
    level = {0: logging.WARNING, 1: logging.INFO}.get(verbose, logging.DEBUG)
    logging.basicConfig(level=level, format="%(relativeCreated)6d ms %(levelname)-7s %(name)s: %(message)s")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``vmk`` with these arguments, else the process's, and end the process with its exit code."""
    try:
        code = _run(sys.argv[1:] if arguments is None else list(arguments))
        sys.stdout.flush()
    except BrokenPipeError:
        # What is left in the buffer cannot be written; without this the interpreter would try it at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = BROKEN_PIPE
    sys.exit(code)


def _run(arguments: list[str]) -> int:
    try:
        with vmk.make_context("vmk", arguments) as context:
            vmk.invoke(context)
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except (KeyboardInterrupt, click.Abort):
        _say("interrupted")
        return INTERRUPTED
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return BAD_USAGE
    except click.ClickException as error:
        context_of_error = error.ctx if isinstance(error, click.UsageError) else None
        hint = f"; see: {context_of_error.command_path} --help" if context_of_error else ""
        _say(error.format_message().rstrip(".") + hint)
        return BAD_USAGE
    except BrokenPipeError:
        raise
    except Exception as error:
        return _failed(error)
    return 0


def _failed(error: Exception) -> int:
    import hcl

    if os.environ.get("VMK_DEBUG"):
        import traceback

        traceback.print_exception(error)
    if isinstance(error, (VmkError, hcl.HclError)):
        _say(str(error))
        return error.exit_code
    _say(f"a fault of vmk itself: {type(error).__name__}: {error}; VMK_DEBUG=1 shows where: please report it")
    return INTERNAL


def _say(text: str) -> None:
    click.echo(f"vmk: {' '.join(text.split())}", err=True)


if __name__ == "__main__":
    main()
