"""``hcl inventory``: what devices a machine has, as JSON of our own."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
def inventory(file: Path) -> None:
    """Write down what devices a machine has, as JSON.

    FILE is an inventory of any kind that `hcl validate` reads.
    """
    from hcl.readers import document, read

    click.echo(document.write(read(file)), nl=False)
