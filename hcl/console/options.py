"""Options that all commands have which ask the list."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_args

import click

from hcl.site import Site
from hcl.verdict import Engine

Command = TypeVar("Command", bound=Callable[..., Any])

engine_option = click.option(
    "--engine",
    type=click.Choice(get_args(Engine)),
    help="Whose drivers are to have the devices that both know: Linux's modules, or drivers in Python (native). What "
    "the list prefers if not given.",
)
"""``--engine``, as ``vmk`` and VMkernel have it."""


def site_options(command: Command) -> Command:
    """Give a command ``--overlay``, ``--evidence`` and ``--trust``, as one argument: ``site``."""

    @functools.wraps(command)
    def with_site(
        *arguments: Any,
        overlays: tuple[Path, ...],
        evidence: tuple[Path, ...],
        keys: tuple[Path, ...],
        **more: Any,
    ) -> Any:
        return command(*arguments, site=Site(overlays, evidence, keys), **more)

    for option in (
        click.option(
            "--trust", "keys", metavar="KEY.pem", type=click.Path(path_type=Path), multiple=True,
            help="A public key, or a directory of them, whose evidence counts; repeatable.",
        ),
        click.option(
            "--evidence", "evidence", metavar="DIR", type=click.Path(path_type=Path), multiple=True,
            help="A directory of evidence files; repeatable.",
        ),
        click.option(
            "--overlay", "overlays", metavar="FILE", type=click.Path(path_type=Path), multiple=True,
            help="What the site lays over the list: a TOML file, or a directory of them; repeatable.",
        ),
    ):  # fmt: skip
        with_site = option(with_site)
    return with_site  # type: ignore[return-value]  # it takes the same arguments, but for those made into site
