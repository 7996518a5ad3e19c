"""``hcl evidence``: evidence files are looked at, and taken in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hcl.errors import CannotWrite

if TYPE_CHECKING:
    from hcl.evidence import Run

_FILES = click.argument("files", metavar="FILE…", type=click.Path(path_type=Path), nargs=-1, required=True)
_TRUST = click.option(
    "--trust", "keys", metavar="KEY.pem", type=click.Path(path_type=Path), multiple=True,
    help="A public key, or a directory of them, to trust beside those that are trusted; repeatable.",
)  # fmt: skip


@click.group()
def evidence() -> None:
    """Evidence of certification runs: is it signed by a trusted key, and as it was signed?"""


@evidence.command()
@_TRUST
@_FILES
def verify(files: Sequence[Path], keys: Sequence[Path]) -> None:
    """Tell what evidence says, if a trusted key signed it and it is as it was signed."""
    for file, run in _read(files, keys):
        failed = ", ".join(check.name for check in run.checks if not check.passed)
        word = f"FAILED: {failed}" if failed else f"passed all of {len(run.checks)} checks"
        click.echo(f"{file}: {run.counterpart}, {run.driver}, {run.started:%Y-%m-%d}: {word}")


@evidence.command()
@_TRUST
@_FILES
def add(files: Sequence[Path], keys: Sequence[Path]) -> None:
    """Take evidence in: copy it to where the site's is, if it is good.

    That is the directory runs of VMK_HCL, else of /etc/vmklinux/hcl.d. All files are good, or none is taken. A key
    that is given by --trust is trusted for this call; evidence counts when its key lies in keys, beside runs.
    """
    from hcl.files import write_whole
    from hcl.site import VARIABLE, directory

    where = directory()
    if where is None:
        raise CannotWrite(
            f"{VARIABLE} says that there is no directory of the site's", remedy="let it name one"
        )
    runs = Path(where) / "runs"
    good = [(run, file.read_bytes()) for file, run in _read(files, keys)]
    try:
        runs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotWrite(f"cannot make the directory: {error.strerror}", where=str(runs)) from error
    for run, content in good:
        write_whole(runs / f"{run.name}.json", content)
        click.echo(runs / f"{run.name}.json")


def _read(files: Sequence[Path], keys: Sequence[Path]) -> list[tuple[Path, Run]]:
    """The runs, all of them signed by a trusted key. BadEvidence, BadSignature, BadKey."""
    from hcl.evidence import read
    from hcl.reading import trusted
    from hcl.site import directory

    where = directory()
    good = trusted(Path(where) if where else None, keys)
    return [(file, read(file, good)) for file in files]
