"""A console program: finds the command, and turns whatever ends it into one line and an exit code.

Commands are named in a table and imported when they are called, so that the program itself starts at once.
"""

from __future__ import annotations

import errno
import importlib
import logging
import os
import sys
from typing import TYPE_CHECKING, Any

import click

from vmkernel_core.errors import VmkError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

BAD_USAGE = 3
INTERNAL = 70  # EX_SOFTWARE of BSD's sysexits.h
INTERRUPTED = 130  # a shell's 128 + SIGINT
NO_ROOM = 74  # EX_IOERR of BSD's sysexits.h
BROKEN_PIPE = 141  # a shell's 128 + SIGPIPE


class Program(click.Group):
    """The group of a program's commands.

    ``commands_at``: command, and where it is - ``package.module:object``, a click command or group - and its line in
    ``--help``. ``exit_codes`` and ``environment`` are tables for ``--help``.
    """

    def __init__(
        self,
        *arguments: Any,
        commands_at: Mapping[str, tuple[str, str]],
        exit_codes: Mapping[int, str],
        environment: Mapping[str, str],
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        self._at = commands_at
        self._exit_codes = exit_codes
        self._environment = environment

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click passes it
        """The commands' names."""
        return sorted(self._at)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click passes it
        """Import the command; None when there is none of the name."""
        if cmd_name not in self._at:
            return None
        module, _, name = self._at[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, self._at[name][1]) for name in self.list_commands(ctx)])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click passes it
        """Write the table of exit codes."""
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(code), meaning) for code, meaning in self._exit_codes.items()])
        with formatter.section("Environment"):
            formatter.write_dl(list(self._environment.items()))


def program(
    name: str,
    purpose: str,
    commands_at: Mapping[str, tuple[str, str]],
    exit_codes: Mapping[int, str],
    environment: Mapping[str, str],
) -> Program:
    """The program of that name and purpose, a line; see Program for the tables."""

    def start(verbose: int) -> None:
        level = {0: logging.WARNING, 1: logging.INFO}.get(verbose, logging.DEBUG)
        logging.basicConfig(
            level=level, format="%(relativeCreated)6d ms %(levelname)-7s %(name)s: %(message)s"
        )

    verbosity = click.Option(
        ["-v", "--verbose"], count=True, help="Log to standard error what happens; -vv in detail."
    )
    made = Program(
        name,
        callback=start,
        params=[verbosity],
        help=purpose,
        context_settings={"help_option_names": ["-h", "--help"]},
        commands_at=commands_at,
        exit_codes=exit_codes,
        environment=environment,
    )
    return click.version_option(package_name="vmklinux", prog_name=name)(made)


def run(program: Program, arguments: Sequence[str] | None = None) -> None:
    """Run a program with these arguments, else the process's, and end the process with its exit code."""
    try:
        code = _run(program, sys.argv[1:] if arguments is None else list(arguments))
        if sys.stdout is not None:  # None: the shell closed it
            sys.stdout.flush()
    except BrokenPipeError:
        _give_up_output()
        code = BROKEN_PIPE
    except OSError as error:
        if not _is_full(error):
            raise
        _give_up_output()
        place = f" ({error.filename})" if error.filename else ""
        _say(
            str(program.name),
            f"cannot write any more{place}: {error.strerror}; make room, or write elsewhere",
        )
        code = NO_ROOM
    sys.exit(code)


def _is_full(error: Exception) -> bool:
    """Whether a file, such as the output, takes no more."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _give_up_output() -> None:
    """What is left in the buffer cannot be written; without this the interpreter would try it at its end."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(program: Program, arguments: list[str]) -> int:
    name = str(program.name)
    try:
        with program.make_context(name, arguments) as context:
            program.invoke(context)
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except (KeyboardInterrupt, click.Abort):
        _say(name, "interrupted")
        return INTERRUPTED
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return BAD_USAGE
    except click.ClickException as error:
        context_of_error = error.ctx if isinstance(error, click.UsageError) else None
        hint = f"; see: {context_of_error.command_path} --help" if context_of_error else ""
        _say(name, error.format_message().rstrip(".") + hint)
        return BAD_USAGE
    except Exception as error:
        if isinstance(error, BrokenPipeError) or _is_full(error):
            raise
        return _failed(name, error)
    return 0


def _failed(name: str, error: Exception) -> int:
    import hcl

    if os.environ.get("VMK_DEBUG"):
        import traceback

        traceback.print_exception(error)
    if isinstance(error, (VmkError, hcl.HclError)):
        _say(name, str(error))
        return error.exit_code
    _say(
        name,
        f"a fault of {name} itself: {type(error).__name__}: {error}; VMK_DEBUG=1 shows where: please report it",
    )
    return INTERNAL


def _say(name: str, text: str) -> None:
    click.echo(f"{name}: {' '.join(text.split())}", err=True)
