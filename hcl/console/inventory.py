"""``hcl inventory``: what devices a machine has, as JSON of our own."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("file", type=click.Path(path_type=Path), required=False)
def inventory(file: Path | None) -> None:
    """Write down what devices a machine has, as JSON.

    FILE is an inventory of any kind that `hcl validate` reads, or a /sys tree; without one it is this machine's.
    """
    from hcl.readers import document, read

    if file is None:
        from hcl.readers.live import read_host

        found = read_host()
    else:
        found = read(file)
    click.echo(document.write(found), nl=False)
